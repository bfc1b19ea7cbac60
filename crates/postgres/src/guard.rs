//! The self-fence: PostgreSQL under a guard that stops it when it cannot be seen that it still is the primary (PROTOCOL 7, the
//! fence `self`).
//!
//! Two processes, each the other's dead-man. The *guard* (`keep`) looks at the register again and again; a look
//! that finds this region's primary still the newest renews a lease, which counts from when the look *began*. The *watcher*
//! ([`watch()`]) is PostgreSQL's parent, knows nothing but the end of the lease, and stops PostgreSQL when it is
//! reached, or when the guard is gone. If the watcher is gone, the kernel stops the postmaster, and the guard kills what is left;
//! if it does not answer, the guard kills it first.
//!
//! All times are CLOCK_BOOTTIME: steps of the wall clock do not matter, and a machine that slept finds its lease over.
//!
//! That a server runs under a guard can be asked of the server itself: only the guard starts it with `dr.guard` set.

mod keep;
mod lease;
mod processes;
mod watch;

use std::time::Duration;

use async_trait::async_trait;
use dr_model::RegionName;
use dr_provider::Result;
use dr_provider::driver::SelfFence;

pub use keep::{GuardRequest, Guarded};
pub use watch::{WatchOutcome, become_server, watch};

use crate::driver::PostgresDriver;

/// The setting that tells the lease of a server's guard, in seconds. No file has it: a guard gives it on the command line.
const SETTING: &str = "dr.guard";

#[async_trait]
impl SelfFence for PostgresDriver {
    fn lease(&self, region: &RegionName) -> Option<Duration> {
        let instance = self.options().instances.get(region)?;
        instance.guard.as_ref().map(|guard| guard.lease)
    }

    async fn lease_in_force(&self, region: &RegionName) -> Result<Option<Duration>> {
        let operation = "ask for the guard of";
        let mut instance = self.connect(region).await?;
        let sql = format!("select current_setting('{SETTING}', true)");
        let seconds: Option<String> = instance.scalar(operation, &sql).await?;
        let seconds = seconds.and_then(|text| text.parse().ok());
        Ok(seconds.map(Duration::from_secs))
    }
}
