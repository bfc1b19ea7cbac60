//! Tests of the register on stores in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use dr_model::{Epoch, Lsn, RegionName, SystemIdentifier, TimelineId, WorkloadName};
use dr_provider::{ErrorKind, ObjectStore};
use rstest::rstest;

use super::walked::Walked;
use super::{ClusterClaim, EpochRecord, Error, FORMAT_VERSION, Register, next_timeline};
use crate::testing::{Fault, IMPATIENT, Scripted, actor, at};

pub(super) fn region(name: &str) -> RegionName {
    name.parse().unwrap()
}

pub(super) fn workload() -> WorkloadName {
    "orders".parse().unwrap()
}

struct World {
    east: Arc<Scripted>,
    west: Arc<Scripted>,
    register: Register,
}

fn world() -> World {
    let (east, west) = (Scripted::new("east"), Scripted::new("west"));
    let register = register(&east, &west);
    World {
        east,
        west,
        register,
    }
}

/// A client of its own, as another process has.
fn register(east: &Arc<Scripted>, west: &Arc<Scripted>) -> Register {
    let stores: BTreeMap<RegionName, Arc<dyn ObjectStore>> = BTreeMap::from([
        (region("east"), east.clone() as Arc<dyn ObjectStore>),
        (region("west"), west.clone() as Arc<dyn ObjectStore>),
    ]);
    Register::new(workload(), stores, region("west")).with_patience(IMPATIENT)
}

pub(super) fn record(
    epoch: u64,
    primary: &str,
    timeline: u32,
    execution: Option<&str>,
) -> EpochRecord {
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
        guards: std::collections::BTreeMap::new(),
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
        Err(Error::Damaged { epoch, hint, .. }) => {
            assert_eq!(epoch, Epoch(1));
            let copy = EpochRecord::copy_key(&workload(), Epoch(1));
            assert!(hint.unwrap().contains(copy.as_str()));
        }
        other => panic!("{other:?}"),
    }
    // Where there is no other store there is no copy.
    let only: Arc<dyn ObjectStore> = w.west.clone();
    let only = BTreeMap::from([(region("west"), only)]);
    let alone = Register::new(workload(), only, region("west")).with_patience(IMPATIENT);
    match alone.read().await {
        Err(error @ Error::Damaged { .. }) => assert_eq!(error.hint(), None),
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

/// Opens epochs 1 to `last`, with copies of all of them in both stores.
async fn filled(last: u64) -> World {
    let w = world();
    for epoch in 1..=last {
        let primary = if epoch % 2 == 1 { "east" } else { "west" };
        let timeline = u32::try_from(epoch).unwrap();
        let record = record(epoch, primary, timeline, Some(&format!("x{epoch}")));
        w.register.create(&record).await.unwrap();
    }
    for name in ["east", "west"] {
        w.register.copy_to(&region(name)).await.unwrap();
    }
    w
}

fn damage(result: Result<impl std::fmt::Debug, Error>) -> (String, String) {
    match result {
        Err(error @ Error::Damaged { .. }) => (error.to_string(), error.hint().unwrap().to_owned()),
        other => panic!("{other:?}"),
    }
}

/// A gap, and a tail that went back: the copies know better, and so does a record behind the gap. Nothing is opened.
#[rstest]
#[case::gap(&[2], 2)]
#[case::tail(&[3, 4], 3)]
#[case::newest(&[4], 4)]
#[case::all(&[1, 2, 3, 4], 1)]
#[tokio::test]
async fn a_register_with_records_missing_is_not_believed(
    #[case] gone: &[u64],
    #[case] missing: u64,
    #[values(true, false)] copies: bool,
) {
    let w = filled(4).await;
    let keys = |epoch| {
        let copy = EpochRecord::copy_key(&workload(), Epoch(epoch));
        (EpochRecord::key(&workload(), Epoch(epoch)), copy)
    };
    for epoch in gone {
        w.west.delete(&keys(*epoch).0).await.unwrap();
    }
    if !copies {
        if gone.last() == Some(&4) {
            return; // Nothing is left that would tell.
        }
        for epoch in 1..=4 {
            w.west.delete(&keys(epoch).1).await.unwrap();
            w.east.delete(&keys(epoch).1).await.unwrap();
        }
    }
    let (why, hint) = damage(w.register.read().await);
    let (key, copy) = keys(missing);
    assert!(
        why.contains(copy.as_str()) || why.contains(key.as_str()),
        "{why}"
    );
    assert!(hint.contains(key.as_str()), "{hint}");
    assert_eq!(hint.contains(copy.as_str()), copies, "{hint}");
    let rival = record(missing, "west", 9, Some("rival"));
    damage(w.register.create(&rival).await);
    assert!(w.west.get(&key).await.is_err(), "it was opened");
    if copies {
        // What the hint says: the copies go back where the records were.
        for epoch in gone {
            let (key, copy) = keys(*epoch);
            let bytes = w.east.get(&copy).await.unwrap();
            w.west.create(&key, bytes).await.unwrap();
        }
        let newest = w.register.read().await.unwrap().unwrap();
        assert_eq!(newest.epoch, Epoch(4));
    }
}

#[tokio::test]
async fn a_copy_that_differs_is_named() {
    let w = filled(2).await;
    let copy = EpochRecord::copy_key(&workload(), Epoch(2));
    w.east.delete(&copy).await.unwrap();
    let other = record(2, "west", 2, Some("other"));
    w.east.create(&copy, other.to_bytes()).await.unwrap();
    let (why, hint) = damage(w.register.read().await);
    assert!(
        why.contains(copy.as_str()) && why.contains("`east`"),
        "{why}"
    );
    assert!(hint.contains("register/orders/00000002"), "{hint}");
}

/// Copies may lag; and where the register has moved to, it goes on elsewhere.
#[tokio::test]
async fn fewer_copies_and_a_moved_register_contradict_nothing() {
    let w = filled(3).await;
    for store in [&w.east, &w.west] {
        let copy = EpochRecord::copy_key(&workload(), Epoch(3));
        store.delete(&copy).await.unwrap();
    }
    let newest = w.register.read().await.unwrap().unwrap();
    let moved = newest.with_register(region("east"));
    w.register.create(&moved).await.unwrap();
    let after = record(5, "west", 5, Some("x5"));
    let after = EpochRecord {
        register: region("east"),
        ..after
    };
    w.register.create(&after).await.unwrap();
    assert_eq!(w.register.read().await.unwrap(), Some(after));
}

/// Reading costs one wait for a store that hangs, and then none; also where the register once was in it.
#[rstest]
#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_is_waited_for_once(#[values(false, true)] was_there: bool) {
    let w = filled(2).await;
    if was_there {
        for name in ["east", "west"] {
            let newest = w.register.read().await.unwrap().unwrap();
            let moved = newest.with_register(region(name));
            w.register.create(&moved).await.unwrap();
        }
        w.register.copy_to(&region("west")).await.unwrap();
    }
    w.east.set_hanging(true);
    // The clock stands still unless somebody waits: one second is one wait, of one read.
    let mut reads = 0;
    let all = async {
        for _ in 0..5 {
            assert!(w.register.read().await.unwrap().is_some());
            reads += 1;
        }
    };
    tokio::time::timeout(std::time::Duration::from_millis(1500), all)
        .await
        .unwrap();
    assert_eq!(reads, 5);
}

/// What hangs with the register says nothing in time, and its copy elsewhere does.
#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_hides_no_copy() {
    let w = filled(1).await;
    w.register.copy_to(&region("west")).await.unwrap();
    w.east.set_hanging(true);
    let limit = std::time::Duration::from_secs(1);
    let views = w.register.read_copies_within(limit);
    let views = tokio::time::timeout(limit * 2, views).await.unwrap();
    let seen = |name: &str| views.iter().find(|v| v.region.as_str() == name).unwrap();
    assert!(seen("east").newest.is_err());
    let copy = seen("west").newest.as_ref().unwrap().as_ref().unwrap();
    assert_eq!(copy.epoch, Epoch(1));
}

/// A region that is left is asked for nothing, unless nobody else can say.
#[rstest]
#[tokio::test]
async fn a_region_that_is_left_is_spared(#[values(true, false)] copied: bool) {
    let w = filled(1).await;
    for name in ["east", "west"] {
        let newest = w.register.read().await.unwrap().unwrap();
        let moved = newest.with_register(region(name));
        w.register.create(&moved).await.unwrap();
    }
    if copied {
        w.register.copy_to(&region("west")).await.unwrap();
    }
    w.register.leave(&region("east"));
    let before = w.east.calls();
    let newest = w.register.read().await.unwrap().unwrap();
    assert_eq!(newest.epoch, Epoch(3));
    let next = record(4, "west", 2, Some("x4"));
    w.register.create(&next).await.unwrap();
    assert_eq!(w.east.calls() == before, copied);
}

/// Two look at once: the one that began earlier and ends later does not take back what the other saw.
#[tokio::test(start_paused = true)]
#[expect(
    clippy::disallowed_methods,
    reason = "the runtime's own clock, which is paused"
)]
async fn an_older_look_takes_nothing_back() {
    let limit = std::time::Duration::from_secs(60);
    let records = [record(1, "west", 1, None), record(2, "west", 2, Some("x2"))];
    let mut walked = Walked::default();
    let older = tokio::time::Instant::now();
    tokio::time::advance(limit / 2).await;
    walked.take(&records, tokio::time::Instant::now());
    walked.take(&records[..1], older);
    walked.take(&records, older);
    tokio::time::advance(limit).await;
    assert_eq!(walked.lately(limit), Some(&records[1]));
    // A look is as old as when it began.
    tokio::time::advance(limit / 60).await;
    assert_eq!(walked.lately(limit), None);
}

/// Who follows asks for what may be new only, however many records there are; whoever reads looks at all of them.
#[tokio::test]
async fn what_was_read_is_not_asked_for_again() {
    let w = filled(3).await;
    let limit = std::time::Duration::from_secs(60);
    let other = register(&w.east, &w.west);
    assert_eq!(other.read_lately(limit), None);
    assert_eq!(other.follow().await.unwrap().unwrap().epoch, Epoch(3));
    let calls = || w.east.calls() + w.west.calls();
    let before = calls();
    assert_eq!(other.follow().await.unwrap().unwrap().epoch, Epoch(3));
    assert_eq!(calls() - before, 1);
    let next = record(4, "west", 4, Some("x4"));
    w.register.create(&next).await.unwrap();
    assert_eq!(other.read_lately(limit).unwrap().epoch, Epoch(3));
    assert_eq!(other.follow().await.unwrap().unwrap().epoch, Epoch(4));
    assert_eq!(other.clone().read_lately(limit), Some(next));
    let key = EpochRecord::key(&workload(), Epoch(2));
    w.west.delete(&key).await.unwrap();
    assert_eq!(other.follow().await.unwrap().unwrap().epoch, Epoch(4));
    assert!(other.read().await.is_err());
}

/// Whoever follows from the beginning is not content with a register that ends early: the copies know better, whatever is readable.
#[tokio::test]
async fn a_register_that_ends_early_is_followed_by_nobody() {
    let w = filled(3).await;
    w.register.copy_to(&region("east")).await.unwrap();
    let key = EpochRecord::key(&workload(), Epoch(3));
    let newest = w.west.get(&key).await.unwrap();
    w.west.delete(&key).await.unwrap();
    let other = register(&w.east, &w.west);
    for _again in 0..2 {
        let followed = other.follow().await;
        assert!(
            matches!(followed, Err(Error::Damaged { .. })),
            "{followed:?}"
        );
        assert_eq!(other.glance().await.unwrap().unwrap().epoch, Epoch(2));
        assert_eq!(other.read_lately(std::time::Duration::MAX), None);
    }
    w.west.create(&key, newest).await.unwrap();
    assert_eq!(other.follow().await.unwrap().unwrap().epoch, Epoch(3));
}
