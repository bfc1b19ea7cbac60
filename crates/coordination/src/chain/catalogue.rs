//! What a store's listing says about chains: hints about where to look, never more (R39).
//!
//! A listing goes forwards only and a busy chain has hundreds of thousands of chunks, so the newest are found by leaping:
//! a listing after a position that is far ahead says at once whether anything follows. How many bytes of log lie between two
//! chunks says nothing about others: an idle server makes them small, a busy one large.

use dr_model::{Lsn, SystemIdentifier, TimelineId};
use dr_provider::{Key, ObjectStore, Result};

use super::ChainId;
use crate::operation::{Patience, key, limited};

/// How many links are asked for at once: few enough to be cheap, and the last so many of a chain are one answer.
const PAGE: usize = 256;

/// A position that no link reaches.
const END: Lsn = Lsn(u64::MAX);

/// The first leap ahead, in bytes of log, to look for the end of a chain.
const LEAP_BYTES: u64 = 1 << 20;

/// The first step back from a position, to look for the links before it.
const BACK_BYTES: u64 = 64 << 10;

/// Lists the positions that the names under `prefix` are, in order. For records of which there are few.
pub(crate) async fn positions(
    store: &dyn ObjectStore,
    prefix: &str,
    patience: Patience,
) -> Result<Vec<Lsn>> {
    const MOST: usize = 1000;
    let mut found = Vec::new();
    let mut after: Option<Key> = None;
    loop {
        let listed = limited(
            patience.timeout,
            "list objects",
            || format!("{}/{prefix}", store.location()),
            store.list(prefix, after.as_ref(), MOST),
        )
        .await?;
        let keys = listed.iter().map(|info| info.key.file_name());
        found.extend(keys.filter_map(Lsn::from_key));
        match listed.last() {
            Some(last) if listed.len() == MOST => after = Some(last.key.clone()),
            _ => return Ok(found),
        }
    }
}

/// Returns the chains of a cluster that a store holds, by timeline and epoch.
pub async fn chains(
    store: &dyn ObjectStore,
    system_identifier: SystemIdentifier,
) -> Result<Vec<ChainId>> {
    let prefix = ChainId::cluster_prefix(system_identifier);
    let mut found: Vec<ChainId> = Vec::new();
    skip_through(store, &prefix, |met| match ChainId::from_key(met) {
        Some(chain) => {
            found.push(chain);
            Some(chain.prefix())
        }
        // A directory that holds no chains.
        None => beside(&prefix, met),
    })
    .await?;
    found.sort_unstable();
    Ok(found)
}

/// Meets one key of each directory under `prefix`: `directory_of` says in which one, with its final `/`, the key that is met stands,
/// and the rest of it is skipped.
async fn skip_through(
    store: &dyn ObjectStore,
    prefix: &str,
    mut directory_of: impl FnMut(&Key) -> Option<String>,
) -> Result<()> {
    let mut after = None;
    loop {
        let page = store.list(prefix, after.as_ref(), 1).await?;
        let Some(info) = page.into_iter().next() else {
            return Ok(());
        };
        after = Some(match directory_of(&info.key) {
            // All names in it sort before `z`.
            Some(directory) => key(format!("{directory}z")),
            None => info.key,
        });
    }
}

/// Returns the timelines of a cluster of which a store holds anything, in order: also those whose log nobody ever received.
pub async fn timelines(
    store: &dyn ObjectStore,
    system_identifier: SystemIdentifier,
) -> Result<Vec<TimelineId>> {
    let prefix = ChainId::cluster_prefix(system_identifier);
    let mut found = Vec::new();
    skip_through(store, &prefix, |met| {
        let rest = met.as_str().strip_prefix(&prefix)?;
        let name = rest.split('/').next()?;
        let number = u32::from_str_radix(name, 16).ok()?;
        if number == 0 {
            return None;
        }
        found.push(TimelineId(number));
        Some(format!("{prefix}{name}/"))
    })
    .await?;
    Ok(found)
}

/// Returns the directory of a timeline that a key is in, with its final `/`: `…/00000001/log/`.
fn beside(cluster: &str, key: &Key) -> Option<String> {
    let mut parts = key.as_str().strip_prefix(cluster)?.splitn(3, '/');
    let (timeline, directory) = (parts.next()?, parts.next()?);
    parts.next()?;
    Some(format!("{cluster}{timeline}/{directory}/"))
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

/// Returns the last links that are listed, or the last at or before `at_most`, in order: at least `wanted` if there are as
/// many.
pub(crate) async fn newest_links(
    store: &dyn ObjectStore,
    chain: &ChainId,
    at_most: Option<Lsn>,
    wanted: usize,
    patience: Patience,
) -> Result<Vec<Lsn>> {
    newest_links_after(store, chain, None, at_most, wanted, patience).await
}

/// As [`newest_links`], of those after `after`: one listing says it if there are few.
pub(crate) async fn newest_links_after(
    store: &dyn ObjectStore,
    chain: &ChainId,
    after: Option<Lsn>,
    at_most: Option<Lsn>,
    wanted: usize,
    patience: Patience,
) -> Result<Vec<Lsn>> {
    let page = PAGE.max(wanted * 4);
    let list = |after, at_most| links_after(store, chain, after, at_most, page, patience);
    let begin = list(after, at_most.unwrap_or(END)).await?;
    let (Some(first), Some(mut reached)) = (begin.first().copied(), begin.last().copied()) else {
        return Ok(begin);
    };
    if begin.len() < page {
        return Ok(begin);
    }

    // The end lies between a link that was reached and a position that none follows.
    let (mut leap, mut empty) = (LEAP_BYTES, END);
    let last = loop {
        if let Some(at_most) = at_most {
            break at_most;
        }
        let from = reached.advance(leap.min(empty.bytes_since(reached) / 2));
        leap = leap.saturating_mul(4);
        let found = list(Some(from), END).await?;
        match found.last() {
            None if from == reached => break reached,
            None => empty = from,
            Some(_) if (wanted..page).contains(&found.len()) => return Ok(found),
            Some(last) if found.len() < page => break *last,
            Some(last) => reached = *last,
        }
    };

    // The wanted lie between a step back over too few and one over more than are listed at once.
    let (mut back, mut too_near, mut too_far) = (BACK_BYTES, 0, last.bytes_since(first));
    loop {
        let found = list(Some(Lsn(last.0.saturating_sub(back))), last).await?;
        if (wanted..page).contains(&found.len()) {
            return Ok(found);
        }
        if found.len() < page {
            too_near = back;
        } else {
            too_far = back;
        }
        back = too_near.saturating_add(too_far) / 2;
        if too_near > 0 {
            back = back.min(too_near.saturating_mul(4));
        }
        if back <= too_near {
            return Ok(found);
        }
    }
}
