//! The checks.
//!
//! Short by default; `DR_MODEL=long` checks larger worlds completely and walks further, for minutes.

use rstest::rstest;
use stateright::{Checker, Expectation, HasDiscoveries, Model, UniformChooser};

use super::actors::{SOUTH, WEST};
use super::executor::Goal;
use super::invariants;
use super::world::{Scenario, Wrong};
use crate::mutation::Mutation;

const TO_WEST: Goal = Goal::Move { to: WEST, again: 0 };
const TO_SOUTH: Goal = Goal::Move {
    to: SOUTH,
    again: 1,
};
const TAKE_OVER: Goal = Goal::TakeOver { of: 0, to: WEST };

const WAIT: Goal = Goal::Wait(true);
const WAIT_NO_MORE: Goal = Goal::Wait(false);

const PROVEN: &str = "a promotion is proven";
const PROVEN_LATER: &str = "a promotion is proven after a change";
const STOPS_WAITING: &str = "commits stop waiting";
const MOVE_REGISTER: Goal = Goal::MoveRegister { to: SOUTH };

const ALL_ACKNOWLEDGED: &str = "a receiver acknowledges all";
const RECEIVER_SUPERSEDED: &str = "a receiver is superseded";
const ENDS_WELL: &str = "an executor ends well";
const PROMOTED: &str = "a database is promoted";
const LOSES: &str = "an executor loses the epoch";
const TAKEN_OVER: &str = "an executor is taken over";
const SUPERSEDED: &str = "an executor is superseded";
const REMOVED: &str = "a link is removed";
const TWO_PROMOTED: &str = "two databases are promoted";
const REGISTER_MOVED: &str = "an epoch is opened where the register has moved to";

fn is_long() -> bool {
    std::env::var("DR_MODEL").is_ok_and(|value| value == "long")
}

/// Two receivers of one timeline with different cuts, and a failover that seals under them.
fn race() -> Scenario {
    Scenario {
        receivers: vec![(WEST, vec![1, 2]), (WEST, vec![2])],
        executors: vec![TO_WEST],
        log_bytes: 3,
        ..Scenario::default()
    }
}

/// One receiver, a failover, and a standby that has received some log.
fn failover() -> Scenario {
    Scenario {
        receivers: vec![(WEST, vec![1, 2])],
        executors: vec![TO_WEST],
        log_bytes: 3,
        ..Scenario::default()
    }
}

/// Clients commit on the old primary, and whom they wait for is changed while it is lost.
fn synchronous(executors: Vec<Goal>) -> Scenario {
    Scenario {
        receivers: vec![(WEST, vec![1])],
        executors,
        log_bytes: 2,
        commits: true,
        ..Scenario::default()
    }
}

/// One receiver, a failover, and a store in which links are removed once they are old.
fn compaction() -> Scenario {
    Scenario {
        receivers: vec![(WEST, vec![1])],
        log_bytes: 2,
        moments: 3,
        compacted: vec![WEST],
        ..failover()
    }
}

/// The same beside an old receiver with cuts of its own, which may sleep as long as it likes.
fn old_receiver() -> Scenario {
    Scenario {
        receivers: vec![(WEST, vec![1]), (WEST, vec![3])],
        log_bytes: 3,
        ..compaction()
    }
}

/// Two opposite failovers; the loser of the epoch tries again with the next.
fn opposite() -> Scenario {
    Scenario {
        receivers: vec![(WEST, vec![1]), (SOUTH, vec![1])],
        executors: vec![TO_WEST, TO_SOUTH],
        log_bytes: 1,
        ..Scenario::default()
    }
}

/// A failover, somebody who takes it over, and somebody who gives the place back to the old primary.
fn takeover() -> Scenario {
    Scenario {
        executors: vec![TO_WEST, TAKE_OVER, Goal::Undo],
        ..Scenario::default()
    }
}

/// A failover that leaves the register with the new primary, its move away, and a failover that wants the same epoch.
fn register_moves() -> Scenario {
    Scenario {
        executors: vec![TO_WEST, MOVE_REGISTER, TO_SOUTH],
        ..Scenario::default()
    }
}

/// Everybody at once, too large to be checked completely.
fn crowd() -> Scenario {
    Scenario {
        receivers: vec![
            (WEST, vec![1, 2, 3]),
            (WEST, vec![1, 2]),
            (SOUTH, vec![1, 2]),
        ],
        executors: vec![TO_WEST, TO_SOUTH, TAKE_OVER, Goal::Undo, MOVE_REGISTER],
        log_bytes: 6,
        faults: 6,
        deaths: 3,
        old_reads: true,
        standby_bytes: 3,
        moments: 6,
        compacted: vec![WEST, SOUTH],
        ..Scenario::default()
    }
}

/// Fails with the events that led there if an invariant does not hold, or if something expected is not possible.
fn judge(checker: &impl Checker<Scenario>, expected: &[&'static str]) {
    println!(
        "{} states, {} of them different, depth {}",
        checker.state_count(),
        checker.unique_state_count(),
        checker.max_depth()
    );
    for property in checker.model().properties() {
        let discovery = checker.discovery(property.name);
        match property.expectation {
            Expectation::Always => {
                let events = discovery.map(stateright::Path::into_actions);
                assert_eq!(events, None, "does not hold: {}", property.name);
            }
            _ if expected.contains(&property.name) => {
                assert!(discovery.is_some(), "never happens: {}", property.name);
            }
            _ => {}
        }
    }
}

#[rstest]
#[case::race(race(), &[ALL_ACKNOWLEDGED, RECEIVER_SUPERSEDED, ENDS_WELL, PROMOTED])]
#[case::faults(
    Scenario { faults: 2, log_bytes: 2, ..failover() },
    &[ALL_ACKNOWLEDGED, RECEIVER_SUPERSEDED, PROMOTED]
)]
#[case::death(
    Scenario { deaths: 1, log_bytes: 2, old_reads: true, ..failover() },
    &[ALL_ACKNOWLEDGED, RECEIVER_SUPERSEDED, PROMOTED]
)]
#[case::standby_ahead(
    Scenario { standby_bytes: 2, log_bytes: 3, ..failover() },
    &[ALL_ACKNOWLEDGED, RECEIVER_SUPERSEDED, PROMOTED]
)]
#[case::compaction(compaction(), &[ALL_ACKNOWLEDGED, RECEIVER_SUPERSEDED, PROMOTED, REMOVED])]
#[case::opposite(opposite(), &[LOSES, SUPERSEDED, TWO_PROMOTED, RECEIVER_SUPERSEDED])]
#[case::takeover(takeover(), &[TAKEN_OVER, SUPERSEDED, ENDS_WELL, PROMOTED])]
#[case::synchronous(synchronous(vec![TO_WEST]), &[PROVEN, RECEIVER_SUPERSEDED])]
#[case::wait_no_more(synchronous(vec![TO_WEST, WAIT_NO_MORE]), &[PROVEN, STOPS_WAITING, LOSES])]
#[case::wait_again(
    Scenario { log_bytes: 1, ..synchronous(vec![TO_WEST, WAIT_NO_MORE, WAIT]) },
    &[PROVEN, PROVEN_LATER, STOPS_WAITING, LOSES]
)]
#[case::register_moves(register_moves(), &[LOSES, ENDS_WELL, TWO_PROMOTED, REGISTER_MOVED])]
fn small_worlds_are_sound(#[case] scenario: Scenario, #[case] expected: &[&'static str]) {
    let checker = scenario.checker().spawn_bfs().join();
    judge(&checker, expected);
}

#[rstest]
#[case::race(Scenario { faults: 1, ..race() })]
#[case::race_and_death(Scenario { deaths: 1, faults: 1, log_bytes: 2, ..race() })]
#[case::race_and_old_reads(Scenario { old_reads: true, standby_bytes: 2, ..race() })]
#[case::old_receiver(old_receiver())]
#[case::compaction_and_faults(
    Scenario { faults: 1, old_reads: true, log_bytes: 3, ..compaction() }
)]
#[case::everything_with_one_receiver(
    Scenario { faults: 1, deaths: 1, standby_bytes: 2, log_bytes: 3, ..failover() }
)]
#[case::opposite(Scenario { faults: 1, standby_bytes: 1, ..opposite() })]
#[case::takeover(Scenario { faults: 1, old_reads: true, ..takeover() })]
#[case::takeover_and_opposite(
    Scenario { faults: 1, executors: vec![TO_WEST, TAKE_OVER, TO_SOUTH], ..takeover() }
)]
#[case::wait_again(synchronous(vec![TO_WEST, WAIT_NO_MORE, WAIT]))]
#[case::wait_again_and_fault(
    Scenario { faults: 1, deaths: 1, ..synchronous(vec![TO_WEST, WAIT_NO_MORE, WAIT]) }
)]
#[case::register_moves(Scenario { faults: 1, old_reads: true, ..register_moves() })]
fn larger_worlds_are_sound(#[case] scenario: Scenario) {
    if is_long() {
        let checker = scenario.checker().threads(2).spawn_bfs().join();
        judge(&checker, &[PROMOTED]);
    } else {
        // As deep as a second or so reaches.
        let builder = scenario.checker().target_state_count(15_000);
        judge(&builder.spawn_bfs().join(), &[]);
    }
}

#[test]
fn random_walks_through_a_crowd_are_sound() {
    let (seeds, states) = if is_long() {
        (1..=20, 100_000)
    } else {
        (1..=3, 20_000)
    };
    for seed in seeds {
        println!("seed {seed}");
        let builder = crowd().checker().target_state_count(states);
        let checker = builder.spawn_simulation(seed, UniformChooser).join();
        judge(&checker, &[PROMOTED, RECEIVER_SUPERSEDED]);
    }
}

/// A model that notices nothing would pass as well.
fn is_noticed(scenario: Scenario, by: &[&'static str]) {
    // Many things can happen in any order where clients commit: what is wrong is found sooner by walking than by breadth.
    if scenario.commits && !scenario.in_order {
        let builder = scenario.checker().finish_when(HasDiscoveries::AnyFailures);
        let builder = builder.target_state_count(5_000_000);
        names_what_is_broken(&builder.spawn_simulation(1, UniformChooser).join(), by);
    } else {
        let builder = scenario.checker().finish_when(HasDiscoveries::AnyFailures);
        names_what_is_broken(&builder.spawn_bfs().join(), by);
    }
}

fn names_what_is_broken(checker: &impl Checker<Scenario>, by: &[&'static str]) {
    let broken = |name: &&'static str| checker.discovery(name).is_some();
    let noticed: Vec<_> = checker
        .model()
        .properties()
        .iter()
        .filter(|property| property.expectation == Expectation::Always)
        .map(|property| property.name)
        .filter(broken)
        .collect();
    println!(
        "noticed by {noticed:?} after {} states",
        checker.state_count()
    );
    assert!(noticed.iter().any(|name| by.contains(name)), "{noticed:?}");
}

#[rstest]
#[case::non_contiguous(
    Mutation::AcknowledgeNonContiguous, failover(), &[invariants::ACKNOWLEDGED_IS_STORED]
)]
#[case::ignore_seal(
    Mutation::IgnoreSeal, failover(),
    &[invariants::ACKNOWLEDGED_IS_STORED, invariants::NOTHING_AFTER_SEAL]
)]
#[case::trust_taken_key(
    Mutation::TrustTakenKey, race(), &[invariants::ACKNOWLEDGED_IS_STORED]
)]
#[case::adopt_without_cutting(
    Mutation::AdoptWithoutCutting, race(), &[invariants::ACKNOWLEDGED_IS_STORED]
)]
#[case::use_old_knowledge(
    Mutation::UseOldKnowledge, old_receiver(),
    &[invariants::NOTHING_AFTER_SEAL, invariants::ACKNOWLEDGED_IS_STORED]
)]
#[case::seal_trusts_taken_key(
    Mutation::SealTrustsTakenKey, failover(), &[invariants::PROMOTED_HOLDS_ALL]
)]
fn a_wrong_rule_in_the_shipped_code_is_noticed(
    #[case] mutation: Mutation,
    #[case] scenario: Scenario,
    #[case] by: &[&'static str],
) {
    let mutation = Some(mutation);
    is_noticed(
        Scenario {
            mutation,
            ..scenario
        },
        by,
    );
}

#[rstest]
#[case::seal_overwrites(
    Wrong::SealOverwrites, failover(),
    &[invariants::NOTHING_AFTER_SEAL, invariants::ACKNOWLEDGED_IS_STORED]
)]
#[case::register_overwrites(Wrong::RegisterOverwrites, opposite(), &[invariants::ONE_WINNER])]
#[case::timeline_reused(Wrong::TimelineReused, opposite(), &[invariants::ONE_TIMELINE])]
#[case::promote_before_seal(
    Wrong::PromoteBeforeSeal, failover(), &[invariants::PROMOTED_HOLDS_ALL]
)]
#[case::hosts_ignore_epochs(Wrong::HostsIgnoreEpochs, takeover(), &[invariants::FENCED])]
#[case::names_unconditional(Wrong::NamesUnconditional, opposite(), &[invariants::FENCED])]
#[case::seal_off_chain(
    Wrong::SealOffChain, Scenario { standby_bytes: 1, ..failover() },
    &[invariants::PROMOTED_HOLDS_ALL]
)]
#[case::remove_early(
    Wrong::RemoveEarly, old_receiver(),
    &[invariants::NOTHING_AFTER_SEAL, invariants::ACKNOWLEDGED_IS_STORED]
)]
#[case::ignore_floor(
    Wrong::IgnoreFloor, compaction(),
    &[invariants::PROMOTED_HOLDS_ALL, invariants::ACKNOWLEDGED_IS_STORED]
)]
#[case::seal_old_tail(
    Wrong::SealOldTail, Scenario { log_bytes: 3, ..compaction() },
    &[invariants::PROMOTED_HOLDS_ALL]
)]
#[case::register_moved_aside(
    Wrong::RegisterMovedAside, register_moves(), &[invariants::ONE_WINNER]
)]
#[case::promote_unobserved(Wrong::PromoteUnobserved, takeover(), &[invariants::ONE_TIMELINE])]
#[case::names_before_record(
    Wrong::NamesBeforeRecord, synchronous(vec![TO_WEST, WAIT_NO_MORE]),
    &[invariants::PROVEN_LOSES_NOTHING]
)]
#[case::sync_unlocked(
    Wrong::SyncUnlocked, synchronous(vec![TO_WEST, WAIT_NO_MORE, WAIT]),
    &[invariants::PROVEN_LOSES_NOTHING]
)]
#[case::promise_of_any_epoch(
    Wrong::PromiseOfAnyEpoch,
    Scenario { in_order: true, ..synchronous(vec![WAIT_NO_MORE, WAIT, TO_WEST]) },
    &[invariants::PROVEN_LOSES_NOTHING]
)]
#[case::promise_from_anywhere(
    Wrong::PromiseFromAnywhere,
    Scenario { in_order: true, ..synchronous(vec![WAIT_NO_MORE, WAIT, TO_WEST]) },
    &[invariants::PROVEN_LOSES_NOTHING]
)]
fn a_wrong_rule_around_it_is_noticed(
    #[case] wrong: Wrong,
    #[case] scenario: Scenario,
    #[case] by: &[&'static str],
) {
    let wrong = Some(wrong);
    is_noticed(Scenario { wrong, ..scenario }, by);
}
