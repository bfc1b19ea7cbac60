//! What a recovery in the primary's own region does with the directories and the configuration.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::process::Command;

use dr_model::Epoch;
use dr_provider::ResourceDriver as _;
use dr_provider::driver::{Action, Fence, Undo, Verified};
use dr_provider::error::chain;
use serde_json::json;

use crate::server::{Server, give_to_postgres, run};
use crate::site::{EAST, Site};

fn action(kind: &str) -> Action {
    Action {
        name: kind.to_owned(),
        summary: "test".to_owned(),
        current: None,
        intended: None,
        dependencies: Vec::new(),
        undo: Undo::ReadOnly,
        parameters: json!({ "kind": kind, "region": EAST }),
    }
}

fn fence() -> Fence {
    Fence {
        workload: "orders".parse().unwrap(),
        epoch: Epoch(1),
        execution: "test".parse().unwrap(),
        takeovers: 0,
    }
}

/// Cut off between taking the data directory away and isolating it, the next try isolates it, whatever note of an earlier time is in it: nothing
/// ever starts there beside the primary, and it is found by who looks for what was kept.
#[tokio::test]
async fn what_was_taken_away_is_isolated_by_the_next_try() {
    let mut site = Site::start(1).await;
    site.primary.stop();
    let data = site.primary.data.clone();
    let prepared = site.place("primary.restored");
    fs::create_dir(&prepared).unwrap();
    give_to_postgres(&prepared);
    let restored = prepared.join("data");
    run(Command::new("cp").arg("-a").arg(&data).arg(&restored));
    let note = json!({ "execution": "test" }).to_string();
    fs::write(restored.join("dr-prepared.json"), note).unwrap();
    let kept = site.place("primary.kept-test");
    fs::rename(&data, &kept).unwrap();
    // It was kept elsewhere once, and put back since.
    let before = json!({
        "version": 1, "resource": "orders/database", "region": EAST, "epoch": 1,
        "kept_at": "2026-11-01T00:00:00Z", "directory": "/var/lib/postgresql/data.kept-before",
        "start": ["pg_ctl"], "port": 54321, "divergence": null,
    });
    fs::write(kept.join("dr-kept.json"), before.to_string()).unwrap();

    let action = action("install-restored");
    let before = site.driver.verify(&action, &fence()).await.unwrap();
    assert!(matches!(before, Verified::NotDone { .. }), "{before:?}");
    site.driver.apply(&action, &fence()).await.unwrap();
    assert!(data.join("dr-prepared.json").exists());
    let note = fs::read(kept.join("dr-kept.json")).unwrap();
    let note: serde_json::Value = serde_json::from_slice(&note).unwrap();
    assert_eq!(note["directory"], json!(kept));
    assert!(kept.join("standby.signal").exists());
    let settings = fs::read_to_string(kept.join("postgresql.auto.conf")).unwrap();
    assert!(settings.contains("archive_mode = 'off'"), "{settings}");
    // The same again finds it done.
    site.driver.apply(&action, &fence()).await.unwrap();
    let after = site.driver.verify(&action, &fence()).await.unwrap();
    assert!(matches!(after, Verified::Done(_)), "{after:?}");
}

/// What starts a server again the moment that it has stopped may start it as its directory is taken away: its control file would be
/// written into what is put there.
#[tokio::test]
async fn what_was_started_meanwhile_is_ended_before_anything_takes_its_place() {
    let mut site = Site::start(1).await;
    site.primary.stop();
    let data = site.primary.data.clone();
    let prepared = site.place("primary.restored");
    fs::create_dir(&prepared).unwrap();
    give_to_postgres(&prepared);
    let restored = prepared.join("data");
    run(Command::new("cp").arg("-a").arg(&data).arg(&restored));
    let note = json!({ "execution": "test" }).to_string();
    fs::write(restored.join("dr-prepared.json"), note).unwrap();
    let control = fs::read(restored.join("global/pg_control")).unwrap();
    let action = action("install-restored");

    // A primary is somebody's.
    site.primary = Server::start(&data, &[""; 0]).await;
    let refused = site.driver.apply(&action, &fence()).await.unwrap_err();
    assert!(chain(&refused).contains("run in"), "{}", chain(&refused));
    site.primary.stop();
    fs::write(data.join("standby.signal"), "").unwrap();
    give_to_postgres(&data.join("standby.signal"));
    site.primary = Server::start(&data, &[""; 0]).await;
    site.driver.apply(&action, &fence()).await.unwrap();
    assert!(data.join("dr-prepared.json").exists());
    assert_eq!(fs::read(data.join("global/pg_control")).unwrap(), control);
    assert!(site.place("primary.kept-test/dr-kept.json").exists());
}

/// A standby inherits the files of the server that it is made from: what ends a recovery in any of them counts no more.
#[tokio::test]
async fn no_target_of_a_restore_counts_for_a_standby() {
    let mut site = Site::start(1).await;
    let conf = site.primary.data.join("postgresql.conf");
    let mut conf = OpenOptions::new().append(true).open(conf).unwrap();
    writeln!(conf, "recovery_target_name = 'older'").unwrap();
    for sql in [
        "alter system set recovery_target_lsn = '0/3000000'",
        "alter system set recovery_target_timeline = '7'",
    ] {
        site.primary.sql(sql).await;
    }
    let action = action("forget-target");
    match site.driver.verify(&action, &fence()).await.unwrap() {
        Verified::NotDone { seen } => {
            for name in ["_lsn", "_name", "_timeline"] {
                let name = format!("recovery_target{name}");
                assert!(seen.contains(&name), "{seen}");
            }
        }
        other => panic!("{other:?}"),
    }
    site.driver.apply(&action, &fence()).await.unwrap();
    let done = site.driver.verify(&action, &fence()).await.unwrap();
    assert!(matches!(done, Verified::Done(_)), "{done:?}");
    // With two targets it would not start, with one it would end there.
    site.restart_as_standby().await;
    let sql = "select string_agg(setting, ',' order by name) from pg_settings \
               where name like 'recovery\\_target%' and setting not in ('promote', 'pause', 'on')";
    assert_eq!(site.primary.sql(sql).await, ",,,,latest,");
}
