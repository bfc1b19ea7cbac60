//! When the disruption began, as a daemon has measured it.

use std::time::Duration;

use dr_coordination::outage::{self, Sign};
use dr_model::RegionName;
use dr_provider::error::chain;
use dr_runbook::{Disruption, Site, World};

/// How long the store may take to say so.
const LIMIT: Duration = Duration::from_secs(2);

/// Returns the disruption of the newest epoch's primary as the daemon of the region moved to has seen it; `None` if it saw none,
/// or the primary came back, or nobody knows when it was last there.
pub(super) async fn measured(site: &Site, to: &RegionName, world: &World) -> Option<Disruption> {
    let store = site.stores.get(to)?;
    let epoch = world.register.head()?.epoch;
    let look = outage::newest(&**store, &site.workload, epoch);
    let seen = match tokio::time::timeout(LIMIT, look).await {
        Ok(Ok(seen)) => seen.filter(|seen| !seen.ended)?,
        Ok(Err(error)) => {
            tracing::warn!(error = %chain(&error), "the outage cannot be read");
            return None;
        }
        Err(_) => return None,
    };
    let outage = seen.outage;
    Some(Disruption {
        not_before: outage.last_answered_at?,
        not_after: outage.first_missed_at,
        detected_at: Some(outage.detected_at),
        seen_from: Some(outage.seen_from),
        by_heartbeat: outage.last_sign == Sign::Heartbeat,
    })
}
