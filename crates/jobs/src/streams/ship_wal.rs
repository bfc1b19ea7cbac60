//! `ship-wal`: the primary's log into this region's store, all the time.
//!
//! Idempotent because every chunk is a compare-and-swap on the tail of its chain: a repeat writes the same bytes or
//! loses the create (PROTOCOL 3).

use std::sync::Arc;

use dr_model::RegionName;
use dr_provider::driver::Frontier;
use dr_provider::{Error, ErrorKind, ResourceDriver, Result};
use tokio::sync::watch;

/// Ships the log of one resource into one region's store.
#[derive(Clone, Debug)]
pub struct ShipWal {
    /// The daemon's region.
    pub region: RegionName,
    /// The resource's driver.
    pub driver: Arc<dyn ResourceDriver>,
}

impl ShipWal {
    /// The stream's one name.
    pub const NAME: &'static str = "ship-wal";

    /// Ships until `stop` turns true, or the epoch ends (`Superseded`), or something permanent happens.
    pub async fn run(
        &self,
        frontier: watch::Sender<Frontier>,
        stop: watch::Receiver<bool>,
    ) -> Result<()> {
        let stream = self.driver.log_stream().ok_or_else(|| {
            Error::new(
                ErrorKind::Unsupported,
                "ship the log of a resource of kind",
                self.driver.kind(),
            )
        })?;
        stream.ship(&self.region, frontier, stop).await
    }
}
