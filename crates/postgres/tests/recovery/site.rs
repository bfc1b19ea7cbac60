//! A primary in one region, a store in each of two, and the driver over all of it.
//!
//! No receiver runs: the server archives into a directory, and the test pushes from there into the stores.

mod backups;
mod log;
mod primary;
mod setup;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use dr_coordination::register::{ClusterClaim, EpochRecord, Register};
use dr_coordination::{Actor, Patience};
use dr_local::DirectoryStore;
use dr_model::{Epoch, RegionName, TimelineId};
use dr_postgres::PostgresDriver;
use dr_provider::ObjectStore;
use jiff::Timestamp;

pub(crate) use setup::{Setup, driver};

use crate::server::{Server, Version, give_to_postgres};

pub(crate) const EAST: &str = "us-east-1";
pub(crate) const WEST: &str = "us-west-2";

const SCRIPT: &str = "restore.sh";

pub(crate) fn region(name: &str) -> RegionName {
    name.parse().unwrap()
}

/// A row of the ledger: its number and the time of its commit.
pub(crate) type Entry = (i64, Timestamp);

pub(crate) struct Site {
    pub(crate) primary: Server,
    pub(crate) driver: PostgresDriver,
    pub(crate) directory: tempfile::TempDir,
    /// Files that have been pushed, by region.
    pushed: Mutex<BTreeMap<RegionName, BTreeSet<String>>>,
}

impl Site {
    /// Starts a primary with segments of so many MiB, a ledger, and epoch 1.
    pub(crate) async fn start(segment_mebibytes: u32) -> Self {
        Self::start_as(Version::System, segment_mebibytes, &[]).await
    }

    /// As [`start`](Self::start), of a version and with further settings of the server.
    pub(crate) async fn start_as(
        version: Version,
        segment_mebibytes: u32,
        further: &[&str],
    ) -> Self {
        Self::start_in(new_directory(), version, segment_mebibytes, further).await
    }

    /// As [`start_as`](Self::start_as), in a directory whose `primary` may be a disk of its own.
    pub(crate) async fn start_in(
        directory: tempfile::TempDir,
        version: Version,
        segment_mebibytes: u32,
        further: &[&str],
    ) -> Self {
        let archive = directory.path().join("archive");
        fs::create_dir(&archive).unwrap();
        give_to_postgres(&archive);
        let data = directory.path().join("primary");
        Server::initialise_as(version, &data, segment_mebibytes);
        let further = further.iter().map(|setting| (*setting).to_owned());
        let settings: Vec<String> = primary::settings(&archive)
            .into_iter()
            .chain(further)
            .collect();
        let primary = Server::start(&data, &settings).await;
        primary
            .sql("create table ledger (id bigserial primary key, filler text)")
            .await;

        let mut stores: BTreeMap<RegionName, Arc<dyn ObjectStore>> = BTreeMap::new();
        for name in [EAST, WEST] {
            stores.insert(region(name), open_store(&directory.path().join(name)).await);
        }
        write_script(directory.path());
        let driver = driver(directory.path(), stores);
        let site = Self {
            primary,
            driver,
            directory,
            pushed: Mutex::default(),
        };
        site.open_epoch(1, 1).await;
        site
    }

    /// Opens an epoch whose primary is in the east.
    pub(crate) async fn open_epoch(&self, epoch: u64, timeline: u32) {
        self.open_epoch_in(EAST, epoch, timeline).await;
    }

    /// Opens an epoch, while the site's primary still runs.
    pub(crate) async fn open_epoch_in(&self, primary: &str, epoch: u64, timeline: u32) {
        let system_identifier = self.primary.system_identifier().await;
        let claim = ClusterClaim {
            system_identifier,
            timeline: TimelineId(timeline),
            start_lsn: None,
            log_epoch: None,
        };
        let record = EpochRecord {
            version: dr_coordination::register::FORMAT_VERSION,
            epoch: Epoch(epoch),
            workload: "orders".parse().unwrap(),
            primary: region(primary),
            register: region(WEST),
            clusters: BTreeMap::from([("database".parse().unwrap(), claim)]),
            sync: BTreeMap::new(),
            created_at: Timestamp::UNIX_EPOCH,
            created_by: Actor::new("test", "localhost", 1),
            reason: "test".to_owned(),
            sync_lost: std::collections::BTreeMap::new(),
            guards: std::collections::BTreeMap::new(),
            execution: None,
            override_reason: None,
        };
        self.register().create(&record).await.unwrap();
    }

    pub(crate) fn register(&self) -> Register {
        register(self.stores())
    }

    fn stores(&self) -> BTreeMap<RegionName, Arc<dyn ObjectStore>> {
        [EAST, WEST]
            .map(|name| (region(name), self.store(name)))
            .into()
    }

    pub(crate) fn store(&self, name: &str) -> Arc<dyn ObjectStore> {
        Arc::new(DirectoryStore::open(self.directory.path().join(name)).unwrap())
    }

    pub(crate) fn place(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

/// Makes a directory for a site.
pub(crate) fn new_directory() -> tempfile::TempDir {
    // Short, because the path of a unix socket may not exceed 107 bytes.
    let mut builder = tempfile::Builder::new();
    let directory = builder.prefix("dr").tempdir_in("/tmp").unwrap();
    give_to_postgres(directory.path());
    directory
}

/// Makes a store that the servers' user may read, or opens the one that is there.
async fn open_store(path: &Path) -> Arc<dyn ObjectStore> {
    if !path.exists() {
        fs::create_dir(path).unwrap();
        give_to_postgres(path);
        fs::set_permissions(path, fs::Permissions::from_mode(0o2770)).unwrap();
        DirectoryStore::initialise(path, Bytes::from_static(b"{}"))
            .await
            .unwrap();
    }
    Arc::new(DirectoryStore::open(path).unwrap())
}

fn register(stores: BTreeMap<RegionName, Arc<dyn ObjectStore>>) -> Register {
    let patience = Patience {
        attempts: 2,
        timeout: Duration::from_secs(5),
    };
    Register::new("orders".parse().unwrap(), stores, region(WEST)).with_patience(patience)
}

/// Writes the program that `restore_command` runs: this test binary, made to run [`crate::serve`] alone.
fn write_script(directory: &Path) {
    let path = directory.join(SCRIPT);
    let script = format!(
        "DR_TEST_SITE={} DR_TEST_FETCH=\"$*\" exec {} --exact serve --nocapture --test-threads 1 >&2\n",
        directory.display(),
        std::env::current_exe().unwrap().display()
    );
    fs::write(&path, script).unwrap();
    give_to_postgres(&path);
}
