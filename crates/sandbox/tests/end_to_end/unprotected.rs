//! A move that succeeds where nobody protects the new primary is an exception, and says so until somebody does.

use dr_sandbox::{HOME, LostStore, RECOVERY, Sandbox};
use rustix::process::Signal;
use serde_json::Value;

use crate::executions::moved_once;
use crate::support::{
    acknowledge, acknowledge_after, dr, dr_json, end, judged, says, start, until,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_whose_log_nobody_ships_is_reported_until_somebody_does() {
    let sandbox = start(Sandbox::builder()).await;
    let load = sandbox.load(Default::default()).unwrap();
    acknowledge(&load, 100).await;
    let recovery = sandbox.region(RECOVERY).unwrap();
    recovery.signal_daemon(Signal::KILL);
    let lost_at = sandbox
        .region(HOME)
        .unwrap()
        .lose(LostStore::Renamed)
        .unwrap();

    let output = dr(&sandbox, &["failover", "--to", RECOVERY, "--yes", "--json"]).await;
    let start_it = format!("dr daemon --region {RECOVERY}");
    says(&output, 10, &["UNPROTECTED", &start_it]);
    let report: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(report["state"], "completed-with-exceptions", "{report}");
    moved_once(&sandbox).await;
    acknowledge_after(&load, lost_at).await;
    let status = dr(&sandbox, &["status"]).await;
    assert_eq!(status.status.code(), Some(10), "{status:?}");
    let said = &status.stdout;
    let headline = "ledger: BREACHED, and not known to be protected\n";
    assert!(said.starts_with(headline), "{said}");

    recovery.start_daemon().await.unwrap();
    until("the log of epoch 2 in its own store", async || {
        let status = dr_json(&sandbox, &["status", "--json"]).await;
        let regions = &status["workloads"][0]["resources"][0]["regions"];
        let mut regions = regions.as_array().unwrap().iter();
        let found = regions.any(|r| r["region"] == RECOVERY && r["log"]["epoch"] == 2);
        if found {
            Ok(())
        } else {
            Err(status.to_string())
        }
    })
    .await;
    let record = load.stop().await.unwrap();
    judged(&sandbox, RECOVERY, &record).await;
    end(sandbox);
}
