//! A receiver that slept while its chain was sealed never acknowledges again, and nobody who waits for it is told so.

use std::time::Duration;

use dr_model::{Clock, Lsn};
use dr_sandbox::layout::WORKLOAD;
use dr_sandbox::{HOME, RECOVERY, Sandbox};
use rustix::process::Signal;

use crate::executions::{Running, moved_once};
use crate::support::{
    acknowledge, acknowledge_after, ask, cluster, end, is_primary, judged, now_us, start, until,
};

/// How long the old primary is watched after everything is over.
const WATCH: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread")]
async fn over_a_seal_it_never_acknowledges_again() {
    let sandbox = start(Sandbox::builder().sync(true)).await;
    let load = sandbox.load(Default::default()).unwrap();
    acknowledge(&load, 200).await;
    let recovery = sandbox.region(RECOVERY).unwrap();
    recovery.signal_daemon(Signal::STOP);

    let moved_at = now_us(&sandbox);
    let mut failover = Running::command(&sandbox, from_afar(&sandbox));
    until("the promoted standby", async || {
        assert!(!failover.has_ended(), "{:?}", (&mut failover.ended).await);
        if is_primary(&sandbox, RECOVERY).await {
            Ok(())
        } else {
            Err("not yet".to_owned())
        }
    })
    .await;
    // The old primary still runs, for its region is cut off from whoever moved the workload. What is committed there
    // now is beyond the seal, and nobody may ever say that it is safe.
    let client = cluster(&sandbox, HOME).connect(WORKLOAD).await.unwrap();
    let waiting = tokio::spawn(async move {
        client
            .batch_execute("insert into ledger values (-1, 0, 0)")
            .await
    });
    until("a waiting commit", async || {
        let query = "select nullif(count(*), 0) from pg_stat_activity \
                     where wait_event = 'SyncRep' and query like '%(-1, 0, 0)%'";
        ask(&sandbox, HOME, query).await
    })
    .await;
    recovery.signal_daemon(Signal::CONT);
    let output = failover.end().await;
    assert_eq!(output.status.code(), Some(0), "{}", output.stderr);
    let report: serde_json::Value = serde_json::from_str(&output.stdout).unwrap();
    let seal: Lsn = report["sealed"]["lsn"].as_str().unwrap().parse().unwrap();
    moved_once(&sandbox).await;
    acknowledge_after(&load, moved_at).await;

    let over = sandbox.clock().elapsed() + WATCH;
    while sandbox.clock().elapsed() < over {
        let flushed = "select coalesce(max(flush_lsn), '0/0') from pg_stat_replication \
                       where application_name = 'dr_us_west_2'";
        let flushed: Lsn = ask(&sandbox, HOME, flushed).await.unwrap().parse().unwrap();
        assert!(
            flushed <= seal,
            "{flushed} is acknowledged beyond the seal at {seal}"
        );
        assert!(!waiting.is_finished(), "{:?}", waiting.await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let record = load.stop().await.unwrap();
    let verdict = judged(&sandbox, RECOVERY, &record).await;
    assert_eq!(verdict.lost, vec![]);
    end(sandbox);
    assert!(waiting.await.unwrap().is_err());
}

/// Prepares a failover by somebody from whose place nothing of the region being left can be reached.
fn from_afar(sandbox: &Sandbox) -> std::process::Command {
    let layout = sandbox.layout();
    let launcher = sandbox.launcher();
    let config = layout.directory.join("afar");
    let home = sandbox.region(HOME).unwrap().place();
    let there = [
        (
            format!("address: {}", home.address),
            "address: 127.255.255.254",
        ),
        (
            format!("data_directory: \"{}\"", home.data_directory().display()),
            "data_directory: /nowhere/pgdata",
        ),
    ];
    let text = std::fs::read_to_string(layout.directory.join("dr.yaml")).unwrap();
    let text = there.iter().fold(text, |text, (here, nowhere)| {
        assert!(text.contains(here), "{here} in {text}");
        text.replace(here, nowhere)
    });
    for directory in ["", "runbooks", "schedules"] {
        launcher.make_directory(&config.join(directory)).unwrap();
    }
    launcher.write_file(&config.join("dr.yaml"), &text).unwrap();
    for file in ["runbooks/failover-region.yaml", "schedules/ledger.yaml"] {
        let text = std::fs::read_to_string(layout.directory.join(file)).unwrap();
        launcher.write_file(&config.join(file), &text).unwrap();
    }
    let mut command = launcher.command(&layout.dr, &layout.directory);
    command.arg("--config").arg(config);
    command.args(["failover", "--to", RECOVERY, "--yes", "--json"]);
    command.args(["--witness", "test: its region is cut off from everybody"]);
    command
}
