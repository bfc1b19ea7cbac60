//! What the headers of a chain say about loss (PROTOCOL 8).

use std::collections::BTreeMap;

use dr_model::Lsn;
use dr_provider::ObjectStore;
use futures::stream::{self, StreamExt};
use jiff::Timestamp;

use super::link::{Link, Reply, read_header};
use super::tail::{find_tail_and_links, persist};
use super::{ChainId, ChunkHeader, Error, Promise, SealRecord};
use crate::operation::Patience;

/// The state of a chain in numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct ChainSummary {
    /// The chain.
    pub chain: ChainId,
    /// Where it begins.
    pub origin: Lsn,
    /// End of the contiguous part.
    pub end: Lsn,
    /// The seal there, if it is sealed.
    pub seal: Option<Box<SealRecord>>,
    /// The primary's WAL end as reported with the newest chunk; `None` for an empty chain.
    pub primary_end: Option<Lsn>,
    /// When the newest chunk was received.
    pub received_at: Option<Timestamp>,
    /// Time of the newest commit among the headers looked at.
    pub last_commit_at: Option<Timestamp>,
    /// Commits a second over the headers looked at; `None` if they span no time.
    pub commits_per_second: Option<f64>,
    /// Receive time of the newest chunk that held all that the primary had reported; `None` if none of those looked at did.
    pub covered_at: Option<Timestamp>,
    /// The promise conditions as of the newest chunk that records them.
    pub promise: Option<Promise>,
    /// By who wrote them, as they name themselves: when the newest chunk of each among the headers looked at was received.
    pub written_at: BTreeMap<String, Timestamp>,
    /// The name of the key that the newest chunk is encrypted with; `None` if it is not.
    pub key: Option<String>,
    /// Number of headers looked at.
    pub headers: usize,
}

/// Summarises a chain from its newest `headers` chunks; `None` if it is proven that this store has no such chain.
pub async fn summarise(
    store: &dyn ObjectStore,
    chain: &ChainId,
    headers: usize,
    patience: Patience,
) -> Result<Option<ChainSummary>, Error> {
    const AT_ONCE: usize = 8;
    let Some(found) = find_tail_and_links(store, chain, headers, patience).await? else {
        return Ok(None);
    };
    let (tail, mut links, mut read) = (found.tail, found.links, found.read);
    links.retain(|lsn| *lsn < tail.end);
    let looked_at = links.split_off(links.len().saturating_sub(headers));
    let missing: Vec<_> = looked_at
        .iter()
        .copied()
        .filter(|lsn| !read.contains_key(lsn))
        .collect();
    let replies: Vec<_> = stream::iter(missing)
        .map(|lsn| async move {
            let ask = || read_header(store, chain, lsn, patience.timeout);
            (lsn, persist(patience, ask).await)
        })
        .buffered(AT_ONCE)
        .collect()
        .await;
    for (lsn, reply) in replies {
        // A header that is gone or damaged adds nothing; the contiguous end does not rest on it.
        if let Reply::Found(link) = reply.map_err(|error| Error::store(chain, error))? {
            read.insert(lsn, link);
        }
    }
    let mut recent = Vec::new();
    for lsn in looked_at {
        if let Some(Link::Chunk(header)) = read.remove(&lsn)
            && header.end <= tail.end
            && !header.is_lost()
        {
            recent.push(header);
        }
    }
    let newest = tail.last.as_ref().or(recent.last());
    Ok(Some(ChainSummary {
        chain: *chain,
        origin: tail.origin.start_lsn,
        end: tail.end,
        primary_end: newest.map(|header| header.primary_end),
        received_at: newest.map(|header| header.received_at),
        last_commit_at: recent
            .iter()
            .filter_map(|header| header.last_commit_at)
            .max(),
        commits_per_second: rate(&recent),
        covered_at: recent
            .iter()
            .filter(|header| header.primary_end <= header.end)
            .map(|header| header.received_at)
            .next_back(),
        promise: recent
            .iter()
            .rev()
            .find_map(|header| header.promise.clone()),
        written_at: written_at(recent.iter().chain(newest)),
        key: newest.and_then(|header| Some(header.encryption.as_ref()?.key.clone())),
        headers: recent.len(),
        seal: tail.seal,
    }))
}

fn written_at<'a>(headers: impl Iterator<Item = &'a ChunkHeader>) -> BTreeMap<String, Timestamp> {
    let mut written: BTreeMap<String, Timestamp> = BTreeMap::new();
    for header in headers {
        let at = written
            .entry(header.writer.clone())
            .or_insert(header.received_at);
        *at = header.received_at.max(*at);
    }
    written
}

/// Commits a second: those after the first chunk, over the time since it was received.
fn rate(recent: &[ChunkHeader]) -> Option<f64> {
    let (first, rest) = recent.split_first()?;
    let last = rest.last()?;
    let seconds = last
        .received_at
        .duration_since(first.received_at)
        .as_secs_f64();
    let commits: u64 = rest.iter().map(|header| header.commits).sum();
    #[expect(clippy::cast_precision_loss, reason = "a rate is an estimate")]
    (seconds > 0.0).then(|| commits as f64 / seconds)
}
