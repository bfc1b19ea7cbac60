//! Repositories written by each version of the format are read for ever.
//!
//! `tests/golden/format-1` and `format-2` hold the objects as files. They are never rewritten; a new format gets a directory
//! of its own.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use dr_provider::store::{MemoryStore, list_all};
use dr_provider::{Key, ObjectStore};
use dr_repository::{
    EncryptionKey, FrameReader, Keys, Metadata, Repository, RestoreOptions, WriterOptions,
};
use support::{label, noise, on, source};

fn directory(format: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(format)
}

/// Small, because it is committed: compressed, plain and empty files, several packs.
fn files() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("PG_VERSION", b"15\n".to_vec()),
        ("base/1/empty", Vec::new()),
        (
            "base/1/text",
            b"a line of text that compresses well\n".repeat(40_000),
        ),
        ("base/1/noise", noise(1, 3000)),
        ("global/pg_control", noise(2, 2000)),
    ]
}

async fn load(format: &str) -> Arc<dyn ObjectStore> {
    let store = MemoryStore::new("golden");
    let mut directories = vec![directory(format)];
    while let Some(next) = directories.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            let key = path
                .strip_prefix(directory(format))
                .unwrap()
                .to_str()
                .unwrap();
            let body = Bytes::from(fs::read(&path).unwrap());
            store.create(&Key::new(key).unwrap(), body).await.unwrap();
        }
    }
    Arc::new(store)
}

async fn assert_holds(repository: &Repository, number: u16, files: &[(&'static str, Vec<u8>)]) {
    let backup = repository.open(&label(number)).await.unwrap();
    backup
        .verify(&dr_repository::VerifyOptions::default())
        .await
        .unwrap();
    let target = tempfile::tempdir().unwrap();
    let stats = backup
        .restore_into(target.path(), RestoreOptions::default())
        .await
        .unwrap();
    assert_eq!(stats.files, files.len() as u64);
    for (path, content) in files {
        let found = fs::read(target.path().join(path)).unwrap();
        assert!(found == *content, "{path}");
    }
    let link = fs::read_link(target.path().join("pg_tblspc/16400")).unwrap();
    assert_eq!(link, Path::new("/srv/tablespace"));
}

#[tokio::test]
async fn format_1_is_read() {
    let repository = on(&load("format-1").await);
    let listing = repository.list().await.unwrap();
    assert_eq!(listing.backups.len(), 1);
    assert_eq!(listing.backups[0].source, source());
    assert!(listing.backups[0].stats.packs > 1);
    assert_holds(&repository, 1, &files()).await;
}

/// A plain backup, an incremental one on it, and an encrypted one.
#[tokio::test]
async fn format_2_is_read() {
    let repository = on(&load("format-2").await).with_keys(keys());
    let listing = repository.list().await.unwrap().backups;
    assert_eq!(listing.len(), 3);
    assert!(listing.iter().all(|header| header.source == source()));
    assert_eq!(listing[1].references, [label(1)]);
    assert_eq!(listing[0].encryption.as_ref().unwrap().key, KEY_ID);
    assert_holds(&repository, 1, &files_2()).await;
    assert_holds(&repository, 2, &files_2_changed()).await;
    assert_holds(&repository, 3, &files_2()).await;
}

const KEY_ID: &str = "00eb8981ff7927df";

fn keys() -> Keys {
    Keys::new(vec![
        EncryptionKey::parse(&format!("dr-key1 {}", "0f".repeat(32))).unwrap(),
    ])
}

/// As before, and with zeros inside and at the end.
fn files_2() -> Vec<(&'static str, Vec<u8>)> {
    let mut files = files();
    let mut zeros = noise(5, 1 << 20);
    zeros[4000..].fill(0);
    zeros.resize(3 << 20, 0);
    files.push(("base/1/zeros", zeros));
    files
}

fn files_2_changed() -> Vec<(&'static str, Vec<u8>)> {
    let mut files = files_2();
    files[2].1[100_000..101_000].copy_from_slice(&noise(6, 1000));
    files[3].1.fill(0);
    files
}

#[derive(Debug)]
struct Content(Vec<u8>);

impl FrameReader for Content {
    fn read(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<usize> {
        let start = usize::try_from(offset).unwrap();
        buffer.copy_from_slice(&self.0[start..start + buffer.len()]);
        Ok(buffer.len())
    }
}

#[tokio::test]
#[ignore = "writes the golden repository; needed once for each format"]
async fn write_format_2() {
    let store: Arc<dyn ObjectStore> = Arc::new(MemoryStore::new("golden"));
    let options = WriterOptions {
        pack_bytes: 4000,
        ..support::options()
    };
    let metadata = |mode| Metadata {
        mode,
        mtime: 1_700_000_000,
    };
    for (number, files, keys) in [
        (1, files_2(), Keys::default()),
        (2, files_2_changed(), Keys::default()),
        (3, files_2(), keys()),
    ] {
        let repository = on(&store).with_keys(keys);
        let mut writer = repository.begin(label(number), options.clone());
        for path in ["base", "base/1", "global", "pg_tblspc"] {
            writer.add_directory(path, metadata(0o700)).unwrap();
        }
        writer
            .add_symlink("pg_tblspc/16400", "/srv/tablespace")
            .unwrap();
        for (path, content) in files {
            let size = content.len() as u64;
            let reader = Arc::new(Content(content));
            if number == 2 {
                let first = repository.open(&label(1)).await.unwrap();
                let parent = first.file(path).await.unwrap().unwrap();
                let changed = match path {
                    "base/1/text" => vec![98_304..102_400, 102_400..106_496],
                    "base/1/noise" => vec![0..1000, 1000..3000],
                    _ => Vec::new(),
                };
                writer
                    .patch_file(path, metadata(0o600), size, &parent, &changed, reader)
                    .await
                    .unwrap();
            } else {
                writer
                    .read_file(path, metadata(0o600), size, reader)
                    .await
                    .unwrap();
            }
        }
        writer.finish(source()).await.unwrap();
    }
    for object in list_all(&*store, "").await.unwrap() {
        let path = directory("format-2").join(object.key.as_str());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut file = fs::File::create_new(path).unwrap();
        let body = store.get(&object.key).await.unwrap();
        std::io::Write::write_all(&mut file, &body).unwrap();
    }
}
