//! Stores on S3 that fail now and then under everything that runs, in every way that is no lie: refusals, answers that are late,
//! cut off or lost after the deed, conflicts, listings that are behind. What was acknowledged is there, and the log has no hole.
//!
//! The seed is printed; `DR_SEED=7` draws the faults of that one again.

use std::collections::BTreeSet;
use std::path::Path;

use dr_sandbox::judge::judge;
use dr_sandbox::layout::{SUPERUSER, StoreKind, WORKLOAD};
use dr_sandbox::postgres::Cluster;
use dr_sandbox::{HOME, RECOVERY, Sandbox};
use rustix::process::Signal;

use crate::restore::{beside, place};
use crate::support::{
    acknowledge, ask_lsn, backup, cluster, dr, dr_json, end, start, stored, until,
};

const ROUNDS: usize = 3;

/// What the four tables of pgbench have in common after whole transactions.
const BALANCES: &str = "select array[(select sum(abalance) from pgbench_accounts), (select sum(bbalance) from pgbench_branches), \
                        (select sum(tbalance) from pgbench_tellers), (select sum(delta) from pgbench_history)]::bigint[]";

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_to_stores_that_fail_now_and_then() {
    let seed = std::env::var("DR_SEED").map_or(1, |seed| seed.parse().unwrap());
    println!("DR_SEED={seed}");
    let builder = Sandbox::builder().store(StoreKind::S3).standby(false);
    let sandbox = start(builder).await;
    backup(&sandbox, RECOVERY).await;
    pgbench(&sandbox, &["--initialize", "--quiet"]).await;
    for (number, region) in (0..).zip([HOME, RECOVERY]) {
        let region = sandbox.region(region).unwrap();
        region.stop_store().await.unwrap();
        let faults = (seed * 2 + number).to_string();
        let words = ["--faults", faults.as_str()];
        region.start_store_with(&words).await.unwrap();
    }

    let load = sandbox.load(Default::default()).unwrap();
    for round in 0..ROUNDS {
        let transfers = pgbench(&sandbox, &["--client=4", "--transactions=300"]);
        let meanwhile = async {
            acknowledge(&load, 200).await;
            for (job, region) in [
                ("snapshot", HOME),
                ("copy", RECOVERY),
                ("compact", HOME),
                ("compact", RECOVERY),
            ] {
                do_job(&sandbox, job, region).await;
            }
        };
        tokio::join!(transfers, meanwhile);
        // A daemon that is killed meets the faults with nothing in its memory.
        let region = sandbox.region([HOME, RECOVERY][round % 2]).unwrap();
        region.signal_daemon(Signal::KILL);
        until("the end of the daemon", async || match region.daemon() {
            left if left.is_empty() => Ok(()),
            left => Err(format!("{left:?}")),
        })
        .await;
        region.start_daemon().await.unwrap();
    }
    let record = load.stop().await.unwrap();
    let balances = read(&cluster(&sandbox, HOME), BALANCES).await;
    assert!(
        balances.iter().all(|sum| *sum == balances[0]),
        "{balances:?}"
    );
    let written = ask_lsn(&sandbox, HOME, "select pg_current_wal_flush_lsn()");
    let written = written.await.unwrap();

    for region in [HOME, RECOVERY] {
        stored(&sandbox, region, written).await;
        let points = labels(&sandbox, region).await;
        // From the oldest on: a hole anywhere would be in the way.
        for label in [points.first().unwrap(), points.last().unwrap()] {
            let directory = place(&sandbox, &format!("{region}-{label}"));
            restore(&sandbox, region, label, &directory.join("pgdata")).await;
            let restored = beside(&sandbox, directory).await;
            let found: BTreeSet<i64> = restored.ledger().await.unwrap().into_iter().collect();
            let verdict = judge(&record.commits, &found);
            assert_eq!(verdict.lost, vec![], "{region} {label}");
            assert_eq!(verdict.refused_found, Vec::<i64>::new(), "{region} {label}");
            assert!(verdict.recovered > ROUNDS * 200, "{verdict:?}");
            assert_eq!(
                read(&restored, BALANCES).await,
                balances,
                "{region} {label}"
            );
            restored.stop().await.unwrap();
        }
    }
    end(sandbox);
}

/// Has a job done, however often that has to be asked for: a run that meets a fault may end, and then counts for nothing.
async fn do_job(sandbox: &Sandbox, job: &str, region: &str) {
    until(&format!("`{job}` in {region}"), async || {
        let output = dr(sandbox, &["job", "run", job, "--region", region]).await;
        match output.status.code() {
            Some(0) => Ok(()),
            Some(1 | 13 | 20) => Err(output.stderr),
            _ => panic!("{output:?}"),
        }
    })
    .await;
}

/// Returns the labels of a region's recovery points, the oldest first.
async fn labels(sandbox: &Sandbox, region: &str) -> Vec<String> {
    until(&format!("all recovery points in {region}"), async || {
        let words = ["recovery-point", "list", "--region", region, "--json"];
        let listed = dr_json(sandbox, &words).await;
        let points = listed["recovery_points"].as_array();
        let points = points.ok_or_else(|| listed.to_string())?;
        let mut labels: Vec<String> = points
            .iter()
            .map(|point| {
                point["recovery_point"]["label"]
                    .as_str()
                    .unwrap()
                    .to_owned()
            })
            .collect();
        labels.sort();
        if labels.len() > ROUNDS {
            Ok(labels)
        } else {
            Err(listed.to_string())
        }
    })
    .await
}

/// Restores, however often that has to be asked for: one that met a fault is finished by the next.
async fn restore(sandbox: &Sandbox, region: &str, label: &str, directory: &Path) {
    let into = directory.display().to_string();
    let words = [
        "restore",
        "ledger/database",
        "--in",
        region,
        "--into",
        &into,
    ];
    let words = [&words[..], &["--recovery-point", label]].concat();
    until(&format!("{label} restored in {region}"), async || {
        let over = if directory.exists() {
            &["--delta"][..]
        } else {
            &[]
        };
        let output = dr(sandbox, &[&words[..], over].concat()).await;
        match output.status.code() {
            Some(0) => Ok(()),
            Some(1 | 20) => Err(output.stderr),
            _ => panic!("{output:?}"),
        }
    })
    .await;
}

/// Runs pgbench on the primary to its end.
async fn pgbench(sandbox: &Sandbox, words: &[&str]) {
    let layout = sandbox.layout();
    let place = sandbox.region(HOME).unwrap().place();
    let program = layout.postgres_programs.join("pgbench");
    let mut command = sandbox.launcher().command(&program, &place.directory);
    command
        .arg("--no-vacuum")
        .args(words)
        .arg(format!("--host={}", place.address))
        .arg(format!("--port={}", place.postgres_port))
        .arg(format!("--username={SUPERUSER}"))
        .arg(WORKLOAD)
        .env("PGPASSWORD", layout.password(SUPERUSER).unwrap());
    sandbox.launcher().run(command).await.unwrap();
}

/// Reads the sums that one question asks for.
async fn read(cluster: &Cluster, query: &str) -> Vec<i64> {
    let client = cluster.connect(WORKLOAD).await.unwrap();
    client.query_one(query, &[]).await.unwrap().get(0)
}
