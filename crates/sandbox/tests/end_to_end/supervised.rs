//! Servers that something starts again the moment that they have ended, as the runtime of a container does.

use std::time::Duration;

use dr_sandbox::{HOME, RECOVERY, Sandbox};

use crate::planned::{move_by_plan, streams};
use crate::second_loss::register_in;
use crate::support::{
    acknowledge, acknowledge_after, cluster, end, is_primary, judged, now_us, start, until,
};

/// Starts the server of a region again whenever it has ended, within milliseconds.
async fn supervise(sandbox: &Sandbox, region: &str) {
    let data = sandbox.region(region).unwrap().place().data_directory();
    let number = data.join("postmaster.pid");
    loop {
        if !number.exists() {
            cluster(sandbox, region).start().unwrap();
            until(
                "the number of a server that starts",
                async || match number.exists() {
                    true => Ok(()),
                    false => Err("there is none".to_owned()),
                },
            )
            .await;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_planned_move_goes_there_and_back() {
    let sandbox = start(Sandbox::builder()).await;
    let load = sandbox.load(Default::default()).unwrap();
    acknowledge(&load, 100).await;
    register_in(&sandbox, RECOVERY).await;
    let moves = async {
        move_by_plan(&sandbox, &["failover", "--planned", "--to", RECOVERY]).await;
        let moved = now_us(&sandbox);
        assert!(is_primary(&sandbox, RECOVERY).await);
        streams(&sandbox, HOME).await;
        acknowledge_after(&load, moved).await;
        register_in(&sandbox, HOME).await;
        move_by_plan(&sandbox, &["failback", "ledger"]).await;
        let home = now_us(&sandbox);
        assert!(is_primary(&sandbox, HOME).await);
        streams(&sandbox, RECOVERY).await;
        acknowledge_after(&load, home).await;
    };
    tokio::select! {
        () = moves => {}
        () = supervise(&sandbox, HOME) => {}
        () = supervise(&sandbox, RECOVERY) => {}
    }
    let record = load.stop().await.unwrap();
    assert_eq!(judged(&sandbox, HOME, &record).await.lost, vec![]);
    end(sandbox);
}
