//! What is written comes back; what must not be restored is refused.

mod support;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use dr_provider::ObjectStore;
use dr_provider::store::{MemoryStore, list_all};
use dr_repository::{
    CopyOptions, Error, Metadata, Repository, RestoreOptions, WriterOptions, copy,
};
use proptest::prelude::*;
use support::{assert_usable, label, on, restore_options, write};

fn memory(name: &str) -> Arc<dyn ObjectStore> {
    Arc::new(MemoryStore::new(name))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_reads_back() {
    let store = memory("a");
    let repository = on(&store);
    let header = write(&repository, label(1)).await.unwrap();
    assert!(header.stats.packs >= 4, "{:?}", header.stats);
    assert_eq!(header.stats.files, support::files().len() as u64);
    assert_usable(&repository, &label(1)).await;
    let listing = repository.list().await.unwrap();
    assert_eq!(listing.backups, [header]);
}

#[tokio::test]
async fn listing_is_newest_first_and_shows_complete_backups_only() {
    let store = memory("a");
    let repository = on(&store);
    for number in [3, 1, 2] {
        write(&repository, label(number)).await.unwrap();
    }
    let manifest = format!("{}/backup/{}/manifest", support::SOURCE, label(2));
    store
        .delete(&dr_provider::Key::new(manifest).unwrap())
        .await
        .unwrap();
    // Another source, and something that is no backup.
    write(
        &Repository::new(Arc::clone(&store), "files/x").unwrap(),
        label(9),
    )
    .await
    .unwrap();
    let stray = format!("{}/backup/readme/manifest", support::SOURCE);
    store
        .create(&dr_provider::Key::new(stray).unwrap(), Bytes::new())
        .await
        .unwrap();
    let listing = repository.list().await.unwrap();
    let labels: Vec<_> = listing
        .backups
        .iter()
        .map(|header| header.label.clone())
        .collect();
    assert_eq!(labels, [label(3), label(1)]);
    assert!(listing.unusable.is_empty());
    assert!(matches!(
        repository.open(&label(2)).await,
        Err(Error::Missing { .. })
    ));
}

#[tokio::test]
async fn a_backup_not_finished_is_invisible_and_in_nobodys_way() {
    let store = memory("a");
    let repository = on(&store);
    let mut writer = repository.begin(label(1), support::options());
    writer
        .begin_file(
            "x",
            Metadata {
                mode: 0o600,
                mtime: 0,
            },
        )
        .unwrap();
    writer
        .write(Bytes::from(support::noise(1, 8 << 20)))
        .await
        .unwrap();
    drop(writer);
    let left = list_all(&*store, support::SOURCE).await.unwrap();
    assert!(
        repository.list().await.unwrap().backups.is_empty(),
        "{left:?}"
    );
    write(&repository, label(2)).await.unwrap();
    assert_usable(&repository, &label(2)).await;
}

#[tokio::test]
async fn restore_filters_renames_and_reports() {
    let store = memory("a");
    let repository = on(&store);
    write(&repository, label(1)).await.unwrap();
    let backup = repository.open(&label(1)).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let options = RestoreOptions {
        place: Some(Arc::new(|path: &str| {
            (path != "base/5/noise").then(|| path.replacen("base/5", "base/6", 1))
        })),
        progress: Some(Arc::new({
            let seen = Arc::clone(&seen);
            move |progress| seen.lock().unwrap().push(progress)
        })),
        ..restore_options()
    };
    let stats = backup
        .restore_into(directory.path(), options)
        .await
        .unwrap();
    assert!(directory.path().join("base/6/text").exists());
    assert!(!directory.path().join("base/5").exists());
    assert!(!directory.path().join("base/6/noise").exists());
    let most = seen.lock().unwrap().iter().map(|p| p.written_bytes).max();
    assert_eq!(most, Some(stats.written_bytes));
    assert!(
        seen.lock()
            .unwrap()
            .iter()
            .all(|p| p.total_bytes == stats.written_bytes)
    );
    // What is left out is not read either.
    assert!(stats.read_bytes < backup.header().stats.stored_bytes - (2 << 20));
}

#[tokio::test]
async fn restore_refuses_a_directory_in_use_and_paths_that_lead_out() {
    let store = memory("a");
    let repository = on(&store);
    write(&repository, label(1)).await.unwrap();
    let backup = repository.open(&label(1)).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let place = |to: &'static str| RestoreOptions {
        place: Some(Arc::new(move |path: &str| {
            Some(path.replace("PG_VERSION", to))
        })),
        ..restore_options()
    };
    for to in [
        "../PG_VERSION",
        "/tmp/x",
        "base",
        "base/1/1259",
        "pg_tblspc/16400/x",
        "",
    ] {
        let result = backup.restore_into(directory.path(), place(to)).await;
        assert!(
            matches!(result, Err(Error::Path { .. })),
            "{to}: {result:?}"
        );
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
    std::fs::write(directory.path().join("x"), "x").unwrap();
    let result = backup
        .restore_into(directory.path(), restore_options())
        .await;
    assert!(matches!(result, Err(Error::Occupied(_))));
}

#[tokio::test]
async fn the_writer_refuses_what_is_out_of_turn() {
    let store = memory("a");
    let repository = on(&store);
    let metadata = Metadata {
        mode: 0o600,
        mtime: 0,
    };
    let mut writer = repository.begin(label(1), WriterOptions::default());
    assert!(writer.write(Bytes::new()).await.is_err());
    assert!(writer.end_file().await.is_err());
    writer.begin_file("a", metadata).unwrap();
    assert!(writer.begin_file("b", metadata).is_err());
    assert!(writer.add_directory("b", metadata).is_err());
    writer.end_file().await.unwrap();
    assert!(matches!(
        writer.add_directory("../b", metadata),
        Err(Error::Path { .. })
    ));
    writer.begin_file("c", metadata).unwrap();
    assert!(writer.finish(support::source()).await.is_err());
    for paths in [["a", "a"], ["a", "a/b"]] {
        let mut writer = repository.begin(label(1), WriterOptions::default());
        for path in paths {
            writer.begin_file(path, metadata).unwrap();
            writer.end_file().await.unwrap();
        }
        let result = writer.finish(support::source()).await;
        assert!(matches!(result, Err(Error::Path { .. })), "{result:?}");
    }
    assert!(Repository::new(store, "a/../b").is_err());
}

#[tokio::test]
async fn a_copy_is_the_same_and_can_be_repeated() {
    let (here, there) = (memory("here"), memory("there"));
    let (from, to) = (on(&here), on(&there));
    write(&from, label(1)).await.unwrap();
    let first = copy(&from, &to, &label(1), CopyOptions::default())
        .await
        .unwrap();
    assert!(!first.was_present);
    assert_eq!(first.copied_bytes, first.header.stats.stored_bytes);
    assert_usable(&to, &label(1)).await;
    let again = copy(&from, &to, &label(1), CopyOptions::default())
        .await
        .unwrap();
    assert!(again.was_present);
    // Without its manifest the copy is partial; the packs that are there are not written again.
    let manifest = format!("{}/backup/{}/manifest", support::SOURCE, label(1));
    there
        .delete(&dr_provider::Key::new(manifest).unwrap())
        .await
        .unwrap();
    let resumed = copy(&from, &to, &label(1), CopyOptions::default())
        .await
        .unwrap();
    assert_eq!((resumed.was_present, resumed.copied_packs), (false, 0));
    assert_usable(&to, &label(1)).await;
}

#[tokio::test]
async fn another_backup_under_the_same_label_is_not_overwritten() {
    let (here, there) = (memory("here"), memory("there"));
    let (from, to) = (on(&here), on(&there));
    write(&from, label(1)).await.unwrap();
    let other = to.begin(label(1), WriterOptions::default());
    other.finish(serde_json::json!("another")).await.unwrap();
    let result = copy(&from, &to, &label(1), CopyOptions::default()).await;
    assert!(matches!(result, Err(Error::Different { .. })));
    assert_eq!(to.open(&label(1)).await.unwrap().header().source, "another");
}

/// Counts the bytes inside `create`, which is slow here.
#[derive(Debug)]
struct Slow {
    inner: MemoryStore,
    inside: AtomicU64,
    most: AtomicU64,
}

#[async_trait::async_trait]
impl ObjectStore for Slow {
    fn location(&self) -> &str {
        self.inner.location()
    }
    async fn create(&self, key: &dr_provider::Key, body: Bytes) -> dr_provider::Result<()> {
        let length = body.len() as u64;
        let inside = self.inside.fetch_add(length, Ordering::SeqCst) + length;
        self.most.fetch_max(inside, Ordering::SeqCst);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        self.inside.fetch_sub(length, Ordering::SeqCst);
        self.inner.create(key, body).await
    }
    async fn get(&self, key: &dr_provider::Key) -> dr_provider::Result<Bytes> {
        self.inner.get(key).await
    }
    async fn get_range(
        &self,
        key: &dr_provider::Key,
        offset: u64,
        length: u64,
    ) -> dr_provider::Result<Bytes> {
        self.inner.get_range(key, offset, length).await
    }
    async fn head(
        &self,
        key: &dr_provider::Key,
    ) -> dr_provider::Result<dr_provider::store::ObjectInfo> {
        self.inner.head(key).await
    }
    async fn list(
        &self,
        prefix: &str,
        after: Option<&dr_provider::Key>,
        limit: usize,
    ) -> dr_provider::Result<Vec<dr_provider::store::ObjectInfo>> {
        self.inner.list(prefix, after, limit).await
    }
    async fn delete(&self, key: &dr_provider::Key) -> dr_provider::Result<()> {
        self.inner.delete(key).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_store_neither_blocks_for_good_nor_fills_memory() {
    let slow = Arc::new(Slow {
        inner: MemoryStore::new("slow"),
        inside: AtomicU64::new(0),
        most: AtomicU64::new(0),
    });
    let store: Arc<dyn ObjectStore> = slow.clone();
    let repository = on(&store);
    let pack_bytes = 2 << 20;
    let options = WriterOptions {
        pack_bytes,
        memory_bytes: 0,
        workers: 2,
        uploads: 100,
        ..WriterOptions::default()
    };
    let mut writer = repository.begin(label(1), options);
    writer
        .begin_file(
            "x",
            Metadata {
                mode: 0o600,
                mtime: 0,
            },
        )
        .unwrap();
    for number in 0..40 {
        writer
            .write(Bytes::from(support::noise(number, 1 << 20)))
            .await
            .unwrap();
    }
    writer.end_file().await.unwrap();
    writer.finish(support::source()).await.unwrap();
    // Two packs and the frames under way: the least that the budget can be.
    let budget = 2 * (pack_bytes as u64) + 6 * (1 << 20);
    let most = slow.most.load(Ordering::SeqCst);
    assert!(
        most <= budget + 4096 && most > pack_bytes as u64 / 2,
        "{most}"
    );
    repository
        .open(&label(1))
        .await
        .unwrap()
        .verify(&dr_repository::VerifyOptions::default())
        .await
        .unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_sizes_and_pieces(
        sizes in prop::collection::vec(prop_oneof![0_usize..5000, 900_000_usize..2_500_000], 0..8),
        piece in 1_usize..3_000_000,
        pack_bytes in 1_usize..4_000_000,
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        runtime.block_on(async {
            let repository = on(&memory("a"));
            let options = WriterOptions { pack_bytes, workers: 2, ..support::options() };
            let mut writer = repository.begin(label(1), options);
            let content = |index: usize| {
                let mut bytes = support::noise(index as u64, sizes[index]);
                bytes[sizes[index] / 2..].fill(7);
                bytes
            };
            for index in 0..sizes.len() {
                writer.begin_file(&format!("d/{index}"), Metadata { mode: 0o640, mtime: -5 }).unwrap();
                for piece in content(index).chunks(piece) {
                    writer.write(Bytes::copy_from_slice(piece)).await.unwrap();
                }
                writer.end_file().await.unwrap();
            }
            writer.finish(serde_json::Value::Null).await.unwrap();
            let backup = repository.open(&label(1)).await.unwrap();
            backup.verify(&dr_repository::VerifyOptions::default()).await.unwrap();
            let directory = tempfile::tempdir().unwrap();
            backup.restore_into(directory.path(), RestoreOptions::default()).await.unwrap();
            for index in 0..sizes.len() {
                let found = std::fs::read(directory.path().join(format!("d/{index}"))).unwrap();
                assert!(found == content(index), "{index}");
            }
        });
    }
}

#[tokio::test]
async fn a_directory_can_be_made_elsewhere_and_takes_nothing_over() {
    let repository = on(&memory("a"));
    write(&repository, label(1)).await.unwrap();
    let backup = repository.open(&label(1)).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let elsewhere = directory.path().join("far/away");
    let options = RestoreOptions {
        elsewhere: [("base/5".to_owned(), elsewhere.clone())].into(),
        ..restore_options()
    };
    let target = directory.path().join("data");
    backup.restore_into(&target, options.clone()).await.unwrap();
    support::assert_restored(&target);
    assert_eq!(
        std::fs::read_link(target.join("base/5")).unwrap(),
        elsewhere
    );
    assert!(elsewhere.join("noise").is_file());
    // What is there belongs to somebody.
    let again = directory.path().join("again");
    let error = backup.restore_into(&again, options).await.unwrap_err();
    assert!(matches!(error, Error::Occupied(place) if place == elsewhere));
    support::assert_restored(&target);
}
