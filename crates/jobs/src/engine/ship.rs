//! Running `ship-wal` for one resource.

use std::future;
use std::sync::Arc;
use std::time::Duration;

use dr_coordination::Patience;
use dr_coordination::chain::{ChainId, find_tail};
use dr_model::{RegionName, ResourceId};
use dr_provider::driver::Frontier;
use dr_provider::{ObjectStore, Result};
use tokio::sync::watch;

use super::board::{Board, Condition};
use super::register_watch::View;
use super::supervise::stopped;
use crate::ShipWal;

/// How long a receiver stays with an old primary that the register no longer names: until the end of its log is sealed, and no longer than
/// this.
const LEAVE_LIMIT: Duration = Duration::from_secs(20);

/// How often it is looked whether it is sealed.
const SEAL_INTERVAL: Duration = Duration::from_millis(250);

/// Ships once the register can be read; returns when the stream ends.
pub(super) async fn ship(
    resource: &ResourceId,
    stream: &ShipWal,
    store: &Arc<dyn ObjectStore>,
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
    let mut leaving = None;
    loop {
        tokio::select! {
            ended = &mut shipping => return ended,
            // An old primary that writes nothing never makes its receiver meet the seal: the register has to tell it. One that is being shut
            // down for a move writes its last bytes behind the new epoch, and may have nobody else to give them to.
            Ok(()) = views.changed() => {
                match log_of(resource, &views.borrow_and_update()) {
                    Some(newest) if newest == log => leaving = None,
                    Some(_) if leaving.is_none() => {
                        leaving = Some(Box::pin(sealed(store, log.1)));
                    }
                    _ => {}
                }
            }
            () = async {
                match &mut leaving {
                    Some(sealed) => sealed.await,
                    None => future::pending().await,
                }
            } => return Ok(()),
            Ok(()) = frontier.changed() => match condition(&frontier.borrow_and_update()) {
                Condition::Bad(why) => board.fail(&task, why),
                other => board.set(&task, other),
            },
        }
    }
}

/// Waits until a chain is sealed here, for no longer than a receiver stays with it.
async fn sealed(store: &Arc<dyn ObjectStore>, chain: Option<ChainId>) {
    let Some(chain) = chain else { return };
    let sealed = async {
        loop {
            // A store that does not answer has no seal to show.
            let tail = find_tail(&**store, &chain, Patience::default()).await;
            if tail.is_ok_and(|tail| tail.is_some_and(|tail| tail.seal.is_some())) {
                return;
            }
            tokio::time::sleep(SEAL_INTERVAL).await;
        }
    };
    let _late = tokio::time::timeout(LEAVE_LIMIT, sealed).await;
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
