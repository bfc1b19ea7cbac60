//! Stopping a server that is to be started anew: something has started it as the standby that a stopped primary was to be, by the signal
//! that was left, or its shutdown as a primary has not come to its end.

use std::time::Duration;

use dr_model::RegionName;
use dr_provider::{Host, Result};

use super::stop_server::Mode;
use crate::driver::PostgresDriver;

/// How long it may take to go by itself: one that was told to shut down as a primary waits for whoever streams from it.
const LIMIT: Duration = Duration::from_secs(5);

/// How long it may take once it is stopped without waiting for anybody.
const IMMEDIATE_LIMIT: Duration = Duration::from_secs(60);

impl PostgresDriver {
    /// Stops it, so that it starts with the files that are there now; one that does not stop is an error of `operation`. Something may have
    /// started it again already. It has nothing to hand over, so that nobody is waited for: what it has not written yet is in its log.
    pub(super) async fn stop_standby(
        &self,
        region: &RegionName,
        host: &dyn Host,
        operation: &str,
    ) -> Result<()> {
        if self
            .stop_server(region, host, Mode::Fast, LIMIT)
            .await?
            .is_over()
        {
            return Ok(());
        }
        let stop = self.stop_server(region, host, Mode::Immediate, IMMEDIATE_LIMIT);
        match stop.await?.is_over() {
            true => Ok(()),
            false => {
                let why = format!("the server in {region} does not stop");
                Err(self.failed(operation, why))
            }
        }
    }
}
