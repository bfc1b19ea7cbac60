use bytes::Bytes;
use dr_model::{Lsn, SystemIdentifier, TimelineId};
use dr_provider::Key;
use dr_provider::decorate::Recording;
use dr_provider::store::MemoryStore;
use rstest::rstest;

use super::*;

const CLUSTER: SystemIdentifier = SystemIdentifier(7);

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn base(second: i64) -> Base {
    Base::for_tests(TimelineId(1), [Lsn(40), Lsn(1000)], at(second))
}

/// A look at the recovery point of second 1 that found the given packs of it good, and the others damaged.
fn look(means: VerifyMeans, second: i64, good: &[(u32, u32)], bad: &[(u32, u32)]) -> VerifyRecord {
    let label = base(1).label.to_string();
    let of = |runs: &[(u32, u32)]| {
        let runs = (!runs.is_empty()).then(|| (label.clone(), runs.to_vec()));
        runs.into_iter().collect()
    };
    VerifyRecord {
        version: record::VERSION,
        label: label.clone(),
        means,
        failure: (!bad.is_empty()).then(|| "a pack is damaged".to_owned()),
        region: "us-west-2".parse().unwrap(),
        began_at: at(second),
        took_seconds: 0.0,
        read_bytes: 0,
        read: of(good),
        damaged: of(bad),
        timeline: TimelineId(1),
        reached: None,
        heartbeat_at: None,
        checks: Vec::new(),
        by: "test".to_owned(),
    }
}

async fn written(looks: &[VerifyRecord]) -> Arc<dyn ObjectStore> {
    let store: Arc<dyn ObjectStore> = Arc::new(MemoryStore::new("west"));
    for look in looks {
        record::write(&store, CLUSTER, look).await.unwrap();
    }
    store
}

use VerifyMeans::{Boot, Hash, Sample};

#[rstest]
#[case::a_failed_boot(&[(Boot, true)], Some(true))]
#[case::a_boot_since_it_was_read(&[(Hash, false), (Boot, true)], Some(true))]
#[case::a_boot_and_read_since(&[(Boot, true), (Hash, false)], Some(false))]
#[case::read(&[(Hash, true)], Some(true))]
#[case::a_sample(&[(Sample, true)], Some(true))]
#[case::a_sample_and_read_since(&[(Sample, true), (Hash, false)], None)]
#[case::both(&[(Boot, true), (Hash, true)], Some(true))]
#[tokio::test]
async fn what_reading_it_again_may_clear(
    #[case] looks: &[(VerifyMeans, bool)],
    #[case] expected: Option<bool>,
) {
    let looks = (2..).zip(looks).map(|(second, (means, failed))| {
        let bad: &[(u32, u32)] = if *failed { &[(0, 0)] } else { &[] };
        look(*means, second, &[], bad)
    });
    let store = written(&looks.collect::<Vec<_>>()).await;
    let repository = Repository::new(Arc::clone(&store), "postgres/7".to_owned()).unwrap();
    let marks = record::marks(&store, CLUSTER).await.unwrap();
    let bases = [base(1)];
    let found = failures(&store, &repository, CLUSTER, &marks, &bases);
    let found = found.await.unwrap();
    let found = found.get(&bases[0].label);
    assert_eq!(found.map(|failure| failure.may_be_cleared), expected);
}

/// While something is damaged, recovery points are listed again and again: those that have nothing there, or were read since, are not opened.
#[tokio::test]
async fn only_what_may_refer_to_damage_is_opened() {
    let looks = [look(Hash, 5, &[], &[(0, 0)])];
    let store = written(&looks).await;
    let mut read_since = base(3);
    read_since.references = vec![base(1).label];
    let mut proof = look(Hash, 9, &[], &[]);
    proof.label = read_since.label.to_string();
    record::write(&store, CLUSTER, &proof).await.unwrap();
    let mut refers = base(4);
    refers.references = vec![base(1).label];
    let marks = record::marks(&store, CLUSTER).await.unwrap();

    let recording = Arc::new(Recording::new(Arc::clone(&store)));
    let repository = Repository::new(recording.clone(), "postgres/7".to_owned()).unwrap();
    let opened = async |bases: &[Base]| {
        let found = failures(&store, &repository, CLUSTER, &marks, bases).await;
        (found.unwrap().len(), !recording.take().is_empty())
    };
    assert_eq!(opened(&[base(1), base(2), read_since]).await, (1, false));
    assert_eq!(opened(&[base(1), refers]).await, (1, true));
}

#[tokio::test]
async fn what_failed_has_still_read_the_rest() {
    let label = base(1).label;
    let store = written(&[
        look(Hash, 2, &[(0, 3)], &[]),
        look(Hash, 4, &[(0, 0), (2, 5)], &[(1, 1)]),
        look(Boot, 5, &[(9, 9)], &[]),
        look(Sample, 6, &[(5, 6)], &[(4, 4)]),
    ])
    .await;
    // One that cannot be read keeps nothing from being known.
    let torn = format!("postgres/{CLUSTER}/proof/{label}/19700101T000003.000000Z-hash");
    let torn = Key::new(torn).unwrap();
    store.create(&torn, Bytes::from_static(b"{")).await.unwrap();
    let marks = record::marks(&store, CLUSTER).await.unwrap();
    let numbers = async |since| {
        let known = known(&store, CLUSTER, &marks, at(since)).await.unwrap();
        let of = known.iter().filter(|(of, _)| *of == label);
        of.map(|(_, number)| *number).collect::<Vec<u32>>()
    };
    assert_eq!(numbers(1).await, [0, 2, 3, 5, 6]);
    assert_eq!(numbers(6).await, [5, 6]);
}
