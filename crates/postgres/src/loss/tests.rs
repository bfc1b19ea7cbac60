use std::collections::BTreeMap;

use dr_model::{Epoch, Lsn, SystemIdentifier, TimelineId};
use dr_provider::driver::{ClaimFacts, PromiseFacts, RegionFacts};
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
        shipped_at: Some(at(100)),
        last_commit_at: Some(at(99)),
        commits_per_second: Some(50.0),
        covered_at: Some(at(98)),
        promise: None,
        recovery_points: Vec::new(),
        unusable: Vec::new(),
        earlier: None,
    }
}

fn facts(instance: Instance, log: Result<Option<LogFacts>, String>) -> Facts {
    let seen = RegionFacts {
        instance,
        log,
        detail: serde_json::Value::Null,
        late: Vec::new(),
    };
    Facts {
        observed_at: at(105),
        system_identifier: Some(SystemIdentifier(7)),
        claim: None,
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
#[case::store_level(Instance::Absent, 1000, 0.0, 0, 0, 100, 1000)]
// It lacks 200 bytes: covered when it last had everything.
#[case::store_behind(Instance::Absent, 1200, 2.0, 200, 100, 98, 1000)]
// The standby has them.
#[case::standby_ahead(standby(1300), 1200, 0.0, 0, 0, 100, 1200)]
// The standby is behind the store, which counts.
#[case::standby_behind(standby(900), 1200, 2.0, 200, 100, 98, 1000)]
fn the_further_of_store_and_standby_counts(
    #[case] instance: Instance,
    #[case] primary_end: u64,
    #[case] delay_seconds: f64,
    #[case] missing_bytes: u64,
    #[case] commits: u64,
    #[case] since: i64,
    #[case] rests_on: u64,
) {
    let found = loss_of(&facts(instance, Ok(Some(log(primary_end)))));
    let expected = Estimate {
        delay_seconds,
        missing_bytes,
        commits: Some(commits),
        last_contact: at(100),
        lived_on_seconds: 0.0,
    };
    assert_eq!(found.estimate, Some(expected));
    assert_eq!(
        found.bound,
        Bound::Growing {
            since: Some(at(since))
        }
    );
    assert_eq!(found.rests_on, Some((TimelineId(1), Lsn(rests_on))));
}

/// Nobody ships any more, and the standby streams on.
#[test]
fn a_standby_that_streams_is_in_contact() {
    let mut facts = facts(standby(5000), Ok(Some(log(1200))));
    let seen = facts.regions.get_mut(&region("us-west-2")).unwrap();
    seen.detail = serde_json::json!({
        "host": "west",
        "data_directory": "/db",
        "directory": { "Err": "not looked at" },
        "claimed": null,
        "replayed_at": at(104),
    });
    let found = loss_of(&facts);
    assert_eq!(found.rests_on, Some((TimelineId(1), Lsn(5000))));
    let found = found.estimate.unwrap();
    assert_eq!((found.delay_seconds, found.last_contact), (0.0, at(104)));
    // What has replayed no more than is shipped says nothing more.
    facts
        .regions
        .get_mut(&region("us-west-2"))
        .unwrap()
        .instance = standby(900);
    assert_eq!(loss_of(&facts).estimate.unwrap().last_contact, at(100));
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

/// The store covers all that it was told of, in an epoch whose branch was thrown away.
#[rstest]
#[case::of_an_epoch_before(2, None)]
#[case::of_this_epoch(1, Some(0.0))]
fn the_chain_of_an_earlier_epoch_says_nothing_of_a_new_log(
    #[case] log_epoch: u64,
    #[case] delay_seconds: Option<f64>,
) {
    let mut facts = facts(standby(1000), Ok(Some(log(1000))));
    facts.claim = Some(ClaimFacts {
        epoch: Epoch(3),
        proven: true,
        log_epoch: Epoch(log_epoch),
        timeline: TimelineId(2),
        sync: Vec::new(),
        sync_lost: None,
    });
    let found = loss_of(&facts);
    assert_eq!(
        found.estimate.map(|estimate| estimate.delay_seconds),
        delay_seconds
    );
    let says = found.because[0].contains("nothing of what epoch 2 writes (timeline 2)");
    assert_eq!(says, delay_seconds.is_none(), "{:?}", found.because);
}

fn promised(held: bool, second: i64, epoch: u64, from: u64) -> PromiseFacts {
    PromiseFacts {
        held,
        checked_at: at(second),
        reasons: match held {
            true => Vec::new(),
            false => vec!["role app: synchronous_commit=local".to_owned()],
        },
        epoch: Epoch(epoch),
        from: held.then_some(Lsn(from)),
    }
}

/// What epoch 2 says: commits wait for these regions.
fn claim(sync: &[&str]) -> ClaimFacts {
    ClaimFacts {
        epoch: Epoch(2),
        proven: true,
        log_epoch: Epoch(1),
        timeline: TimelineId(1),
        sync: sync.iter().map(|name| region(name)).collect(),
        sync_lost: None,
    }
}

#[rstest]
#[case::held(Some(promised(true, 96, 2, 900)), "held at")]
#[case::too_old(Some(promised(true, 94, 2, 900)), "more than 10 s")]
#[case::broken(
    Some(promised(false, 104, 2, 900)),
    "role app: synchronous_commit=local"
)]
#[case::of_an_earlier_epoch(Some(promised(true, 104, 1, 900)), "under epoch 1")]
#[case::from_beyond_the_store(
    Some(promised(true, 104, 2, 1001)),
    "up to there is not in the store"
)]
#[case::never_recorded(None, "never recorded")]
fn a_promise_has_to_have_held_just_before(
    #[case] promise: Option<PromiseFacts>,
    #[case] said: &str,
) {
    let mut held = log(1000);
    held.promise = promise;
    let mut facts = facts(Instance::Absent, Ok(Some(held)));
    facts.claim = Some(claim(&["us-west-2"]));
    let found = loss_of(&facts);
    assert_eq!(found.sealing_proves_zero, said == "held at");
    let line = found.because.iter().find(|line| line.contains(said));
    let line = line.unwrap_or_else(|| panic!("{:?}", found.because));
    assert!(found.sealing_proves_zero || line.starts_with("conditional"));
}

/// What the configuration wishes for is no promise: the record is.
#[rstest]
#[case::no_record(None, "no epoch says")]
#[case::asynchronous(Some(claim(&[])), "`dr sync enable`")]
#[case::for_another(Some(claim(&["eu-west-1"])), "`dr sync enable`")]
#[case::only_a_copy(
    Some(ClaimFacts { proven: false, ..claim(&["us-west-2"]) }), "the register cannot be read"
)]
#[case::lost(
    Some(ClaimFacts { sync_lost: Some((Lsn(700), vec![region("us-west-2")])), ..claim(&[]) }),
    "lost at 0/2BC"
)]
fn only_the_record_promises(#[case] claim: Option<ClaimFacts>, #[case] said: &str) {
    let mut held = log(1000);
    held.promise = Some(promised(true, 104, 2, 900));
    let mut facts = facts(Instance::Absent, Ok(Some(held)));
    facts.claim = claim;
    let mut wishing = options();
    wishing.sync = vec![region("us-west-2")];
    let found = loss(&wishing, &region("us-west-2"), &facts);
    assert!(!found.sealing_proves_zero);
    assert!(
        found.because.iter().any(|line| line.contains(said)),
        "{:?}",
        found.because
    );
}
