//! What must always hold, and what must be possible (so that the model is not empty).

use std::collections::BTreeSet;

use dr_encryption::Keys;
use dr_model::{Epoch, Lsn};
use stateright::Property;

use super::actors::{ORIGIN, SOUTH, chain, workload};
use super::executor::Stop;
use super::world::{Scenario, World};
use crate::chain::internals::{Link, link_with_log};
use crate::register::EpochRecord;

/// The names of the invariants.
pub(super) const ACKNOWLEDGED_IS_STORED: &str = "what is acknowledged hangs together in the store";
pub(super) const NOTHING_AFTER_SEAL: &str = "nothing is acknowledged beyond a seal";
pub(super) const TRUTH_IS_VISIBLE: &str = "who follows a chain from its floor gets to its end";
pub(super) const PROMOTED_HOLDS_ALL: &str = "what was acknowledged is in the promoted timeline";
pub(super) const ONE_TIMELINE: &str = "no two promotions claim one timeline";
pub(super) const ONE_WINNER: &str = "an epoch is opened by one execution";
pub(super) const FENCED: &str = "a superseded executor has no fenced effect";
pub(super) const PROVEN_LOSES_NOTHING: &str =
    "what is said to lose nothing holds all that was acknowledged to clients";
pub(super) const NEVER_CORRUPT: &str = "nobody sees a contradiction";

/// Where a store's chain ends, as the truth is, and whether by a seal. What was removed counts, what was created late in its
/// place does not.
fn end_of_chain(world: &World, region: usize) -> (Lsn, bool) {
    follow(ORIGIN, |at| world.ever[region].get(&chain().link_key(at)))
}

/// Where it ends for who follows it now.
fn visible_end(world: &World, region: usize) -> (Lsn, bool) {
    let link = |at| world.store_get(region, &chain().link_key(at));
    follow(world.floors[region], link)
}

fn follow<'a>(from: Lsn, link: impl Fn(Lsn) -> Option<&'a bytes::Bytes>) -> (Lsn, bool) {
    let mut at = from;
    while let Some(bytes) = link(at) {
        match link_with_log(bytes, &chain(), at, &Keys::default()) {
            Ok(Link::Chunk((header, _))) => at = header.end,
            _ => return (at, true),
        }
    }
    (at, false)
}

fn acknowledged_is_stored(_: &Scenario, world: &World) -> bool {
    let stored = |region| end_of_chain(world, region).0;
    world
        .receivers
        .iter()
        .all(|receiver| receiver.acknowledged <= stored(receiver.region))
}

fn truth_is_visible(_: &Scenario, world: &World) -> bool {
    (0..world.stores.len()).all(|region| visible_end(world, region) == end_of_chain(world, region))
}

fn nothing_after_seal(_: &Scenario, world: &World) -> bool {
    world.receivers.iter().all(|receiver| {
        let (end, sealed) = end_of_chain(world, receiver.region);
        !sealed || receiver.acknowledged <= end
    })
}

fn promoted_holds_all(scenario: &Scenario, world: &World) -> bool {
    world.promotions.iter().all(|promotion| {
        let received = ORIGIN.advance(scenario.standby_bytes);
        let acknowledged = world
            .receivers
            .iter()
            .filter(|receiver| receiver.region == promotion.region)
            .map(|receiver| receiver.acknowledged);
        acknowledged
            .chain([received])
            .all(|lsn| lsn <= promotion.base)
    })
}

fn one_timeline(_: &Scenario, world: &World) -> bool {
    let claimed: BTreeSet<_> = world.promotions.iter().map(|p| p.timeline).collect();
    claimed.len() == world.promotions.len()
}

fn one_winner(_: &Scenario, world: &World) -> bool {
    let opened = || {
        world
            .executors
            .iter()
            .enumerate()
            .filter_map(|(index, executor)| {
                let (epoch, _) = executor.opened?;
                Some((epoch, executor.execution(index)))
            })
    };
    let epochs: BTreeSet<_> = opened().map(|(epoch, _)| epoch).collect();
    let winners: BTreeSet<_> = opened().collect();
    epochs.len() == winners.len()
}

fn fenced(_: &Scenario, world: &World) -> bool {
    !world.superseded_effect
}

fn proven_loses_nothing(_: &Scenario, world: &World) -> bool {
    let proven = world.promotions.iter().filter(|promotion| promotion.proven);
    proven.into_iter().all(|p| world.committed <= p.base)
}

fn never_corrupt(_: &Scenario, world: &World) -> bool {
    let broken = |executor: &super::executor::Executor| executor.stopped() == Some(Stop::Broken);
    world
        .receivers
        .iter()
        .all(|receiver| !receiver.is_corrupt())
        && !world.executors.iter().any(|executor| broken(executor))
}

/// All properties of a scenario.
pub(super) fn all() -> Vec<Property<Scenario>> {
    vec![
        Property::always(ACKNOWLEDGED_IS_STORED, acknowledged_is_stored),
        Property::always(NOTHING_AFTER_SEAL, nothing_after_seal),
        Property::always(TRUTH_IS_VISIBLE, truth_is_visible),
        Property::always(PROMOTED_HOLDS_ALL, promoted_holds_all),
        Property::always(ONE_TIMELINE, one_timeline),
        Property::always(ONE_WINNER, one_winner),
        Property::always(FENCED, fenced),
        Property::always(PROVEN_LOSES_NOTHING, proven_loses_nothing),
        Property::always(NEVER_CORRUPT, never_corrupt),
        Property::sometimes("a promotion is proven", |_, world: &World| {
            world.promotions.iter().any(|promotion| promotion.proven)
        }),
        Property::sometimes(
            "commits stop waiting",
            |scenario: &Scenario, world: &World| scenario.commits && !world.waits,
        ),
        Property::sometimes(
            "a promotion is proven after a change",
            |_, world: &World| {
                let epoch =
                    |p: &super::world::Promotion| world.hosts[p.region].promoted.map(|(_, e)| e.0);
                let late = |p| epoch(p).is_some_and(|epoch| epoch > 2);
                world.promotions.iter().any(|p| p.proven && late(p))
            },
        ),
        Property::sometimes(
            "a receiver acknowledges all",
            |scenario: &Scenario, world: &World| {
                let all = ORIGIN.advance(scenario.log_bytes);
                world
                    .receivers
                    .iter()
                    .any(|receiver| receiver.acknowledged == all)
            },
        ),
        Property::sometimes("a receiver is superseded", |_, world: &World| {
            world
                .receivers
                .iter()
                .any(|receiver| receiver.is_superseded())
        }),
        Property::sometimes("an executor ends well", |_, world: &World| {
            world.executors.iter().any(|executor| executor.is_done())
        }),
        Property::sometimes("a database is promoted", |_, world: &World| {
            !world.promotions.is_empty()
        }),
        Property::sometimes("an executor loses the epoch", |_, world: &World| {
            world
                .executors
                .iter()
                .any(|executor| executor.stopped() == Some(Stop::Lost))
        }),
        Property::sometimes("an executor is taken over", |_, world: &World| {
            world
                .executors
                .iter()
                .any(|executor| executor.stopped() == Some(Stop::TakenOver))
        }),
        Property::sometimes("an executor is superseded", |_, world: &World| {
            world
                .executors
                .iter()
                .any(|executor| executor.stopped() == Some(Stop::Superseded))
        }),
        Property::sometimes("a link is removed", |_, world: &World| {
            world.floors.iter().any(|floor| *floor > ORIGIN)
        }),
        Property::sometimes(
            "an epoch is opened where the register has moved to",
            |_, world: &World| {
                world
                    .store_get(SOUTH, &EpochRecord::key(&workload(), Epoch(4)))
                    .is_some()
            },
        ),
        Property::sometimes("two databases are promoted", |_, world: &World| {
            world.promotions.len() > 1
        }),
    ]
}
