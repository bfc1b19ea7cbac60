//! `dr failover` is killed wherever its journal has an entry, and whoever takes it over brings it to its end.

use dr_sandbox::ledger::Load;
use dr_sandbox::{HOME, LostStore, RECOVERY, Sandbox};
use rstest::rstest;
use rustix::process::Signal;

use crate::executions::{Running, entries, executions, moved_once, reaches};
use crate::planned::streams;
use crate::support::{
    acknowledge, acknowledge_after, ask, backup, dr, dr_json, end, judged, now_us, start,
};

/// More kills than an execution has entries, even if each of them had to be written twice.
const MOST_KILLS: usize = 60;

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_every_entry_it_moves_the_workload_once() {
    let (sandbox, load, lost_at) = lose().await;
    kill_after_every_entry(&sandbox, &["failover", "--to", RECOVERY, "--yes"]).await;
    prove(sandbox, load, lost_at).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_planned_move_that_is_killed_after_every_entry_loses_nothing() {
    let sandbox = start(Sandbox::builder()).await;
    let load = sandbox.load(Default::default()).unwrap();
    backup(&sandbox, RECOVERY).await;
    acknowledge(&load, 200).await;
    let words = ["failover", "--planned", "--to", RECOVERY, "--yes"];
    kill_after_every_entry(&sandbox, &words).await;
    streams(&sandbox, HOME).await;
    acknowledge_after(&load, now_us(&sandbox)).await;
    let timeline = "select substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)";
    assert_eq!(ask(&sandbox, RECOVERY, timeline).await.unwrap(), "00000002");
    let record = load.stop().await.unwrap();
    let verdict = judged(&sandbox, RECOVERY, &record).await;
    assert_eq!(verdict.lost, vec![]);
    end(sandbox);
}

/// Kills a command, and whoever resumes it, wherever the journal has got to, until nothing is left to do.
async fn kill_after_every_entry(sandbox: &Sandbox, words: &[&str]) {
    let mut running = Running::start(sandbox, words);
    let mut wanted = 1;
    let mut kills = 0;
    while reaches(sandbox, &running, wanted).await {
        running.signal(Signal::KILL);
        running.end().await;
        kills += 1;
        assert!(kills < MOST_KILLS, "it makes no progress");
        let id = execution(sandbox);
        if state(sandbox, &id).await == "completed" {
            break;
        }
        // That it is taken over is an entry of its own. Killed after the next one for ever it would never get beyond
        // an intent.
        wanted = entries(sandbox) + 2 + kills % 3;
        running = Running::start(sandbox, &["execution", "resume", &id]);
    }
    let id = execution(sandbox);
    assert_eq!(state(sandbox, &id).await, "completed");
    assert!(kills >= 8, "killed {kills} times only");
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn killed_once_it_is_resumed_to_its_end(
    #[values(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18)] entry: usize,
) {
    let (sandbox, load, lost_at) = lose().await;
    let running = Running::start(&sandbox, &["failover", "--to", RECOVERY, "--yes"]);
    if reaches(&sandbox, &running, entry).await {
        running.signal(Signal::KILL);
    }
    running.end().await;
    let id = execution(&sandbox);
    // It may have written its last entries before the signal came.
    if state(&sandbox, &id).await != "completed" {
        let output = dr(&sandbox, &["execution", "resume", &id]).await;
        assert_eq!(output.status.code(), Some(0), "{}", output.stderr);
        assert_eq!(state(&sandbox, &id).await, "completed");
    }
    prove(sandbox, load, lost_at).await;
}

/// Loses the home region under load; returns when.
async fn lose() -> (Sandbox, Load, u64) {
    let sandbox = start(Sandbox::builder()).await;
    let load = sandbox.load(Default::default()).unwrap();
    acknowledge(&load, 200).await;
    let lost_at = sandbox
        .region(HOME)
        .unwrap()
        .lose(LostStore::Renamed)
        .unwrap();
    (sandbox, load, lost_at)
}

async fn prove(sandbox: Sandbox, load: Load, lost_at: u64) {
    moved_once(&sandbox).await;
    acknowledge_after(&load, lost_at).await;
    let record = load.stop().await.unwrap();
    judged(&sandbox, RECOVERY, &record).await;
    end(sandbox);
}

/// Returns the id of the one execution.
fn execution(sandbox: &Sandbox) -> String {
    let ids = executions(sandbox);
    assert_eq!(ids.len(), 1, "{ids:?}");
    ids[0].clone()
}

async fn state(sandbox: &Sandbox, id: &str) -> String {
    let shown = dr_json(sandbox, &["execution", "show", id, "--json"]).await;
    shown["state"].as_str().unwrap().to_owned()
}
