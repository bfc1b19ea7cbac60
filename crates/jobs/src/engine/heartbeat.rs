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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::register_watch::other_epoch;
    use super::super::ship::tests::{Idle, first, moved, resource, view};
    use super::super::supervise::supervise;
    use super::*;

    /// The heartbeat that a planned move cuts off is no failure for as long as a pause would be.
    #[tokio::test(start_paused = true)]
    async fn what_failed_is_looked_at_again_once_the_primary_is_elsewhere() {
        let driver: Arc<dyn ResourceDriver> = Arc::new(Idle::default());
        let (board, resource) = (Board::default(), resource());
        let identity = Identity {
            region: "us-east-1".parse().unwrap(),
            actor: dr_coordination::Actor::new("test", "localhost", 1),
        };
        let (sender, views) = watch::channel(view(first()));
        let (end, stop) = watch::channel(false);
        let task = format!("heartbeat {resource}");
        let wait = (Duration::from_secs(3600), || other_epoch(&views));
        let beats = supervise(wait, &task, &board, stop.clone(), || {
            beat(
                &resource,
                &driver,
                &identity,
                &board,
                views.clone(),
                stop.clone(),
            )
        });
        let move_away = async {
            let is = |good: bool| {
                let conditions = board.conditions();
                matches!(conditions.get(&task), Some(Condition::Good(_))) == good
            };
            // Pauses are long by now.
            tokio::time::sleep(Duration::from_secs(60)).await;
            assert!(is(false));
            sender.send_replace(view(moved()));
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert!(is(true));
            end.send_replace(true);
        };
        tokio::join!(beats, move_away);
    }
}
