//! Where everything of a sandbox is: the one file (`sandbox.json`) that all its programs read.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use dr_model::RegionName;
use serde::{Deserialize, Serialize};

use crate::machines::Machine;
use crate::{Error, Result};

/// The workload, and the database that its application writes to.
pub const WORKLOAD: &str = "ledger";
/// The zone that the sandbox's DNS server is the authority for.
pub const ZONE: &str = "sandbox.example";
/// The name by which clients reach the application.
pub const NAME: &str = "ledger.sandbox.example";
/// How long clients may keep the name's address.
pub const TTL_SECONDS: u32 = 1;
/// The name of the key that signs DNS updates.
pub const KEY_NAME: &str = "dr-sandbox";
/// The role that `dr` logs in as.
pub const DR_ROLE: &str = "dr";
/// The role that the application logs in as.
pub const APP_ROLE: &str = "ledger";
/// The role that the standby replicates as.
pub const STANDBY_ROLE: &str = "standby";
/// The bucket of each region's S3 server.
pub const STORE_BUCKET: &str = "store";
/// The id of the keys for it.
pub const STORE_KEY: &str = "dr";
/// The role that owns the clusters.
pub const SUPERUSER: &str = "postgres";

const FILE: &str = "sandbox.json";

/// Where the parts of a sandbox are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// The sandbox's directory, which is also the configuration directory of `dr`.
    pub directory: PathBuf,
    /// The address of the DNS server.
    pub dns: SocketAddr,
    /// The directory of PostgreSQL's programs.
    pub postgres_programs: PathBuf,
    /// The program `dr`.
    pub dr: PathBuf,
    /// The program `dr-demo`.
    pub demo: PathBuf,
    /// The program `dr-s3-server`, where stores are on S3.
    pub s3_server: Option<PathBuf>,
    /// The regions.
    pub regions: BTreeMap<RegionName, Place>,
}

/// Where the parts of a region are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The directory that holds everything of the region, and nothing else.
    pub directory: PathBuf,
    /// The region's own address.
    pub address: IpAddr,
    /// The port of PostgreSQL.
    pub postgres_port: u16,
    /// The port of the application; the same in all regions.
    pub app_port: u16,
    /// The port of the daemon.
    pub daemon_port: u16,
    /// The port of the store's S3 server; the store is a directory without one.
    pub store_port: Option<u16>,
    /// The machine that the region's programs run on, if it is another than this program's.
    pub machine: Option<Machine>,
}

/// What the regions' stores are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum StoreKind {
    /// Directories.
    #[default]
    Directory,
    /// Buckets of an S3 server in each region.
    S3,
}

impl Layout {
    /// Returns the place of a region.
    pub fn place(&self, region: &RegionName) -> Result<&Place> {
        self.regions
            .get(region)
            .ok_or_else(|| Error::NoRegion(region.to_string()))
    }

    /// Returns the directory of passwords and keys.
    #[must_use]
    pub fn secrets(&self) -> PathBuf {
        self.directory.join("secrets")
    }

    /// Returns the file that holds a role's password.
    #[must_use]
    pub fn password_file(&self, role: &str) -> PathBuf {
        self.secrets().join(format!("{role}.password"))
    }

    /// Returns the file that holds the secret of the keys for the stores' S3 servers.
    #[must_use]
    pub fn store_secret_file(&self) -> PathBuf {
        self.secrets().join("store.secret")
    }

    /// Reads the secret of the keys for the stores' S3 servers.
    pub fn store_secret(&self) -> Result<String> {
        let path = self.store_secret_file();
        std::fs::read_to_string(&path).map_err(Error::file("read", path))
    }

    /// Reads a role's password.
    pub fn password(&self, role: &str) -> Result<String> {
        let path = self.password_file(role);
        let text = std::fs::read_to_string(&path).map_err(Error::file("read", path))?;
        Ok(text.trim_end().to_owned())
    }

    /// Returns the file that holds the key of DNS updates, in base64.
    #[must_use]
    pub fn key_file(&self) -> PathBuf {
        self.secrets().join("tsig.key")
    }

    /// Returns the path of the layout's own file.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.directory.join(FILE)
    }

    /// Reads the layout of the sandbox in `directory`.
    pub fn read(directory: &Path) -> Result<Self> {
        let path = directory.join(FILE);
        let text = std::fs::read_to_string(&path).map_err(Error::file("read", &path))?;
        serde_json::from_str(&text).map_err(|source| Error::Output {
            program: path.display().to_string(),
            source,
        })
    }
}

impl Place {
    /// Returns the files of the region's store: that is the store, or what its S3 server keeps.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.directory.join("store")
    }

    /// Returns where the store's S3 server listens, if it has one.
    #[must_use]
    pub fn store_listen(&self) -> Option<SocketAddr> {
        let port = self.store_port?;
        Some(SocketAddr::new(self.address, port))
    }

    /// Returns where the store is moved to when the region is lost.
    #[must_use]
    pub fn lost_store(&self) -> PathBuf {
        self.directory.join("store.lost")
    }

    /// Returns the files of the region's PostgreSQL cluster.
    #[must_use]
    pub fn data_directory(&self) -> PathBuf {
        self.directory.join("pgdata")
    }

    /// Returns the settings of PostgreSQL that belong to the region, not to the cluster.
    #[must_use]
    pub fn settings_file(&self) -> PathBuf {
        self.directory.join("postgresql.conf")
    }

    /// Returns the rules of who may log in to PostgreSQL.
    #[must_use]
    pub fn access_file(&self) -> PathBuf {
        self.directory.join("pg_hba.conf")
    }

    /// Returns the directory in which the daemon works and keeps its state.
    #[must_use]
    pub fn daemon(&self) -> PathBuf {
        self.directory.join("daemon")
    }

    /// Returns the directory in which the application works.
    #[must_use]
    pub fn app(&self) -> PathBuf {
        self.directory.join("app")
    }

    /// Returns the log of one of the region's programs.
    #[must_use]
    pub fn log(&self, program: &str) -> PathBuf {
        self.directory.join("log").join(format!("{program}.log"))
    }

    /// Returns the address of PostgreSQL.
    #[must_use]
    pub fn postgres(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.postgres_port)
    }

    /// Returns the address of the application.
    #[must_use]
    pub fn service(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.app_port)
    }

    /// Returns the address of the daemon's HTTP server.
    #[must_use]
    pub fn daemon_listen(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.daemon_port)
    }
}
