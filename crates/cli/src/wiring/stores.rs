//! The store of each region.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dr_config::{Check, Config, StoreLocation};
use dr_coordination::of_region::OfRegion;
use dr_local::{DirectoryStore, LocalSecrets};
#[cfg(not(feature = "s3"))]
use dr_model::document::Problem;
use dr_model::{Clock, RegionName};
use dr_provider::ObjectStore;
#[cfg(feature = "s3")]
use dr_provider::SecretSource;
use dr_provider::decorate::{Retry, RetryOptions, Timeout};

use super::Setup;
use crate::error::Result;

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

/// Returns the schemes of locations that this binary knows besides directories.
pub(super) fn kinds() -> BTreeMap<&'static str, Check> {
    #[cfg(feature = "s3")]
    return super::s3::kinds();
    #[cfg(not(feature = "s3"))]
    {
        let check: Check = |node, context| {
            let problem = Problem::error(&node.span, "this `dr` was built without stores on S3");
            let hint = "build one that has them: cargo build --release --package dr-cli";
            context.report(problem.hint(hint));
        };
        [("s3", check)].into()
    }
}

/// Opens the stores of all regions, each of which has to say that it is its region's before it is used; looks at none of them.
pub(super) fn stores(
    config: &Config,
    secrets: &Arc<LocalSecrets>,
    clock: &Arc<dyn Clock>,
) -> Result<Stores> {
    let open = |(name, region): (&RegionName, &dr_config::Region)| {
        let store = open(config, region, secrets, clock)?;
        let store: Arc<dyn ObjectStore> = Arc::new(OfRegion::new(store, name.clone()));
        Ok((name.clone(), store))
    };
    config.regions.iter().map(open).collect()
}

/// Opens a store, whosever it is.
fn open(
    config: &Config,
    region: &dr_config::Region,
    secrets: &Arc<LocalSecrets>,
    clock: &Arc<dyn Clock>,
) -> Result<Arc<dyn ObjectStore>> {
    let (store, retry): (Arc<dyn ObjectStore>, _) = match &region.store {
        StoreLocation::Directory(path) => (Arc::new(DirectoryStore::open(path)?), DIRECTORY_RETRY),
        #[cfg(feature = "s3")]
        StoreLocation::Other { node, .. } => {
            let secrets = Arc::clone(secrets) as Arc<dyn SecretSource>;
            let store = super::s3::open(config, node, &secrets, clock)?;
            (Arc::new(store), RetryOptions::default())
        }
        #[cfg(not(feature = "s3"))]
        StoreLocation::Other { scheme, .. } => return Err(not_built_in(scheme)),
    };
    #[cfg(not(feature = "s3"))]
    let _unused = (config, secrets, clock);
    let limited = Arc::new(Timeout::new(store, CALL_LIMIT));
    Ok(Arc::new(Retry::new(limited, retry)))
}

/// No configuration with one is accepted; this is for the compiler.
#[cfg(not(feature = "s3"))]
fn not_built_in(scheme: &str) -> crate::error::CommandError {
    crate::error::CommandError::new(
        crate::exit::Exit::Configuration,
        format!("stores on `{scheme}` are not built in"),
    )
}

/// Returns the texts of the secrets that stores are opened with, for nothing that holds one to be
/// written down.
pub(super) fn secrets(config: &Config) -> Vec<String> {
    let mut texts = Vec::new();
    for region in config.regions.values() {
        let StoreLocation::Other { node, .. } = &region.store else {
            continue;
        };
        for keys in ["credentials", "prune_credentials"] {
            for secret in ["secret_access_key", "session_token"] {
                let node = node.get(keys).and_then(|keys| keys.get(secret));
                texts.extend(node.and_then(|node| node.as_text()).map(str::to_owned));
            }
        }
    }
    texts
}

impl Setup {
    /// Opens the store of a region, which may be any region's: that of a kit is asked whose it is by nobody before the kit has been read.
    pub(crate) fn store_of_anybody(&self, region: &RegionName) -> Result<Arc<dyn ObjectStore>> {
        let secrets = Arc::new(self.secrets().clone());
        open(&self.config, self.region(region)?, &secrets, &self.clock)
    }

    /// Makes the place of a region's store into one; fails with `AlreadyExists` if it is one, and with
    /// `Invalid` if it holds anything else.
    pub(crate) async fn initialise_store(
        &self,
        region: &RegionName,
        identity: Bytes,
    ) -> Result<dr_provider::Result<()>> {
        let made = match &self.region(region)?.store {
            StoreLocation::Directory(path) => DirectoryStore::initialise(path, identity).await,
            #[cfg(feature = "s3")]
            StoreLocation::Other { node, .. } => {
                let secrets: Arc<dyn SecretSource> = Arc::new(self.secrets().clone());
                let store = super::s3::open(&self.config, node, &secrets, &self.clock)?;
                let made = tokio::time::timeout(CALL_LIMIT, store.initialise(identity)).await;
                made.unwrap_or_else(|_| {
                    Err(dr_provider::Error::new(
                        dr_provider::ErrorKind::Unknown,
                        "initialise store",
                        store.location(),
                    )
                    .because(format!("no answer within {CALL_LIMIT:?}")))
                })
            }
            #[cfg(not(feature = "s3"))]
            StoreLocation::Other { scheme, .. } => return Err(not_built_in(scheme)),
        };
        Ok(made)
    }
}
