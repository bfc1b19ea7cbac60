//! Writing pieces.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use dr_model::Lsn;

use super::super::catalogue::newest_links;
use super::super::coverage::gaps;
use super::super::link::{Link, Reply, read_header};
use super::super::piece::{PieceFacts, Span, decode_piece, encode_piece};
use super::super::tail::persist;
use super::super::{ChainId, ChainReader, Cipher, Error, Flaw, NoRandomness, Section, Tail};
use super::{KEPT_LINKS, Run};
use crate::publish::{Published, publish};

/// Pieces of one slot that are merged into one, long before the slot is full: a segment that fills slowly is not a thousand
/// objects.
const MANY: usize = 64;

impl Run<'_> {
    /// Writes pieces of everything on a chain that is not among `held`, to which they are added.
    pub(super) async fn merge(
        &mut self,
        chain: &ChainId,
        tail: &Tail,
        held: &mut Vec<Span>,
    ) -> Result<(), Error> {
        let mut at = tail.origin.start_lsn.max(self.log_start);
        while let Some(gap) = gaps(held, at, tail.end).into_iter().next() {
            let slot = Span {
                from: self.slot.start_of(gap.from),
                to: self.slot.start_of(gap.from).advance(self.slot.bytes()),
            };
            let to = gap.to.min(slot.to);
            let is_open = to == tail.end && to < slot.to && tail.seal.is_none();
            let to = if is_open {
                match self.mergeable(chain, gap.from, to).await? {
                    Some(to) => to,
                    None => return self.look_through(chain, Span { from: gap.from, to }).await,
                }
            } else {
                to
            };
            let from = self.begin(held, slot, gap.from, to);
            match self.write(Span { from, to }).await {
                Ok(()) => {
                    held.push(Span { from, to });
                    held.sort_unstable();
                    at = to;
                }
                Err(Error::Hole { from, to, .. }) => {
                    // What is there on both sides is merged all the same; the hole is reported.
                    let lost = self.lost_at(chain, from).await?;
                    self.lost.extend(lost);
                    let hole = lost.unwrap_or(Span { from, to });
                    if gap.from < hole.from {
                        let before = Span {
                            from: gap.from,
                            to: hole.from,
                        };
                        self.write(before).await?;
                        held.push(before);
                        held.sort_unstable();
                    }
                    at = hole.to.max(hole.from);
                    if !self.report.holes.contains(&hole) {
                        self.report.holes.push(hole);
                    }
                    if hole.from >= hole.to {
                        return Ok(());
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads the open end of a chain, which is not merged yet: what is missing or damaged there is told now, and not when its
    /// segment is full, which is hours away if the database is idle. There are at most some two hundred links.
    async fn look_through(&mut self, chain: &ChainId, open: Span) -> Result<(), Error> {
        let mut at = open.from;
        while at < open.to {
            match self
                .read_through(Span {
                    from: at,
                    to: open.to,
                })
                .await
            {
                Ok(()) => return Ok(()),
                Err(Error::Hole { from, to, .. }) => {
                    let lost = self.lost_at(chain, from).await?;
                    self.lost.extend(lost);
                    let hole = lost.unwrap_or(Span { from, to });
                    if !self.report.holes.contains(&hole) {
                        self.report.holes.push(hole);
                    }
                    if hole.to <= at {
                        return Ok(());
                    }
                    at = hole.to;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn read_through(&self, span: Span) -> Result<(), Error> {
        let mut reader = ChainReader::open(
            Arc::clone(self.store),
            Section::new(self.system_identifier, self.timeline, span.from, span.to),
            self.options.patience,
        )
        .await?
        .with_keys(&self.options.keys);
        while reader.next_part().await?.is_some() {}
        Ok(())
    }

    /// Returns what is lost from a position on, if the link there says so.
    async fn lost_at(&self, chain: &ChainId, from: Lsn) -> Result<Option<Span>, Error> {
        let patience = self.options.patience;
        let read = persist(patience, || {
            read_header(&**self.store, chain, from, patience.timeout)
        });
        match read.await.map_err(|error| Error::store(chain, error))? {
            Reply::Found(Link::Chunk(header)) if header.is_lost() => Ok(Some(Span {
                from,
                to: header.end,
            })),
            _ => Ok(None),
        }
    }

    /// Returns until where the open end of a chain may be merged: all but the newest links, and only if that is worth it.
    async fn mergeable(&self, chain: &ChainId, from: Lsn, to: Lsn) -> Result<Option<Lsn>, Error> {
        let links = newest_links(
            &**self.store,
            chain,
            None,
            2 * KEPT_LINKS,
            self.options.patience,
        )
        .await
        .map_err(|error| Error::store(chain, error))?;
        let newer = links
            .iter()
            .filter(|lsn| from < **lsn && **lsn < to)
            .count();
        if newer < KEPT_LINKS + KEPT_LINKS / 2 {
            return Ok(None);
        }
        let before = links.iter().filter(|lsn| **lsn < to).nth_back(KEPT_LINKS);
        // Any position between two that are on the chain will do, also inside of a chunk.
        Ok(before.copied().filter(|lsn| from < *lsn))
    }

    /// Returns where a piece that ends at `to` had better begin: with its slot, if that is complete then or in too many
    /// pieces.
    fn begin(&self, held: &[Span], slot: Span, from: Lsn, to: Lsn) -> Lsn {
        if !gaps(held, slot.from, from).is_empty() {
            return from;
        }
        if to == slot.to || fewest(held, slot.from, from) >= MANY {
            slot.from
        } else {
            from
        }
    }

    /// Writes one piece.
    async fn write(&mut self, span: Span) -> Result<(), Error> {
        let patience = self.options.patience;
        let mut reader = ChainReader::open(
            Arc::clone(self.store),
            Section::new(self.system_identifier, self.timeline, span.from, span.to),
            patience,
        )
        .await?
        .with_keys(&self.options.keys);
        let length = usize::try_from(span.log_bytes()).expect("a slot fits the memory");
        let mut log = BytesMut::with_capacity(length);
        let mut facts: Option<PieceFacts> = None;
        while let Some(part) = reader.next_part().await? {
            log.extend_from_slice(&part.log);
            facts = Some(match facts {
                None => part.facts,
                Some(facts) => join(facts, part.facts),
            });
        }
        let Some(facts) = facts else { return Ok(()) };
        let log = log.freeze();
        let (cluster, timeline) = (self.system_identifier, self.timeline);
        let writer = self.options.writer.clone();
        let ours = log.clone();
        let keys = self.options.keys.clone();
        let encode = move || {
            let cipher = Cipher::draw(&keys)?;
            let start = span.from;
            let body = encode_piece(
                cluster,
                timeline,
                start,
                &ours,
                &facts,
                &writer,
                cipher.as_ref(),
            );
            Ok::<_, NoRandomness>(body)
        };
        let failed = |why: String| {
            let (key, location) = (span.key(cluster, timeline), self.store.location());
            Flaw::Damaged(why).of_piece(&key, location)
        };
        let body = tokio::task::spawn_blocking(encode)
            .await
            .map_err(|error| failed(error.to_string()))?
            .map_err(|error| failed(error.to_string()))?;
        let stored_bytes = body.len() as u64;
        let key = span.key(cluster, timeline);
        let published = publish(&**self.store, key, body, patience).await;
        match published.map_err(|error| Error::store(self.subject(), error))? {
            Published::Ours => {
                self.report.pieces += 1;
                self.report.log_bytes += span.log_bytes();
                self.report.stored_bytes += stored_bytes;
                Ok(())
            }
            // Another process made it of the same log, or it was archived as a whole.
            Published::Theirs(theirs) => self.compare(&theirs, span, &log).map_err(|flaw| {
                let key = span.key(cluster, timeline);
                flaw.of_piece(&key, self.store.location())
            }),
        }
    }

    fn compare(&self, theirs: &Bytes, span: Span, log: &Bytes) -> Result<(), Flaw> {
        let (_, there) = decode_piece(
            theirs,
            self.system_identifier,
            self.timeline,
            span,
            &self.options.keys,
        )?;
        if there == *log {
            Ok(())
        } else {
            Err("it holds another log than the chunks of the same timeline"
                .to_owned()
                .into())
        }
    }
}

/// Returns how many pieces are read to get everything between two positions, all of which they hold.
fn fewest(held: &[Span], from: Lsn, to: Lsn) -> usize {
    let (mut reached, mut count) = (from, 0);
    while reached < to {
        let holds = held
            .iter()
            .filter(|span| span.from <= reached && reached < span.to);
        let Some(next) = holds.map(|span| span.to).max() else {
            break;
        };
        reached = next;
        count += 1;
    }
    count
}

fn join(mut facts: PieceFacts, next: PieceFacts) -> PieceFacts {
    for epoch in next.epochs {
        if !facts.epochs.contains(&epoch) {
            facts.epochs.push(epoch);
        }
    }
    facts.commits += next.commits;
    facts.last_commit_at = facts.last_commit_at.max(next.last_commit_at);
    facts.received_at = facts.received_at.max(next.received_at);
    facts
}
