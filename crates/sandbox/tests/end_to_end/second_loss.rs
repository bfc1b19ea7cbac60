//! After a failover and a new standby made by hand, the new primary's region can be lost in its turn: the register has
//! moved away from it by itself, so nobody overrides anything.

use dr_sandbox::{HOME, LostStore, RECOVERY, Sandbox};
use serde_json::Value;

use crate::executions::epochs;
use crate::support::{
    acknowledge, acknowledge_after, backup, cluster, dr, dr_json, end, fail_over, judged, start,
    until,
};

/// Waits until the register is in a region, and the workload protected there.
pub(crate) async fn register_in(sandbox: &Sandbox, region: &str) {
    until(&format!("the register in {region}"), async || {
        let status = dr_json(sandbox, &["status", "--json"]).await;
        let workload = &status["workloads"][0];
        let found = workload["register"]["region"] == region && workload["protected"] == true;
        if found {
            Ok(())
        } else {
            Err(workload.to_string())
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_regions_are_lost_one_after_the_other() {
    let sandbox = start(Sandbox::builder()).await;
    let load = sandbox.load(Default::default()).unwrap();
    backup(&sandbox, RECOVERY).await;
    acknowledge(&load, 200).await;
    let east = sandbox.region(HOME).unwrap();
    let lost_at = east.lose(LostStore::Renamed).unwrap();
    fail_over(&sandbox, &[]).await;
    acknowledge_after(&load, lost_at).await;
    let record = load.stop().await.unwrap();
    judged(&sandbox, RECOVERY, &record).await;

    // The region comes back: its store, its daemon, and a new standby beside the old directory.
    let place = east.place();
    std::fs::rename(place.lost_store(), place.store()).unwrap();
    let data = place.data_directory();
    std::fs::rename(&data, data.with_extension("epoch-1")).unwrap();
    let (standby, primary) = (cluster(&sandbox, HOME), cluster(&sandbox, RECOVERY));
    standby.clone_from(&primary).await.unwrap();
    standby.start().unwrap();
    standby.wait_ready().await.unwrap();
    east.start_daemon().await.unwrap();
    register_in(&sandbox, HOME).await;
    assert_eq!(epochs(&sandbox).len(), 3);
    // A load numbers its commits from the beginning.
    let client = primary.connect("ledger").await.unwrap();
    client.batch_execute("truncate ledger").await.unwrap();
    let load = sandbox.load(Default::default()).unwrap();
    acknowledge(&load, 200).await;

    let west = sandbox.region(RECOVERY).unwrap();
    let lost_at = west.lose(LostStore::Renamed).unwrap();
    let words = ["failover", "--to", HOME, "--yes", "--json"];
    let output = dr(&sandbox, &words).await;
    assert_eq!(output.status.code(), Some(0), "{}", output.stderr);
    let report: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(report["state"], "completed", "{report}");
    assert_eq!(report["fence"], "stopped", "{report}");
    acknowledge_after(&load, lost_at).await;
    let record = load.stop().await.unwrap();
    judged(&sandbox, HOME, &record).await;
    end(sandbox);
}
