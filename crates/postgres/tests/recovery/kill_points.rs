//! Processes that are killed at each of their calls to a store: what is there then is whole, and whoever does it again comes to the same
//! end as if nobody had been disturbed.
//!
//! A call that is about to be made is the boundary behind the one before, so each is met once. Nothing has to be told where to stop:
//! the calls are counted until a process lives to its end.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use dr_local::DirectoryStore;
use dr_model::Retention;
use dr_postgres::PostgresDriver;
use dr_provider::driver::{
    Backup as _, Existing, Expire, ExpireRequest, LogStream as _, Restore, RestoreRequest,
    RestoreTarget,
};
use dr_provider::store::{CopySource, ObjectInfo};
use dr_provider::{Key, ObjectStore, Result};

use crate::expire::let_the_grace_pass;
use crate::restore::{recover, walk};
use crate::server::{Server, run};
use crate::site::{EAST, Site, WEST, driver, region};

/// Kills the process at a call.
#[derive(Debug)]
struct Deadly {
    inner: DirectoryStore,
    /// Calls to all stores that are still lived through.
    left: Arc<AtomicU64>,
}

impl Deadly {
    fn call(&self) {
        let left = self
            .left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                left.checked_sub(1)
            });
        if left.is_err() {
            let own = rustix::process::getpid();
            rustix::process::kill_process(own, rustix::process::Signal::KILL).unwrap();
        }
    }
}

#[async_trait]
impl ObjectStore for Deadly {
    fn location(&self) -> &str {
        self.inner.location()
    }

    async fn create(&self, key: &Key, body: Bytes) -> Result<()> {
        self.call();
        self.inner.create(key, body).await
    }

    async fn get(&self, key: &Key) -> Result<Bytes> {
        self.call();
        self.inner.get(key).await
    }

    async fn get_range(&self, key: &Key, offset: u64, length: u64) -> Result<Bytes> {
        self.call();
        self.inner.get_range(key, offset, length).await
    }

    async fn head(&self, key: &Key) -> Result<ObjectInfo> {
        self.call();
        self.inner.head(key).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<ObjectInfo>> {
        self.call();
        self.inner.list(prefix, after, limit).await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.call();
        self.inner.delete(key).await
    }

    async fn free_bytes(&self) -> Option<u64> {
        self.inner.free_bytes().await
    }

    fn copy_source(&self, key: &Key) -> Option<CopySource> {
        self.inner.copy_source(key)
    }

    async fn copy_from(&self, source: &CopySource, key: &Key) -> Result<()> {
        self.call();
        self.inner.copy_from(source, key).await
    }
}

/// What a process does with the store in the east.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Push,
    Compact,
    Expire,
    Restore,
}

impl Work {
    const ALL: [Self; 4] = [Self::Push, Self::Compact, Self::Expire, Self::Restore];

    async fn run(self, driver: &PostgresDriver, site: &Path, delta: bool) {
        let east = region(EAST);
        match self {
            Self::Push => {
                // The two that are new.
                for segment in segments(site).iter().rev().take(2).rev() {
                    let path = site.join("archive").join(segment);
                    driver.push_wal(&east, &path).await.unwrap();
                }
            }
            Self::Compact => {
                let report = driver.compact(&east).await.unwrap();
                assert_eq!(report.missing, Vec::<String>::new());
            }
            Self::Expire => {
                let request = ExpireRequest {
                    region: east,
                    retention: Retention {
                        last: 1,
                        ..Retention::NOTHING
                    },
                    labels: Vec::new(),
                };
                Expire::expire(driver, &request).await.unwrap();
            }
            Self::Restore => {
                let request = RestoreRequest {
                    existing: match delta {
                        true => Existing::SameCluster,
                        false => Existing::Nothing,
                    },
                    ..RestoreRequest::new(east, RestoreTarget::Latest, site.join("restored"))
                };
                Restore::restore(driver, &request).await.unwrap();
            }
        }
    }
}

/// Returns the names of what the server has archived, in order.
fn segments(site: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(site.join("archive")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.len() == 24).collect()
}

/// Not a test: a process that works and is killed, for the tests here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_and_be_killed() {
    let Ok(work) = std::env::var("DR_TEST_KILL") else {
        return;
    };
    let named = |candidate: &Work| format!("{candidate:?}") == work;
    let work = Work::ALL.into_iter().find(named).unwrap();
    let site = PathBuf::from(std::env::var_os("DR_TEST_SITE").unwrap());
    let calls = std::env::var("DR_TEST_CALLS").unwrap().parse().unwrap();
    let left = Arc::new(AtomicU64::new(calls));
    let stores = [EAST, WEST].map(|name| {
        let store: Arc<dyn ObjectStore> = Arc::new(Deadly {
            inner: DirectoryStore::open(site.join(name)).unwrap(),
            left: Arc::clone(&left),
        });
        (region(name), store)
    });
    let driver = driver(&site, BTreeMap::from(stores));
    work.run(&driver, &site, false).await;
}

/// Runs a process that is killed at a call; tells whether it came to it.
fn is_killed(site: &Site, work: Work, calls: u64) -> bool {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kill_points::work_and_be_killed"])
        .args(["--test-threads", "1", "--nocapture"])
        .env("DR_TEST_KILL", format!("{work:?}"))
        .env("DR_TEST_SITE", site.directory.path())
        .env("DR_TEST_CALLS", calls.to_string())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    if output.status.signal() == Some(9) {
        return true;
    }
    assert!(output.status.success(), "{work:?} {calls}: {output:?}");
    false
}

/// What the store in the east is before each process, kept beside it.
struct Kept {
    store: PathBuf,
    copy: PathBuf,
}

impl Kept {
    fn of(site: &Site, name: &str) -> Self {
        let kept = Self {
            store: site.place(EAST),
            copy: site.place(name),
        };
        run(Command::new("cp")
            .arg("-a")
            .arg(&kept.store)
            .arg(&kept.copy));
        kept
    }

    fn put_back(&self) {
        for entry in fs::read_dir(&self.store).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => fs::remove_dir_all(path).unwrap(),
                false => fs::remove_file(path).unwrap(),
            }
        }
        let all = self.copy.join(".");
        run(Command::new("cp").arg("-a").arg(all).arg(&self.store));
    }

    /// Returns the names of all objects.
    fn names(&self) -> BTreeSet<String> {
        let root = self.store.display().to_string();
        let files = walk(&self.store).into_iter();
        // What is being written has a name that begins with a dot until it is whole.
        files
            .map(|path| path[root.len()..].to_owned())
            .filter(|path| !path.contains("/."))
            .collect()
    }
}

/// Has the work killed at every call, done again to its end, and looked at; returns at how many.
async fn at_every_call(site: &Site, work: Work, name: &str, look: impl AsyncFn(&str)) -> u64 {
    let kept = Kept::of(site, name);
    let place = site.directory.path();
    work.run(&site.driver, place, false).await;
    let undisturbed = kept.names();
    look("undisturbed").await;
    for calls in 0.. {
        kept.put_back();
        if !is_killed(site, work, calls) {
            assert_eq!(kept.names(), undisturbed);
            return calls;
        }
        work.run(&site.driver, place, false).await;
        assert_eq!(kept.names(), undisturbed, "{work:?} killed at call {calls}");
        look(&format!("{work:?} killed at call {calls}")).await;
    }
    unreachable!("it ends")
}

/// Every archived segment comes out of the store as it went in.
async fn assert_log_is_there(site: &Site, when: &str) {
    let destination = site.place("fetched");
    for segment in segments(site.directory.path()) {
        fs::remove_file(&destination).ok();
        let east = region(EAST);
        let fetched = site.driver.fetch_wal(&east, &segment, &destination, None);
        assert!(fetched.await.unwrap(), "{segment}, {when}");
        let archived = fs::read(site.archive().join(&segment)).unwrap();
        assert!(
            fs::read(&destination).unwrap() == archived,
            "{segment}, {when}"
        );
    }
}

/// A site with a recovery point, the log of which is in the east up to its end.
async fn protected() -> Site {
    let site = Site::start(1).await;
    site.commit(20).await;
    // Whatever was archived before is in the store from the first position on.
    site.switch().await;
    site.push(EAST).await;
    site.back_up().await;
    site.commit(20).await;
    site.switch().await;
    site.push(EAST).await;
    site
}

async fn assert_restores(site: &Site, name: &str) {
    let expected = Site::ledger(&site.primary).await;
    let server = recover(site, EAST, RestoreTarget::Latest, name).await;
    assert_eq!(Site::ledger(&server).await, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_may_be_killed_at_every_call() {
    let site = protected().await;
    for _ in 0..2 {
        site.commit(300).await;
        site.switch().await;
    }
    let log = async |when: &str| assert_log_is_there(&site, when).await;
    let calls = at_every_call(&site, Work::Push, "before", log).await;
    assert!(calls > 10, "{calls}");
    assert_restores(&site, "recovered").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compaction_may_be_killed_at_every_call() {
    let site = protected().await;
    let log = async |when: &str| assert_log_is_there(&site, when).await;
    let calls = at_every_call(&site, Work::Compact, "before", log).await;
    assert!(calls > 10, "{calls}");
    assert_restores(&site, "recovered").await;
}

/// Both runs that it takes: the one that gives up, and the one that deletes a day later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expiry_may_be_killed_at_every_call() {
    let site = protected().await;
    let point = site.back_up().await;
    site.commit(20).await;
    site.switch().await;
    site.push(EAST).await;
    site.driver.compact(&region(EAST)).await.unwrap();
    let newest = async |when: &str| {
        let points = site.driver.list(&site.store(EAST)).await.unwrap();
        let labels: Vec<String> = points.complete.into_iter().map(|it| it.label).collect();
        assert_eq!(labels, std::slice::from_ref(&point.label), "{when}");
    };
    let giving_up = at_every_call(&site, Work::Expire, "before", newest).await;
    let_the_grace_pass(&site).await;
    let deleting = at_every_call(&site, Work::Expire, "given-up", newest).await;
    assert!(
        giving_up > 5 && deleting > giving_up,
        "{giving_up} {deleting}"
    );
    assert_restores(&site, "recovered").await;
}

/// At every read, and at moments up to its end, when files are made durable and the control file gets its name: what is there then
/// starts whole or not at all, and the next one finishes it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_may_be_killed_at_every_call_and_at_any_moment() {
    const MOMENTS: u32 = 8;
    let site = protected().await;
    let place = site.directory.path();
    let data = site.place("restored");
    let mut calls = 0;
    while is_killed(&site, Work::Restore, calls) {
        assert!(!data.join("global/pg_control").exists(), "{calls}");
        // Nothing of it stands in the way of the next, which is told that there may be something.
        Work::Restore.run(&site.driver, place, data.exists()).await;
        match calls % 12 {
            0 => assert_whole(&site, &data).await,
            _ => fs::remove_dir_all(&data).unwrap(),
        }
        calls += 1;
    }
    assert!(calls > 10, "{calls}");
    fs::remove_dir_all(&data).unwrap();

    let clock = dr_model::SystemClock::new();
    let begun = dr_model::Clock::elapsed(&clock);
    assert!(!is_killed(&site, Work::Restore, u64::MAX));
    let whole = dr_model::Clock::elapsed(&clock) - begun;
    fs::remove_dir_all(&data).unwrap();
    for moment in 0..MOMENTS {
        // The later half, in which everything has been read.
        let limit = whole * (MOMENTS + moment) / (2 * MOMENTS);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kill_points::work_and_be_killed"])
            .env("DR_TEST_KILL", "Restore")
            .env("DR_TEST_SITE", place)
            .env("DR_TEST_CALLS", u64::MAX.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        tokio::time::sleep(limit).await;
        child.kill().unwrap();
        child.wait().unwrap();
        if !data.join("global/pg_control").exists() {
            Work::Restore.run(&site.driver, place, data.exists()).await;
        }
        assert_whole(&site, &data).await;
    }
}

/// What was restored comes up with all that was committed; removed again.
async fn assert_whole(site: &Site, data: &Path) {
    let server = Server::start(data, &["track_commit_timestamp=on"]).await;
    server.wait_until_promoted().await;
    let expected = Site::ledger(&site.primary).await;
    assert_eq!(Site::ledger(&server).await, expected);
    drop(server);
    fs::remove_dir_all(data).unwrap();
}
