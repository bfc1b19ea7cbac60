//! The heartbeat of each resource whose primary is in this region.

use std::sync::Arc;

use dr_model::ResourceId;
use dr_provider::{ResourceDriver, Result};
use tokio::sync::watch;

use super::board::{Board, Condition};
use super::daemon::Identity;
use super::register_watch::View;
use super::supervise::stopped;

/// Beats while this region is the primary's; returns when it no longer is, and waits until it is.
pub(super) async fn beat(
    resource: &ResourceId,
    driver: &Arc<dyn ResourceDriver>,
    identity: &Identity,
    board: &Board,
    mut views: watch::Receiver<View>,
    mut stop: watch::Receiver<bool>,
) -> Result<()> {
    let Some(stream) = driver.log_stream() else {
        return Ok(());
    };
    let task = format!("heartbeat {resource}");
    let epoch = {
        let view = views.borrow_and_update();
        view.current()
            .filter(|record| record.primary == identity.region)
            .map(|record| record.epoch)
    };
    let Some(epoch) = epoch else {
        board.set(
            &task,
            Condition::Good("the primary is elsewhere".to_owned()),
        );
        tokio::select! {
            _changed = views.changed() => {}
            () = stopped(&mut stop) => {}
        }
        return Ok(());
    };
    loop {
        tokio::select! {
            beat = stream.beat(&identity.region, epoch) => beat.map(drop)?,
            // It may wait for the store of another region, as any commit.
            () = stopped(&mut stop) => return Ok(()),
        }
        board.set(&task, Condition::Good(format!("beating in epoch {epoch}")));
        tokio::select! {
            () = tokio::time::sleep(stream.heartbeat_interval()) => {}
            _changed = views.changed() => return Ok(()),
            () = stopped(&mut stop) => return Ok(()),
        }
    }
}
