//! A primary in one region, a store in each of two, and the driver over all of it.
//!
//! No receiver runs: the server archives into a directory, and the test pushes from there into the stores.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use dr_coordination::chain::bounds;
use dr_coordination::register::{ClusterClaim, EpochRecord, Register};
use dr_coordination::{Actor, Patience};
use dr_local::{DirectoryStore, LocalHost, LocalSecrets};
use dr_model::{Clock, Epoch, Lsn, RegionName, SystemClock, TimelineId};
use dr_pgwire::TlsMode;
use dr_postgres::{
    BackupOptions, EncryptionKey, InstanceOptions, Keys, Options, Parts, PostgresDriver,
    SlotPolicy, StandbyPolicy, StoreLoss, VerifyOptions,
};
use dr_provider::driver::{Backup as _, RecoveryPoint};
use dr_provider::{Host, ObjectStore};
use jiff::Timestamp;

use crate::server::{PATIENCE, PORT, Server, Version, give_to_postgres, stop_command};

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
        let settings: Vec<String> = settings(&archive).into_iter().chain(further).collect();
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
            primary: region(EAST),
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

    /// Takes backups in another way from now on.
    pub(crate) fn back_up_by(&mut self, backup: BackupOptions) {
        self.back_up_of(&self.primary.data.clone(), backup);
    }

    /// As [`back_up_by`](Self::back_up_by), with another data directory in the configuration.
    pub(crate) fn back_up_of(&mut self, data: &Path, backup: BackupOptions) {
        self.driver = driver_that(self.directory.path(), self.stores(), data, backup);
    }

    /// Goes by another clock from now on.
    pub(crate) fn tell_time_by(&mut self, clock: Arc<dyn Clock>) {
        let (backup, verify) = (BackupOptions::default(), VerifyOptions::default());
        let (directory, data) = (self.directory.path(), self.primary.data.clone());
        let stores = self.stores();
        let block = StoreLoss::Block;
        self.driver = make_driver(directory, stores, &data, backup, verify, block, clock);
    }

    /// Proves recovery points in another way from now on.
    pub(crate) fn verify_by(&mut self, verify: VerifyOptions) {
        self.driver = driver_that_verifies(self.directory.path(), self.stores(), verify);
    }

    /// Returns the timelines of which a store holds any log.
    pub(crate) async fn timelines(&self, name: &str) -> Vec<u32> {
        let cluster = self.primary.system_identifier().await;
        let chains = dr_coordination::chain::chains(&*self.store(name), cluster).await;
        let mut timelines: Vec<u32> = chains
            .unwrap()
            .iter()
            .map(|chain| chain.timeline.0)
            .collect();
        timelines.dedup();
        timelines
    }

    /// Encrypts what is written from now on with another key.
    pub(crate) fn encrypt(&mut self, digit: char) {
        let place = |name: &str| self.directory.path().join(name);
        if place("key").exists() {
            fs::rename(place("key"), place("old-key")).unwrap();
        }
        let text = format!("dr-key1 {}", digit.to_string().repeat(64));
        fs::write(place("key"), text).unwrap();
        give_to_postgres(&place("key"));
        self.driver = self.same_driver(self.directory.path());
    }

    /// Forgets all keys.
    pub(crate) fn forget_keys(&mut self) {
        for name in ["key", "old-key"] {
            fs::remove_file(self.directory.path().join(name)).unwrap();
        }
        self.driver = self.same_driver(self.directory.path());
    }

    /// Returns another driver for the same.
    pub(crate) fn same_driver(&self, directory: &Path) -> PostgresDriver {
        driver(directory, self.stores())
    }

    /// Returns a driver for a site that another process made.
    pub(crate) fn driver_of(directory: &Path) -> PostgresDriver {
        let store = |name: &str| -> Arc<dyn ObjectStore> {
            Arc::new(DirectoryStore::open(directory.join(name)).unwrap())
        };
        driver(
            directory,
            [EAST, WEST].map(|name| (region(name), store(name))).into(),
        )
    }

    async fn reader_of(&self, label: &str) -> dr_repository::BackupReader {
        let cluster = self.primary.system_identifier().await;
        let repository =
            dr_repository::Repository::new(self.store(EAST), format!("postgres/{cluster}"));
        repository
            .unwrap()
            .open(&label.parse().unwrap())
            .await
            .unwrap()
    }

    /// Returns what the driver wrote of a backup.
    pub(crate) async fn source_of(&self, label: &str) -> serde_json::Value {
        self.reader_of(label).await.header().source.clone()
    }

    /// Tells which of `paths` a backup holds.
    pub(crate) async fn holds(&self, label: &str, paths: &[&str]) -> Vec<bool> {
        let reader = self.reader_of(label).await;
        let mut held = Vec::new();
        for path in paths {
            held.push(reader.file(path).await.unwrap().is_some());
        }
        held
    }

    /// Backs up while nothing is committed.
    pub(crate) async fn back_up_quietly(&self) -> RecoveryPoint {
        let east = region(EAST);
        let push = async {
            loop {
                self.primary.sql("select pg_switch_wal()").await;
                self.push(EAST).await;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::select! {
            report = self.driver.take(&east) => report.unwrap().recovery_point,
            () = push => unreachable!(),
        }
    }

    pub(crate) fn store(&self, name: &str) -> Arc<dyn ObjectStore> {
        Arc::new(DirectoryStore::open(self.directory.path().join(name)).unwrap())
    }

    /// Commits so many entries, each by itself.
    pub(crate) async fn commit(&self, entries: u32) {
        let mut connection = self.primary.connect().await;
        for _ in 0..entries {
            let sql = "insert into ledger (filler) values (repeat('x', 300))";
            connection.query(sql).await.unwrap();
        }
    }

    /// Returns all entries that a server has, with the times of their commits.
    pub(crate) async fn ledger(server: &Server) -> Vec<Entry> {
        let sql = "select id, (extract(epoch from pg_xact_commit_timestamp(xmin)) * 1000000)::bigint \
                   from ledger order by id";
        let rows = server.connect().await.query(sql).await.unwrap();
        let entry = |row: &dr_pgwire::Row| {
            let micros: i64 = row.get(1).unwrap();
            (
                row.get(0).unwrap(),
                Timestamp::from_microsecond(micros).unwrap(),
            )
        };
        rows.iter().map(entry).collect()
    }

    /// Ends the segment being written and waits until it is archived.
    pub(crate) async fn switch(&self) -> Lsn {
        let end = self.primary.lsn().await;
        let name = self
            .primary
            .sql("select pg_walfile_name(pg_switch_wal())")
            .await;
        let archived = async {
            while !self.archive().join(&name).exists() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, archived).await.is_err() {
            panic!("{name} is not archived: {}", self.primary.log());
        }
        end
    }

    pub(crate) fn archive(&self) -> PathBuf {
        self.directory.path().join("archive")
    }

    /// Returns the names of the archived segments in order.
    pub(crate) fn segments(&self) -> Vec<String> {
        let entries = fs::read_dir(self.archive()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| name.len() == 24).collect();
        names.sort();
        names
    }

    /// Pushes what is archived and has not been pushed into that region's store.
    pub(crate) async fn push(&self, name: &str) {
        for segment in self.segments() {
            let known = self
                .pushed
                .lock()
                .unwrap()
                .entry(region(name))
                .or_default()
                .contains(&segment);
            if !known {
                let path = self.archive().join(&segment);
                self.driver.push_wal(&region(name), &path).await.unwrap();
                self.pushed
                    .lock()
                    .unwrap()
                    .entry(region(name))
                    .or_default()
                    .insert(segment);
            }
        }
    }

    /// Backs up the primary while entries are committed and the log is pushed into both stores.
    pub(crate) async fn back_up(&self) -> RecoveryPoint {
        let east = region(EAST);
        let mut take = Box::pin(self.driver.take(&east));
        loop {
            let meanwhile = async {
                self.commit(20).await;
                self.push(EAST).await;
                self.push(WEST).await;
            };
            let mut meanwhile = Box::pin(meanwhile);
            tokio::select! {
                biased;
                report = &mut take => {
                    // What was begun is ended: a commit that is let go of may still come.
                    meanwhile.await;
                    return report.unwrap().recovery_point;
                }
                () = &mut meanwhile => {}
            }
        }
    }

    /// Starts the primary again as a standby without a primary, and promotes it.
    pub(crate) async fn restart_promoted(&mut self) {
        self.restart_as_standby().await;
        self.primary.sql("select pg_promote()").await;
    }

    /// Starts the primary again as a standby without a primary.
    pub(crate) async fn restart_as_standby(&mut self) {
        let data = self.primary.data.clone();
        self.primary.stop();
        fs::write(data.join("standby.signal"), "").unwrap();
        give_to_postgres(&data.join("standby.signal"));
        self.primary = Server::start(&data, &settings(&self.archive())).await;
    }

    /// Ends the primary as a crash does, lets something happen to its files, and starts it again.
    pub(crate) async fn crash(&mut self, meanwhile: impl FnOnce(&Path)) {
        self.primary.crash();
        meanwhile(&self.primary.data);
        let settings = settings(&self.archive());
        self.primary = Server::start(&self.primary.data.clone(), &settings).await;
    }

    /// Stops the primary for good and starts one of another cluster, with a ledger of its own.
    pub(crate) async fn replace_primary(&mut self) {
        self.primary.stop();
        let data = self.primary.data.clone();
        fs::rename(&data, data.with_extension("old")).unwrap();
        for segment in self.segments() {
            fs::remove_file(self.archive().join(segment)).unwrap();
        }
        self.pushed.lock().unwrap().clear();
        Server::initialise(&data, 1);
        self.primary = Server::start(&data, &settings(&self.archive())).await;
        let ledger = "create table ledger (id bigserial primary key, filler text)";
        self.primary.sql(ledger).await;
    }

    /// Starts the primary again with more settings, which are in no file.
    pub(crate) async fn restart_with(&mut self, further: &[&str]) {
        self.primary.stop();
        let mut settings = settings(&self.archive());
        settings.extend(further.iter().map(|setting| (*setting).to_owned()));
        self.primary = Server::start(&self.primary.data.clone(), &settings).await;
    }

    /// Makes what was restored and promoted at `data` the primary, archiving like the one before.
    pub(crate) async fn take_over(&mut self, data: &Path) {
        self.primary.stop();
        // What was restored archives nothing by itself, its history neither.
        let history = TimelineId(2).history_file_name();
        let archived = self.archive().join(&history);
        fs::copy(data.join("pg_wal").join(&history), archived).unwrap();
        self.primary = Server::start(data, &settings(&self.archive())).await;
    }

    /// Returns where the log that a store holds of timeline 1 ends.
    pub(crate) async fn stored_end(&self, name: &str) -> Lsn {
        let cluster = self.primary.system_identifier().await;
        let store = self.store(name);
        let found = bounds(&*store, cluster, TimelineId(1), Patience::default()).await;
        found.unwrap().unwrap().to
    }

    /// Pushes the history of a timeline once it is archived.
    pub(crate) async fn push_history(&self, name: &str, timeline: u32) {
        let path = self
            .archive()
            .join(TimelineId(timeline).history_file_name());
        let archived = async {
            while !path.exists() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, archived).await.unwrap();
        self.driver.push_wal(&region(name), &path).await.unwrap();
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

fn settings(archive: &Path) -> Vec<String> {
    let place = archive.display();
    let command = format!("cp %p {place}/%f.tmp && mv {place}/%f.tmp {place}/%f");
    vec![
        "archive_mode=on".to_owned(),
        format!("archive_command={command}"),
        "max_wal_size=1GB".to_owned(),
        "track_commit_timestamp=on".to_owned(),
    ]
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

/// Makes the driver over a site's directory.
pub(crate) fn driver(
    directory: &Path,
    stores: BTreeMap<RegionName, Arc<dyn ObjectStore>>,
) -> PostgresDriver {
    driver_with(directory, stores, StoreLoss::Block)
}

/// The same with what happens when a store is lost.
pub(crate) fn driver_with(
    directory: &Path,
    stores: BTreeMap<RegionName, Arc<dyn ObjectStore>>,
    on_store_loss: StoreLoss,
) -> PostgresDriver {
    let data = directory.join("primary");
    let (backup, verify) = (BackupOptions::default(), VerifyOptions::default());
    make_driver(
        directory,
        stores,
        &data,
        backup,
        verify,
        on_store_loss,
        system_clock(),
    )
}

fn driver_that_verifies(
    directory: &Path,
    stores: BTreeMap<RegionName, Arc<dyn ObjectStore>>,
    verify: VerifyOptions,
) -> PostgresDriver {
    let (data, backup) = (directory.join("primary"), BackupOptions::default());
    make_driver(
        directory,
        stores,
        &data,
        backup,
        verify,
        StoreLoss::Block,
        system_clock(),
    )
}

fn driver_that(
    directory: &Path,
    stores: BTreeMap<RegionName, Arc<dyn ObjectStore>>,
    data: &Path,
    backup: BackupOptions,
) -> PostgresDriver {
    let verify = VerifyOptions::default();
    make_driver(
        directory,
        stores,
        data,
        backup,
        verify,
        StoreLoss::Block,
        system_clock(),
    )
}

fn system_clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock::new())
}

fn make_driver(
    directory: &Path,
    stores: BTreeMap<RegionName, Arc<dyn ObjectStore>>,
    data: &Path,
    backup: BackupOptions,
    verify: VerifyOptions,
    on_store_loss: StoreLoss,
    clock: Arc<dyn Clock>,
) -> PostgresDriver {
    let instance = |name: &str, data: PathBuf| InstanceOptions {
        host: "local".to_owned(),
        address: directory.join(name).with_extension("socket").into(),
        port: PORT,
        data_directory: data,
        standby: StandbyPolicy::None,
        settings: BTreeMap::new(),
        start: None,
        stop: Some(stop_command(&directory.join(name))),
        promote: None,
        guard: None,
    };
    let host = |name: &str| -> Arc<dyn Host> { Arc::new(LocalHost::new(directory.join(name))) };
    PostgresDriver::new(Parts {
        resource: "orders/database".parse().unwrap(),
        options: Options {
            sync: Vec::new(),
            on_store_loss,
            user: "postgres".to_owned(),
            password: None,
            database: "postgres".to_owned(),
            tls: TlsMode::Disable,
            heartbeat: Duration::from_secs(1),
            slot: SlotPolicy::default(),
            backup,
            verify,
            instances: BTreeMap::from([
                (region(EAST), instance("primary", data.to_owned())),
                (
                    region(WEST),
                    instance("recovered", directory.join("recovered")),
                ),
            ]),
        },
        register: register(stores.clone()),
        stores,
        hosts: BTreeMap::from([(region(EAST), host("state")), (region(WEST), host("state"))]),
        secrets: Arc::new(LocalSecrets::new(directory)),
        keys: keys_in(directory),
        clock,
        actor: Actor::new("test", "localhost", 1),
        program: vec![
            "/bin/sh".to_owned(),
            directory.join(SCRIPT).display().to_string(),
        ],
        binaries: Version::of(&directory.join("primary")).binaries(),
    })
}

/// Returns the keys of a site: what is written with first, then what was.
fn keys_in(directory: &Path) -> Keys {
    let read = |name: &str| {
        let text = fs::read_to_string(directory.join(name)).ok()?;
        Some(EncryptionKey::parse(&text).unwrap())
    };
    Keys::new(["key", "old-key"].into_iter().filter_map(read).collect())
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
