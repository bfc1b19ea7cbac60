//! Running the binary on a configuration of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use dr_coordination::Actor;
use dr_coordination::identity::Identity;
use dr_coordination::register::{ClusterClaim, EpochRecord, FORMAT_VERSION, Register};
use dr_local::DirectoryStore;
use dr_model::{Epoch, Lsn, RegionName, SystemIdentifier, TimelineId};
use dr_provider::ObjectStore;
use jiff::Timestamp;
use tempfile::TempDir;

/// The regions of the configuration, the home first.
pub(crate) const REGIONS: [&str; 2] = ["us-east-1", "us-west-2"];

/// A configuration with two regions and one workload, whose servers are nowhere.
pub(crate) struct Place {
    directory: TempDir,
}

/// What a run left behind.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// The binary, in an environment that says nothing.
pub(crate) fn dr() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dr"));
    command
        .env_remove("DR_CONFIG")
        .env_remove("RUST_LOG")
        .env("NO_COLOR", "1");
    command
}

/// Runs the binary without a configuration.
pub(crate) fn run<S: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = S>) -> Ran {
    dr().args(arguments).output().unwrap().into()
}

impl Place {
    /// Writes a configuration that is valid.
    pub(crate) fn new() -> Self {
        let place = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        place.write("dr.yaml", &place.root());
        place.write(
            "runbooks/failover-region.yaml",
            include_str!("../../../../runbooks/failover-region.yaml"),
        );
        let schedules = include_str!("../../../../schedules/orders.yaml");
        place.write("schedules/orders.yaml", schedules);
        place
    }

    /// `dr.yaml`. The secrets that it refers to do not exist, and nothing listens where it says.
    pub(crate) fn root(&self) -> String {
        include_str!("dr.yaml").replace("{{listen}}", &free_port().to_string())
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = dr();
        command.arg("--config").arg(self.path());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        self.command().args(arguments).output().unwrap().into()
    }

    pub(crate) fn store(&self, region: &str) -> PathBuf {
        self.path().join("stores").join(region)
    }

    /// Makes the stores of both regions.
    pub(crate) async fn initialise_stores(&self) {
        for region in REGIONS {
            let name = region.parse().unwrap();
            let identity = Identity::new(name, 7, Timestamp::UNIX_EPOCH);
            DirectoryStore::initialise(self.store(region), identity.to_bytes())
                .await
                .unwrap();
        }
    }

    /// Opens the first epoch, as the daemon of the recovery region does once it has seen the
    /// primary at home.
    pub(crate) async fn open_first_epoch(&self) {
        let name = |text: &str| -> RegionName { text.parse().unwrap() };
        let mut stores: BTreeMap<RegionName, Arc<dyn ObjectStore>> = BTreeMap::new();
        for region in REGIONS {
            stores.insert(
                name(region),
                Arc::new(DirectoryStore::open(self.store(region)).unwrap()),
            );
        }
        let claim = ClusterClaim {
            system_identifier: SystemIdentifier(7_382_915_466_012_345_678),
            timeline: TimelineId(1),
            start_lsn: Some(Lsn(0x0300_0000)),
            log_epoch: None,
        };
        let record = EpochRecord {
            version: FORMAT_VERSION,
            epoch: Epoch::FIRST,
            workload: "orders".parse().unwrap(),
            primary: name("us-east-1"),
            register: name("us-west-2"),
            clusters: BTreeMap::from([("database".parse().unwrap(), claim)]),
            sync: BTreeMap::new(),
            created_at: Timestamp::UNIX_EPOCH,
            created_by: Actor::new("test", "test", 1),
            reason: "test".to_owned(),
            sync_lost: std::collections::BTreeMap::new(),
            guards: std::collections::BTreeMap::new(),
            execution: None,
            override_reason: None,
        };
        let register = Register::new(record.workload.clone(), stores, name("us-west-2"));
        register.create(&record).await.unwrap();
    }
}

/// Returns a port that nobody listened on a moment ago.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}
