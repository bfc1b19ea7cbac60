//! What the configuration says of a PostgreSQL cluster.

mod distinct;
mod read;

pub(crate) use read::LONGEST_SYNCHRONOUS;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use dr_model::RegionName;
use dr_pgwire::{Host as Address, TlsMode};

/// A cluster: one primary and its standbys, known by one system identifier.
#[derive(Clone, Debug)]
pub struct Options {
    /// Regions other than the primary's whose stores every commit waits for (PROTOCOL 5).
    pub sync: Vec<RegionName>,
    /// What happens to commits when such a store does not take the log.
    pub on_store_loss: StoreLoss,
    /// The role that `dr` connects as.
    pub user: String,
    /// The reference to its password, resolved only when a connection is made; `None` if the server asks for none.
    pub password: Option<String>,
    /// The database with the schema `dr`.
    pub database: String,
    /// TLS towards the servers.
    pub tls: TlsMode,
    /// Time between two heartbeat rows: the resolution at which a recovery point actual is measured.
    pub heartbeat: Duration,
    /// How much WAL slots may hold back.
    pub slot: SlotPolicy,
    /// How base backups are taken.
    pub backup: BackupOptions,
    /// How recovery points are proven.
    pub verify: VerifyOptions,
    /// The instances by region.
    pub instances: BTreeMap<RegionName, InstanceOptions>,
}

/// What happens to commits that wait for a store which does not take the log (PROTOCOL 5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StoreLoss {
    /// They wait until it does.
    #[default]
    Block,
    /// After this time they no longer wait, once a record says since when.
    DegradeAfter(Duration),
}

/// How much WAL slots may hold back on the primary (PROTOCOL 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotPolicy {
    /// Whether the server may leave them without a limit.
    pub unlimited: bool,
    /// When less than this much of the disk of the primary's log is free, in percent, the slot that keeps most is dropped; `None`
    /// never drops one.
    pub drop_below_percent: Option<u8>,
}

impl Default for SlotPolicy {
    fn default() -> Self {
        Self {
            unlimited: false,
            drop_below_percent: Some(5),
        }
    }
}

/// How base backups are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackupOptions {
    /// Who reads the files.
    pub source: BackupSource,
    /// How old the last backup for which everything was read may be; younger ones are incremental where that can be. Zero
    /// makes each one full.
    pub full_every: Duration,
    /// Takes backups of servers that this version was not tested with.
    pub force_version: bool,
}

/// Who reads the files of a base backup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BackupSource {
    /// This program where it runs on the server's machine and may, the server otherwise.
    #[default]
    Auto,
    /// This program, in the data directory. Where it cannot, no backup is taken.
    Local,
    /// The server, which sends them.
    Remote,
}

impl Default for BackupOptions {
    fn default() -> Self {
        Self {
            source: BackupSource::Auto,
            full_every: Duration::from_secs(7 * 24 * 60 * 60),
            force_version: false,
        }
    }
}

/// How recovery points are proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyOptions {
    /// How long what was read back need not be read again.
    pub again: Duration,
    /// The directory that recovery points are booted in, on the daemon's machine; everything in it is removed.
    pub scratch: Option<PathBuf>,
    /// Queries that a booted server must answer with true, in the first column of the first row.
    pub checks: Vec<String>,
}

impl Default for VerifyOptions {
    fn default() -> Self {
        Self {
            again: Duration::from_secs(30 * 24 * 60 * 60),
            scratch: None,
            checks: Vec::new(),
        }
    }
}

/// An instance of the cluster in one region.
#[derive(Clone, Debug)]
pub struct InstanceOptions {
    /// The host that commands run on: `local` or `ssh://user@name`.
    pub host: String,
    /// Where the server listens.
    pub address: Address,
    /// Its TCP port, or the number in the name of its Unix socket.
    pub port: u16,
    /// Its data directory on the host.
    pub data_directory: PathBuf,
    /// Whether a standby is kept running here while the region is not primary.
    pub standby: StandbyPolicy,
    /// Settings written into an instance that is rebuilt here, beside its port: what the restored configuration files,
    /// which are those of the old primary, have to differ in.
    pub settings: BTreeMap<String, String>,
    /// The command that starts the server; `pg_ctl start` when absent.
    pub start: Option<Vec<String>>,
    /// The command that stops the server; `pg_ctl stop` when absent.
    pub stop: Option<Vec<String>>,
    /// The command that has the server promoted by whoever manages it; `pg_promote` when absent.
    pub promote: Option<Vec<String>>,
    /// The guard that the server runs under, if it does (PROTOCOL 7, the fence `self`).
    pub guard: Option<GuardOptions>,
}

impl InstanceOptions {
    /// Tells whether it runs on this machine.
    #[must_use]
    pub fn is_here(&self) -> bool {
        self.host == "local"
    }

    /// Returns where the server listens, as PostgreSQL's own tools take it behind `--host`.
    #[must_use]
    pub fn reached_at(&self) -> String {
        match &self.address {
            Address::Tcp(name) => name.clone(),
            Address::Unix(directory) => directory.display().to_string(),
        }
    }
}

/// How a guard keeps the server that it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardOptions {
    /// How long a primary runs after the guard last began a look at the register that found no newer one.
    pub lease: Duration,
    /// What `postgres` is started with beside its data directory: where its configuration is, if not there.
    pub arguments: Vec<String>,
}

/// Whether a region keeps a standby.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StandbyPolicy {
    /// A running standby: promoted on failover.
    Warm,
    /// None: rebuilt from the store on failover.
    None,
}

impl Options {
    /// Returns the name under which the receiver of `region` streams: its slot and its `application_name`.
    #[must_use]
    pub fn receiver_name(region: &RegionName) -> String {
        format!("dr_{}", region.to_identifier())
    }

    /// Returns the value of `synchronous_standby_names` that makes commits wait for the listed stores, or an empty text
    /// if none is listed.
    #[must_use]
    pub fn synchronous_standby_names(&self) -> String {
        Self::standby_names_of(&self.sync)
    }

    /// Returns the value of `synchronous_standby_names` that makes commits wait for the stores of `regions`.
    #[must_use]
    pub fn standby_names_of(regions: &[RegionName]) -> String {
        // One region keeps PROTOCOL 5's form. With several, every one of them has to confirm.
        match regions.len() {
            0 => String::new(),
            count => {
                let names: Vec<String> = regions.iter().map(Self::receiver_name).collect();
                format!("FIRST {count} ({})", names.join(", "))
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn region(name: &str) -> RegionName {
        name.parse().unwrap()
    }

    pub(crate) fn options() -> Options {
        let instance = |port, directory: &str| InstanceOptions {
            host: "local".to_owned(),
            address: "127.0.0.1".into(),
            port,
            data_directory: directory.into(),
            standby: StandbyPolicy::Warm,
            settings: BTreeMap::new(),
            start: None,
            stop: None,
            promote: None,
            guard: None,
        };
        Options {
            sync: Vec::new(),
            on_store_loss: StoreLoss::Block,
            user: "dr".to_owned(),
            password: None,
            database: "postgres".to_owned(),
            tls: TlsMode::Disable,
            heartbeat: Duration::from_secs(10),
            slot: SlotPolicy::default(),
            backup: BackupOptions::default(),
            verify: VerifyOptions::default(),
            instances: BTreeMap::from([
                (region("us-east-1"), instance(5501, "/data/east")),
                (region("us-west-2"), instance(5502, "/data/west")),
            ]),
        }
    }

    #[test]
    fn names_follow_the_protocol() {
        let mut options = options();
        assert_eq!(options.synchronous_standby_names(), "");
        options.sync = vec![region("us-west-2")];
        assert_eq!(
            options.synchronous_standby_names(),
            "FIRST 1 (dr_us_west_2)"
        );
    }
}
