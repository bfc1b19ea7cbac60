//! The standby is promoted wherever it stands: ahead of the store, at its end or behind it, and replayed or not.

use dr_sandbox::region::signal;
use dr_sandbox::{HOME, LostStore, RECOVERY, Sandbox};
use rstest::rstest;
use rustix::process::Signal;

use crate::support::{
    acknowledge, acknowledge_after, ask, ask_lsn, cluster, end, fail_over, is_primary, judged,
    lost_before, now_us, start, stored, until,
};

/// Where the standby's received log ends, seen from the store's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standby {
    Ahead,
    Equal,
    Behind,
}

pub(crate) const RECEIVED: &str = "select pg_last_wal_receive_lsn()";
const REPLAYED: &str = "select pg_last_wal_replay_lsn()";
pub(crate) const WRITTEN: &str = "select pg_current_wal_flush_lsn()";

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn what_the_store_or_the_standby_had_is_there(
    #[values(Standby::Ahead, Standby::Equal, Standby::Behind)] standby: Standby,
    #[values(true, false)] replayed: bool,
) {
    let sandbox = start(Sandbox::builder()).await;
    let (home, recovery) = (
        sandbox.region(HOME).unwrap(),
        sandbox.region(RECOVERY).unwrap(),
    );
    let load = sandbox.load(Default::default()).unwrap();
    acknowledge(&load, 100).await;
    if !replayed {
        pause_replay(&sandbox).await;
    }
    match standby {
        Standby::Ahead => {
            home.signal_daemon(Signal::STOP);
            recovery.signal_daemon(Signal::STOP);
        }
        Standby::Behind => freeze_walsender(&sandbox).await,
        // Without its daemon the home region beats no heart: once the load has stopped, nothing more is written.
        Standby::Equal => {}
    }
    acknowledge(&load, 200).await;

    let mut load = Some(load);
    let mut record = None;
    if standby == Standby::Equal {
        home.signal_daemon(Signal::STOP);
        record = Some(load.take().unwrap().stop().await.unwrap());
    }
    let safe = now_us(&sandbox);
    let written = ask_lsn(&sandbox, HOME, WRITTEN).await.unwrap();
    if standby != Standby::Behind {
        until("the log in the standby", async || {
            let received = ask_lsn(&sandbox, RECOVERY, RECEIVED).await?;
            if received >= written {
                Ok(())
            } else {
                Err(format!("{received}"))
            }
        })
        .await;
    }
    if standby != Standby::Ahead {
        stored(&sandbox, RECOVERY, written).await;
    }
    if !replayed && standby != Standby::Behind {
        let reached = ask_lsn(&sandbox, RECOVERY, REPLAYED).await.unwrap();
        assert!(reached < written, "{reached} is replayed of {written}");
    }

    let lost_at = home.lose(LostStore::Renamed).unwrap();
    recovery.signal_daemon(Signal::CONT);
    let failover = fail_over(&sandbox, &[]).await;
    assert_eq!((failover.rung.as_str(), failover.epoch), ("promote", 2));
    assert!(is_primary(&sandbox, RECOVERY).await);
    if let Some(load) = load {
        acknowledge_after(&load, lost_at).await;
        record = Some(load.stop().await.unwrap());
    }
    let verdict = judged(&sandbox, RECOVERY, &record.unwrap()).await;
    assert_eq!(lost_before(&verdict, safe), 0, "{verdict:?}");
    end(sandbox);
}

async fn pause_replay(sandbox: &Sandbox) {
    let replica = cluster(sandbox, RECOVERY)
        .connect("postgres")
        .await
        .unwrap();
    replica
        .batch_execute("select pg_wal_replay_pause()")
        .await
        .unwrap();
    until("a paused replay", async || {
        let state = ask(sandbox, RECOVERY, "select pg_get_wal_replay_pause_state()").await?;
        if state == "paused" {
            Ok(())
        } else {
            Err(state)
        }
    })
    .await;
}

/// Stops the process of the primary that feeds the standby: from then on only the receivers get the log.
pub(crate) async fn freeze_walsender(sandbox: &Sandbox) {
    let name = cluster(sandbox, RECOVERY).standby_name();
    let connected = cluster(sandbox, HOME).standbys().await.unwrap();
    let walsender = connected.iter().find(|s| s.name == name).unwrap().walsender;
    let mut processes = sandbox.region(HOME).unwrap().processes();
    processes.retain(|process| process.pid == walsender);
    assert_eq!(processes.len(), 1, "{connected:?}");
    signal(&processes, Signal::STOP);
}
