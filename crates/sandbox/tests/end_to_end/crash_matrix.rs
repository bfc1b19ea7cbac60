//! Every move with real servers, killed at every entry of its journal: whoever goes on from elsewhere brings it to the end that it has
//! when nobody disturbs it.
//!
//! How many entries there are is taken from a run that nobody disturbs, and a kill that is never come to fails the test. Where an entry
//! says what is about to be tried, whoever takes over is killed as well, when it has done that and before anybody has heard.

use std::collections::VecDeque;

use dr_sandbox::layout::StoreKind;
use dr_sandbox::ledger::Load;
use dr_sandbox::{HOME, LostStore, RECOVERY, Sandbox};
use rstest::rstest;
use serde_json::Value;

use crate::executions::{journal, moved_once, newest_execution};
use crate::gate::{Gate, Side, concludes, intends_any};
use crate::kit::{bare, unpack};
use crate::planned::streams;
use crate::second_loss::register_in;
use crate::support::{
    acknowledge, acknowledge_after, ask, backup, dr, dr_json, end, is_primary, judged, now_us,
    start,
};

/// How many tests share the kills of a runbook: each has the time limit of one.
const SHARES: usize = 5;

/// The same where the database is restored each time, which takes longer.
const RESTORING_SHARES: usize = 8;

/// An entry after which an execution is killed.
#[derive(Clone, Copy, Debug)]
struct Boundary {
    number: usize,
    /// Whether it says what is about to be tried.
    intends: bool,
}

/// What a move comes to, without what depends on when it happened.
#[derive(Clone, Debug, PartialEq)]
struct Ended {
    state: Value,
    mode: Value,
    rung: Value,
    fence: Value,
    bound: Value,
    steps: Vec<(Value, Value, Value)>,
}

/// Returns what the newest move to a region has come to.
async fn ended(sandbox: &Sandbox, to: &str) -> Ended {
    let id = newest_execution(sandbox, to).unwrap();
    let mut shown = dr_json(sandbox, &["execution", "show", &id, "--json"]).await;
    let mut steps = shown["steps"].take();
    let steps = steps.as_array_mut().unwrap().iter_mut();
    Ended {
        state: shown["state"].take(),
        mode: shown["mode"].take(),
        rung: shown["rung"].take(),
        fence: shown["fence"].take(),
        bound: shown["loss"]["bound"]["kind"].take(),
        steps: steps
            .map(|step| (step["id"].take(), step["uses"].take(), step["state"].take()))
            .collect(),
    }
}

/// Returns the entries of a journal like this one that are `share` of all `shares`.
fn boundaries(entries: &[String], share: usize, shares: usize) -> VecDeque<Boundary> {
    assert!(share < shares);
    let all = (1..).zip(entries).map(|(number, text)| Boundary {
        number,
        intends: intends_any(text),
    });
    all.skip(share).step_by(shares).collect()
}

/// Starts a move that is killed at an entry, and goes on with it to its end: every third time from a recovery kit, otherwise with
/// another configuration than that of whoever was killed.
async fn kill_and_go_on(
    sandbox: &Sandbox,
    gate: &Gate,
    to: &str,
    words: &[&str],
    boundary: Boundary,
    kills: usize,
) {
    let number = boundary.number;
    gate.kill(sandbox, words, Side::After, move |at, _| at == number)
        .await;
    let id = newest_execution(sandbox, to).unwrap();
    let resume = ["execution", "resume", id.as_str()];
    if boundary.intends {
        let done = move |_, text: &str| concludes(text);
        gate.kill(sandbox, &resume, Side::Before, done).await;
    }
    let shown = dr_json(sandbox, &["execution", "show", &id, "--json"]).await;
    if shown["state"] == "completed" {
        // That was its last word.
        return;
    }
    let output = match kills % 3 {
        2 => bare(sandbox, &[&["--config", "dr-kit"], &resume[..]].concat()).await,
        _ => dr(sandbox, &resume).await,
    };
    assert_eq!(output.status.code(), Some(0), "{}", output.stderr);
}

/// A workload that is moved to and fro, each time without losing a commit.
struct Moves {
    sandbox: Sandbox,
    gate: Gate,
    load: Load,
    moves: usize,
    kills: usize,
}

impl Moves {
    async fn start() -> Self {
        let sandbox = start(Sandbox::builder().store(StoreKind::S3)).await;
        let gate = Gate::before(&sandbox, &[HOME, RECOVERY]).await;
        let load = sandbox.load(Default::default()).unwrap();
        backup(&sandbox, RECOVERY).await;
        acknowledge(&load, 100).await;
        register_in(&sandbox, RECOVERY).await;
        unpack(&sandbox, RECOVERY).await;
        Self {
            sandbox,
            gate,
            load,
            moves: 0,
            kills: 0,
        }
    }

    /// Moves there, killed at this place if there is one; returns what it came to and its journal.
    async fn go(&mut self, to: &str, boundary: Option<Boundary>) -> (Ended, Vec<String>) {
        let sandbox = &self.sandbox;
        let words: &[&str] = match to {
            HOME => &["failback", "ledger", "--yes"],
            _ => &["failover", "--planned", "--to", RECOVERY, "--yes"],
        };
        match boundary {
            None => {
                let output = dr(sandbox, words).await;
                assert_eq!(output.status.code(), Some(0), "{}", output.stderr);
            }
            Some(boundary) => {
                kill_and_go_on(sandbox, &self.gate, to, words, boundary, self.kills).await;
                self.kills += 1;
            }
        }
        self.moves += 1;
        let moved = now_us(sandbox);
        assert!(is_primary(sandbox, to).await, "{boundary:?}");
        // It has been promoted once.
        let timeline = "select substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)";
        let expected = format!("{:08X}", self.moves + 1);
        let timeline = ask(sandbox, to, timeline).await.unwrap();
        assert_eq!(timeline, expected, "{boundary:?}");
        acknowledge_after(&self.load, moved).await;
        let from = if to == HOME { RECOVERY } else { HOME };
        streams(sandbox, from).await;
        register_in(sandbox, from).await;
        (ended(sandbox, to).await, journal(sandbox, to))
    }
}

/// `failover-planned` and `failback-region`, one after the other on the same servers.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn moves_that_are_killed_anywhere_come_to_the_same_end(
    #[values(0, 1, 2, 3, 4)] share: usize,
) {
    let mut moves = Moves::start().await;
    let mut legs = Vec::new();
    for to in [RECOVERY, HOME] {
        let (expected, entries) = moves.go(to, None).await;
        assert_eq!(expected.state, "completed", "{expected:?}");
        legs.push((to, expected, boundaries(&entries, share, SHARES)));
    }
    while legs.iter().any(|(_, _, left)| !left.is_empty()) {
        for (to, expected, left) in &mut legs {
            let boundary = left.pop_front();
            let (seen, _) = moves.go(to, boundary).await;
            assert_eq!(seen, *expected, "{to}: {boundary:?}");
        }
    }
    let record = moves.load.stop().await.unwrap();
    assert_eq!(judged(&moves.sandbox, HOME, &record).await.lost, vec![]);
    end(moves.sandbox);
}

/// Loses the home region, and moves the workload to a standby or by a restore, killed at this place if there is one; returns what it came
/// to and its journal.
async fn fail_over(rung: &str, boundary: Option<Boundary>, kills: usize) -> (Ended, Vec<String>) {
    let standby = rung == "promote";
    let sandbox = start(Sandbox::builder().store(StoreKind::S3).standby(standby)).await;
    let gate = Gate::before(&sandbox, &[RECOVERY]).await;
    let load = sandbox.load(Default::default()).unwrap();
    if !standby {
        backup(&sandbox, RECOVERY).await;
    }
    acknowledge(&load, 200).await;
    if boundary.is_some() && kills % 3 == 2 {
        unpack(&sandbox, RECOVERY).await;
    }
    let home = sandbox.region(HOME).unwrap();
    let lost_at = home.lose(LostStore::Renamed).unwrap();
    let words = ["failover", "--to", RECOVERY, "--yes"];
    match boundary {
        None => {
            let output = dr(&sandbox, &words).await;
            assert_eq!(output.status.code(), Some(0), "{}", output.stderr);
        }
        Some(boundary) => {
            kill_and_go_on(&sandbox, &gate, RECOVERY, &words, boundary, kills).await;
        }
    }
    moved_once(&sandbox).await;
    acknowledge_after(&load, lost_at).await;
    let record = load.stop().await.unwrap();
    judged(&sandbox, RECOVERY, &record).await;
    let seen = (ended(&sandbox, RECOVERY).await, journal(&sandbox, RECOVERY));
    assert_eq!(seen.0.rung, rung);
    end(sandbox);
    seen
}

/// `failover-region`, each time with a region that is lost anew.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_failover_that_is_killed_anywhere_comes_to_the_same_end(
    #[values(0, 1, 2, 3, 4)] share: usize,
) {
    killed_at_each("promote", share, SHARES).await;
}

/// The same without a standby: the database is rebuilt from the store.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_is_killed_anywhere_comes_to_the_same_end(
    #[values(0, 1, 2, 3, 4, 5, 6, 7)] share: usize,
) {
    killed_at_each("restore", share, RESTORING_SHARES).await;
}

/// Has a move killed at this share of the entries that it has when nobody disturbs it.
async fn killed_at_each(rung: &str, share: usize, shares: usize) {
    let (expected, entries) = fail_over(rung, None, 0).await;
    assert_eq!(expected.state, "completed", "{expected:?}");
    let left = boundaries(&entries, share, shares);
    for (kills, boundary) in left.into_iter().enumerate() {
        let (seen, _) = fail_over(rung, Some(boundary), kills).await;
        assert_eq!(seen, expected, "{boundary:?}");
    }
}
