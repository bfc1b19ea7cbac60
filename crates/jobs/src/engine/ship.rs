//! Running `ship-wal` for one resource.

use dr_coordination::chain::ChainId;
use dr_model::{RegionName, ResourceId};
use dr_provider::Result;
use dr_provider::driver::Frontier;
use tokio::sync::watch;

use super::board::{Board, Condition};
use super::register_watch::View;
use super::supervise::stopped;
use crate::ShipWal;

/// Ships once the register can be read; returns when the stream ends.
pub(super) async fn ship(
    resource: &ResourceId,
    stream: &ShipWal,
    board: &Board,
    mut views: watch::Receiver<View>,
    mut stop: watch::Receiver<bool>,
) -> Result<()> {
    let task = format!("{} {resource}", ShipWal::NAME);
    // A daemon that cannot read the register starts no receiver (PROTOCOL 2).
    let log = loop {
        let log = log_of(resource, &views.borrow_and_update());
        if let Some(log) = log {
            break log;
        }
        board.set(
            &task,
            Condition::Unknown("waiting for the register".to_owned()),
        );
        tokio::select! {
            Ok(()) = views.changed() => {}
            () = stopped(&mut stop) => return Ok(()),
        }
    };
    let (sender, mut frontier) = watch::channel(Frontier::default());
    board.follow(resource.clone(), frontier.clone());
    let mut shipping = std::pin::pin!(stream.run(sender, stop));
    loop {
        tokio::select! {
            ended = &mut shipping => return ended,
            // An old primary that writes nothing never makes its receiver meet the seal: the register has to tell it.
            Ok(()) = views.changed() => {
                let newest = log_of(resource, &views.borrow_and_update());
                if newest.is_some_and(|newest| newest != log) {
                    return Ok(());
                }
            }
            Ok(()) = frontier.changed() => match condition(&frontier.borrow_and_update()) {
                Condition::Bad(why) => board.fail(&task, why),
                other => board.set(&task, other),
            },
        }
    }
}

/// Returns whose log is to be shipped: an epoch that changes only whom commits wait for goes on with the same.
fn log_of(resource: &ResourceId, view: &View) -> Option<(RegionName, Option<ChainId>)> {
    let record = view.current()?;
    Some((record.primary.clone(), record.chain(&resource.resource)))
}

/// The line without positions, so that it changes only when something happens.
fn condition(frontier: &Frontier) -> Condition {
    if frontier.problem.is_none() && !frontier.alarms.is_empty() {
        return Condition::Bad(frontier.alarms.join("; "));
    }
    match (&frontier.problem, frontier.state.as_str(), frontier.epoch) {
        (Some(problem), _, _) => Condition::Bad(problem.clone()),
        (None, "streaming", Some(epoch)) => Condition::Good(format!("streaming epoch {epoch}")),
        (None, state, _) => Condition::Unknown(state.to_owned()),
    }
}

#[cfg(test)]
pub(super) mod tests;
