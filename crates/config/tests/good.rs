//! Configurations that load, and what is read from them.

mod support;

use std::path::PathBuf;
use std::time::Duration;

use dr_config::{HealthCheck, HealthCheckKind, Place, StoreLocation, Trigger};
use dr_model::Retention;
use dr_model::document::Template;
use support::{fixture, load_at};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn the_least_that_can_be_written() {
    let loaded = fixture("good/minimal").unwrap();
    assert_eq!(loaded.warnings, []);
    let config = loaded.config;
    let orders = &config.workloads[&"orders".parse().unwrap()];
    assert_eq!(orders.objectives.rpo, 900 * SECOND);
    assert_eq!(orders.max_loss, orders.objectives.rpo, "unless it is set");
    assert_eq!(orders.approval.quorum, 0);
    assert_eq!(orders.recovery, ["us-west-2".parse().unwrap()]);
    let database = &orders.resources[&"database".parse().unwrap()];
    assert_eq!(database.kind, "postgres");
    assert!(
        database.node.get("regions").is_some(),
        "the driver reads it later"
    );
    let encryption = config.encryption.as_ref().unwrap();
    assert_eq!(
        encryption.key_file,
        config.directory.join("keys/backup.key")
    );
    assert_eq!(
        encryption.old_key_files,
        ["/etc/dr/old.key"].map(PathBuf::from)
    );
    let store = |region: &str| config.regions[&region.parse().unwrap()].store.clone();
    let directory = config.directory.join("stores/us-east-1");
    assert_eq!(store("us-east-1"), StoreLocation::Directory(directory));
    assert_eq!(
        store("us-west-2"),
        StoreLocation::Directory("/srv/dr/us-west-2".into())
    );
    let daemon = config.regions[&"us-west-2".parse().unwrap()]
        .daemon
        .as_ref()
        .unwrap();
    assert_eq!(daemon.state_directory, config.directory.join("state"));
}

/// What a machine has of its own, such as a key, is no part of what a plan rests on.
#[test]
fn what_a_plan_rests_on_is_hashed_part_by_part() {
    let directory = tempfile::tempdir().unwrap();
    let definitions = |key: &str, answer: &str| {
        let text = format!(
            r#"
version: 1
regions: {{ east: {{ store: e }}, west: {{ store: w }} }}
workloads:
  shop:
    objectives: {{ rpo: 15m, rto: 4h }}
    home: east
    recovery: [west]
    resources: {{}}
    services:
      api: {{ regions: {{ east: {{ start: [api, start] }}, west: {{ start: [api, start] }} }} }}
    traffic:
      - kind: rfc2136
        name: shop.example
        ttl: 5s
        tsig: {{ name: dr, secret: "${{file:{key}}}" }}
        answers: {{ east: 10.0.0.1, west: {answer} }}
    checks:
      - http: "http://{{answer}}:80/"
"#
        );
        std::fs::write(directory.path().join("dr.yaml"), text).unwrap();
        let loaded = load_at(directory.path()).unwrap();
        loaded.config.workloads[&"shop".parse().unwrap()].definitions()
    };
    let one = definitions("/a", "10.8.0.1");
    let paths: Vec<_> = one.keys().map(String::as_str).collect();
    assert_eq!(paths, ["checks[0]", "services.api", "traffic[0]"]);
    assert_eq!(definitions("/b", "10.8.0.1"), one);
    let other = definitions("/a", "10.8.0.2");
    assert_ne!(other["traffic[0]"], one["traffic[0]"]);
    assert_eq!(other["services.api"], one["services.api"]);
}

#[test]
fn the_file_names_the_directory() {
    let directory = fixture("good/minimal").unwrap().config.directory;
    let by_file = load_at(&directory.join("dr.yaml")).unwrap().config;
    assert_eq!(by_file.directory, directory);
}

#[test]
fn warnings_do_not_refuse() {
    let loaded = fixture("good/warnings").unwrap();
    let shown: Vec<_> = loaded.warnings.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(shown.join("\n"), @r###"
    warning: `schedules/orders.yml` is not read
      hint: only `*.yaml` is: rename it
    dr.yaml:14:25: warning: workloads.orders.approval.quorum: none of those who may approve can start a failover themselves
      hint: nobody approves what they asked for: name one person more
    dr.yaml:36:14: warning: workloads.orders.traffic[0].ttl: clients keep the old answer this long
      expected: at most `60s`
      hint: every second of it is added to the time to recover
    dr.yaml:51:11: warning: workloads.archive: there is no region to recover in
      hint: name at least one other region in `recovery`
    dr.yaml:54:13: warning: workloads.archive.checks: every check is optional: clients are led to a region whatever is seen there
      hint: leave `optional` out of one of them
    "###);
    let orders = &loaded.config.workloads[&"orders".parse().unwrap()];
    assert_eq!(orders.max_loss, 60 * SECOND);
    assert_eq!(orders.approval.quorum, 1);
    assert_eq!(orders.approval.expires, 7200 * SECOND);
    let ada = &orders.approval.approvers[0];
    assert_eq!(
        (ada.name.as_str(), ada.account.as_deref()),
        ("ada", Some("alovelace"))
    );
    assert!(ada.key.to_string().starts_with("ed25519:d75a9801"));
    assert_eq!(
        orders.notify.len(),
        1,
        "a reference that cannot be resolved now may be later"
    );
    assert!(matches!(orders.checks[1].kind, HealthCheckKind::Sql { .. }));
    let command = |run: &[&str], on: Option<&str>, seconds: u32| HealthCheck {
        kind: HealthCheckKind::Command {
            run: run.iter().map(|word| (*word).to_owned()).collect(),
            on: on.map(|on| on.parse().unwrap()),
            timeout: seconds * SECOND,
        },
        optional: on.is_none(),
    };
    let there = ["/usr/local/bin/smoke-test", "http://{answer}:8080"];
    let here = ["/usr/local/bin/queue-is-read"];
    assert_eq!(
        orders.checks[2..],
        [command(&there, Some("api"), 30), command(&here, None, 10)]
    );
    let api = &orders.services[&"api".parse().unwrap()];
    assert_eq!(api.regions[&"us-east-1".parse().unwrap()].host, "local");
    let mail = &orders.services[&"mail".parse().unwrap()];
    assert_eq!((api.optional, mail.optional), (false, true));
    let optional: Vec<_> = orders.traffic.iter().map(|t| t.optional).collect();
    assert_eq!(optional, [false, true]);
    let node = &orders.resources[&"database".parse().unwrap()].node;
    let password: Template = loaded.config.read(node.get("password").unwrap()).unwrap();
    assert_eq!(password.text(), "${file:/nowhere}");
    let unresolved = loaded
        .config
        .read::<String>(node.get("password").unwrap())
        .unwrap_err();
    assert!(
        unresolved
            .to_string()
            .contains("`${file:/nowhere}` cannot be resolved")
    );
}

#[test]
fn the_digest_is_of_what_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("dr.yaml");
    let digest = |text: &str| {
        std::fs::write(&path, text).unwrap();
        load_at(directory.path()).unwrap().config.digest()
    };
    let text = include_str!("good/minimal/dr.yaml");
    let first = digest(text);
    assert_eq!(first, digest(&format!("# A comment.\n{text}")));
    let swapped = text.replace("rpo: 15m, rto: 4h", "rto: 4h,  rpo: \"15m\"");
    assert_ne!(swapped, text);
    assert_eq!(first, digest(&swapped));
    assert_ne!(first, digest(&text.replace("15m", "16m")));
}

#[test]
fn schedules_say_when_and_where() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(
        directory.path().join("dr.yaml"),
        include_str!("good/minimal/dr.yaml"),
    )
    .unwrap();
    std::fs::create_dir(directory.path().join("schedules")).unwrap();
    let text = "version: 1\ntimezone: Europe/Paris\njobs:\n  \
        snapshot: { job: take-snapshot, resource: orders/database, in: primary, cron: \"0 2 * * *\" }\n  \
        expire: { job: expire-recovery-points, resource: orders/database, in: all, after: snapshot, \
        keep: { last: 3, within: 30d, monthly: 12, log: 14d } }\n  \
        copy: { job: copy-recovery-points, resource: orders/database, in: recovery, after: snapshot }\n  \
        wal: { job: ship-wal, resource: orders/database, in: all, continuous: true }\n";
    std::fs::write(directory.path().join("schedules/orders.yaml"), text).unwrap();
    let config = load_at(directory.path()).unwrap().config;
    let [copy, expire, snapshot, wal] = &config.schedules[..] else {
        panic!("four, by name")
    };
    assert!(matches!(&copy.trigger, Trigger::After(name) if name.as_str() == "snapshot"));
    assert_eq!((copy.place, wal.place), (Place::Recovery, Place::All));
    assert!(matches!(wal.trigger, Trigger::Continuous));
    assert_eq!(snapshot.group, "orders");
    let Trigger::Cron(cron) = &snapshot.trigger else {
        panic!("it has a time")
    };
    assert_eq!(cron.to_string(), "0 2 * * * (Europe/Paris)");
    let next = cron.after("2026-07-01T12:00:00Z".parse().unwrap()).unwrap();
    assert_eq!(next.to_string(), "2026-07-02T00:00:00Z");
    assert_eq!(snapshot.keep, None);
    assert_eq!(
        expire.keep,
        Some(Retention {
            last: 3,
            within: Some(Duration::from_secs(30 * 86_400)),
            monthly: 12,
            log: Some(Duration::from_secs(14 * 86_400)),
            ..Retention::NOTHING
        })
    );
}

fn two_regions(east: &str, west: &str) -> Vec<String> {
    let directory = tempfile::tempdir().expect("a directory of our own");
    let text = format!("version: 1\nregions:\n  east: {east}\n  west: {west}\nworkloads: {{}}\n");
    std::fs::write(directory.path().join("dr.yaml"), text).expect("it can be written");
    let problems = match load_at(directory.path()) {
        Ok(loaded) => loaded.warnings,
        Err(problems) => problems.0,
    };
    problems.iter().map(ToString::to_string).collect()
}

/// One store is no second copy; a shared address is right on two machines and wrong on one.
#[test]
fn regions_that_share_something_are_told() {
    let with = |store: &str, port: u16, state: &str| {
        format!(
            "{{ store: {store}, daemon: {{ listen: \"127.0.0.1:{port}\", state_directory: {state} }} }}"
        )
    };
    let east = with("stores/a", 8421, "state/a");
    assert_eq!(
        two_regions(&east, &with("stores/b", 8422, "state/b")),
        [""; 0]
    );
    for (west, severity, said) in [
        (
            with("./stores/a/", 8422, "state/b"),
            "error",
            "the same store",
        ),
        (
            with("stores/x/../a", 8422, "state/b"),
            "error",
            "the same store",
        ),
        (
            with("stores/a/b", 8422, "state/b"),
            "error",
            "in each other",
        ),
        (
            with("stores/b", 8421, "state/b"),
            "warning",
            "the same `listen`",
        ),
        (
            with("stores/b", 8422, "state/a"),
            "warning",
            "the same `state_directory`",
        ),
    ] {
        let found = two_regions(&east, &west);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].contains(&format!("{severity}: regions.west")),
            "{found:?}"
        );
        assert!(found[0].contains(said), "{found:?}");
    }
    let bucket = "{ store: \"s3://acme/x\" }";
    let found = two_regions(bucket, "{ store: { url: \"s3://acme/x/\" } }");
    assert!(found[0].contains("the same store"), "{found:?}");
    assert_eq!(two_regions(bucket, "{ store: \"s3://acme/y\" }"), [""; 0]);
}

/// A file that cannot be looked at is not one that is missing.
#[test]
fn a_configuration_that_cannot_be_looked_at_is_not_missing() {
    let directory = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("dr.yaml", directory.path().join("dr.yaml")).unwrap();
    let said = load_at(directory.path()).unwrap_err().to_string();
    assert!(said.contains("cannot be read"), "{said}");
    assert!(!said.contains("there is no configuration"), "{said}");
}

/// Who accepts more than was promised should know it.
#[test]
fn a_loss_beyond_the_objective_is_advised_against() {
    let text = include_str!("good/minimal/dr.yaml");
    let with = |max_loss: &str| {
        let place = tempfile::tempdir().unwrap();
        let line = format!("    max_loss: {max_loss}\n    home:");
        let text = text.replacen("    home:", &line, 1);
        std::fs::write(place.path().join("dr.yaml"), text).unwrap();
        let loaded = load_at(place.path()).unwrap();
        let warnings = loaded.warnings.iter().map(ToString::to_string);
        warnings.collect::<Vec<_>>()
    };
    assert_eq!(with("15m"), [""; 0]);
    let warnings = with("16m");
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    let said = "max_loss: a failover accepts the loss of more";
    assert!(warnings[0].contains(said), "{warnings:?}");
}
