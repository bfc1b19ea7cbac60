//! A tree with every kind of entry and size that matters, written and compared.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test binary uses a part, and fails by panicking"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use dr_provider::ObjectStore;
use dr_repository::{
    FRAME_BYTES, Header, Label, Metadata, Repository, RestoreOptions, Result, WriterOptions,
};

pub(crate) const SOURCE: &str = "postgres/7312000000000000001";
pub(crate) const LAST: &str = "global/pg_control";

/// Small packs, so that there are several; one worker, so that what is in which is the same each time.
pub(crate) fn options() -> WriterOptions {
    WriterOptions {
        pack_bytes: 3 << 19,
        workers: 1,
        uploads: 2,
        ..WriterOptions::default()
    }
}

pub(crate) fn label(number: u16) -> Label {
    let at = jiff::Timestamp::from_second(1_795_253_405 + i64::from(number)).unwrap();
    Label::new(at, number)
}

/// Bytes that do not compress, the same for the same seed.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

pub(crate) fn files() -> Vec<(&'static str, Vec<u8>)> {
    let text = b"a line of text that compresses well\n";
    vec![
        ("PG_VERSION", b"15\n".to_vec()),
        ("base/1/empty", Vec::new()),
        ("base/1/1259", text.repeat(250)),
        ("base/1/frame", noise(1, FRAME_BYTES)),
        ("base/1/frame and one", noise(2, FRAME_BYTES + 1)),
        ("base/5/text", text.repeat(90_000)),
        ("base/5/noise", noise(3, 5 * FRAME_BYTES / 2)),
        (LAST, noise(4, 8192)),
    ]
}

pub(crate) async fn write(repository: &Repository, label: Label) -> Result<Header> {
    let directory = |mode| Metadata {
        mode,
        mtime: 1_700_000_000,
    };
    let mut writer = repository.begin(label, options());
    for path in ["base", "base/1", "base/5", "global", "pg_wal", "pg_tblspc"] {
        writer.add_directory(path, directory(0o700))?;
    }
    writer.add_symlink("pg_tblspc/16400", "/srv/tablespace")?;
    for (path, content) in files() {
        let metadata = Metadata {
            mode: 0o600,
            mtime: 1_700_000_001,
        };
        writer.begin_file(path, metadata)?;
        for piece in content.chunks(100_003) {
            writer.write(Bytes::copy_from_slice(piece)).await?;
        }
        writer.end_file().await?;
    }
    writer.finish(source()).await
}

pub(crate) fn source() -> serde_json::Value {
    serde_json::json!({"start": "0/2000028", "stop": "0/2000138", "timeline": 1})
}

pub(crate) fn restore_options() -> RestoreOptions {
    RestoreOptions {
        last: vec![LAST.to_owned()],
        ..RestoreOptions::default()
    }
}

pub(crate) fn assert_restored(directory: &Path) {
    for (path, content) in files() {
        let file = directory.join(path);
        assert!(fs::read(&file).unwrap() == content, "{path}");
        let metadata = fs::metadata(&file).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o7777, 0o600);
        let modified = metadata.modified().unwrap();
        let since = modified.duration_since(std::time::UNIX_EPOCH).unwrap();
        assert_eq!(since.as_secs(), 1_700_000_001);
    }
    let link = fs::read_link(directory.join("pg_tblspc/16400")).unwrap();
    assert_eq!(link, Path::new("/srv/tablespace"));
    assert!(directory.join("pg_wal").is_dir());
    assert!(!directory.join(format!("{LAST}.dr-unfinished")).exists());
}

pub(crate) fn on(store: &Arc<dyn ObjectStore>) -> Repository {
    Repository::new(Arc::clone(store), SOURCE).unwrap()
}

/// Writes, opens, verifies and restores.
pub(crate) async fn assert_usable(repository: &Repository, label: &Label) {
    let backup = repository.open(label).await.unwrap();
    assert_eq!(backup.header().source, source());
    backup
        .verify(&dr_repository::VerifyOptions::default())
        .await
        .unwrap();
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("data");
    backup
        .restore_into(&target, restore_options())
        .await
        .unwrap();
    assert_restored(&target);
}
