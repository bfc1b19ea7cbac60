//! The configuration as the rest of `dr` sees it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use dr_model::document::{Context, FromNode, Node, Resolver};
use dr_model::{RegionName, WorkloadName};

use crate::{Encryption, Problems, Region, Runbooks, Schedule, Workload};

/// A validated configuration: everything that it names exists.
#[derive(Clone)]
pub struct Config {
    /// The directory that it was read from, absolute.
    pub directory: PathBuf,
    /// What relative paths in it are relative to: `directory`, unless it came from a recovery kit.
    pub base: PathBuf,
    /// The name of the organization, for reports.
    pub organization: Option<String>,
    /// With which keys backups are encrypted; `None` if they are not.
    pub encryption: Option<Encryption>,
    /// The regions.
    pub regions: BTreeMap<RegionName, Region>,
    /// The workloads.
    pub workloads: BTreeMap<WorkloadName, Workload>,
    /// The schedules of all files, by file and then name.
    pub schedules: Vec<Schedule>,
    /// The runbooks.
    pub runbooks: Runbooks,
    pub(crate) digest: blake3::Hash,
    pub(crate) resolver: Arc<dyn Resolver>,
}

/// What stands in `dr.yaml`.
pub(crate) struct Contents {
    pub(crate) organization: Option<String>,
    pub(crate) encryption: Option<Encryption>,
    pub(crate) regions: BTreeMap<RegionName, Region>,
    pub(crate) workloads: BTreeMap<WorkloadName, Workload>,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("directory", &self.directory)
            .field("digest", &self.digest.to_hex())
            .finish_non_exhaustive()
    }
}

impl Config {
    /// Returns a hash of everything that the files say, for plans to name what they were made from.
    ///
    /// Comments, layout and the order of keys do not change it; what a reference stands for is not part of it.
    #[must_use]
    pub fn digest(&self) -> blake3::Hash {
        self.digest
    }

    /// Reads a subtree that belongs to a driver, a kind of traffic or a step, after the configuration was loaded.
    ///
    /// Fails only if something outside the files has changed since: a variable or file that a reference names.
    pub fn read<T: FromNode>(&self, node: &Node) -> Result<T, Problems> {
        let mut context = Context::new(&self.base, Arc::clone(&self.resolver));
        let value = T::from_node(node, &mut context);
        match value {
            Some(value) if context.errors() == 0 => Ok(value),
            _ => Err(Problems(context.into_problems())),
        }
    }
}
