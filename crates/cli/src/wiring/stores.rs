//! The store of each region.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dr_config::{Config, StoreLocation};
use dr_local::DirectoryStore;
use dr_model::RegionName;
use dr_provider::ObjectStore;
use dr_provider::decorate::{Retry, RetryOptions, Timeout};

use crate::error::{CommandError, Result};
use crate::exit::Exit;

/// The stores by region.
pub(crate) type Stores = BTreeMap<RegionName, Arc<dyn ObjectStore>>;

/// How long one call may take: a pack of 64 MiB at 2 MiB/s.
const CALL_LIMIT: Duration = Duration::from_secs(32);

/// A directory that is not there answers so at once and does not come back within a second: a
/// failover must not wait for the one of a dead region. A network file system may fail once in
/// passing.
const DIRECTORY_RETRY: RetryOptions = RetryOptions {
    attempts: 2,
    first_wait: Duration::from_millis(50),
    longest_wait: Duration::from_millis(50),
};

/// Opens the stores of all regions; looks at none of them.
pub(super) fn stores(config: &Config) -> Result<Stores> {
    let open = |(name, region): (&RegionName, &dr_config::Region)| {
        let store = open(&region.store)?;
        let limited = Arc::new(Timeout::new(store, CALL_LIMIT));
        let store: Arc<dyn ObjectStore> = Arc::new(Retry::new(limited, DIRECTORY_RETRY));
        Ok((name.clone(), store))
    };
    config.regions.iter().map(open).collect()
}

fn open(location: &StoreLocation) -> Result<Arc<dyn ObjectStore>> {
    match location {
        StoreLocation::Directory(path) => Ok(Arc::new(DirectoryStore::open(path)?)),
        // The configuration accepts the schemes of `kinds` only.
        StoreLocation::Url { url, .. } => Err(CommandError::new(
            Exit::Configuration,
            format!("no store of this kind is built in: `{url}`"),
        )),
    }
}
