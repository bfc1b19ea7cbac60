//! Stopping a server that something has started as the standby that a stopped primary was to be, by the signal that was left.

use std::time::Duration;

use dr_model::RegionName;
use dr_provider::{Host, Result};

use super::processes;
use crate::driver::PostgresDriver;

/// How long it may take.
const LIMIT: Duration = Duration::from_secs(60);

impl PostgresDriver {
    /// Stops it; one that does not stop is an error of `operation`.
    pub(super) async fn stop_standby(
        &self,
        region: &RegionName,
        host: &dyn Host,
        operation: &str,
    ) -> Result<()> {
        let directory = &self.instance_options(region)?.data_directory;
        let stop = self.pg_ctl(directory, &["stop", "--mode=fast", "--wait"]);
        host.run(&stop, LIMIT).await?;
        if processes(host, directory).await?.is_empty() {
            return Ok(());
        }
        let why = format!("the server in {region} runs as a standby and does not stop");
        Err(self.failed(operation, why))
    }
}
