//! What a store's listing says about chains: hints about where to look, never more (R39).
//!
//! A listing goes forwards only and a busy chain has hundreds of thousands of chunks, so the newest are found by leaping:
//! a listing after a position that is far ahead says at once whether anything follows.

use dr_model::{Lsn, SystemIdentifier, TimelineId};
use dr_provider::{ObjectStore, Result};

use super::ChainId;
use crate::operation::{Patience, key, limited};

const PAGE: usize = 1000;

/// Returns the chains of a cluster that a store holds, by timeline and epoch.
pub async fn chains(
    store: &dyn ObjectStore,
    system_identifier: SystemIdentifier,
) -> Result<Vec<ChainId>> {
    let prefix = ChainId::cluster_prefix(system_identifier);
    let mut found: Vec<ChainId> = Vec::new();
    let mut after = None;
    loop {
        let page = store.list(&prefix, after.as_ref(), 1).await?;
        let Some(info) = page.into_iter().next() else {
            found.sort_unstable();
            return Ok(found);
        };
        after = Some(match ChainId::from_key(&info.key) {
            Some(chain) => {
                found.push(chain);
                // Skips the rest of this chain: all its names sort before `z`.
                key(format!("{}z", chain.prefix()))
            }
            None => info.key,
        });
    }
}

/// Returns the chain of the highest epoch that a store holds of a cluster, on its highest timeline.
pub async fn newest_chain(
    store: &dyn ObjectStore,
    system_identifier: SystemIdentifier,
) -> Result<Option<ChainId>> {
    let found = chains(store, system_identifier).await?;
    Ok(found
        .into_iter()
        .max_by_key(|chain| (chain.epoch, chain.timeline)))
}

/// Returns the chains of one timeline, oldest epoch first.
pub(crate) async fn chains_of_timeline(
    store: &dyn ObjectStore,
    system_identifier: SystemIdentifier,
    timeline: TimelineId,
) -> Result<Vec<ChainId>> {
    let mut found = chains(store, system_identifier).await?;
    found.retain(|chain| chain.timeline == timeline);
    Ok(found)
}

/// Lists positions of links after `after`, in order, up to and including `at_most`.
pub(crate) async fn links_after(
    store: &dyn ObjectStore,
    chain: &ChainId,
    after: Option<Lsn>,
    at_most: Lsn,
    limit: usize,
    patience: Patience,
) -> Result<Vec<Lsn>> {
    let prefix = chain.prefix();
    let after = after.map(|lsn| chain.link_key(lsn));
    let listed = limited(
        patience.timeout,
        "list objects",
        || format!("{}/{prefix}", store.location()),
        store.list(&prefix, after.as_ref(), limit),
    )
    .await?;
    Ok(listed
        .iter()
        .filter_map(|info| Lsn::from_key(info.key.file_name()))
        .take_while(|lsn| *lsn <= at_most)
        .collect())
}

/// Returns the last links that are listed at or before `at_most`, in order: up to two thousand, none if there are none.
pub(crate) async fn newest_links(
    store: &dyn ObjectStore,
    chain: &ChainId,
    at_most: Lsn,
    patience: Patience,
) -> Result<Vec<Lsn>> {
    let list = |after, limit| links_after(store, chain, after, at_most, limit, patience);
    let mut previous: Vec<Lsn> = Vec::new();
    loop {
        let page = list(previous.last().copied(), PAGE).await?;
        let (Some(first), Some(last)) = (page.first().copied(), page.last().copied()) else {
            return Ok(previous);
        };
        if page.len() < PAGE {
            previous.extend(page);
            return Ok(previous);
        }
        let span = last.bytes_since(first).max(1);
        let (mut leap, mut reached) = (span, last);
        while let Some(far) = reached.0.checked_add(leap).map(Lsn)
            && far < at_most
        {
            let beyond = list(Some(far), 1).await?;
            let Some(found) = beyond.first() else { break };
            reached = *found;
            leap = leap.saturating_mul(2);
        }
        if reached == last {
            previous = page;
            continue;
        }
        // Some links before the one that was reached are wanted too: as many as a part of a page has held so far.
        let mut back = span / 4;
        previous = loop {
            let from = Lsn(reached.0.saturating_sub(back));
            let mut before = list(Some(from), PAGE).await?;
            before.retain(|lsn| *lsn < reached);
            if before.len() < PAGE - 1 {
                before.push(reached);
                break before;
            }
            back /= 2;
        };
    }
}
