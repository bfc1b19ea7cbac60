//! Backups whose content the workers read, and those that refer to older ones.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use dr_provider::store::MemoryStore;
use dr_provider::{Key, ObjectStore};
use dr_repository::{
    BackupReader, CopyOptions, Error, Extent, FrameReader, Metadata, Repository, RestoreOptions,
    WriterOptions, copy,
};
use proptest::prelude::*;
use support::{label, noise, on};

const BLOCK: u64 = 8192;
const METADATA: Metadata = Metadata {
    mode: 0o600,
    mtime: 1_700_000_000,
};

/// Content in memory, which counts nothing and never changes.
#[derive(Debug)]
struct Content(Vec<u8>);

impl FrameReader for Content {
    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let start = usize::try_from(offset).unwrap().min(self.0.len());
        let length = buffer.len().min(self.0.len() - start);
        buffer[..length].copy_from_slice(&self.0[start..start + length]);
        Ok(length)
    }
}

#[derive(Debug)]
struct Failing(io::ErrorKind);

impl FrameReader for Failing {
    fn read(&self, _: u64, _: &mut [u8]) -> io::Result<usize> {
        Err(self.0.into())
    }
}

fn options() -> WriterOptions {
    WriterOptions {
        pack_bytes: 3 << 19,
        workers: 2,
        ..WriterOptions::default()
    }
}

/// Restores and compares with what is expected to be there.
async fn assert_holds(backup: &BackupReader, files: &[(String, Vec<u8>)]) -> u64 {
    backup
        .verify(&dr_repository::VerifyOptions::default())
        .await
        .unwrap();
    let directory = tempfile::tempdir().unwrap();
    let stats = backup
        .restore_into(directory.path(), RestoreOptions::default())
        .await
        .unwrap();
    assert_eq!(stats.files, files.len() as u64);
    for (path, content) in files {
        let found = std::fs::read(directory.path().join(path)).unwrap();
        assert!(found == *content, "{path}");
        let entry = backup.file(path).await.unwrap().unwrap().entry;
        assert_eq!(entry.size, content.len() as u64);
    }
    stats.read_bytes
}

fn memory() -> Arc<dyn ObjectStore> {
    Arc::new(MemoryStore::new("a"))
}

async fn full(repository: &Repository, number: u16, files: &[(String, Vec<u8>)]) {
    let mut writer = repository.begin(label(number), options());
    for (path, content) in files {
        let reader = Arc::new(Content(content.clone()));
        let size = content.len() as u64;
        writer
            .read_file(path, METADATA, size, reader)
            .await
            .unwrap();
    }
    writer.finish(support::source()).await.unwrap();
}

/// Writes `number` on top of `parent`; of each file the ranges that differ are read.
async fn patched(
    repository: &Repository,
    number: u16,
    parent: &BackupReader,
    files: &[(String, Vec<u8>)],
    changed: impl Fn(&str) -> Vec<Range<u64>>,
) {
    let mut writer = repository.begin(label(number), options());
    for (path, content) in files {
        let reader = Arc::new(Content(content.clone()));
        let size = content.len() as u64;
        match parent.file(path).await.unwrap() {
            Some(old) => {
                let changed = changed(path);
                writer
                    .patch_file(path, METADATA, size, &old, &changed, reader)
                    .await
                    .unwrap();
            }
            None => writer
                .read_file(path, METADATA, size, reader)
                .await
                .unwrap(),
        }
    }
    writer.finish(support::source()).await.unwrap();
}

fn files() -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<(String, Vec<u8>)> = (0..300_u64)
        .map(|number| {
            (
                format!("base/1/{number}"),
                noise(number, 100 + 40 * usize::try_from(number).unwrap()),
            )
        })
        .collect();
    files.push(("base/2/big".into(), noise(7, 5 << 19)));
    files.push(("base/2/zeros".into(), vec![0; 3 << 20]));
    files.push(("base/2/empty".into(), Vec::new()));
    let mut sparse = noise(8, 3 << 20);
    sparse[1 << 20..].fill(0);
    files.push(("base/2/sparse".into(), sparse));
    files
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn zeros_cost_nothing_and_small_files_share_frames() {
    let repository = on(&memory());
    full(&repository, 1, &files()).await;
    let backup = repository.open(&label(1)).await.unwrap();
    assert_holds(&backup, &files()).await;
    let zeros = backup.file("base/2/zeros").await.unwrap().unwrap().entry;
    assert_eq!(zeros.extents, [Extent::Zeros { bytes: 3 << 20 }]);
    let sparse = backup.file("base/2/sparse").await.unwrap().unwrap().entry;
    assert_eq!(sparse.extents[1], Extent::Zeros { bytes: 2 << 20 });
    let frames = backup
        .verify(&dr_repository::VerifyOptions::default())
        .await
        .unwrap()
        .frames;
    assert!(frames < 20, "{frames}");
    assert!(backup.file("base/2").await.unwrap().is_none());
    assert!(backup.file("zzz").await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_incremental_restores_by_reading_every_frame_once() {
    let store = memory();
    let repository = on(&store);
    let mut files = files();
    full(&repository, 1, &files).await;
    let first = repository.open(&label(1)).await.unwrap();
    let full_read = assert_holds(&first, &files).await;
    // Every tenth block of the big file, one small file, and a file that is new.
    let big = files
        .iter()
        .position(|(path, _)| path.ends_with("big"))
        .unwrap();
    let blocks: Vec<Range<u64>> = (0..320)
        .step_by(10)
        .map(|block| block * BLOCK..(block + 1) * BLOCK)
        .collect();
    for range in &blocks {
        let start = usize::try_from(range.start).unwrap();
        files[big].1[start..start + 8192].copy_from_slice(&noise(range.start + 99, 8192));
    }
    files[3].1.fill(9);
    files.push(("base/3/new".into(), noise(1234, 70_000)));
    let changed = |path: &str| match path {
        "base/2/big" => blocks.clone(),
        "base/1/3" => vec![0..110, 110..220],
        _ => Vec::new(),
    };
    patched(&repository, 2, &first, &files, changed).await;
    let second = repository.open(&label(2)).await.unwrap();
    assert_eq!(second.header().references, [label(1)]);
    let stats = second.header().stats;
    assert!(stats.stored_bytes < 500_000, "{stats:?}");
    assert!(stats.referenced_packs >= 2, "{stats:?}");
    let read = assert_holds(&second, &files).await;
    assert!(read <= full_read + stats.stored_bytes, "{read} {full_read}");

    // A third one on top of the second, and a copy of it alone.
    files[big].1.truncate(1_000_001);
    patched(&repository, 3, &second, &files, |_| Vec::new()).await;
    let third = repository.open(&label(3)).await.unwrap();
    assert_eq!(third.header().references, [label(1), label(2)]);
    assert_eq!(third.header().stats.packs, 0);
    assert_holds(&third, &files).await;
    let there = on(&memory());
    copy(&repository, &there, &label(3), CopyOptions::default())
        .await
        .unwrap();
    let copied = there.open(&label(3)).await.unwrap();
    assert_holds(&copied, &files).await;
    assert_eq!(there.list().await.unwrap().backups.len(), 1);
}

/// What is shared is looked at once more before it is relied on (R37).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_referred_to_must_still_be_there_at_the_end() {
    let files = files();
    for damage in ["packs/000001", "tomb"] {
        let store = memory();
        let repository = on(&store);
        full(&repository, 1, &files).await;
        let first = repository.open(&label(1)).await.unwrap();
        let mut writer = repository.begin(label(2), options());
        let parent = first.file("base/2/big").await.unwrap().unwrap();
        let reader = Arc::new(Content(Vec::new()));
        writer
            .patch_file("big", METADATA, 5 << 19, &parent, &[], reader)
            .await
            .unwrap();
        if damage == "tomb" {
            let key = format!("{}/tomb/{}", support::SOURCE, label(1));
            store
                .create(&Key::new(key).unwrap(), Bytes::new())
                .await
                .unwrap();
            let error = writer.finish(support::source()).await.unwrap_err();
            assert!(matches!(error, Error::GivenUp { .. }), "{error}");
        } else {
            for pack in first.packs() {
                let (label, number) = (&pack.label, pack.number);
                let key = format!("{}/backup/{label}/packs/{number:06}", support::SOURCE);
                store.delete(&Key::new(key).unwrap()).await.unwrap();
            }
            let error = writer.finish(support::source()).await.unwrap_err();
            assert!(
                error.to_string().contains("does not exist any more"),
                "{error}"
            );
        }
        assert!(repository.open(&label(2)).await.is_err());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_shrink_vanish_and_fail() {
    let repository = on(&memory());
    let mut writer = repository.begin(label(1), options());
    let content = noise(1, 3_000_000);
    // The list said more than there is now; and less, which is what is kept.
    for (path, size) in [("shrunk", 5_000_000), ("grown", 2_000_001)] {
        let reader = Arc::new(Content(content.clone()));
        writer
            .read_file(path, METADATA, size, reader)
            .await
            .unwrap();
    }
    let gone = Arc::new(Failing(io::ErrorKind::NotFound));
    writer
        .read_file("gone", METADATA, 5_000_000, gone)
        .await
        .unwrap();
    writer.finish(support::source()).await.unwrap();
    let backup = repository.open(&label(1)).await.unwrap();
    let expected = [
        ("shrunk".to_owned(), content.clone()),
        ("grown".to_owned(), content[..2_000_001].to_vec()),
    ];
    assert_holds(&backup, &expected).await;
    assert!(backup.file("gone").await.unwrap().is_none());

    let mut writer = repository.begin(label(2), options());
    let denied = Arc::new(Failing(io::ErrorKind::PermissionDenied));
    let result = async {
        writer
            .read_file("secret", METADATA, 5_000_000, denied)
            .await?;
        writer.finish(support::source()).await
    };
    let error = result.await.unwrap_err();
    assert!(error.to_string().contains("`secret`"), "{error}");
    assert!(repository.open(&label(2)).await.is_err());
}

#[tokio::test]
async fn a_patch_that_does_not_fit_its_parent_is_refused() {
    let repository = on(&memory());
    full(&repository, 1, &[("a".into(), noise(1, 100_000))]).await;
    let first = repository.open(&label(1)).await.unwrap();
    let parent = first.file("a").await.unwrap().unwrap();
    for changed in [vec![], vec![20..30, 0..10], vec![5..15, 10..20]] {
        let mut writer = repository.begin(label(2), options());
        let reader = Arc::new(Content(noise(2, 200_000)));
        let result = writer
            .patch_file("a", METADATA, 200_000, &parent, &changed, reader)
            .await;
        assert!(matches!(result, Err(Error::Path { .. })), "{changed:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Any sequence of changes, truncations and growths restores to what the file was each time.
    #[test]
    fn chains(
        sizes in prop::collection::vec(0_usize..1_500_000, 2..5),
        changes in prop::collection::vec((0_usize..1_500_000, 1_usize..300_000), 0..12),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        runtime.block_on(async {
            let repository = on(&memory());
            let mut content = noise(1, sizes[0]);
            full(&repository, 0, &[("f".into(), content.clone())]).await;
            for (number, size) in (1_u16..).zip(&sizes[1..]) {
                let parent = repository.open(&label(number - 1)).await.unwrap();
                let old = content.len();
                content.resize(*size, 0);
                let mut changed: Vec<Range<u64>> = Vec::new();
                let mut at = 0;
                for (start, length) in &changes {
                    let (start, end) = ((at + start / 3).min(*size), (at + start / 3 + length).min(*size));
                    if start < end {
                        content[start..end].copy_from_slice(&noise(u64::from(number) * 77 + at as u64, end - start));
                        changed.push(start as u64..end as u64);
                        at = end;
                    }
                }
                if *size > old {
                    changed.retain(|range| range.end <= old as u64);
                    let from = changed.last().map_or(0, |range| range.end).min(old as u64);
                    changed.push(from..*size as u64);
                }
                let files = [("f".to_owned(), content.clone())];
                patched(&repository, number, &parent, &files, |_| changed.clone()).await;
                let backup = repository.open(&label(number)).await.unwrap();
                assert_holds(&backup, &files).await;
            }
        });
    }
}
