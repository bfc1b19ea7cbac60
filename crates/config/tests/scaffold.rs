//! What `dr init` writes loads without a problem, whatever the answers.

#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

mod support;

use dr_config::scaffold::{Answers, Error, Site, files, write};
use dr_config::{StoreLocation, Trigger};
use support::{fixture, load_at};

fn site(region: &str, host: &str) -> Site {
    Site {
        region: region.parse().unwrap(),
        store: format!("stores/{region}"),
        listen: "127.0.0.1:8421".parse().unwrap(),
        state_directory: "/var/lib/dr".into(),
        host: host.into(),
        address: None,
        port: 5432,
        data_directory: "/var/lib/postgresql/15/main".into(),
    }
}

fn answers() -> Answers {
    Answers {
        organization: "Acme Payments".into(),
        workload: "orders".parse().unwrap(),
        password_file: Some("/etc/dr/password".into()),
        home: site("us-east-1", "ssh://postgres@10.0.1.10"),
        recovery: Site {
            listen: "127.0.0.1:8422".parse().unwrap(),
            state_directory: "/var/lib/dr-west".into(),
            ..site("us-west-2", "ssh://postgres@10.8.1.10")
        },
        standby: true,
    }
}

#[test]
fn what_is_written_loads() {
    let directory = tempfile::tempdir().unwrap();
    let written = write(&directory.path().join("new/dr"), &answers()).unwrap();
    assert_eq!(written.len(), 3);
    let loaded = load_at(&written[0]).unwrap();
    assert_eq!(loaded.warnings, []);
    let runbook = loaded
        .config
        .runbooks
        .get(&"failover-region".parse().unwrap())
        .unwrap();
    assert_eq!(runbook.steps.len(), 15);
    let promote = runbook.steps.iter().find(|s| s.id.0 == "promote").unwrap();
    assert_eq!(promote.fallback.as_deref(), Some("restore-database"));
    assert_eq!(promote.needs[0].0, "seal");
    let wal = loaded
        .config
        .schedules
        .iter()
        .find(|s| s.job == "ship-wal")
        .unwrap();
    assert!(matches!(wal.trigger, Trigger::Continuous));
}

#[test]
fn answers_are_written_as_they_are() {
    let odd = Answers {
        organization: "A \"quoted\" name: with #, \\ and \n".into(),
        workload: "ledger".parse().unwrap(),
        password_file: None,
        home: Site {
            address: Some("/run/a b".into()),
            store: "stores/{{workload}}".into(),
            ..site("eu-1", "local")
        },
        recovery: Site {
            port: 5433,
            ..site("eu-2", "local")
        },
        standby: false,
    };
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), &odd).unwrap();
    let config = load_at(directory.path()).unwrap().config;
    assert_eq!(
        config.organization.as_deref(),
        Some(odd.organization.as_str())
    );
    let ledger = &config.workloads[&odd.workload];
    assert_eq!(config.schedules[0].resource.workload, odd.workload);
    let database = &ledger.resources[&"database".parse().unwrap()].node;
    assert!(database.get("password").is_none());
    let home = database.get("regions").unwrap().get("eu-1").unwrap();
    assert_eq!(home.get("address").unwrap().as_text(), Some("/run/a b"));
    let recovery = database.get("regions").unwrap().get("eu-2").unwrap();
    assert_eq!(recovery.get("standby").unwrap().as_text(), Some("none"));
    assert!(recovery.get("address").is_none());
    let store = &config.regions[&odd.home.region].store;
    assert_eq!(
        *store,
        StoreLocation::Directory(config.directory.join("stores/{{workload}}"))
    );
}

#[test]
fn the_least_configuration_says_less_but_means_the_same() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), &answers()).unwrap();
    let written = load_at(directory.path()).unwrap().config;
    let least = fixture("good/minimal").unwrap().config;
    let orders = "orders".parse().unwrap();
    assert_eq!(
        written.workloads[&orders].home,
        least.workloads[&orders].home
    );
    assert_eq!(
        written.workloads[&orders].objectives,
        least.workloads[&orders].objectives
    );
}

#[test]
fn nothing_is_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("runbooks")).unwrap();
    let existing = directory.path().join("runbooks/failover-region.yaml");
    std::fs::write(&existing, "mine").unwrap();
    let error = write(directory.path(), &answers()).unwrap_err();
    assert!(matches!(error, Error::Exists(path) if path == existing));
    assert_eq!(std::fs::read_to_string(&existing).unwrap(), "mine");
    assert!(!directory.path().join("dr.yaml").exists(), "all or nothing");
}

#[test]
fn the_commented_parts_load_too() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), &answers()).unwrap();
    let path = directory.path().join("dr.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    let examples = [
        "# services:",
        "# traffic:",
        "# notify:",
        "# - http:",
        "#   ",
    ];
    let open = |line: &str| {
        let rest = line.trim_start();
        let indent = &line[..line.len() - rest.len()];
        match examples.iter().any(|e| rest.starts_with(e)) {
            true => format!("{indent}{}", &rest[2..]),
            false => line.to_owned(),
        }
    };
    let opened: Vec<_> = text.lines().map(open).collect();
    std::fs::write(&path, opened.join("\n")).unwrap();
    let config = load_at(directory.path()).unwrap().config;
    let orders = &config.workloads[&"orders".parse().unwrap()];
    assert_eq!(
        (
            orders.services.len(),
            orders.checks.len(),
            orders.notify.len()
        ),
        (1, 2, 1)
    );
}

#[test]
fn the_shipped_files_are_those_written() {
    for (name, content) in files(&answers()).into_iter().skip(1) {
        let shipped = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../..")
            .join(name);
        assert_eq!(std::fs::read_to_string(shipped).unwrap(), content);
    }
}
