//! Wrong names, absent stores, and asking where nobody can answer.

use crate::support::{Place, run};

#[test]
fn usage_is_64() {
    assert_eq!(run(["frobnicate"]).code, 64);
    assert_eq!(run(["failover"]).code, 64);
    assert_eq!(run(["failover", "--to", "Not A Region"]).code, 64);
    assert_eq!(run(["--help"]).code, 0);
    assert_eq!(run(["--version"]).code, 0);
}

#[test]
fn with_json_stdout_holds_one_object() {
    let place = Place::new();
    for (words, member) in [
        (&["runbook", "list"][..], "runbooks"),
        (&["init", "--sql"][..], "sql"),
        (&["completions", "bash"][..], "script"),
        (&["job", "list"][..], "jobs"),
    ] {
        let ran = place.run(&[words, &["--json"]].concat());
        let found: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        assert!(
            found[member].is_array() || found[member].is_string(),
            "{ran:?}"
        );
    }
}

#[test]
fn unknown_names_are_told_with_the_one_that_was_meant() {
    let place = Place::new();
    let region = place.run(&["failover", "--to", "us-west-1", "--plan"]);
    assert_eq!(region.code, 64, "{region:?}");
    assert!(
        region.stderr.contains("there is no region `us-west-1`"),
        "{region:?}"
    );
    assert!(
        region.stderr.contains("did you mean `us-west-2`?"),
        "{region:?}"
    );
    let workload = place.run(&["status", "order"]);
    assert_eq!(workload.code, 64, "{workload:?}");
    assert!(
        workload.stderr.contains("did you mean `orders`?"),
        "{workload:?}"
    );
    let resource = place.run(&[
        "restore",
        "orders/databases",
        "--in",
        "us-west-2",
        "--into",
        "x",
    ]);
    assert_eq!(resource.code, 64, "{resource:?}");
    assert_eq!(place.run(&["daemon", "--region", "mars"]).code, 64);
}

/// Everything in a scratch directory is removed.
#[test]
fn nothing_is_booted_in_a_store() {
    let place = Place::new();
    let scratch = place.store("us-west-2").join("scratch");
    let words = [
        "recovery-point",
        "verify",
        "orders/database",
        "--in",
        "us-west-2",
        "--boot",
    ];
    let named = [&words[..], &["--scratch", scratch.to_str().unwrap()]].concat();
    let root = place.root();
    let resource = "kind: postgres\n";
    let configured = format!(
        "{resource}        verify: {{ scratch: {} }}\n",
        scratch.display()
    );
    let configured = root.replace(resource, &configured);
    for (root, words) in [(&root, named.as_slice()), (&configured, &words)] {
        place.write("dr.yaml", root);
        let ran = place.run(words);
        assert_eq!(ran.code, 12, "{ran:?}");
        for said in ["lie in each other", "`--scratch DIR`"] {
            assert!(ran.stderr.contains(said), "{said} is missing: {ran:?}");
        }
        assert!(!scratch.exists());
    }
    let checked = place.run(&["check"]);
    assert_eq!(checked.code, 65, "{checked:?}");
    for said in ["lie in each other", "1 boot test that should not be used"] {
        assert!(
            checked.stdout.contains(said),
            "{said} is missing: {checked:?}"
        );
    }
}

#[test]
fn what_cannot_be_left_out_is_not() {
    let place = Place::new();
    let words = [
        "restore",
        "orders/database",
        "--in",
        "us-west-2",
        "--plan",
        "--exclusive",
    ];
    for target in ["latest", "immediate", "name:before"] {
        let ran = place.run(&[&words[..], &["--at", target]].concat());
        assert_eq!(ran.code, 64, "{ran:?}");
        assert!(ran.stderr.contains("`--exclusive` leaves out"), "{ran:?}");
    }
}

#[test]
fn a_failover_without_its_stores_is_unavailable() {
    let place = Place::new();
    let ran = place.run(&["failover", "--to", "us-west-2", "--plan"]);
    assert_eq!(ran.code, 20, "{ran:?}");
    assert!(
        ran.stderr.contains("nobody can tell who is primary"),
        "{ran:?}"
    );
    assert_eq!(ran.stdout, "");
}

#[test]
fn nobody_is_asked_where_nobody_is() {
    let place = Place::new();
    let ran = place.run(&["failover", "--to", "us-west-2"]);
    assert_eq!(ran.code, 64, "{ran:?}");
    assert!(ran.stderr.contains("--yes"), "{ran:?}");
}

#[test]
fn a_witness_has_a_name() {
    let place = Place::new();
    let ran = place.run(&[
        "failover",
        "--to",
        "us-west-2",
        "--yes",
        "--witness",
        "it is down",
    ]);
    assert_eq!(ran.code, 64, "{ran:?}");
    assert!(ran.stderr.contains("who saw what"), "{ran:?}");
}

#[test]
fn status_says_what_it_cannot_see() {
    let place = Place::new();
    let ran = place.run(&["status"]);
    assert_eq!(ran.code, 11, "{ran:?}");
    assert!(
        ran.stdout.contains("nobody can tell who is primary"),
        "{ran:?}"
    );
    let document: serde_json::Value =
        serde_json::from_str(&place.run(&["status", "--json"]).stdout).unwrap();
    assert_eq!(document["verdict"], "unknown");
    assert_eq!(document["workloads"][0]["register"]["proven"], false);
    assert_eq!(document["daemons"][0]["status"], serde_json::Value::Null);
}

#[test]
fn executions_and_recovery_points_need_a_store() {
    let place = Place::new();
    let executions = place.run(&["execution", "list"]);
    assert_eq!(executions.code, 20, "{executions:?}");
    let shown = place.run(&["execution", "show", "20261121T093005Z-us-west-2-7f3a"]);
    assert_eq!(shown.code, 20, "{shown:?}");
}

#[tokio::test]
async fn an_execution_that_is_nowhere_is_a_wrong_name() {
    let place = Place::new();
    place.initialise_stores().await;
    let listed = place.run(&["execution", "list"]);
    assert_eq!((listed.code, listed.stdout.as_str()), (0, ""), "{listed:?}");
    let shown = place.run(&["execution", "show", "20261121T093005Z-us-west-2-7f3a"]);
    assert_eq!(shown.code, 64, "{shown:?}");
}

#[tokio::test]
async fn the_target_is_the_primary() {
    let place = Place::new();
    place.initialise_stores().await;
    place.open_first_epoch().await;
    let ran = place.run(&["failover", "--to", "us-east-1", "--yes"]);
    assert_eq!(ran.code, 12, "{ran:?}");
    assert!(
        ran.stderr.contains("has the primary of `orders` already"),
        "{ran:?}"
    );
}

#[tokio::test]
async fn a_check_of_servers_that_are_nowhere_names_each() {
    let place = Place::new();
    place.initialise_stores().await;
    let ran = place.run(&["check", "--online"]);
    assert!(matches!(ran.code, 1 | 20), "{ran:?}");
    for wanted in [
        "ok      store of us-east-1",
        "warning register of orders",
        "orders/database in us-west-2",
        "missing/tsig.key",
    ] {
        assert!(
            ran.stdout.contains(wanted),
            "`{wanted}` is missing in {}",
            ran.stdout
        );
    }
}

#[test]
fn with_json_a_failure_is_one_object() {
    let directory = Place::new();
    let answer = |arguments: &[&str]| -> serde_json::Value {
        let ran = directory.run(arguments);
        let value: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(value["exit_code"], ran.code, "{ran:?}");
        assert!(!ran.stderr.is_empty());
        value
    };
    let found = answer(&["--json", "daemon", "--region", "nowhere"]);
    assert!(
        found["error"].as_str().unwrap().contains("nowhere"),
        "{found}"
    );
    assert!(found.get("hint").is_some(), "{found}");
    let found = answer(&["--json", "failover"]);
    assert_eq!(found["exit_code"], 64);

    // A `dr.yaml` that is no YAML is the only thing said.
    directory.write("dr.yaml", "version: 1\nregions: [\n");
    let found = answer(&["--json", "status"]);
    assert_eq!(found["exit_code"], 65);
    assert_eq!(found["details"].as_array().unwrap().len(), 1, "{found}");
}

#[tokio::test]
async fn a_restore_into_a_store_is_refused() {
    let place = Place::new();
    place.initialise_stores().await;
    let store = place.store("us-east-1");
    let link = place.path().join("link");
    std::os::unix::fs::symlink(&store, &link).unwrap();
    for into in [store.join("pg/data"), link.join("pg"), store.clone()] {
        let into = into.to_str().unwrap();
        let ran = place.run(&[
            "restore",
            "orders/database",
            "--in",
            "us-west-2",
            "--into",
            into,
        ]);
        assert_eq!(ran.code, 12, "{ran:?}");
        assert!(ran.stderr.contains("the store of `us-east-1`"), "{ran:?}");
    }
    assert!(!store.join("pg").exists());
}

#[test]
fn a_disruption_in_the_future_is_refused() {
    let place = Place::new();
    let at = "2999-01-01T00:00:00Z";
    let ran = place.run(&[
        "failover",
        "--to",
        "us-west-2",
        "--plan",
        "--disrupted-at",
        at,
    ]);
    assert_eq!(ran.code, 64, "{ran:?}");
    assert!(ran.stderr.contains("is in the future"), "{ran:?}");
}

/// What was asked for wrongly is no fault of a file.
#[tokio::test]
async fn what_was_asked_for_wrongly_is_a_wrong_command_line() {
    let place = Place::new();
    place.initialise_stores().await;
    place.open_first_epoch().await;
    let future = "2999-01-01T00:00:00Z";
    let to = ["failover", "--to", "us-west-2", "--yes", "--runbook"];
    let restore = ["restore", "orders/database", "--in", "us-west-2", "--plan"];
    let recover = ["runbook", "plan", "recover-component", "orders"];
    let component = ["--component", "database", "--at", "2026-11-21T09:30:00Z"];
    let back = ["runbook", "plan", "restore-database", "orders"];
    for (words, said) in [
        ([&to[..], &["recover-component"]].concat(), "dr runbook run"),
        ([&to[..], &["undo-move"]].concat(), "dr execution abort"),
        (
            [&restore[..], &["--at", future]].concat(),
            "is in the future",
        ),
        ([&recover[..], &component].concat(), "take `--at` away"),
        ([&back[..], &["--at", future]].concat(), "is in the future"),
    ] {
        let ran = place.run(&words);
        assert_eq!(ran.code, 64, "{words:?}: {ran:?}");
        assert!(ran.stderr.contains(said), "{words:?}: {ran:?}");
    }
}

/// What was written wrongly is answered with what can be written.
#[tokio::test]
async fn what_can_be_written_instead_is_said() {
    let place = Place::new();
    place.initialise_stores().await;
    place.open_first_epoch().await;
    let file = place.path().join("dr.yaml/copy");
    let file = file.to_str().unwrap();
    let failover = ["failover", "--to", "us-west-2", "--max-loss", "banana"];
    let sync = ["sync", "enable", "orders", "--region", "us-east-1"];
    let restore = [
        "restore",
        "orders/database",
        "--in",
        "us-west-2",
        "--into",
        file,
    ];
    for (words, code, said) in [
        (&failover[..], 64, ["banana", "such as `60s`"]),
        (
            &["job", "run", "nope"],
            64,
            ["no job `nope`", "`check-readiness`"],
        ),
        (
            &["job", "run", "dayly-snapshot"],
            64,
            ["did you mean `daily-snapshot`", "`wal`"],
        ),
        (
            &sync,
            64,
            [
                "the primary of orders/database is in us-east-1 itself",
                "`us-west-2`",
            ],
        ),
        (
            &restore,
            1,
            ["dr.yaml/copy", "name another directory with `--into`"],
        ),
    ] {
        let ran = place.run(words);
        assert_eq!(ran.code, code, "{ran:?}");
        for word in said {
            assert!(ran.stderr.contains(word), "{word} is missing: {ran:?}");
        }
    }
}
