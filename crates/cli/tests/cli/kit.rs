//! `dr kit`, and a failover from one: what is missing is named, by what was written on the command line.

use crate::support::Place;

/// A configuration with a webhook that stands there itself, and its kit in a store.
async fn kept() -> Place {
    let place = Place::new();
    let notify = "    notify:\n      - webhook: \"http://127.0.0.1:9/hooks/s3cr3t\"\n    traffic:";
    let root = place.root().replace("    traffic:", notify);
    assert!(root.contains("s3cr3t"));
    place.write("dr.yaml", &root);
    place.initialise_stores().await;
    let written = place.run(&["kit", "write", "--region", "us-west-2"]);
    assert_eq!(written.code, 0, "{written:?}");
    place
}

#[tokio::test]
async fn a_failover_does_without_what_only_says_whom_to_tell() {
    let place = kept().await;
    let store = place.store("us-west-2");
    let kit = std::fs::read_dir(store.join("kit"))
        .unwrap()
        .next()
        .unwrap();
    let text = std::fs::read_to_string(kit.unwrap().path()).unwrap();
    assert!(!text.contains("s3cr3t") && text.contains("DR_SECRET_1"));

    let into = place.path().join("unpacked");
    let words = [
        "failover",
        "--to",
        "us-west-2",
        "--plan",
        "--from-store",
        store.to_str().unwrap(),
        "--into",
        into.to_str().unwrap(),
    ];
    let warning = "warning: ${env:DR_SECRET_1} (dr.yaml:";
    let refused = place.run(&words);
    assert_eq!(refused.code, 65, "{refused:?}");
    assert!(refused.stderr.contains(warning), "{refused:?}");
    assert!(
        refused.stderr.contains("because: ${file:missing/password}"),
        "{refused:?}"
    );
    assert!(
        !refused.stderr.contains("because: ${env:DR_SECRET_1}"),
        "{refused:?}"
    );

    // With the others there it goes on, to what stops it without a daemon: no epoch was ever opened.
    for name in ["password", "tsig.key"] {
        std::fs::write(into.join("secrets").join(name), "c2VjcmV0\n").unwrap();
    }
    let refused = place.run(&words);
    assert!(refused.stderr.contains(warning), "{refused:?}");
    assert!(refused.stderr.contains("has no epoch yet"), "{refused:?}");

    let rehearsed = place.run(&["kit", "rehearse", "--from-store", store.to_str().unwrap()]);
    assert!(
        rehearsed
            .stdout
            .contains("warning secret ${env:DR_SECRET_1}"),
        "{rehearsed:?}"
    );
    assert!(
        rehearsed
            .stdout
            .contains("FAILED  secret ${file:missing/password}"),
        "{rehearsed:?}"
    );
}

#[tokio::test]
async fn what_is_written_on_the_command_line_is_what_is_named() {
    let place = kept().await;
    let store = place.store("us-west-2");
    let rehearse = ["kit", "rehearse", "--from-store", store.to_str().unwrap()];
    let nowhere = place.path().join("nowhere");
    let nowhere = nowhere.to_str().unwrap();
    for (more, code, said) in [
        (
            ["--to", "mars"],
            64,
            ["there is no region `mars`", "`us-east-1`"],
        ),
        (["--secrets", nowhere], 64, [nowhere, "name a directory"]),
    ] {
        let ran = place.run(&[&rehearse[..], &more[..]].concat());
        assert_eq!(ran.code, code, "{ran:?}");
        assert!(said.iter().all(|word| ran.stderr.contains(word)), "{ran:?}");
        assert!(ran.stderr.contains("hint:"), "{ran:?}");
    }
    for location in ["gopher://x", "s3://"] {
        let ran = place.run(&["kit", "rehearse", "--from-store", location]);
        assert_eq!(ran.code, 64, "{ran:?}");
        let named = format!("`--from-store {location}` names no store");
        assert!(ran.stderr.contains(&named), "{ran:?}");
        assert!(
            ran.stderr.contains("because:") && ran.stderr.contains("hint:"),
            "{ran:?}"
        );
        assert!(!ran.stderr.contains("dr-from-store-"), "{ran:?}");
    }
}

#[tokio::test]
async fn a_kit_is_written_once_into_a_directory() {
    let place = kept().await;
    let safe = place.path().join("safe");
    let write = ["kit", "write", "--to", safe.to_str().unwrap()];
    let first = place.run(&write);
    assert_eq!(first.code, 0, "{first:?}");
    let again = place.run(&write);
    assert_eq!(again.code, 0, "{again:?}");
    assert!(again.stderr.contains("is there already"), "{again:?}");
    place.write(
        "schedules/orders.yaml",
        "version: 1\ntimezone: UTC\njobs: {}\n",
    );
    let other = place.run(&write);
    assert_eq!(other.code, 12, "{other:?}");
    assert!(
        other.stderr.contains("name another directory with `--to`"),
        "{other:?}"
    );
    let full = place.run(&["kit", "write", "--to", place.path().to_str().unwrap()]);
    assert_eq!(full.code, 12, "{full:?}");
    assert!(
        full.stderr.contains("empty or missing with `--to`"),
        "{full:?}"
    );
}

/// What cannot be used on the day is no reason to have no kit.
#[tokio::test]
async fn a_runbook_that_is_no_text_is_left_out_and_named() {
    let place = kept().await;
    let safe = place.path().join("safe");
    std::fs::create_dir_all(place.path().join("runbooks")).unwrap();
    std::fs::write(place.path().join("runbooks/drill.yaml"), b"id: \xff\n").unwrap();
    let written = place.run(&["kit", "write", "--to", safe.to_str().unwrap()]);
    assert_eq!(written.code, 0, "{written:?}");
    let page = std::fs::read_to_string(safe.join("README.txt")).unwrap();
    let said = "The file runbooks/drill.yaml could not be used when the kit was written, and is not in the kit.";
    assert!(page.contains(said), "{page}");
    assert!(!safe.join("runbooks/drill.yaml").exists());
}
