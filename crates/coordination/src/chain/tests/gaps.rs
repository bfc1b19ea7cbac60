//! Gap records: what is said to be lost, and what came after all.

use std::sync::Arc;

use dr_model::Lsn;
use dr_provider::store::MemoryStore;
use dr_provider::{Key, ObjectStore};

use super::{CLUSTER, ORIGIN, chain, write, writer};
use crate::chain::{GapRecord, open_gaps, record_gap};
use crate::testing::{IMPATIENT, at};

fn gap(from: u64, to: Option<u64>) -> GapRecord {
    GapRecord {
        version: 1,
        system_identifier: CLUSTER,
        timeline: chain(1).timeline,
        from: ORIGIN.advance(from),
        to: to.map(|to| ORIGIN.advance(to)),
        found_at: at(0),
        by: "receiver west".to_owned(),
        why: "the slot was invalidated".to_owned(),
    }
}

async fn open(store: &MemoryStore) -> Vec<(Lsn, Option<Lsn>)> {
    let open = open_gaps(store, CLUSTER, IMPATIENT).await.unwrap();
    open.iter().map(|gap| (gap.from, gap.to)).collect()
}

#[tokio::test]
async fn a_gap_is_open_until_its_log_is_there() {
    let store = Arc::new(MemoryStore::new("west"));
    let mut writer = writer(&store).await;
    write(&mut writer, &[100]).await;
    record_gap(&*store, &gap(100, Some(160)), IMPATIENT)
        .await
        .unwrap();
    // The first to say so is believed; saying it again is no error.
    record_gap(&*store, &gap(100, Some(900)), IMPATIENT)
        .await
        .unwrap();
    let end = |bytes| ORIGIN.advance(bytes);
    assert_eq!(open(&store).await, [(end(100), Some(end(160)))]);
    // Bytes win over records, as far as they reach.
    write(&mut writer, &[40]).await;
    assert_eq!(open(&store).await, [(end(140), Some(end(160)))]);
    write(&mut writer, &[20]).await;
    assert_eq!(open(&store).await, []);
}

#[tokio::test]
async fn a_gap_without_an_end_is_open_while_nothing_follows() {
    let store = Arc::new(MemoryStore::new("west"));
    let mut writer = writer(&store).await;
    write(&mut writer, &[100]).await;
    record_gap(&*store, &gap(100, None), IMPATIENT)
        .await
        .unwrap();
    assert_eq!(open(&store).await, [(ORIGIN.advance(100), None)]);
    write(&mut writer, &[1]).await;
    assert_eq!(open(&store).await, []);
}

#[tokio::test]
async fn a_record_that_cannot_be_read_is_a_gap() {
    let store = Arc::new(MemoryStore::new("west"));
    drop(writer(&store).await);
    let prefix = format!("postgres/{CLUSTER}/wal/00000001/gap/");
    let key = Key::new(format!("{prefix}{}", ORIGIN.to_key())).unwrap();
    store.create(&key, "nonsense".into()).await.unwrap();
    assert_eq!(open(&store).await, [(ORIGIN, None)]);
}
