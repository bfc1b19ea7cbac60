//! The driver of a site: what it is configured with, and its keys.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dr_coordination::Actor;
use dr_local::{DirectoryStore, LocalHost, LocalSecrets};
use dr_model::{Clock, RegionName, SystemClock};
use dr_pgwire::TlsMode;
use dr_postgres::{
    BackupOptions, EncryptionKey, GuardOptions, InstanceOptions, Keys, Options, Parts,
    PostgresDriver, SlotPolicy, StandbyPolicy, StoreLoss, VerifyOptions,
};
use dr_provider::{Host, ObjectStore};

use super::{EAST, SCRIPT, Site, WEST, region, register};
use crate::server::{PORT, Version, give_to_postgres, stop_command};

/// What tests configure in different ways.
pub(crate) struct Setup {
    /// The data directory in the east; that of the primary if none is named.
    pub(crate) data: Option<PathBuf>,
    /// The data directory in the west; one beside the primary's if none is named.
    pub(crate) recovered: Option<PathBuf>,
    pub(crate) backup: BackupOptions,
    pub(crate) verify: VerifyOptions,
    pub(crate) on_store_loss: StoreLoss,
    pub(crate) clock: Arc<dyn Clock>,
    /// The command that promotes the server in the east.
    pub(crate) promote: Option<Vec<String>>,
    /// Whether the configuration says how servers are stopped.
    pub(crate) says_how_to_stop: bool,
    /// The guard of both servers.
    pub(crate) guard: Option<GuardOptions>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            data: None,
            recovered: None,
            backup: BackupOptions::default(),
            verify: VerifyOptions::default(),
            on_store_loss: StoreLoss::Block,
            clock: Arc::new(SystemClock::new()),
            promote: None,
            says_how_to_stop: true,
            guard: None,
        }
    }
}

impl Setup {
    /// Makes the driver over a site's directory.
    pub(crate) fn driver(
        self,
        directory: &Path,
        stores: BTreeMap<RegionName, Arc<dyn ObjectStore>>,
    ) -> PostgresDriver {
        let (guard, says_how_to_stop) = (self.guard, self.says_how_to_stop);
        let instance = |name: &str, data: PathBuf, promote| InstanceOptions {
            host: "local".to_owned(),
            address: directory.join(name).with_extension("socket").into(),
            port: PORT,
            data_directory: data,
            standby: StandbyPolicy::None,
            settings: BTreeMap::new(),
            start: None,
            stop: says_how_to_stop.then(|| stop_command(&directory.join(name))),
            promote,
            guard: guard.clone(),
        };
        let data = self.data.unwrap_or_else(|| directory.join("primary"));
        let recovered = self.recovered;
        let recovered = recovered.unwrap_or_else(|| directory.join("recovered"));
        let instances = BTreeMap::from([
            (region(EAST), instance("primary", data, self.promote)),
            (region(WEST), instance("recovered", recovered, None)),
        ]);
        let host: Arc<dyn Host> = Arc::new(LocalHost::new(directory.join("state")));
        PostgresDriver::new(Parts {
            resource: "orders/database".parse().unwrap(),
            options: Options {
                sync: Vec::new(),
                on_store_loss: self.on_store_loss,
                user: "postgres".to_owned(),
                password: None,
                database: "postgres".to_owned(),
                tls: TlsMode::Disable,
                heartbeat: Duration::from_secs(1),
                slot: SlotPolicy::default(),
                backup: self.backup,
                verify: self.verify,
                instances,
            },
            register: register(stores.clone()),
            stores,
            hosts: [EAST, WEST]
                .map(|name| (region(name), Arc::clone(&host)))
                .into(),
            secrets: Arc::new(LocalSecrets::new(directory)),
            keys: keys_in(directory),
            clock: self.clock,
            actor: Actor::new("test", "localhost", 1),
            program: vec![
                "/bin/sh".to_owned(),
                directory.join(SCRIPT).display().to_string(),
            ],
            environment: Vec::new(),
            binaries: Version::of(&directory.join("primary")).binaries(),
        })
    }
}

/// Makes the driver over a site's directory, as it is unless a test says otherwise.
pub(crate) fn driver(
    directory: &Path,
    stores: BTreeMap<RegionName, Arc<dyn ObjectStore>>,
) -> PostgresDriver {
    Setup::default().driver(directory, stores)
}

impl Site {
    /// Goes on with another driver.
    pub(crate) fn set_up(&mut self, setup: Setup) {
        self.driver = setup.driver(self.directory.path(), self.stores());
    }

    /// Takes backups in another way from now on.
    pub(crate) fn back_up_by(&mut self, backup: BackupOptions) {
        self.back_up_of(&self.primary.data.clone(), backup);
    }

    /// As [`back_up_by`](Self::back_up_by), with another data directory in the configuration.
    pub(crate) fn back_up_of(&mut self, data: &Path, backup: BackupOptions) {
        let data = Some(data.to_owned());
        self.set_up(Setup {
            data,
            backup,
            ..Setup::default()
        });
    }

    /// Goes by another clock from now on.
    pub(crate) fn tell_time_by(&mut self, clock: Arc<dyn Clock>) {
        let data = Some(self.primary.data.clone());
        self.set_up(Setup {
            data,
            clock,
            ..Setup::default()
        });
    }

    /// Proves recovery points in another way from now on.
    pub(crate) fn verify_by(&mut self, verify: VerifyOptions) {
        self.set_up(Setup {
            verify,
            ..Setup::default()
        });
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

    /// Forgets the key, where there is no older one.
    pub(crate) fn forget_key(&mut self) {
        fs::remove_file(self.directory.path().join("key")).unwrap();
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
}

/// Returns the keys of a site: what is written with first, then what was.
fn keys_in(directory: &Path) -> Keys {
    let read = |name: &str| {
        let text = fs::read_to_string(directory.join(name)).ok()?;
        Some(EncryptionKey::parse(&text).unwrap())
    };
    Keys::new(["key", "old-key"].into_iter().filter_map(read).collect())
}
