use std::collections::BTreeMap;

use dr_model::{Epoch, Lsn, SystemIdentifier, TimelineId};
use dr_provider::driver::RegionFacts;
use jiff::Timestamp;
use rstest::rstest;

use super::*;
use crate::options::tests::{options, region};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// A log that ends at 1000, whose newest chunk was reported at 100 s and said that the primary's ends at `primary_end`.
fn log(primary_end: u64) -> LogFacts {
    LogFacts {
        epoch: Epoch(1),
        timeline: TimelineId(1),
        start: Lsn(0),
        end: Lsn(1000),
        missing: Vec::new(),
        sealed: false,
        primary_end: Lsn(primary_end),
        received_at: Some(at(100)),
        last_commit_at: Some(at(99)),
        commits_per_second: Some(50.0),
        covered_at: Some(at(98)),
        promise: None,
        recovery_points: Vec::new(),
    }
}

fn facts(instance: Instance, log: Result<Option<LogFacts>, String>) -> Facts {
    let seen = RegionFacts {
        instance,
        log,
        detail: serde_json::Value::Null,
    };
    Facts {
        observed_at: at(105),
        system_identifier: Some(SystemIdentifier(7)),
        regions: BTreeMap::from([(region("us-west-2"), seen)]),
    }
}

fn standby(position: u64) -> Instance {
    Instance::Running {
        role: Role::Standby,
        timeline: TimelineId(1),
        position: Lsn(position),
        replayed: Some(Lsn(position)),
    }
}

fn loss_of(facts: &Facts) -> LossFacts {
    loss(&options(), &region("us-west-2"), facts)
}

#[rstest]
// The store has all that was reported: covered at that moment.
#[case::store_level(Instance::Absent, 1000, 0.0, 0, 0, 100)]
// It lacks 200 bytes: covered when it last had everything.
#[case::store_behind(Instance::Absent, 1200, 2.0, 200, 100, 98)]
// The standby has them.
#[case::standby_ahead(standby(1300), 1200, 0.0, 0, 0, 100)]
// The standby is behind the store, which counts.
#[case::standby_behind(standby(900), 1200, 2.0, 200, 100, 98)]
fn the_further_of_store_and_standby_counts(
    #[case] instance: Instance,
    #[case] primary_end: u64,
    #[case] delay_seconds: f64,
    #[case] missing_bytes: u64,
    #[case] commits: u64,
    #[case] since: i64,
) {
    let found = loss_of(&facts(instance, Ok(Some(log(primary_end)))));
    let expected = Estimate {
        delay_seconds,
        missing_bytes,
        commits: Some(commits),
        last_contact: at(100),
    };
    assert_eq!(found.estimate, Some(expected));
    assert_eq!(
        found.bound,
        Bound::Growing {
            since: Some(at(since))
        }
    );
}

#[test]
fn a_standby_on_another_timeline_does_not_count() {
    let mut other = standby(5000);
    if let Instance::Running { timeline, .. } = &mut other {
        *timeline = TimelineId(2);
    }
    let found = loss_of(&facts(other, Ok(Some(log(1200)))));
    assert_eq!(found.estimate.unwrap().missing_bytes, 200);
}

#[rstest]
#[case::unreadable(Err("no route to host".to_owned()))]
#[case::empty(Ok(None))]
fn what_cannot_be_seen_has_no_estimate(#[case] log: Result<Option<LogFacts>, String>) {
    let found = loss_of(&facts(Instance::Absent, log));
    assert_eq!(found.estimate, None);
    assert_eq!(found.bound, Bound::Growing { since: None });
    assert!(!found.because.is_empty());
}

#[rstest]
#[case::held(Some((true, at(96))), true)]
#[case::too_old(Some((true, at(94))), false)]
#[case::broken(Some((false, at(104))), false)]
#[case::never_recorded(None, false)]
fn a_promise_has_to_have_held_just_before(
    #[case] promise: Option<(bool, Timestamp)>,
    #[case] proves: bool,
) {
    let mut held = log(1000);
    held.promise = promise;
    let facts = facts(Instance::Absent, Ok(Some(held)));
    let mut synchronous = options();
    synchronous.sync = vec![region("us-west-2")];
    let found = loss(&synchronous, &region("us-west-2"), &facts);
    assert_eq!(found.sealing_proves_zero, proves);
    assert!(
        proves
            || found
                .because
                .iter()
                .any(|line| line.starts_with("conditional"))
    );
    // Without synchronous mode nothing is promised, whatever was recorded.
    assert!(!loss_of(&facts).sealing_proves_zero);
}
