//! After a failover the old primary becomes a standby, and what only it had is kept; then the workload goes home.

use std::collections::BTreeSet;
use std::path::Path;

use dr_sandbox::layout::{SUPERUSER, WORKLOAD};
use dr_sandbox::{HOME, LostStore, RECOVERY, Sandbox};
use rustix::process::Signal;
use serde_json::Value;

use crate::executions::executions;
use crate::planned::streams;
use crate::second_loss::register_in;
use crate::support::{
    acknowledge, acknowledge_after, ask, backup, cluster, dr, dr_json, end, fail_over, is_primary,
    judged, now_us, refused, start, until,
};

/// Makes a standby and returns what was done.
async fn make(sandbox: &Sandbox, words: &[&str]) -> Value {
    let words = [&["standby"], words, &["--yes", "--json"]].concat();
    let output = dr(sandbox, &words).await;
    assert_eq!(output.status.code(), Some(0), "{}", output.stderr);
    let made: Value = serde_json::from_str(&output.stdout).unwrap();
    made["standbys"][0].clone()
}

/// Reads the ledger of a kept directory, which is started for that, and stopped again.
async fn ledger_of(sandbox: &Sandbox, kept: &Path) -> BTreeSet<i64> {
    let region = sandbox.region(HOME).unwrap();
    let launcher = sandbox.launcher();
    let program = |name: &str| sandbox.layout().postgres_programs.join(name);
    let control = |verb: &str| {
        let mut command = launcher.command(&program("pg_ctl"), &region.place().directory);
        command
            .args([verb, "--wait", "--silent", "--pgdata"])
            .arg(kept);
        command.arg("--log").arg(region.place().log("kept"));
        command
    };
    launcher.run(control("start")).await.unwrap();
    let query = "select pg_is_in_recovery()::int; select id from ledger";
    let mut psql = launcher.command(&program("psql"), &region.place().directory);
    psql.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align"])
        .args([
            "--port",
            "54321",
            "--username",
            SUPERUSER,
            "--dbname",
            WORKLOAD,
        ])
        .arg("--host")
        .arg(region.place().address.to_string())
        .args(["--command", query])
        .env("PGPASSWORD", sandbox.layout().password(SUPERUSER).unwrap());
    let output = launcher.output(psql, false).await.unwrap();
    assert!(output.status.success(), "{output:?}");
    launcher.run(control("stop")).await.unwrap();
    let mut lines = output.stdout.lines().map(|line| line.parse().unwrap());
    assert_eq!(lines.next(), Some(1), "it has to be a standby");
    lines.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_old_primary_is_rewound_and_what_only_it_had_is_kept() {
    let sandbox = start(Sandbox::builder()).await;
    let (east, west) = (
        sandbox.region(HOME).unwrap(),
        sandbox.region(RECOVERY).unwrap(),
    );
    let load = sandbox.load(Default::default()).unwrap();
    backup(&sandbox, RECOVERY).await;
    acknowledge(&load, 200).await;
    register_in(&sandbox, RECOVERY).await;
    // From here on nobody but the old primary has what is written.
    let name = cluster(&sandbox, RECOVERY).standby_name();
    let connected = cluster(&sandbox, HOME).standbys().await.unwrap();
    let walsender = connected.iter().find(|s| s.name == name).unwrap().walsender;
    let mut senders = east.processes();
    senders.retain(|process| process.pid == walsender);
    dr_sandbox::region::signal(&senders, Signal::STOP);
    east.signal_daemon(Signal::STOP);
    west.signal_daemon(Signal::STOP);
    // The first of them may have been sent before that.
    acknowledge(&load, 210).await;
    let lost_at = east.lose(LostStore::Renamed).unwrap();
    west.signal_daemon(Signal::CONT);
    fail_over(&sandbox, &[]).await;
    acknowledge_after(&load, lost_at).await;
    let record = load.stop().await.unwrap();
    let verdict = judged(&sandbox, RECOVERY, &record).await;
    assert!(verdict.lost.len() >= 200, "{}", verdict.lost.len());
    let execution = executions(&sandbox).remove(0);

    // The region comes back with its store.
    let place = east.place();
    std::fs::rename(place.lost_store(), place.store()).unwrap();
    let diverged = dr(&sandbox, &["execution", "divergence", &execution, "--json"]).await;
    assert_eq!(diverged.status.code(), Some(10), "{diverged:?}");
    let diverged: Value = serde_json::from_str(&diverged.stdout).unwrap();
    let found = &diverged["resources"][0]["found"][0]["in"][1];
    assert!(found["commits"].as_u64().unwrap() >= 200, "{diverged}");
    let tables = found["tables"].as_array().unwrap();
    assert!(
        tables.contains(&"ledger: public.ledger".into()),
        "{diverged}"
    );

    let made = make(&sandbox, &["create", "ledger", "--in", HOME]).await;
    assert_eq!(made["report"]["method"], "rewind", "{made}");
    let kept = made["report"]["kept"]["directory"]
        .as_str()
        .unwrap()
        .to_owned();
    streams(&sandbox, HOME).await;
    // Again, there is nothing to do.
    let again = make(&sandbox, &["create", "ledger/database", "--in", HOME]).await;
    assert_eq!(again["report"]["method"], Value::Null, "{again}");
    let later = dr_json(&sandbox, &["execution", "divergence", &execution, "--json"]).await;
    let noted = &later["resources"][0]["found"][0]["in"]["divergence"];
    assert_eq!(noted["commits"], found["commits"], "{later}");

    // What was lost is in the directory that was kept.
    let there = ledger_of(&sandbox, Path::new(&kept)).await;
    assert!(verdict.lost.iter().all(|commit| there.contains(&commit.id)));

    east.start_daemon().await.unwrap();
    register_in(&sandbox, HOME).await;
    // A load numbers its commits from the beginning.
    let client = cluster(&sandbox, RECOVERY).connect("ledger").await.unwrap();
    client.batch_execute("truncate ledger").await.unwrap();
    let load = sandbox.load(Default::default()).unwrap();
    acknowledge(&load, 100).await;
    let output = dr(&sandbox, &["failback", "ledger", "--yes"]).await;
    assert_eq!(output.status.code(), Some(0), "{}", output.stderr);
    assert!(is_primary(&sandbox, HOME).await);
    streams(&sandbox, RECOVERY).await;
    acknowledge_after(&load, now_us(&sandbox)).await;
    let record = load.stop().await.unwrap();
    let verdict = judged(&sandbox, HOME, &record).await;
    assert_eq!(verdict.lost, vec![]);
    end(sandbox);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_is_built_from_the_store_or_from_the_primary() {
    let sandbox = start(Sandbox::builder().standby(false)).await;
    let load = sandbox.load(Default::default()).unwrap();
    backup(&sandbox, RECOVERY).await;
    acknowledge(&load, 100).await;
    let west = cluster(&sandbox, RECOVERY);
    west.write_settings().unwrap();
    let arguments = ["ledger", "--in", RECOVERY];
    refused(
        &sandbox,
        &["standby", "create", "ledger", "--in", HOME, "--yes"],
        12,
        &["has the primary itself", "hint"],
    )
    .await;

    let made = make(&sandbox, &[&["create"], &arguments[..]].concat()).await;
    assert_eq!(made["report"]["method"], "recovery-point", "{made}");
    streams(&sandbox, RECOVERY).await;
    // It is not taken from under a server.
    refused(
        &sandbox,
        &[&["standby", "reseed"], &arguments[..], &["--yes"]].concat(),
        12,
        &["a server runs in", "stop it"],
    )
    .await;
    west.stop().await.unwrap();
    let made = make(
        &sandbox,
        &[&["reseed"], &arguments[..], &["--from", "base-backup"]].concat(),
    )
    .await;
    assert_eq!(made["report"]["method"], "base-backup", "{made}");
    assert!(made["report"]["kept"]["directory"].is_string(), "{made}");
    streams(&sandbox, RECOVERY).await;
    // A standby that was only stopped has nothing to be rewound.
    west.stop().await.unwrap();
    let made = make(&sandbox, &[&["create"], &arguments[..]].concat()).await;
    assert_eq!(made["report"]["method"], "follow", "{made}");
    streams(&sandbox, RECOVERY).await;

    // Killed in one instant, its processes are waited for.
    let data = sandbox.region(RECOVERY).unwrap().place().data_directory();
    let first = std::fs::read_to_string(data.join("postmaster.pid")).unwrap();
    let number: i32 = first.lines().next().unwrap().parse().unwrap();
    let mut postmaster = sandbox.region(RECOVERY).unwrap().processes();
    postmaster.retain(|process| process.pid == number);
    dr_sandbox::region::signal(&postmaster, Signal::KILL);
    let made = make(&sandbox, &[&["create"], &arguments[..]].concat()).await;
    assert_eq!(made["report"]["method"], "follow", "{made}");
    streams(&sandbox, RECOVERY).await;

    // What an interrupted command left is taken if it is whole, and of the newest epoch.
    let name = data.file_name().unwrap().to_string_lossy();
    let note = data.with_file_name(format!(".{name}.dr-unfinished"));
    let marker = data.join("marker");
    for (epoch, is_taken) in [(1, true), (7, false)] {
        west.stop().await.unwrap();
        let launcher = sandbox.launcher();
        launcher.write_file(&marker, "of the first copy").unwrap();
        let text = format!(r#"{{"method":"base-backup","kept":null,"whole":{epoch}}}"#);
        launcher.write_file(&note, &text).unwrap();
        let words = [&["create"], &arguments[..], &["--from", "base-backup"]].concat();
        let made = make(&sandbox, &words).await;
        assert_eq!(made["report"]["method"], "base-backup", "{made}");
        assert_eq!(made["plan"]["whole"], is_taken, "{made}");
        assert_eq!(marker.exists(), is_taken);
        assert!(!note.exists());
        streams(&sandbox, RECOVERY).await;
    }

    // The store of its region is away when it starts: it streams from the primary all the same (ADR 13).
    west.stop().await.unwrap();
    let store = sandbox.region(RECOVERY).unwrap().place().store();
    let aside = store.with_extension("aside");
    std::fs::rename(&store, &aside).unwrap();
    west.start().unwrap();
    streams(&sandbox, RECOVERY).await;
    acknowledge(&load, 20).await;
    std::fs::rename(&aside, &store).unwrap();

    // And it can be moved to.
    let words = ["failover", "--planned", "--to", RECOVERY, "--yes"];
    let output = dr(&sandbox, &words).await;
    assert_eq!(output.status.code(), Some(0), "{}", output.stderr);
    acknowledge_after(&load, now_us(&sandbox)).await;
    let record = load.stop().await.unwrap();
    let verdict = judged(&sandbox, RECOVERY, &record).await;
    assert_eq!(verdict.lost, vec![]);
    until("the old primary as a standby", async || {
        match is_primary(&sandbox, HOME).await {
            false => Ok(()),
            true => Err("a primary".to_owned()),
        }
    })
    .await;
    end(sandbox);
}

/// Somebody starts the standby without its signal file and writes to it: it is on the primary's timeline, and no part of its history.
#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_was_written_to_is_not_taken_for_one() {
    let sandbox = start(Sandbox::builder()).await;
    let load = sandbox.load(Default::default()).unwrap();
    backup(&sandbox, RECOVERY).await;
    acknowledge(&load, 50).await;
    streams(&sandbox, RECOVERY).await;
    let west = cluster(&sandbox, RECOVERY);
    west.stop().await.unwrap();
    let data = sandbox.region(RECOVERY).unwrap().place().data_directory();
    std::fs::remove_file(data.join("standby.signal")).unwrap();
    west.start().unwrap();
    west.wait_ready().await.unwrap();
    let client = west.connect("postgres").await.unwrap();
    let write = client.batch_execute("create table public.astray (id int)");
    write.await.unwrap();
    drop(client);
    west.stop().await.unwrap();
    acknowledge(&load, 50).await;

    let made = make(&sandbox, &["create", "ledger", "--in", RECOVERY]).await;
    assert_eq!(made["report"]["method"], "recovery-point", "{made}");
    let passed_over = made["plan"]["passed_over"].to_string();
    assert!(passed_over.contains("it ran as a primary"), "{made}");
    let kept = made["report"]["kept"]["directory"].as_str().unwrap();
    assert!(Path::new(kept).join("PG_VERSION").exists(), "{made}");
    streams(&sandbox, RECOVERY).await;
    let there = "select to_regclass('public.astray') is not null";
    assert_eq!(ask(&sandbox, RECOVERY, there).await.unwrap(), "false");
    let record = load.stop().await.unwrap();
    assert_eq!(judged(&sandbox, HOME, &record).await.lost, vec![]);
    end(sandbox);
}
