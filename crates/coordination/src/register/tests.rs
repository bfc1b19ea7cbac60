//! Tests of the register on stores in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use dr_model::{Epoch, Lsn, RegionName, SystemIdentifier, TimelineId, WorkloadName};
use dr_provider::{ErrorKind, ObjectStore};
use rstest::rstest;

use super::{ClusterClaim, EpochRecord, Error, FORMAT_VERSION, Register, next_timeline};
use crate::testing::{Fault, IMPATIENT, Scripted, actor, at};

fn region(name: &str) -> RegionName {
    name.parse().unwrap()
}

fn workload() -> WorkloadName {
    "orders".parse().unwrap()
}

struct World {
    east: Arc<Scripted>,
    west: Arc<Scripted>,
    register: Register,
}

fn world() -> World {
    let (east, west) = (Scripted::new("east"), Scripted::new("west"));
    let stores: BTreeMap<RegionName, Arc<dyn ObjectStore>> = BTreeMap::from([
        (region("east"), east.clone() as Arc<dyn ObjectStore>),
        (region("west"), west.clone() as Arc<dyn ObjectStore>),
    ]);
    let register = Register::new(workload(), stores, region("west")).with_patience(IMPATIENT);
    World {
        east,
        west,
        register,
    }
}

fn record(epoch: u64, primary: &str, timeline: u32, execution: Option<&str>) -> EpochRecord {
    EpochRecord {
        version: FORMAT_VERSION,
        epoch: Epoch(epoch),
        workload: workload(),
        primary: region(primary),
        register: region("west"),
        clusters: BTreeMap::from([(
            "database".parse().unwrap(),
            ClusterClaim {
                system_identifier: SystemIdentifier(7_300_000_000_000_000_001),
                timeline: TimelineId(timeline),
                start_lsn: (epoch == 1).then_some(Lsn(0x300_0000)),
                log_epoch: None,
            },
        )]),
        sync: BTreeMap::new(),
        created_at: at(i64::try_from(epoch).unwrap()),
        created_by: actor(1),
        reason: "first".to_owned(),
        sync_lost: std::collections::BTreeMap::new(),
        execution: execution.map(|id| id.parse().unwrap()),
        override_reason: None,
    }
}

#[tokio::test]
async fn epochs_are_dense_and_read_back() {
    let w = world();
    assert_eq!(w.register.read().await.unwrap(), None);
    let early = w.register.create(&record(2, "west", 2, Some("x"))).await;
    assert!(matches!(early, Err(Error::Invalid { .. })), "{early:?}");
    for (epoch, primary, timeline) in [(1, "east", 1), (2, "west", 2), (3, "east", 3)] {
        let wanted = record(epoch, primary, timeline, Some(&format!("x{epoch}")));
        let opened = w.register.create(&wanted).await.unwrap();
        assert_eq!((opened.record, opened.existed), (wanted.clone(), false));
        assert_eq!(w.register.read().await.unwrap(), Some(wanted));
    }
    let all = w.register.read_all().await.unwrap();
    let cluster = SystemIdentifier(7_300_000_000_000_000_001);
    assert_eq!(next_timeline(&all, cluster), Some(TimelineId(4)));
}

#[tokio::test]
async fn the_loser_is_told_who_won() {
    let w = world();
    w.register
        .create(&record(1, "east", 1, None))
        .await
        .unwrap();
    let mut rival = record(2, "west", 2, Some("b"));
    rival.created_by = actor(2);
    let mine = record(2, "east", 2, Some("a"));
    let (a, b) = tokio::join!(w.register.create(&mine), w.register.create(&rival));
    let (won, lost) = if a.is_ok() { (a, b) } else { (b, a) };
    let won = won.unwrap().record;
    match lost {
        Err(Error::Lost { winner }) => assert_eq!(*winner, won),
        other => panic!("{other:?}"),
    }
    let again = w.register.create(&won).await.unwrap();
    assert!(again.existed);
}

#[rstest]
#[case(Fault::AnswerLost)]
#[case(Fault::RequestLost)]
#[case(Fault::Unavailable)]
#[tokio::test(start_paused = true)]
async fn a_fault_during_create_is_resolved(#[case] fault: Fault) {
    let w = world();
    w.west.script([fault]);
    let first = record(1, "east", 1, None);
    let opened = w.register.create(&first).await.unwrap();
    assert!(!opened.existed);
    assert_eq!(w.register.read().await.unwrap(), Some(first));
}

#[tokio::test(start_paused = true)]
async fn giving_up_is_definite_only_if_nothing_can_have_happened() {
    let w = world();
    w.west.script([Fault::Unavailable; 3]);
    let error = w
        .register
        .create(&record(1, "east", 1, None))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    w.west
        .script([Fault::AnswerLost, Fault::Unavailable, Fault::Unavailable]);
    let error = w
        .register
        .create(&record(1, "east", 1, None))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unknown);
    assert!(w.register.read().await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_register_is_an_error_and_never_a_guess() {
    let w = world();
    w.register
        .create(&record(1, "east", 1, None))
        .await
        .unwrap();
    w.register.copy_to(&region("east")).await.unwrap();
    w.west.set_down(true);
    match w.register.read().await {
        Err(Error::Unreachable { region, epoch, .. }) => {
            assert_eq!((region.as_str(), epoch), ("west", Epoch(2)));
        }
        other => panic!("{other:?}"),
    }
    let refused = w.register.create(&record(2, "west", 2, Some("a"))).await;
    assert!(matches!(refused, Err(Error::Unreachable { .. })));
    let views = w.register.read_copies().await;
    let seen = |name: &str| views.iter().find(|v| v.region.as_str() == name).unwrap();
    assert!(seen("west").newest.is_err());
    let copy = seen("east").newest.as_ref().unwrap().as_ref().unwrap();
    assert_eq!(copy.epoch, Epoch(1));
}

#[tokio::test(start_paused = true)]
async fn a_moved_register_needs_only_copies_of_what_is_lost() {
    let w = world();
    w.register
        .create(&record(1, "east", 1, None))
        .await
        .unwrap();
    let mut moved = record(2, "west", 2, Some("a"));
    moved.register = region("east");
    w.register.create(&moved).await.unwrap();
    w.west.set_down(true);
    assert!(
        w.register.read().await.is_err(),
        "east knows nothing of record 1"
    );
    w.west.set_down(false);
    assert_eq!(w.register.copy_to(&region("east")).await.unwrap(), 2);
    assert_eq!(w.register.copy_to(&region("east")).await.unwrap(), 0);
    w.west.set_down(true);
    assert_eq!(w.register.read().await.unwrap(), Some(moved));
    let third = record(3, "east", 3, Some("b"));
    w.register.create(&third).await.unwrap();
    let key = EpochRecord::key(&workload(), Epoch(3));
    assert!(w.east.get(&key).await.is_ok());
}

#[tokio::test]
async fn an_emptied_register_is_noticed() {
    let w = world();
    w.register
        .create(&record(1, "east", 1, None))
        .await
        .unwrap();
    w.register.copy_to(&region("east")).await.unwrap();
    let key = EpochRecord::key(&workload(), Epoch(1));
    w.west.delete(&key).await.unwrap();
    assert!(matches!(
        w.register.read().await,
        Err(Error::Damaged { .. })
    ));
    let again = w.register.create(&record(1, "west", 1, None)).await;
    assert!(matches!(again, Err(Error::Damaged { .. })), "{again:?}");
}

#[rstest]
#[case::other_region_takes_a_claimed_timeline("west", 1, false)]
#[case::next("west", 3, true)]
#[case::between("west", 2, true)]
#[case::undo_of_a_seal("east", 1, true)]
#[case::never_claimed_but_older("west", 0, false)]
fn timelines_are_claimed_once(#[case] primary: &str, #[case] timeline: u32, #[case] allowed: bool) {
    let history = [record(1, "east", 1, None)];
    let claim = record(2, primary, timeline, Some("a"));
    assert_eq!(super::claims::check(&history, &claim).is_ok(), allowed);
}

#[tokio::test]
async fn a_damaged_record_is_named() {
    let w = world();
    let key = EpochRecord::key(&workload(), Epoch(1));
    w.west
        .create(&key, record(2, "east", 1, None).to_bytes())
        .await
        .unwrap();
    match w.register.read().await {
        Err(Error::Damaged { epoch, .. }) => assert_eq!(epoch, Epoch(1)),
        other => panic!("{other:?}"),
    }
}

/// A chain is gone on with only as long as nothing but the sync set changes.
#[test]
fn a_chain_is_gone_on_with_only_by_the_same_primary() {
    let database = "database".parse().unwrap();
    let first = record(1, "east", 1, None);
    let second = first.with_synchronous(&database, vec![region("west")], None);
    let third = second.with_synchronous(&database, Vec::new(), None);
    let history = [first.clone(), second.clone()];
    assert_eq!(third.chain(&database), first.chain(&database));
    assert_eq!(super::claims::check(&history, &third), Ok(()));
    let reject = |record: &EpochRecord, history: &[EpochRecord]| {
        super::claims::check(history, record).unwrap_err();
    };
    // The chain of epoch 2 has never been: epoch 2 went on with that of epoch 1.
    let mut invented = third.clone();
    invented.clusters.get_mut(&database).unwrap().log_epoch = Some(Epoch(2));
    reject(&invented, &history);
    let mut moved = third.clone();
    moved.primary = region("west");
    reject(&moved, &history);
    // After a failover and the way back, the old chain is sealed.
    let away = record(3, "west", 2, Some("x"));
    let mut back = third;
    back.epoch = Epoch(4);
    reject(&back, &[first, second, away]);
}
