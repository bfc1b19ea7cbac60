//! Giving up the log that no recovery point needs any more (R35, R36).
//!
//! Only pieces go. Links are compaction's to remove, and what the protocol needs of a chain, its origin, its seal and the
//! links that find its tail, is never touched: nothing is given up above the floor of a chain that reaches further. Planning
//! changes nothing; what was planned may be cut off anywhere and repeated.

use std::sync::Arc;

use dr_model::{Clock, Lsn, SegmentSize, SystemIdentifier, TimelineId};
use dr_provider::{ErrorKind, Key, ObjectStore};
use futures::stream::{self, StreamExt as _};

use super::catalogue::chains_of_timeline;
use super::floor::floor;
use super::piece::{Span, pieces};
use super::section::Section;
use super::start::{LogStart, starts};
use super::{Error, FORMAT_VERSION, find_tail};
use crate::operation::{Patience, limited};
use crate::publish::publish;

const AT_ONCE: usize = 16;

/// What is needed of a timeline's log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needed {
    /// From here on all of it; `None` if nothing is needed but the spans.
    pub from: Option<Lsn>,
    /// Parts before that.
    pub spans: Vec<Span>,
}

/// What will be given up of a timeline's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogExpiry {
    /// The cluster.
    pub system_identifier: SystemIdentifier,
    /// The timeline.
    pub timeline: TimelineId,
    /// All of it stays from here on.
    pub start: Lsn,
    /// The pieces that go.
    pub pieces: Vec<Span>,
}

impl LogExpiry {
    /// Returns how much log goes.
    #[must_use]
    pub fn log_bytes(&self) -> u64 {
        self.pieces.iter().map(Span::log_bytes).sum()
    }
}

/// Plans what goes of a timeline's log, given what is needed of it.
///
/// # Errors
///
/// [`Error::Corrupt`] if a chain cannot be followed to its tail, [`Error::Store`] if the store does not answer: nothing may
/// be given up then.
pub async fn plan_log_expiry(
    store: &dyn ObjectStore,
    system_identifier: SystemIdentifier,
    timeline: TimelineId,
    segment_size: SegmentSize,
    needed: &Needed,
    patience: Patience,
) -> Result<LogExpiry, Error> {
    let failed = |error| {
        let subject = format!("cluster {system_identifier}, timeline {timeline}");
        Error::store(subject, error)
    };
    let chains = chains_of_timeline(store, system_identifier, timeline)
        .await
        .map_err(failed)?;
    // Where each chain ends, and what of it is not in links any more.
    let mut ends = Vec::new();
    let mut reached = Lsn::INVALID;
    for chain in chains {
        if let Some(tail) = find_tail(store, &chain, patience).await? {
            let floor = floor(store, &chain, patience).await?;
            // An open one goes on where it ends now.
            let reaches = match tail.seal {
                Some(_) => tail.end,
                None => tail.end.advance(1),
            };
            ends.push((reaches, floor.unwrap_or(tail.origin.start_lsn)));
            reached = reached.max(tail.end);
        }
    }
    let all = pieces(store, Section::whole(system_identifier, timeline), patience);
    let all = all.await.map_err(failed)?;
    let reached = all.iter().map(|span| span.to).fold(reached, Lsn::max);
    let start = highest_start(
        needed.from.unwrap_or(reached).min(reached),
        segment_size,
        &ends,
    );
    let wanted = |span: &Span| {
        let mut needed = needed.spans.iter();
        needed.any(|needed| span.from < needed.to && needed.from < span.to)
    };
    let gone = all
        .into_iter()
        .filter(|span| span.to <= start && !wanted(span));
    Ok(LogExpiry {
        system_identifier,
        timeline,
        start,
        pieces: gone.collect(),
    })
}

/// Returns the highest start of a segment up to `limit` below which no chain that goes on has links.
fn highest_start(limit: Lsn, segment_size: SegmentSize, ends: &[(Lsn, Lsn)]) -> Lsn {
    let mut start = segment_size.start_of(limit);
    loop {
        let floors = ends.iter().filter(|(end, _)| *end > start);
        let lowest = floors.map(|(_, floor)| *floor).min();
        let next = segment_size.start_of(lowest.map_or(start, |floor| floor.min(start)));
        if next == start {
            return start;
        }
        start = next;
    }
}

/// What giving up came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogExpired {
    /// Pieces removed.
    pub removed: u64,
    /// Whether the store refused to remove something: the rest stays.
    pub denied: bool,
}

/// Does what was planned.
///
/// # Errors
///
/// [`Error::Store`]: plan again, and try again.
pub async fn expire_log(
    store: &dyn ObjectStore,
    plan: &LogExpiry,
    clock: &Arc<dyn Clock>,
    writer: &str,
    patience: Patience,
) -> Result<LogExpired, Error> {
    let (cluster, timeline) = (plan.system_identifier, plan.timeline);
    let failed = |error| Error::store(format!("cluster {cluster}, timeline {timeline}"), error);
    let mut done = LogExpired::default();
    if plan.pieces.is_empty() {
        return Ok(done);
    }
    let mut recorded = starts(store, cluster, timeline, patience).await?;
    if recorded.last().is_none_or(|last| *last < plan.start) {
        let start = LogStart {
            version: FORMAT_VERSION,
            system_identifier: cluster,
            timeline,
            lsn: plan.start,
            created_at: clock.now(),
            writer: writer.to_owned(),
        };
        let key = LogStart::key(cluster, timeline, plan.start);
        // Whoever wrote it, it says the same.
        publish(store, key, start.to_bytes(), patience)
            .await
            .map_err(failed)?;
        recorded.push(plan.start);
    }
    let gone = plan.pieces.iter().map(|span| span.key(cluster, timeline));
    let old = recorded[..recorded.len().saturating_sub(2)].iter();
    let old = old.map(|lsn| LogStart::key(cluster, timeline, *lsn));
    for (keys, counts) in [(gone.collect::<Vec<Key>>(), true), (old.collect(), false)] {
        let mut removed = std::pin::pin!(
            stream::iter(keys)
                .map(async |key| {
                    let subject = || format!("{}/{key}", store.location());
                    let deleted = store.delete(&key);
                    limited(patience.timeout, "remove object", subject, deleted).await
                })
                .buffered(AT_ONCE)
        );
        while let Some(removed) = removed.next().await {
            match removed {
                Ok(()) => done.removed += u64::from(counts),
                Err(error)
                    if matches!(error.kind(), ErrorKind::Denied | ErrorKind::Unsupported) =>
                {
                    done.denied = true;
                    return Ok(done);
                }
                Err(error) => return Err(failed(error)),
            }
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_stays_below_what_chains_need() {
        let size = SegmentSize::try_from(16_u32).unwrap_or(SegmentSize::DEFAULT);
        let segment = |number: u64| Lsn(number * size.bytes());
        let inside = |number: u64| Lsn(number * size.bytes() + 5);
        for (limit, ends, expected) in [
            (segment(9), vec![], segment(9)),
            (inside(9), vec![], segment(9)),
            // A chain that goes on, above its floor and below.
            (segment(9), vec![(segment(20), segment(12))], segment(9)),
            (segment(9), vec![(segment(20), inside(4))], segment(4)),
            // One that ended before the limit, and one that ends behind where another stops it.
            (segment(9), vec![(segment(8), segment(2))], segment(9)),
            (
                segment(9),
                vec![(segment(8), segment(2)), (segment(20), segment(5))],
                segment(2),
            ),
        ] {
            assert_eq!(
                highest_start(limit, size, &ends),
                expected,
                "{limit} {ends:?}"
            );
        }
    }
}
