//! Pruning, with a store that fails at any one call, or a process that dies at it: what is listed stays whole, and another
//! run finishes the work.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io;
use std::sync::Arc;

use dr_provider::decorate::{Fault, Faulty, Rule};
use dr_provider::store::{MemoryStore, list_all};
use dr_provider::{ErrorKind, Key, ObjectStore};
use dr_repository::{
    CopyOptions, FrameReader, Hold, Kept, Label, Metadata, PruneOptions, PrunePlan, PruneStats,
    Repository, Result, VerifyOptions, copy,
};
use jiff::{SignedDuration, Timestamp};
use rstest::rstest;
use support::{label, noise, on, options, write};

/// A run makes no more calls than this.
const MOST_CALLS: u32 = 120;

const SIZE: usize = 400_000;

#[derive(Debug)]
struct Content(Vec<u8>);

impl FrameReader for Content {
    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let start = usize::try_from(offset).unwrap();
        buffer.copy_from_slice(&self.0[start..start + buffer.len()]);
        Ok(buffer.len())
    }
}

fn at(hour: i64) -> Timestamp {
    let begun = Timestamp::from_second(1_795_253_405).unwrap();
    begun.checked_add(SignedDuration::from_hours(hour)).unwrap()
}

/// Writes a backup of one file, of which only the beginning differs from that of its parent.
async fn patch(repository: &Repository, number: u16, parent: Option<u16>) {
    let mut content = noise(1, SIZE);
    content[..8192].copy_from_slice(&noise(u64::from(number) + 100, 8192));
    let metadata = Metadata {
        mode: 0o600,
        mtime: 1_700_000_000,
    };
    let mut writer = repository.begin(label(number), options());
    let (path, size) = ("base/1/table", SIZE as u64);
    let reader = Arc::new(Content(content));
    match parent {
        None => writer
            .read_file(path, metadata, size, reader)
            .await
            .unwrap(),
        Some(parent) => {
            let parent = repository.open(&label(parent)).await.unwrap();
            let old = parent.file(path).await.unwrap().unwrap();
            let changed = 0..8192;
            let changed = std::slice::from_ref(&changed);
            writer
                .patch_file(path, metadata, size, &old, changed, reader)
                .await
                .unwrap();
        }
    }
    writer.finish(support::source()).await.unwrap();
}

/// One full backup that has been given up for longer than the grace, one on top of it that stays, one that is to be given up,
/// one without a manifest, and a lease that has ended.
async fn expiring() -> Arc<dyn ObjectStore> {
    let store: Arc<dyn ObjectStore> = Arc::new(MemoryStore::new("a"));
    let repository = on(&store);
    patch(&repository, 1, None).await;
    write(&repository, label(2)).await.unwrap();
    write(&repository, label(3)).await.unwrap();
    patch(&repository, 4, Some(1)).await;
    repository.lease(&label(1), "reader", at(1)).await.unwrap();
    let tree = "/backup/20261121T093008Z-0003/manifest";
    let key = Key::new(format!("{}{tree}", support::SOURCE)).unwrap();
    store.delete(&key).await.unwrap();
    // Given up a while ago: the full one.
    run_at(&repository, &[label(1)], 0).await.unwrap();
    store
}

async fn plan_at(repository: &Repository, expired: &[Label], hour: i64) -> Result<PrunePlan> {
    let facts = repository.prune_facts().await?;
    Ok(PrunePlan::new(
        &facts,
        expired,
        PruneOptions::default(),
        at(hour),
    ))
}

async fn run_at(repository: &Repository, expired: &[Label], hour: i64) -> Result<PruneStats> {
    let plan = plan_at(repository, expired, hour).await?;
    repository.prune(&plan, at(hour)).await
}

/// Checks that everything that is listed can be read, and that what must stay is listed.
async fn assert_whole(store: &Arc<dyn ObjectStore>) {
    let repository = on(store);
    let listed = repository.list().await.unwrap();
    assert!(listed.unusable.is_empty());
    assert!(listed.backups.iter().any(|header| header.label == label(4)));
    for header in &listed.backups {
        let backup = repository.open(&header.label).await.unwrap();
        backup.verify(&VerifyOptions::default()).await.unwrap();
    }
}

async fn keys(store: &Arc<dyn ObjectStore>) -> Vec<String> {
    let all = list_all(&**store, "").await.unwrap();
    all.into_iter()
        .map(|object| object.key.to_string())
        .collect()
}

/// First the mark, then the grace, then what nothing needs (R36).
#[rstest]
#[case::unavailable(Fault::Before(ErrorKind::Unavailable), false)]
#[case::lost_answer(Fault::After, false)]
#[case::denied(Fault::Before(ErrorKind::Denied), false)]
#[case::killed_before_the_call(Fault::Before(ErrorKind::Unavailable), true)]
#[case::killed_after_the_call(Fault::After, true)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prune_that_is_cut_off_anywhere_is_finished_by_the_next(
    #[case] fault: Fault,
    #[case] killed: bool,
) {
    const LATER: i64 = 30;
    let expected = {
        let store = expiring().await;
        run_at(&on(&store), &[label(2)], LATER).await.unwrap();
        run_at(&on(&store), &[], 2 * LATER + 8 * 24).await.unwrap();
        run_at(&on(&store), &[], 3 * LATER + 8 * 24).await.unwrap();
        keys(&store).await
    };
    assert!(
        expected.iter().any(|key| key.contains("-0001/packs/")),
        "shared packs stay"
    );
    assert!(
        !expected
            .iter()
            .any(|key| key.contains("-0002") || key.contains("-0003"))
    );
    assert!(
        !expected
            .iter()
            .any(|key| key.contains("/tomb/") || key.contains("/lease/"))
    );
    for n in 0..MOST_CALLS {
        let store = expiring().await;
        let faults = Arc::new(Faulty::scripted(Arc::clone(&store), Vec::new()));
        let rule = Rule::all("*", fault).skip(n);
        // Who was killed does nothing any more.
        faults.set_rules(vec![if killed { rule } else { rule.times(1) }]);
        let broken: Arc<dyn ObjectStore> = faults.clone();
        let first = run_at(&on(&broken), &[label(2)], LATER).await;
        assert_whole(&store).await;
        // Once more at the same time, and then when all that waits has waited long enough.
        run_at(&on(&store), &[label(2)], LATER).await.unwrap();
        assert_whole(&store).await;
        run_at(&on(&store), &[], 2 * LATER + 8 * 24).await.unwrap();
        run_at(&on(&store), &[], 3 * LATER + 8 * 24).await.unwrap();
        assert_whole(&store).await;
        assert_eq!(keys(&store).await, expected, "{n}");
        if first.is_ok() {
            assert!(n >= 10, "{n}");
            return;
        }
    }
    panic!("pruning makes more than {MOST_CALLS} calls");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_backup_that_is_being_copied_is_not_taken_for_a_failed_one() {
    const LATER: i64 = 60 * 24;
    let source: Arc<dyn ObjectStore> = Arc::new(MemoryStore::new("a"));
    write(&on(&source), label(1)).await.unwrap();
    let target: Arc<dyn ObjectStore> = Arc::new(MemoryStore::new("b"));
    // The packs have arrived, the manifest has not.
    for object in list_all(&*source, "").await.unwrap() {
        if object.key.as_str().contains("/packs/") {
            let bytes = source.get(&object.key).await.unwrap();
            target.create(&object.key, bytes).await.unwrap();
        }
    }
    let repository = on(&target);
    repository
        .lease(&label(1), "copier", at(LATER + 24))
        .await
        .unwrap();
    assert_eq!(plan_at(&repository, &[], LATER).await.unwrap().mark, []);
    run_at(&repository, &[], LATER).await.unwrap();
    copy(&on(&source), &repository, &label(1), CopyOptions::default())
        .await
        .unwrap();
    // One that nobody goes on with is.
    let abandoned: Arc<dyn ObjectStore> = Arc::new(MemoryStore::new("c"));
    write(&on(&abandoned), label(1)).await.unwrap();
    let manifest = list_all(&*abandoned, "").await.unwrap().remove(0).key;
    assert!(manifest.as_str().ends_with("manifest"));
    abandoned.delete(&manifest).await.unwrap();
    assert_eq!(
        plan_at(&on(&abandoned), &[], LATER).await.unwrap().mark,
        [label(1)]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_restore_keeps_what_was_given_up() {
    let store = expiring().await;
    let repository = on(&store);
    // Somebody had begun to restore it before, and says so again while it lasts.
    repository
        .lease(&label(1), "restore-1", at(40))
        .await
        .unwrap();
    let plan = plan_at(&repository, &[], 30).await.unwrap();
    assert!(plan.sweep.is_empty());
    assert_eq!(plan.kept, [(label(1), Kept::Leased { until: at(40) })]);
    repository
        .lease(&label(1), "restore-2", at(60))
        .await
        .unwrap();
    assert!(
        plan_at(&repository, &[], 50)
            .await
            .unwrap()
            .sweep
            .is_empty()
    );
    let backup = repository.open(&label(1)).await.unwrap();
    backup.verify(&VerifyOptions::default()).await.unwrap();
    assert_eq!(plan_at(&repository, &[], 61).await.unwrap().sweep.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hold_on_what_is_not_there_leaves_nothing() {
    let store = expiring().await;
    let repository = on(&store);
    let hold = Hold {
        by: "ann".to_owned(),
        reason: "audit".to_owned(),
        since: at(0),
    };
    let before = keys(&store).await;
    assert_eq!(
        repository.hold(&label(9), &hold).await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert_eq!(keys(&store).await, before);
    repository.hold(&label(4), &hold).await.unwrap();
    assert_eq!(repository.holds().await.unwrap()[&label(4)], hold);
}

#[rstest]
#[case("tomb")]
#[case("lease")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mark_that_cannot_be_read_is_named_and_stops_everything(#[case] kind: &str) {
    let store = expiring().await;
    let prefix = format!("{}/{kind}/", support::SOURCE);
    let key = list_all(&*store, &prefix).await.unwrap().remove(0).key;
    let mut bytes = store.get(&key).await.unwrap().to_vec();
    bytes[0] ^= 1;
    store.delete(&key).await.unwrap();
    store.create(&key, bytes.into()).await.unwrap();
    let error = on(&store).prune_facts().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains(key.as_str()), "{error}");
}
