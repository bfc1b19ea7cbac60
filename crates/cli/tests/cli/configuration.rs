//! `dr init` and `dr check`: what is written is valid, and what is wrong is said all at once.

use std::os::unix::fs::PermissionsExt as _;

use rstest::rstest;
use serde_json::Value;

use crate::support::{Place, run};

#[test]
fn what_init_writes_is_valid() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    let ran = run(["init", path, "--workload", "payments"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(
        ran.stdout
            .contains(&format!("--config {path} wal push payments/database %p'")),
        "{ran:?}"
    );
    let program = std::path::absolute(env!("CARGO_BIN_EXE_dr")).unwrap();
    assert!(
        ran.stdout
            .contains(&format!("restore_command = '{}", program.display())),
        "{ran:?}"
    );

    let checked = run(["--config", path, "check"]);
    assert_eq!(checked.code, 0, "{checked:?}");
    assert!(
        checked.stdout.contains("2 regions, 1 workload"),
        "{checked:?}"
    );

    // Without anything beside the primary to ask, nobody would be told of an outage.
    assert!(
        checked
            .stdout
            .contains("an outage of us-east-1 would not be proposed"),
        "{checked:?}"
    );
    let written = std::fs::read_to_string(directory.path().join("dr.yaml")).unwrap();
    assert!(written.contains("# detection: {"), "{written}");

    let again = run(["init", path]);
    assert_eq!(again.code, 1, "{again:?}");
    assert!(
        again.stderr.contains("exists already; nothing was written"),
        "{again:?}"
    );
}

#[test]
fn init_prints_grants() {
    let ran = run(["init", "--sql", "--role", "guard"]);
    assert_eq!(ran.code, 0);
    assert!(
        ran.stdout.contains("GRANT pg_monitor TO \"guard\";"),
        "{ran:?}"
    );
}

#[test]
fn a_region_does_not_recover_itself() {
    let ran = run(["init", "/nowhere", "--home", "a", "--recovery", "a"]);
    assert_eq!(ran.code, 64, "{ran:?}");
}

#[test]
fn all_problems_are_said_at_once_with_their_places() {
    let place = Place::new();
    let broken = place
        .root()
        .replace("home: us-east-1", "home: us-east-7")
        .replace("rpo: 15m", "rpo: 15")
        .replace("kind: postgres", "kind: postgers")
        .replace("organization: Test", "organisation: Test");
    place.write("dr.yaml", &broken);
    place.write(
        "runbooks/other.yaml",
        "version: 1\nname: other\nsummary: Other.\nsteps: [{ id: a, uses: dance }]\n",
    );
    let ran = place.run(&["check"]);
    assert_eq!(ran.code, 65, "{ran:?}");
    assert_eq!(ran.stdout, "");
    for wanted in [
        "dr.yaml:2:1: error",
        "us-east-7",
        "did you mean `us-east-1`",
        "15s",
        "postgers",
        "runbooks/other.yaml:4:",
    ] {
        assert!(
            ran.stderr.contains(wanted),
            "`{wanted}` is missing in {}",
            ran.stderr
        );
    }

    let json = place.run(&["check", "--json"]);
    assert_eq!(json.code, 65);
    let document: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(document["valid"], false);
    assert!(
        document["problems"].as_array().unwrap().len() >= 5,
        "{document}"
    );
}

#[test]
fn a_directory_without_configuration_says_how_to_get_one() {
    let directory = tempfile::tempdir().unwrap();
    let ran = run(["--config", directory.path().to_str().unwrap(), "status"]);
    assert_eq!(ran.code, 65, "{ran:?}");
    assert!(ran.stderr.contains("dr init"), "{ran:?}");
}

#[test]
fn what_cannot_be_read_or_written_is_named_with_what_to_do() {
    let place = Place::new();
    let under_a_file = place.path().join("dr.yaml/new");
    let written = run(["init", under_a_file.to_str().unwrap()]);
    assert_eq!(written.code, 1, "{written:?}");
    for said in [
        "cannot write `",
        "dr.yaml/new/dr.yaml`",
        "hint: run `dr init` as a user",
    ] {
        assert!(
            written.stderr.contains(said),
            "{said} is missing: {written:?}"
        );
    }
    std::fs::remove_file(place.path().join("dr.yaml")).unwrap();
    std::fs::create_dir(place.path().join("dr.yaml")).unwrap();
    let read = place.run(&["check"]);
    assert_eq!(read.code, 65, "{read:?}");
    for said in ["`dr.yaml` cannot be read", "hint: it has to be a file"] {
        assert!(read.stderr.contains(said), "{said} is missing: {read:?}");
    }
}

#[test]
fn runbooks_are_listed_and_shown() {
    let place = Place::new();
    assert!(
        place
            .run(&["runbook", "list"])
            .stdout
            .contains("failover-region")
    );
    let shown = place.run(&["runbook", "show", "failover-region"]);
    assert!(shown.stdout.contains("restore-database"), "{shown:?}");
    let checked = place.run(&["runbook", "check"]);
    assert_eq!(checked.code, 0, "{checked:?}");
    assert!(checked.stdout.contains("ok failback-region"), "{checked:?}");
    let unknown = place.run(&["runbook", "show", "failover-regoin"]);
    assert_eq!(unknown.code, 64, "{unknown:?}");
    assert!(
        unknown.stderr.contains("did you mean `failover-region`?"),
        "{unknown:?}"
    );
}

#[test]
fn a_runbook_that_should_not_be_used_is_found() {
    let place = Place::new();
    let text = include_str!("../../../../runbooks/failover-region.yaml");
    let ungated = text
        .replace("name: failover-region", "name: hasty")
        .replace("  - { id: gate, uses: check-data-loss }\n", "")
        .replace(
            "uses: promote-database, fallback: restore-database",
            "uses: restore-database",
        );
    place.write("runbooks/hasty.yaml", &ungated);
    let checked = place.run(&["runbook", "check"]);
    assert_eq!(checked.code, 65, "{checked:?}");
    let found = "wrong hasty: step `promote`: `restore-database` is a point of no return";
    assert!(checked.stdout.contains(found), "{checked:?}");
    assert!(
        checked.stdout.contains("advice hasty: step `promote`"),
        "{checked:?}"
    );
    let whole = place.run(&["check"]);
    assert_eq!(whole.code, 65, "{whole:?}");
    for said in [
        "FAILED  runbook hasty, step `promote`",
        "1 runbook that should not be used like this",
    ] {
        assert!(whole.stdout.contains(said), "{whole:?}");
    }
    let json = place.run(&["runbook", "check", "--json"]);
    assert_eq!(json.code, 65);
    assert!(json.stdout.contains("\"valid\": false"), "{json:?}");
}

#[test]
fn a_secret_that_is_not_here_is_named() {
    let place = Place::new();
    let ran = place.run(&["check"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    for said in [
        "${file:missing/password}",
        "${file:missing/tsig.key}",
        "it is not on this machine",
    ] {
        assert!(ran.stdout.contains(said), "{said} is missing: {ran:?}");
    }
    place.write("missing/password", "x");
    place.write("missing/tsig.key", "x");
    let ran = place.run(&["check"]);
    assert!(!ran.stdout.contains("not on this machine"), "{ran:?}");
}

/// The file of the runbook is gone: what is used instead is said, and is what `dr failover` takes.
#[test]
fn a_failover_without_a_file_uses_the_one_that_is_built_in() {
    let place = Place::new();
    let text = include_str!("../../../../runbooks/failover-region.yaml");
    let own = text.replace("name: failover-region", "name: own");
    place.write("runbooks/own.yaml", &own);
    let file = place.path().join("runbooks/failover-region.yaml");
    if file.exists() {
        std::fs::remove_file(&file).unwrap();
    }
    let checked = place.run(&["runbook", "check"]);
    assert_eq!(checked.code, 0, "{checked:?}");
    for said in [
        "ok failover-region (built in)",
        "ok own\n",
        "uses the one that is built in",
    ] {
        assert!(checked.stdout.contains(said), "{checked:?}");
    }
    place.write("runbooks/failover-region.yaml", text);
    let checked = place.run(&["runbook", "check"]);
    assert!(
        checked.stdout.contains("ok failover-region\n"),
        "{checked:?}"
    );
    assert!(!checked.stdout.contains("uses the one"), "{checked:?}");
}

/// A store is lost with the data directory that it lies in.
#[test]
fn a_store_in_the_data_directory_is_refused() {
    let place = Place::new();
    let root = place.root();
    let inside = root.replace("store: stores/us-west-2", "store: data/us-east-1/store");
    assert_ne!(inside, root);
    place.write("dr.yaml", &inside);
    let ran = place.run(&["check"]);
    assert_eq!(ran.code, 65, "{ran:?}");
    for said in [
        "store of us-west-2: it lies in the data directory of",
        "1 store that should not be used like this",
    ] {
        assert!(ran.stdout.contains(said), "{said} is missing: {ran:?}");
    }
}

/// Who has a store and the key in it reads everything.
#[rstest]
#[case::store("stores/us-west-2/key", "lie in each other")]
#[case::data_directory(
    "data/us-east-1/key",
    "lies in the data directory of orders/database in us-east-1"
)]
fn a_key_beside_what_it_opens_is_refused(#[case] path: &str, #[case] why: &str) {
    let place = Place::new();
    let root = place.root();
    place.write(path, &format!("dr-key1 {}\n", "7".repeat(64)));
    place.write(
        "dr.yaml",
        &format!("{root}encryption: {{ key_file: {path} }}\n"),
    );
    let ran = place.run(&["check"]);
    assert_eq!(ran.code, 65, "{ran:?}");
    for said in [why, "1 key file that should not be used like this"] {
        assert!(ran.stdout.contains(said), "{said} is missing: {ran:?}");
    }
}

#[test]
fn a_secret_that_everybody_may_read_is_said() {
    let place = Place::new();
    let root = place.root();
    let key = format!("dr-key1 {}\n", "7".repeat(64));
    for (name, text) in [("key", key.as_str()), ("missing/password", "x\n")] {
        place.write(name, text);
    }
    place.write(
        "dr.yaml",
        &format!("{root}encryption: {{ key_file: key }}\n"),
    );
    let run = |mode: u32| {
        for name in ["key", "missing/password"] {
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(place.path().join(name), mode).unwrap();
        }
        place.run(&["check"])
    };
    let open = run(0o644);
    assert_eq!(open.code, 0, "{open:?}");
    let said = "every user of this machine may read it (mode 0644)";
    assert_eq!(open.stdout.matches(said).count(), 2, "{open:?}");
    assert!(open.stdout.contains("chmod 600 "), "{open:?}");
    for mode in [0o640, 0o600] {
        let closed = run(mode);
        assert!(!closed.stdout.contains("may read it"), "{closed:?}");
    }
}

/// What the kit calls it is no name that anybody has used.
#[test]
fn a_secret_that_stands_in_the_configuration_is_said_to_stand_there() {
    let place = Place::new();
    let root = place.root();
    let inside = root.replace("\"${file:missing/password}\"", "hunter2hunter2");
    assert_ne!(inside, root);
    place.write("dr.yaml", &inside);
    let ran = place.run(&["check"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let line = ran.stdout.lines().find(|line| line.contains("DR_SECRET_1"));
    let line = line.unwrap();
    assert!(line.contains("secret in dr.yaml:"), "{line}");
    assert!(line.contains("stands there itself"), "{line}");
    assert!(!line.contains("not on this machine"), "{line}");
    assert!(!ran.stdout.contains("hunter2"), "{ran:?}");
}

/// Whether a server that something else starts can open the stores cannot be seen from here: it is said before the day.
#[test]
fn keys_from_the_environment_are_warned_of() {
    let place = Place::new();
    let root = place.root();
    let store = |keys: &str| {
        let entry = format!(
            "store: {{ url: \"s3://west\", endpoint: \"http://127.0.0.1:9\", credentials: {{ access_key_id: west, secret_access_key: \"{keys}\" }} }}"
        );
        let changed = root.replace("store: stores/us-west-2", &entry);
        assert_ne!(changed, root);
        place.write("dr.yaml", &changed);
        place.run(&["check"])
    };
    let said = "opened with `DR_TEST_WEST_KEY` of the environment";
    let ran = store("${env:DR_TEST_WEST_KEY}");
    assert!(ran.stdout.contains(said), "{ran:?}");
    let ran = store("${file:west.key}");
    assert!(!ran.stdout.contains("of the environment, which"), "{ran:?}");
}

/// A configuration that is valid may protect nothing.
#[rstest]
#[case::log("wal:", &["nothing ships its log"])]
#[case::copies("copy:", &["no recovery point reaches another region"])]
#[case::snapshots("daily-snapshot", &["nothing takes recovery points"])]
#[case::everything("{ job:", &["nothing ships its log", "nothing takes recovery points"])]
fn what_no_schedule_does_is_said(#[case] without: &str, #[case] found: &[&str]) {
    let place = Place::new();
    let whole = place.run(&["check"]);
    assert!(!whole.stdout.contains("schedules for"), "{whole:?}");
    let schedules = include_str!("../../../../schedules/orders.yaml");
    let left = schedules.lines().filter(|line| !line.contains(without));
    let left: Vec<_> = left.collect();
    let text = match without {
        "{ job:" => "version: 1\ntimezone: UTC\njobs: {}\n".to_owned(),
        _ => left.join("\n") + "\n",
    };
    place.write("schedules/orders.yaml", &text);
    let ran = place.run(&["check"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let said = ran.stdout.matches("schedules for orders/database").count();
    assert_eq!(said, found.len(), "{ran:?}");
    for found in found {
        assert!(ran.stdout.contains(found), "{ran:?}");
    }
}

/// A slip in one file is found, and stands in the way of the runbook that it may hold and of no other.
#[rstest]
#[case::another("name: drill\nsteps: [{ id: a, uses: dance }]", true)]
#[case::this_one("name: failover-region\nsteps: [{ id: a, uses: dance }]", false)]
#[case::nobody_knows_which("name: drill: steps", false)]
fn a_runbook_that_cannot_be_read_takes_no_other_with_it(#[case] text: &str, #[case] usable: bool) {
    let place = Place::new();
    std::fs::remove_file(place.path().join("runbooks/failover-region.yaml")).unwrap();
    let text = format!("version: 1\nsummary: Of one's own.\n{text}\n");
    place.write("runbooks/broken.yaml", &text);
    for words in [&["check"][..], &["runbook", "check"]] {
        let checked = place.run(words);
        assert_eq!(checked.code, 65, "{checked:?}");
        let place = "runbooks/broken.yaml:";
        assert!(checked.stdout.contains(place), "{checked:?}");
    }
    let shown = place.run(&["runbook", "show", "failover-region"]);
    let tried = place.run(&["failover", "--to", "us-west-2", "--plan"]);
    let listed = place.run(&["runbook", "list"]);
    assert!(listed.stdout.contains("cannot be used"), "{listed:?}");
    if usable {
        assert_eq!(shown.code, 0, "{shown:?}");
        assert_ne!(tried.code, 65, "{tried:?}");
        return;
    }
    for ran in [shown, tried] {
        assert_eq!(ran.code, 65, "{ran:?}");
        for said in [
            "the runbook `failover-region` cannot be used",
            "runbooks/broken.yaml:",
            "move it out of `runbooks/`",
        ] {
            assert!(ran.stderr.contains(said), "{said} is missing: {ran:?}");
        }
    }
}

/// Nothing that is looked at is not the same as nothing that is missing.
#[test]
fn a_runbook_that_is_no_text_keeps_no_secret_from_being_looked_for() {
    let place = Place::new();
    std::fs::write(place.path().join("runbooks/broken.yaml"), b"\xff\xfe").unwrap();
    let checked = place.run(&["check"]);
    assert_eq!(checked.code, 65, "{checked:?}");
    for said in ["${file:missing/password}", "runbooks/broken.yaml"] {
        assert!(
            checked.stdout.contains(said),
            "{said} is missing: {checked:?}"
        );
    }
}

/// A reason is for whoever reads it later.
#[rstest]
#[case::hold(&["recovery-point", "hold", "orders/database", "some", "--reason", " "])]
#[case::pause(&["execution", "pause", "20261121T093012Z-3f9a2c", "--reason", ""])]
#[case::resume(&["execution", "resume", "20261121T093012Z-3f9a2c", "--reason", ""])]
#[case::abort(&["execution", "abort", "20261121T093012Z-3f9a2c", "--override", ""])]
#[case::by_hand(&["failback", "orders", "--clients-by-hand", ""])]
#[case::two_reasons(&["execution", "abort", "20261121T093012Z-3f9a2c", "--override", "a", "--reason", "b"])]
fn reasons_are_not_empty(#[case] words: &[&str]) {
    let place = Place::new();
    let ran = place.run(words);
    assert_eq!(ran.code, 64, "{ran:?}");
    let said = ["expected a reason", "cannot be used with"];
    assert!(said.iter().any(|said| ran.stderr.contains(said)), "{ran:?}");
}

/// What a workload asks of its runbooks is seen without looking at a region.
#[test]
fn a_runbook_that_asks_nobody_is_found_where_approvals_are_wanted() {
    let place = Place::new();
    let text = include_str!("../../../../runbooks/failover-region.yaml");
    let hasty = text.replace("  - { id: approve, uses: await-approval }\n", "");
    place.write("runbooks/failover-region.yaml", &hasty);
    assert_eq!(place.run(&["runbook", "check"]).code, 0);
    let file = place.path().join("dr.yaml");
    let config = std::fs::read_to_string(&file).unwrap();
    let key = "ed25519:d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    let wanted = format!(
        "    approval: {{ quorum: 1, approvers: [{{ name: ada, key: \"{key}\" }}] }}\n    home:"
    );
    place.write("dr.yaml", &config.replacen("    home:", &wanted, 1));
    for words in [&["runbook", "check"][..], &["check"]] {
        let checked = place.run(words);
        assert_eq!(checked.code, 65, "{checked:?}");
        assert!(checked.stdout.contains("nobody is asked"), "{checked:?}");
    }
}
