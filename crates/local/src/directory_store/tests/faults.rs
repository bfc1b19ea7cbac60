//! A disk that is full, read-only, gone: a small tmpfs in a mount namespace of the test's own.

use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use dr_provider::conformance::{Missing, skipped};
use dr_provider::{ErrorKind, ObjectStore};

use super::{DirectoryStore, key, kind};

/// Names the mounted directory to the test when it runs again inside the namespace.
const DISK: &str = "DR_TEST_DISK";

/// Runs this test again with a small disk; returns its directory there, and `None` here.
fn disk(test: &str) -> Option<PathBuf> {
    if let Some(disk) = std::env::var_os(DISK) {
        return Some(disk.into());
    }
    if !rustix::process::geteuid().is_root() {
        let why = format!("{test}: mounting a small disk needs root");
        skipped(Missing::Right, &why);
        return None;
    }
    let directory = tempfile::tempdir().unwrap();
    let script = "mount -t tmpfs -o size=256k dr-test \"$0\" && exec \"$@\"";
    let inside = Command::new("unshare")
        .args(["--mount", "sh", "-c", script])
        .arg(directory.path())
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture"])
        .arg(format!("directory_store::tests::faults::{test}"))
        .env(DISK, directory.path())
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&inside.stdout);
    let errors = String::from_utf8_lossy(&inside.stderr);
    assert!(inside.status.success(), "{output}{errors}");
    assert!(output.contains("1 passed"), "{output}");
    None
}

async fn store(disk: &Path) -> DirectoryStore {
    let path = disk.join("store");
    DirectoryStore::initialise(&path, "id".into())
        .await
        .unwrap();
    DirectoryStore::open(path).unwrap()
}

fn run(program: &str, arguments: &[&str], disk: &Path) {
    let mut command = Command::new(program);
    assert!(
        command
            .args(arguments)
            .arg(disk)
            .status()
            .unwrap()
            .success()
    );
}

#[tokio::test]
async fn a_full_disk_takes_nothing_and_loses_nothing() {
    let Some(disk) = disk("a_full_disk_takes_nothing_and_loses_nothing") else {
        return;
    };
    let store = store(&disk).await;
    let body = Bytes::from(vec![7; 40_000]);
    let mut kept = 0;
    let full = loop {
        match store.create(&key(&format!("{kept}")), body.clone()).await {
            Ok(()) => kept += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(full.kind(), ErrorKind::Full);
    assert!(kept > 2);
    let missing = store.get(&key(&format!("{kept}"))).await;
    assert_eq!(kind(missing), ErrorKind::NotFound);
    for number in 0..kept {
        assert!(store.get(&key(&number.to_string())).await.unwrap() == body);
    }
    let temporary = std::fs::read_dir(disk.join("store/.tmp")).unwrap();
    assert_eq!(temporary.count(), 0, "what was written in vain is removed");
    store.delete(&key("0")).await.unwrap();
    store.create(&key("again"), body).await.unwrap();
}

#[tokio::test]
async fn a_read_only_disk_is_read() {
    let Some(disk) = disk("a_read_only_disk_is_read") else {
        return;
    };
    let store = store(&disk).await;
    store.create(&key("a"), "1".into()).await.unwrap();
    run("mount", &["-o", "remount,ro"], &disk);
    let error = store.create(&key("b"), "2".into()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.hint().is_some());
    assert_eq!(kind(store.delete(&key("a")).await), ErrorKind::Denied);
    let taken = store.create(&key("a"), "2".into()).await;
    assert_eq!(kind(taken), ErrorKind::AlreadyExists);
    assert_eq!(store.get(&key("a")).await.unwrap(), "1");
}

#[tokio::test]
async fn an_unmounted_disk_is_not_an_empty_one() {
    let Some(disk) = disk("an_unmounted_disk_is_not_an_empty_one") else {
        return;
    };
    let mounted = store(&disk).await;
    mounted.create(&key("a"), "1".into()).await.unwrap();
    // What stands below the mount point is a store's directory too, but no store.
    run("umount", &["--lazy"], &disk);
    std::fs::create_dir_all(disk.join("store/.tmp")).unwrap();
    for missing in ["a", "b"] {
        let read = mounted.get(&key(missing)).await;
        assert_eq!(kind(read), ErrorKind::Unavailable);
        let created = mounted.create(&key(missing), "2".into()).await;
        assert_eq!(kind(created), ErrorKind::Unavailable);
    }
    let left = std::fs::read_dir(disk.join("store")).unwrap();
    assert_eq!(left.count(), 1, "nothing is written below the mount point");
}
