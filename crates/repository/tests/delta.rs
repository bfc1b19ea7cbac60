//! Restoring over what is there: judged by the tree that comes out, and by how little is written.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;

use dr_provider::decorate::{Fault, Faulty, Rule};
use dr_provider::store::MemoryStore;
use dr_provider::{ErrorKind, ObjectStore};
use dr_repository::{
    Delta, EncryptionKey, Error, FRAME_BYTES, Keys, Repository, RestoreOptions, RestoreStats,
    Result,
};
use rstest::rstest;
use support::{LAST, assert_restored, label, on, restore_options, write};

fn over() -> RestoreOptions {
    RestoreOptions {
        delta: Some(Delta::default()),
        ..restore_options()
    }
}

fn memory() -> Arc<dyn ObjectStore> {
    Arc::new(MemoryStore::new("a"))
}

async fn restore(
    repository: &Repository,
    into: &Path,
    options: RestoreOptions,
) -> Result<RestoreStats> {
    let backup = repository.open(&label(1)).await?;
    backup.restore_into(into, options).await
}

/// A backup, and a directory that it was restored into.
async fn restored() -> (Repository, tempfile::TempDir) {
    let repository = on(&memory());
    write(&repository, label(1)).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    restore(
        &repository,
        &directory.path().join("data"),
        restore_options(),
    )
    .await
    .unwrap();
    (repository, directory)
}

#[rstest]
#[case::plain(false)]
#[case::encrypted(true)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_right_is_not_written(#[case] encrypted: bool) {
    let repository = if encrypted {
        on(&memory()).with_keys(Keys::new(vec![
            EncryptionKey::parse(&format!("dr-key1 {}", "7".repeat(64))).unwrap(),
        ]))
    } else {
        on(&memory())
    };
    write(&repository, label(1)).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    // What is not there yet is restored like any other.
    let first = restore(&repository, &data, over()).await.unwrap();
    assert_restored(&data);
    let again = restore(&repository, &data, over()).await.unwrap();
    assert_restored(&data);
    // The file that gets its name last is written again, and nothing else.
    assert_eq!(again.written_bytes, 8192);
    assert_eq!(
        again.removed, 2,
        "that file and the link, which are made anew"
    );
    assert_eq!(again.total_bytes, first.total_bytes);
    assert!(again.read_bytes < first.read_bytes / 2, "{again:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_differs_is_written_and_what_does_not_belong_there_goes() {
    let (repository, directory) = restored().await;
    let data = directory.path().join("data");
    let at = |path: &str| data.join(path);
    let outside = directory.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("letter"), "dear").unwrap();
    // One byte of a large file.
    let mut noise = fs::read(at("base/5/noise")).unwrap();
    noise[FRAME_BYTES + 7] ^= 1;
    fs::write(at("base/5/noise"), &noise).unwrap();
    // Cut off, too long, gone; something else in its place.
    fs::write(
        at("base/1/frame"),
        &fs::read(at("base/1/frame")).unwrap()[..1000],
    )
    .unwrap();
    let mut long = fs::read(at("base/1/1259")).unwrap();
    long.extend([1; 5000]);
    fs::write(at("base/1/1259"), long).unwrap();
    fs::remove_file(at("base/5/text")).unwrap();
    fs::remove_file(at("PG_VERSION")).unwrap();
    symlink(outside.join("letter"), at("PG_VERSION")).unwrap();
    fs::remove_file(at("base/1/empty")).unwrap();
    fs::create_dir_all(at("base/1/empty/deep")).unwrap();
    fs::remove_dir(at("pg_wal")).unwrap();
    symlink(&outside, at("pg_wal")).unwrap();
    // What the backup does not hold, before, between and after what it does.
    for path in [
        "a",
        "base/1/zzz",
        "base/3/file",
        "pg_wal.old",
        "postmaster.pid",
    ] {
        fs::create_dir_all(at(path).parent().unwrap()).unwrap();
        fs::write(at(path), "more").unwrap();
    }
    let stats = restore(&repository, &data, over()).await.unwrap();
    assert_restored(&data);
    for path in ["a", "base/1/zzz", "base/3", "pg_wal.old", "postmaster.pid"] {
        assert!(!at(path).exists(), "{path}");
    }
    assert!(at("base/1/empty").is_file());
    assert!(fs::symlink_metadata(at("pg_wal")).unwrap().is_dir());
    assert_eq!(fs::read(outside.join("letter")).unwrap(), b"dear");
    // A frame for the byte and one for what was cut off; what is small is in a frame or two.
    let text = 90_000 * 36;
    let most = text + 2 * FRAME_BYTES as u64 + 3 * 8192 + 4096;
    assert!(stats.written_bytes <= most, "{stats:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_cut_off_anywhere_is_finished_by_the_next() {
    let inner = memory();
    write(&on(&inner), label(1)).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    for n in 0..60 {
        // The same directory all the time, damaged in another way before each.
        restore(&on(&inner), &data, over()).await.unwrap();
        fs::write(
            data.join("base/1/frame"),
            vec![u8::try_from(n).unwrap(); 1 << 20],
        )
        .unwrap();
        fs::remove_file(data.join("base/5/noise")).unwrap();
        let faults = Arc::new(Faulty::scripted(Arc::clone(&inner), Vec::new()));
        faults.set_rules(vec![
            Rule::all("*", Fault::Before(ErrorKind::Unavailable)).skip(n),
        ]);
        let broken: Arc<dyn ObjectStore> = faults.clone();
        match restore(&on(&broken), &data, over()).await {
            Ok(_) => {
                assert!(n >= 4, "{n}");
                assert_restored(&data);
                return;
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable),
        }
        restore(&on(&inner), &data, over()).await.unwrap();
        assert_restored(&data);
    }
    panic!("restoring makes more calls than that");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_elsewhere_that_others_use_is_left_alone() {
    let (repository, directory) = restored().await;
    let data = directory.path().join("data");
    let place = directory.path().join("place");
    let options = || RestoreOptions {
        elsewhere: [("base/5".to_owned(), place.clone())].into(),
        ..over()
    };
    restore(&repository, &data, options()).await.unwrap();
    assert_eq!(fs::read_link(data.join("base/5")).unwrap(), place);
    assert_restored(&data);
    fs::write(place.join("text"), "changed").unwrap();
    restore(&repository, &data, options()).await.unwrap();
    assert_restored(&data);
    fs::write(place.join("another"), "theirs").unwrap();
    fs::write(data.join("base/1/more"), "more").unwrap();
    let error = restore(&repository, &data, options()).await.unwrap_err();
    let foreign = place.join("another");
    assert!(
        matches!(&error, Error::Foreign(path) if *path == foreign),
        "{error}"
    );
    // Nothing at all was done.
    assert_eq!(fs::read(&foreign).unwrap(), b"theirs");
    assert!(data.join("base/1/more").exists() && data.join(LAST).exists());
    fs::remove_file(&foreign).unwrap();
    // A place that it does not have yet has to be empty.
    let other = directory.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("letter"), "dear").unwrap();
    let moved = || RestoreOptions {
        elsewhere: [("base/5".to_owned(), other.clone())].into(),
        ..over()
    };
    let error = restore(&repository, &data, moved()).await.unwrap_err();
    assert!(
        matches!(&error, Error::Occupied(path) if *path == other),
        "{error}"
    );
    fs::remove_file(other.join("letter")).unwrap();
    restore(&repository, &data, moved()).await.unwrap();
    assert_eq!(fs::read_link(data.join("base/5")).unwrap(), other);
    assert_restored(&data);
    assert!(place.join("noise").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_with_another_name_elsewhere_is_not_written_through() {
    let (repository, directory) = restored().await;
    let data = directory.path().join("data");
    let kept = directory.path().join("kept");
    fs::hard_link(data.join("base/5/noise"), &kept).unwrap();
    let mut content = fs::read(&kept).unwrap();
    content[5] ^= 1;
    fs::write(&kept, &content).unwrap();
    restore(&repository, &data, over()).await.unwrap();
    assert_restored(&data);
    assert!(fs::read(&kept).unwrap() == content);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_begins_is_told_before_anything_is_changed() {
    let (repository, directory) = restored().await;
    let data = directory.path().join("data");
    fs::write(data.join("base/1/more"), "more").unwrap();
    let seen = data.join("base/1/more");
    let refusing = RestoreOptions {
        begin: Some(Arc::new(move || {
            assert!(seen.exists());
            Err(std::io::Error::other("not now"))
        })),
        ..over()
    };
    let error = restore(&repository, &data, refusing).await.unwrap_err();
    assert!(
        error.to_string().contains("begin to restore into"),
        "{error}"
    );
    assert!(data.join("base/1/more").exists());
}
