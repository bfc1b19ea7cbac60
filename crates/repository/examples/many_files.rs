//! Backs a million small files up, or restores them, and prints its peak memory: `bench/many-files` runs it.
//!
//! Arguments: `backup` or `restore`, a directory for store and files, and for a backup the number of files. The files are
//! made by a reader, so that no tree has to be laid out first; every one has other content.
#![expect(clippy::print_stdout, reason = "figures are its product")]
#![expect(clippy::unwrap_used, reason = "a bench may stop at the first surprise")]

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use dr_local::DirectoryStore;
use dr_model::{Clock, SystemClock};
use dr_provider::ObjectStore;
use dr_repository::{FrameReader, Metadata, Repository, RestoreOptions, WriterOptions};

const FILE_BYTES: usize = 600;

#[derive(Debug)]
struct Made(u64);

impl FrameReader for Made {
    fn read(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<usize> {
        assert_eq!(offset, 0, "a small file is one piece");
        for (at, chunk) in (0_u64..).zip(buffer.chunks_mut(8)) {
            let word = (self.0 * 1_000_003 + at / 3).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            chunk.copy_from_slice(&word.to_le_bytes()[..chunk.len()]);
        }
        Ok(buffer.len())
    }
}

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let directory = Path::new(&arguments[1]);
    let path = directory.join("store");
    if !path.exists() {
        DirectoryStore::initialise(&path, Bytes::from_static(b"{}"))
            .await
            .unwrap();
    }
    let store: Arc<dyn ObjectStore> = Arc::new(DirectoryStore::open(&path).unwrap());
    let repository = Repository::new(store, "files/bench").unwrap();
    let clock = SystemClock::new();
    let before = clock.elapsed();
    let done = match arguments[0].as_str() {
        "backup" => backup(&repository, arguments[2].parse().unwrap()).await,
        _ => restore(&repository, &directory.join("restored")).await,
    };
    let took = clock.elapsed() - before;
    println!(
        "{}: {done}; {:.1} s, peak memory {} MiB",
        arguments[0],
        took.as_secs_f64(),
        peak_bytes() >> 20
    );
}

async fn backup(repository: &Repository, files: u64) -> String {
    let metadata = Metadata {
        mode: 0o600,
        mtime: 1_700_000_000,
    };
    let label = "20261121T093005Z-0001".parse().unwrap();
    let mut writer = repository.begin(label, WriterOptions::default());
    for number in 0..files {
        // The order of a hash: nothing comes sorted.
        let number = number * 7_368_787 % files;
        let path = format!("base/{:03}/{number}", number % 1000);
        writer
            .read_file(&path, metadata, FILE_BYTES as u64, Arc::new(Made(number)))
            .await
            .unwrap();
    }
    let header = writer.finish(serde_json::Value::Null).await.unwrap();
    format!("{:?}", header.stats)
}

async fn restore(repository: &Repository, directory: &Path) -> String {
    let listing = repository.list().await.unwrap();
    let backup = repository.open(&listing.backups[0].label).await.unwrap();
    let stats = backup
        .restore_into(directory, RestoreOptions::default())
        .await;
    format!("{:?}", stats.unwrap())
}

/// Returns the largest amount of memory that this process had in use.
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        << 10
}
