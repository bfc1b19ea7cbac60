//! A primary under its guard: it stops when the register cannot be read, and whatever becomes of the guard and its watcher; it
//! is moved by plan like any other.

use dr_coordination::register::EpochRecord;
use dr_model::{Clock, Epoch};
use dr_sandbox::process::{Process, Table};
use dr_sandbox::region::signal;
use dr_sandbox::{Builder, HOME, RECOVERY, Sandbox};
use rustix::process::Signal;

use crate::planned::{move_by_plan, streams};
use crate::second_loss::register_in;
use crate::support::{
    acknowledge, acknowledge_after, backup, cluster, end, is_primary, judged, now_us, refused,
    start, until,
};

/// The lease of the guard in these tests, in seconds: short, and long enough for a machine that compiles meanwhile.
pub(crate) const LEASE_SECONDS: u32 = 6;

/// Returns the processes of the server at home.
pub(crate) fn server(sandbox: &Sandbox) -> Vec<Process> {
    let data = sandbox.region(HOME).unwrap().place().data_directory();
    let table = Table::read();
    let inside = table
        .iter()
        .filter(|p| p.directory.as_deref() == Some(&data));
    inside.filter(|p| !p.is_zombie()).cloned().collect()
}

/// Waits until no process of the server at home is left.
pub(crate) async fn is_stopped(sandbox: &Sandbox) {
    until("the end of the server at home", async || {
        let left = server(sandbox);
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("{left:?}"))
        }
    })
    .await;
}

/// Waits until the newest record says that the primary in `region` runs under a guard.
pub(crate) async fn is_armed(sandbox: &Sandbox, region: &str) {
    until("a record of the guard", async || {
        let newest = newest_record(sandbox);
        match newest.guards.values().next() {
            Some(guard) if newest.primary.as_str() == region => {
                assert_eq!(guard.lease_seconds, LEASE_SECONDS);
                Ok(())
            }
            _ => Err(format!("{newest:?}")),
        }
    })
    .await;
}

fn newest_record(sandbox: &Sandbox) -> EpochRecord {
    let workload = "ledger".parse().unwrap();
    let stores = [HOME, RECOVERY].map(|region| sandbox.region(region).unwrap().place().store());
    let read = |epoch| {
        let of = |store: &std::path::PathBuf| {
            let key = EpochRecord::key(&workload, Epoch(epoch));
            let bytes = std::fs::read(store.join(key.as_str())).ok()?;
            EpochRecord::from_bytes(&bytes, &workload, Epoch(epoch)).ok()
        };
        stores.iter().find_map(of)
    };
    (1..).map_while(read).last().unwrap()
}

/// The watcher is the postmaster's parent, and the guard is the watcher's.
fn guard_and_watcher(sandbox: &Sandbox) -> [Process; 2] {
    let table = Table::read();
    let find = |pid| {
        table
            .iter()
            .find(|process| process.pid == pid)
            .cloned()
            .unwrap()
    };
    let server = server(sandbox);
    let is_child = |process: &&Process| server.iter().any(|parent| parent.pid == process.parent);
    let postmaster = server.iter().find(|process| !is_child(process)).unwrap();
    let watcher = find(postmaster.parent);
    [find(watcher.parent), watcher]
}

/// Starts the guard again, and waits until the primary is back.
async fn is_back(sandbox: &Sandbox) {
    sandbox.region(HOME).unwrap().start_guard().unwrap();
    cluster(sandbox, HOME).wait_ready().await.unwrap();
    assert!(is_primary(sandbox, HOME).await);
}

fn guarded() -> Builder {
    Sandbox::builder().guard(LEASE_SECONDS)
}

/// Whatever becomes of it or of its watcher, the server does not outlive them by more than its lease.
#[tokio::test(flavor = "multi_thread")]
async fn without_its_guard_a_server_stops() {
    let sandbox = start(guarded().standby(false)).await;
    for (number, which) in [
        (0, Signal::KILL),
        (0, Signal::STOP),
        (1, Signal::KILL),
        (1, Signal::STOP),
    ] {
        let both = guard_and_watcher(&sandbox);
        signal(&both[number..=number], which);
        is_stopped(&sandbox).await;
        signal(&both, Signal::CONT);
        until("the end of the guard", async || {
            let table = Table::read();
            let left = table
                .iter()
                .filter(|p| both.iter().any(|was| was.pid == p.pid));
            let left: Vec<_> = left.filter(|process| !process.is_zombie()).collect();
            if left.is_empty() {
                Ok(())
            } else {
                Err(format!("{number} {which:?}: {left:?}"))
            }
        })
        .await;
        is_back(&sandbox).await;
    }
    end(sandbox);
}

/// The store with the register is out of sight: the primary stops, and starts again once it can be seen that nobody took over.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_register_a_primary_stops_and_comes_back() {
    let sandbox = start(guarded().standby(false)).await;
    let load = sandbox.load(Default::default()).unwrap();
    is_armed(&sandbox, HOME).await;
    acknowledge(&load, 50).await;
    let place = sandbox.region(RECOVERY).unwrap().place();
    std::fs::rename(place.store(), place.lost_store()).unwrap();
    is_stopped(&sandbox).await;
    let told = load.acknowledged();
    let guard = sandbox.region(HOME).unwrap().start_guard().unwrap();
    until("the guard waiting", async || {
        let log = std::fs::read_to_string(sandbox.region(HOME).unwrap().place().log("guard"));
        let log = log.unwrap();
        let said = log.matches("the register cannot be read").count() >= 2;
        if said && log.contains("its lease was over") {
            Ok(())
        } else {
            Err(log)
        }
    })
    .await;
    assert_eq!(server(&sandbox), vec![]);
    assert_eq!(load.acknowledged(), told);
    assert!(dr_sandbox::process::is_alive(guard));

    std::fs::rename(place.lost_store(), place.store()).unwrap();
    let back = now_us(&sandbox);
    cluster(&sandbox, HOME).wait_ready().await.unwrap();
    acknowledge_after(&load, back).await;
    let record = load.stop().await.unwrap();
    assert_eq!(judged(&sandbox, HOME, &record).await.lost, vec![]);
    end(sandbox);
}

/// A guard lets its primary be moved by plan: nothing is lost, it starts as the standby, and it is armed again at home.
#[tokio::test(flavor = "multi_thread")]
async fn a_guarded_primary_is_moved_by_plan_and_back() {
    let sandbox = start(guarded()).await;
    let load = sandbox.load(Default::default()).unwrap();
    backup(&sandbox, RECOVERY).await;
    is_armed(&sandbox, HOME).await;
    acknowledge(&load, 100).await;
    move_by_plan(&sandbox, &["failover", "--planned", "--to", RECOVERY]).await;
    streams(&sandbox, HOME).await;
    assert_eq!(newest_record(&sandbox).guards.len(), 0);
    acknowledge(&load, 100).await;

    register_in(&sandbox, HOME).await;
    move_by_plan(&sandbox, &["failback", "ledger"]).await;
    let home = now_us(&sandbox);
    acknowledge_after(&load, home).await;
    is_armed(&sandbox, HOME).await;
    let record = load.stop().await.unwrap();
    assert_eq!(judged(&sandbox, HOME, &record).await.lost, vec![]);
    let over =
        sandbox.clock().elapsed() + std::time::Duration::from_secs(2 * u64::from(LEASE_SECONDS));
    while sandbox.clock().elapsed() < over {
        assert!(is_primary(&sandbox, HOME).await);
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    end(sandbox);
}

/// The newest record is gone, as from a store that was put back from an older copy: the one before it says that the primary is at home.
#[tokio::test(flavor = "multi_thread")]
async fn a_guard_starts_nothing_by_a_register_that_ends_early() {
    let sandbox = start(guarded()).await;
    let load = sandbox.load(Default::default()).unwrap();
    backup(&sandbox, RECOVERY).await;
    is_armed(&sandbox, HOME).await;
    acknowledge(&load, 20).await;
    load.stop().await.unwrap();
    move_by_plan(&sandbox, &["failover", "--planned", "--to", RECOVERY]).await;
    streams(&sandbox, HOME).await;
    let [guard, _] = guard_and_watcher(&sandbox);
    signal(&[guard], Signal::TERM);
    is_stopped(&sandbox).await;
    let data = sandbox.region(HOME).unwrap().place().data_directory();
    std::fs::remove_file(data.join("standby.signal")).unwrap();
    // Nobody adds a record meanwhile.
    for region in [HOME, RECOVERY] {
        sandbox.region(region).unwrap().signal_daemon(Signal::STOP);
    }
    let stores = [HOME, RECOVERY].map(|region| sandbox.region(region).unwrap().place().store());
    let mut taken = Vec::new();
    loop {
        let newest = newest_record(&sandbox);
        if newest.primary.as_str() == HOME {
            break;
        }
        let key = EpochRecord::key(&newest.workload, newest.epoch);
        let places = stores.iter().map(|store| store.join(key.as_str()));
        let place = places.into_iter().find(|place| place.exists()).unwrap();
        let content = std::fs::read(&place).unwrap();
        std::fs::remove_file(&place).unwrap();
        taken.push((place, content));
    }
    assert_ne!(taken, vec![]);

    let guard = sandbox.region(HOME).unwrap().start_guard().unwrap();
    until("the guard waiting", async || {
        let log = std::fs::read_to_string(sandbox.region(HOME).unwrap().place().log("guard"));
        let log = log.unwrap();
        match log.contains("is missing") {
            true => Ok(()),
            false => Err(log),
        }
    })
    .await;
    assert_eq!(server(&sandbox), vec![]);
    assert!(dr_sandbox::process::is_alive(guard));
    for (place, content) in taken {
        std::fs::write(place, content).unwrap();
    }
    until(
        "the end of the guard",
        async || match dr_sandbox::process::is_alive(guard) {
            true => Err("it runs".to_owned()),
            false => Ok(()),
        },
    )
    .await;
    assert_eq!(server(&sandbox), vec![]);
    assert!(is_primary(&sandbox, RECOVERY).await);
    end(sandbox);
}

/// A server that is not configured to have a guard gets none.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_a_guard_in_its_configuration_is_refused() {
    let sandbox = start(Sandbox::builder().standby(false)).await;
    let words = ["host", "guard", "ledger/database", "--region", HOME];
    refused(
        &sandbox,
        &words,
        65,
        &["no guard is configured", "guard: { lease"],
    )
    .await;
    end(sandbox);
}

/// A server that another guard or somebody without one has started is not this guard's to stop.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_runs_already_is_left_alone() {
    let sandbox = start(guarded().standby(false)).await;
    let load = sandbox.load(Default::default()).unwrap();
    acknowledge(&load, 50).await;
    let before = server(&sandbox);
    assert!(!before.is_empty());
    let words = ["host", "guard", "ledger/database", "--region", HOME];
    refused(&sandbox, &words, 12, &["runs here already", "left alone"]).await;
    let first = before.iter().map(|process| process.pid).min();
    assert!(
        server(&sandbox)
            .iter()
            .any(|process| Some(process.pid) == first)
    );
    acknowledge(&load, 50).await;
    drop(load);
    end(sandbox);
}
