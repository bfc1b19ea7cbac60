//! A restore that is killed, and one that finds no room: nothing starts from what is left, and the next one finishes it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use dr_local::DirectoryStore;
use dr_provider::decorate::{Fault, Faulty, Operation, Rule};
use dr_provider::driver::{
    Backup as _, Existing, Restore, RestoreProgress, RestoreRequest, RestoreTarget,
};
use dr_provider::error::chain;
use dr_provider::{ErrorKind, ObjectStore};
use rstest::rstest;
use tokio::sync::watch;

use super::delta::{assert_recovers, restore};
use super::protected;
use crate::apart::{is_apart, mount_disk, resize_disk};
use crate::server::{Server, run};
use crate::site::{EAST, Site, WEST, driver, region};

/// Content that takes more than a few reads.
async fn filled() -> Site {
    let (site, _) = protected(1).await;
    let sql = "create table bulk as select n, (select string_agg(md5(random()::text || n || i), '') \
               from generate_series(1, 32) i) as text from generate_series(1, 24000) n";
    site.primary.sql(sql).await;
    site.back_up().await;
    let copied = site.driver.copy(&region(EAST), &region(WEST), None).await;
    copied.unwrap();
    site.commit(10).await;
    site.switch().await;
    site.push(WEST).await;
    site
}

/// What is killed: not a test, but a restore into `DR_TEST_RESTORE` that ends itself as `kill -9` does, with a part of the
/// files written, and the rest still to be read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restore_and_die() {
    let Some(into) = std::env::var_os("DR_TEST_RESTORE") else {
        return;
    };
    let reads = std::env::var("DR_TEST_READS").unwrap().parse().unwrap();
    let existing = match std::env::var("DR_TEST_DELTA").unwrap().as_str() {
        "true" => Existing::SameCluster,
        _ => Existing::Nothing,
    };
    let site = PathBuf::from(std::env::var_os("DR_TEST_SITE").unwrap());
    let open = |name: &str| -> Arc<dyn ObjectStore> {
        let store = Arc::new(DirectoryStore::open(site.join(name)).unwrap());
        let never = Fault::Delay(Duration::from_secs(3600));
        let rule = Rule::on(Operation::GetRange, "*/packs/*", never).skip(reads);
        Arc::new(Faulty::scripted(store, vec![rule]))
    };
    let stores = [EAST, WEST].map(|name| (region(name), open(name)));
    let driver = driver(&site, BTreeMap::from(stores));
    let (sender, mut written) = watch::channel(RestoreProgress::default());
    let request = RestoreRequest {
        existing,
        progress: Some(sender),
        ..RestoreRequest::new(region(WEST), RestoreTarget::Latest, into.into())
    };
    let begun = async {
        let some = |progress: &RestoreProgress| progress.total_bytes > 0;
        written.wait_for(some).await.unwrap();
    };
    tokio::select! {
        ended = Restore::restore(&driver, &request) => panic!("it ended before it was killed: {ended:?}"),
        () = begun => {}
    }
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)
        .unwrap();
}

fn restore_until_killed(site: &Site, into: &Path, delta: bool, reads: u32) {
    let ended = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "restore::killed::restore_and_die", "--nocapture"])
        .env("DR_TEST_SITE", site.directory.path())
        .env("DR_TEST_RESTORE", into)
        .env("DR_TEST_DELTA", delta.to_string())
        .env("DR_TEST_READS", reads.to_string())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.signal(), Some(9), "{said}");
}

async fn assert_starts_nothing(data: &Path) {
    assert!(!data.join("global/pg_control").exists());
    let log = Server::spawn(data, &[""; 0]).ended().await;
    assert!(!log.contains("ready to accept connections"), "{log}");
}

/// The control file comes last, and what is there is compared by hash (R5, R32).
#[rstest]
#[case::into_nothing(false)]
#[case::over_what_is_there(true)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_that_was_killed_is_finished_by_the_next(#[case] delta: bool) {
    let site = filled().await;
    let data = site.place("recovered");
    if delta {
        // One that is whole and is then damaged everywhere, so that there is much to do.
        restore(&site, &data, Existing::Nothing).await.unwrap();
        for database in fs::read_dir(data.join("base")).unwrap() {
            for file in fs::read_dir(database.unwrap().path()).unwrap() {
                fs::write(file.unwrap().path(), "damaged").unwrap();
            }
        }
    }
    restore_until_killed(&site, &data, delta, 1);
    assert_starts_nothing(&data).await;
    let plain = restore(&site, &data, Existing::Nothing).await.unwrap_err();
    assert!(chain(&plain).contains("not empty"), "{}", chain(&plain));
    assert!(plain.hint().unwrap().contains("`--delta`"));
    // Killed again, further on.
    restore_until_killed(&site, &data, true, 2);
    assert_starts_nothing(&data).await;
    let report = restore(&site, &data, Existing::SameCluster).await.unwrap();
    assert!(report.written_bytes < report.total_bytes, "{report:?}");
    let server = assert_recovers(&site, &data).await;
    let rows = server.sql("select count(*)::text from bulk where length(text) = 1024");
    assert_eq!(rows.await, "24000");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_too_small_is_said_and_the_restore_goes_on_when_there_is_room() {
    if !is_apart(
        "restore::killed::a_disk_that_is_too_small_is_said_and_the_restore_goes_on_when_there_is_room",
    ) {
        return;
    }
    let site = filled().await;
    let disk = site.place("disk");
    mount_disk(&disk, 24);
    let data = disk.join("data");
    let error = restore(&site, &data, Existing::Nothing).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Full, "{}", chain(&error));
    let hint = error.hint().unwrap_or_default();
    assert!(hint.contains("make room"), "{hint}");
    assert!(!data.exists(), "it is seen before anything is written");
    // Room for the bytes, and none for so many files, which nobody sees beforehand.
    resize_disk(&disk, "remount,size=1g,nr_inodes=300");
    let error = restore(&site, &data, Existing::Nothing).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Full, "{}", chain(&error));
    let hint = error.hint().unwrap_or_default();
    assert!(hint.contains("make room"), "{hint}");
    assert!(hint.contains("--delta"), "{hint}");
    resize_disk(&disk, "remount,size=1g,nr_inodes=0");
    assert_starts_nothing(&data).await;
    restore(&site, &data, Existing::SameCluster).await.unwrap();
    assert_recovers(&site, &data).await;
    run(Command::new("umount").arg("--lazy").arg(&disk));
}
