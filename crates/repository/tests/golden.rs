//! A repository written by the first version of the format is read for ever.
//!
//! `tests/golden/format-1` holds the objects as files. It is never rewritten; a new format gets a directory of its own.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use dr_provider::store::{MemoryStore, list_all};
use dr_provider::{Key, ObjectStore};
use dr_repository::{Metadata, RestoreOptions, WriterOptions};
use support::{label, noise, on, source};

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/format-1")
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

async fn load() -> Arc<dyn ObjectStore> {
    let store = MemoryStore::new("golden");
    let mut directories = vec![directory()];
    while let Some(next) = directories.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            let key = path.strip_prefix(directory()).unwrap().to_str().unwrap();
            let body = Bytes::from(fs::read(&path).unwrap());
            store.create(&Key::new(key).unwrap(), body).await.unwrap();
        }
    }
    Arc::new(store)
}

#[tokio::test]
async fn format_1_is_read() {
    let store = load().await;
    let listing = on(&store).list().await.unwrap();
    assert_eq!(listing.backups.len(), 1);
    assert_eq!(listing.backups[0].source, source());
    assert!(listing.backups[0].stats.packs > 1);
    let backup = on(&store).open(&label(1)).await.unwrap();
    backup.verify().await.unwrap();
    let target = tempfile::tempdir().unwrap();
    backup
        .restore_into(target.path(), RestoreOptions::default())
        .await
        .unwrap();
    for (path, content) in files() {
        assert!(
            fs::read(target.path().join(path)).unwrap() == content,
            "{path}"
        );
    }
    let link = fs::read_link(target.path().join("pg_tblspc/16400")).unwrap();
    assert_eq!(link, Path::new("/srv/tablespace"));
}

#[tokio::test]
#[ignore = "writes the golden repository; needed once for each format"]
async fn write_format_1() {
    let store: Arc<dyn ObjectStore> = Arc::new(MemoryStore::new("golden"));
    let options = WriterOptions {
        pack_bytes: 4000,
        ..support::options()
    };
    let metadata = |mode| Metadata {
        mode,
        mtime: 1_700_000_000,
    };
    let mut writer = on(&store).begin(label(1), options);
    for path in ["base", "base/1", "global", "pg_tblspc"] {
        writer.add_directory(path, metadata(0o700)).unwrap();
    }
    writer
        .add_symlink("pg_tblspc/16400", "/srv/tablespace")
        .unwrap();
    for (path, content) in files() {
        writer.begin_file(path, metadata(0o600)).unwrap();
        writer.write(Bytes::from(content)).await.unwrap();
        writer.end_file().await.unwrap();
    }
    writer.finish(source()).await.unwrap();
    for object in list_all(&*store, "").await.unwrap() {
        let path = directory().join(object.key.as_str());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut file = fs::File::create_new(path).unwrap();
        let body = store.get(&object.key).await.unwrap();
        std::io::Write::write_all(&mut file, &body).unwrap();
    }
}
