//! A restore brings back what was committed before its target, and nothing after it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use dr_model::{Clock, RegionName};
use dr_sandbox::ledger::{Outcome, Record};
use dr_sandbox::postgres::Cluster;
use dr_sandbox::process::Output;
use dr_sandbox::{HOME, LostStore, RECOVERY, Sandbox, network};

use crate::support::{
    acknowledge, ask_lsn, backup, dr, dr_json, end, fail_over, judged, lost_before, now_us,
    refused, says, start, stored, until,
};

const WRITTEN: &str = "select pg_current_wal_insert_lsn()";

#[tokio::test(flavor = "multi_thread")]
async fn what_is_restored_ends_where_it_was_told_to() {
    let sandbox = start(Sandbox::builder().standby(false)).await;
    let load = sandbox.load(Default::default()).unwrap();
    backup(&sandbox, RECOVERY).await;
    acknowledge(&load, 200).await;
    let (at_time, time) = (now_us(&sandbox), sandbox.clock().now());
    acknowledge(&load, 200).await;
    let at_lsn = now_us(&sandbox);
    let lsn = ask_lsn(&sandbox, HOME, WRITTEN).await.unwrap();
    // What is committed while it is asked for may be on either side of it.
    let after_lsn = now_us(&sandbox);
    acknowledge(&load, 200).await;
    let record = load.stop().await.unwrap();
    let at_end = now_us(&sandbox);
    let written = ask_lsn(&sandbox, HOME, WRITTEN).await.unwrap();
    stored(&sandbox, RECOVERY, written).await;

    let cases = [
        ("time", time.to_string(), [at_time; 2]),
        ("lsn", lsn.to_string(), [at_lsn, after_lsn]),
        ("latest", "latest".to_owned(), [at_end; 2]),
    ];
    for (name, target, moments) in cases {
        let directory = place(&sandbox, name);
        let output = restore(&sandbox, &target, &directory.join("pgdata")).await;
        assert_eq!(output.status.code(), Some(0), "{}", output.stderr);
        let found = ledger(&sandbox, directory).await;
        compare(&record, &found, moments, name);
    }

    let directory = place(&sandbox, "refused").join("pgdata");
    let late = (sandbox.clock().now() + jiff::SignedDuration::from_hours(1)).to_string();
    let output = restore(&sandbox, &late, &directory).await;
    says(&output, 64, &["is in the future", &late[..13], "hint:"]);
    assert!(!directory.exists(), "{output:?}");

    let full = sandbox.layout().directory.join("restored/latest/pgdata");
    let before = std::fs::read_dir(&full).unwrap().count();
    let output = restore(&sandbox, "latest", &full).await;
    let taken = [
        "a safety rule forbids it",
        "it is a data directory",
        "hint:",
    ];
    says(&output, 12, &taken);
    assert_eq!(std::fs::read_dir(&full).unwrap().count(), before);

    // A plan looks at where it would go, and a server that runs there is a rule's matter.
    let full = full.display().to_string();
    let live = sandbox.region(HOME).unwrap().place().data_directory();
    let live = live.display().to_string();
    let words = ["restore", "ledger/database", "--in", RECOVERY, "--into"];
    let planned = [&words[..], &[&full, "--plan"]].concat();
    refused(&sandbox, &planned, 12, &taken).await;
    for more in [&["--delta", "--plan"][..], &["--delta"]] {
        let over = [&words[..], &[&live], more].concat();
        let said = ["a safety rule forbids it", &live, "hint: stop it first"];
        refused(&sandbox, &over, 12, &said).await;
    }
    let kept = dr(
        &sandbox,
        &[&words[..], &[&full, "--delta", "--plan"]].concat(),
    )
    .await;
    assert_eq!(kept.status.code(), Some(0), "{kept:?}");
    end(sandbox);
}

/// One bit of the newest recovery point is not what it was: no look at names and lengths sees it, and nobody is asked.
#[tokio::test(flavor = "multi_thread")]
async fn a_failover_goes_on_with_an_older_recovery_point() {
    let sandbox = start(Sandbox::builder().standby(false)).await;
    let load = sandbox.load(Default::default()).unwrap();
    let older = backup(&sandbox, RECOVERY).await;
    acknowledge(&load, 200).await;
    for (job, region) in [("snapshot", HOME), ("copy", RECOVERY)] {
        let output = dr(&sandbox, &["job", "run", job, "--region", region]).await;
        assert_eq!(output.status.code(), Some(0), "{}", output.stderr);
    }
    let west = sandbox.region(RECOVERY).unwrap();
    let newest = west.backups().pop().unwrap();
    assert!(!older.contains(&newest), "{newest}");
    acknowledge(&load, 200).await;
    let written = ask_lsn(&sandbox, HOME, WRITTEN).await.unwrap();
    let before = now_us(&sandbox);
    stored(&sandbox, RECOVERY, written).await;
    flip(&west.place().store(), &newest);
    let east = sandbox.region(HOME).unwrap();
    east.lose(LostStore::Renamed).unwrap();

    let moved = fail_over(&sandbox, &[]).await;
    assert_eq!(moved.rung, "restore");
    let record = load.stop().await.unwrap();
    let verdict = judged(&sandbox, RECOVERY, &record).await;
    assert_eq!(lost_before(&verdict, before), 0, "{verdict:?}");
    let show = ["execution", "show", &moved.execution, "--follow"];
    let passed = format!("passed over {newest}");
    says(&dr(&sandbox, &show).await, 0, &[&passed]);
    let listed = dr(&sandbox, &["recovery-point", "list", "ledger/database"]).await;
    assert!(listed.stdout.contains("FAILED"), "{}", listed.stdout);
    end(sandbox);
}

/// Who keeps a recovery point, since when and why stands beside it, until it is released.
#[tokio::test(flavor = "multi_thread")]
async fn who_holds_a_recovery_point_is_shown() {
    let sandbox = start(Sandbox::builder().standby(false)).await;
    let label = backup(&sandbox, HOME).await.pop().unwrap();
    let resource = "ledger/database";
    let at_home = ["recovery-point", "hold", resource, &label, "--in", HOME];
    let hold = [&at_home[..], &["--reason", "audit 2026"]].concat();
    says(&dr(&sandbox, &hold).await, 0, &[]);

    let list = ["recovery-point", "list", resource, "--region", HOME];
    let show = ["recovery-point", "show", resource, &label, "--in", HOME];
    let listed = dr(&sandbox, &list).await;
    let held = format!("{resource} in {HOME}: {label} is held by ");
    assert!(listed.stdout.contains(&held), "{}", listed.stdout);
    assert!(
        listed.stdout.contains(": audit 2026\n"),
        "{}",
        listed.stdout
    );
    let shown = dr(&sandbox, &show).await;
    assert!(
        shown.stdout.contains("\nheld        by "),
        "{}",
        shown.stdout
    );
    let json = dr_json(&sandbox, &[&list[..], &["--json"]].concat()).await;
    assert_eq!(json["recovery_points"][0]["held"]["reason"], "audit 2026");
    let json = dr_json(&sandbox, &[&show[..], &["--json"]].concat()).await;
    assert_eq!(json["held"]["reason"], "audit 2026");

    let release = ["recovery-point", "release", resource, &label, "--in", HOME];
    says(&dr(&sandbox, &release).await, 0, &[]);
    let listed = dr(&sandbox, &list).await;
    assert!(!listed.stdout.contains("is held"), "{}", listed.stdout);
    end(sandbox);
}

/// Turns a bit of each pack of a recovery point.
fn flip(store: &Path, label: &str) {
    let list = |path: &Path| std::fs::read_dir(path).into_iter().flatten().flatten();
    let mut flipped = 0;
    for cluster in list(&store.join("postgres")) {
        let packs = cluster.path().join("backup").join(label).join("packs");
        for pack in list(&packs) {
            let mut content = std::fs::read(pack.path()).unwrap();
            let middle = content.len() / 2;
            content[middle] ^= 1;
            std::fs::write(pack.path(), content).unwrap();
            flipped += 1;
        }
    }
    assert!(flipped > 0, "{label} has no packs");
}

/// Makes a directory that a restore may go into a part of.
pub(crate) fn place(sandbox: &Sandbox, name: &str) -> PathBuf {
    let directory = sandbox.layout().directory.join("restored").join(name);
    for made in [
        directory.parent().unwrap(),
        &directory,
        &directory.join("log"),
    ] {
        sandbox.launcher().make_directory(made).unwrap();
    }
    directory
}

async fn restore(sandbox: &Sandbox, target: &str, into: &Path) -> Output {
    let into = into.display().to_string();
    let words = [
        "restore",
        "ledger/database",
        "--in",
        RECOVERY,
        "--at",
        target,
        "--into",
        &into,
    ];
    dr(sandbox, &words).await
}

/// Starts what was restored beside everything else, and reads its ledger.
async fn ledger(sandbox: &Sandbox, directory: PathBuf) -> BTreeSet<i64> {
    let restored = beside(sandbox, directory).await;
    let found = restored.ledger().await.unwrap().into_iter().collect();
    restored.stop().await.unwrap();
    found
}

/// Starts what was restored beside everything else, and waits until it has replayed.
pub(crate) async fn beside(sandbox: &Sandbox, directory: PathBuf) -> Cluster {
    let region: RegionName = RECOVERY.parse().unwrap();
    let mut layout = sandbox.layout().clone();
    let place = layout.regions.get_mut(&region).unwrap();
    place.directory = directory;
    place.postgres_port = network::free_port(&[place.address]).unwrap();
    let restored = Cluster::new(&layout, &region, sandbox.launcher()).unwrap();
    restored.write_settings().unwrap();
    // What was restored remembers the port of its region, which is in use.
    let place = layout.place(&region).unwrap();
    let program = layout.postgres_programs.join("postgres");
    let mut command = sandbox.launcher().command(&program, &place.directory);
    command
        .arg("-D")
        .arg(place.data_directory())
        .arg("-p")
        .arg(place.postgres_port.to_string());
    sandbox
        .launcher()
        .start(command, &place.log("postgres"))
        .unwrap();
    restored.wait_ready().await.unwrap();
    until("the end of the replay", async || {
        let client = restored
            .connect("postgres")
            .await
            .map_err(|error| error.to_string())?;
        let query = "select not pg_is_in_recovery() or pg_get_wal_replay_pause_state() = 'paused'";
        let row = client
            .query_one(query, &[])
            .await
            .map_err(|error| error.to_string())?;
        if row.get(0) {
            Ok(())
        } else {
            Err("it replays".to_owned())
        }
    })
    .await;
    restored
}

/// Compares: what was acknowledged before the first moment has to be there, what began after the second must not.
fn compare(record: &Record, found: &BTreeSet<i64>, [before, after]: [u64; 2], name: &str) {
    let mut counts = [0, 0];
    for commit in &record.commits {
        if commit.ended_us <= before && commit.outcome == Outcome::Acknowledged {
            assert!(found.contains(&commit.id), "{name}: {commit:?} is missing");
            counts[0] += 1;
        } else if commit.started_us > after {
            assert!(
                !found.contains(&commit.id),
                "{name}: {commit:?} is too much"
            );
            counts[1] += 1;
        }
    }
    assert!(
        counts[0] >= 200 && (name == "latest" || counts[1] >= 150),
        "{name}: {counts:?}"
    );
}
