//! Reads log back, across the chains of a timeline, verifying every byte and refusing holes.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use dr_model::{Lsn, SystemIdentifier, TimelineId};
use dr_provider::ObjectStore;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;

use super::available::tails;
use super::catalogue::{links_after, newest_links};
use super::link::{Link, link_with_log};
use super::tail::{corrupt, start_of_walk};
use super::{ChainId, Error, Tail};
use crate::operation::{Patience, read};

const AHEAD: usize = 16;
const PAGE: usize = 256;

/// How many links before a position are looked at to find one on the chain.
const NEAR: usize = 16;

type Fetched = dr_provider::Result<Option<Bytes>>;

/// Reads the log of one timeline from one position to another, in order.
///
/// Epochs follow each other: where a chain ends, one that holds the next position continues. A few chunks are fetched
/// ahead, guided by listings; which chunk comes next is decided by the chunk before.
pub struct ChainReader {
    store: Arc<dyn ObjectStore>,
    system_identifier: SystemIdentifier,
    timeline: TimelineId,
    patience: Patience,
    tails: Vec<(ChainId, Tail)>,
    position: Lsn,
    to: Lsn,
    current: Option<Cursor>,
}

impl std::fmt::Debug for ChainReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChainReader")
            .field("position", &self.position)
            .field("to", &self.to)
            .finish_non_exhaustive()
    }
}

/// A place on one chain.
struct Cursor {
    chain: ChainId,
    end: Lsn,
    /// The key of the next link.
    at: Lsn,
    /// Positions listed and not yet asked for.
    listed: VecDeque<Lsn>,
    listed_to: Lsn,
    /// No link after this position is wanted.
    wanted_to: Lsn,
    /// Positions asked for, and the answers to come in the same order.
    asked: VecDeque<Lsn>,
    fetching: FuturesOrdered<BoxFuture<'static, Fetched>>,
}

impl ChainReader {
    /// Starts reading from `from` up to `to`. Nothing is promised until the reads succeed.
    ///
    /// # Errors
    ///
    /// [`Error::Hole`] at once, if the part from `from` to `to` is not all there.
    pub async fn open(
        store: Arc<dyn ObjectStore>,
        system_identifier: SystemIdentifier,
        timeline: TimelineId,
        from: Lsn,
        to: Lsn,
        patience: Patience,
    ) -> Result<Self, Error> {
        let tails = tails(&*store, system_identifier, timeline, patience).await?;
        let reader = Self {
            store,
            system_identifier,
            timeline,
            patience,
            tails,
            position: from,
            to,
            current: None,
        };
        let mut reached = from;
        while reached < to {
            let (_, tail) = reader.covering(reached)?;
            reached = tail.end;
        }
        Ok(reader)
    }

    /// Returns the position of the next byte.
    #[must_use]
    pub fn position(&self) -> Lsn {
        self.position
    }

    /// Returns the next bytes with their position; `None` at the end of what was asked for.
    ///
    /// # Errors
    ///
    /// [`Error::Hole`], [`Error::Corrupt`], [`Error::Store`]. After an error the same position is read again.
    pub async fn next(&mut self) -> Result<Option<(Lsn, Bytes)>, Error> {
        while self.position < self.to {
            if let Some(cursor) = &mut self.current
                && cursor.at < cursor.end
            {
                let begin = cursor.at;
                let fetched = cursor.fetch(&self.store, self.patience).await;
                let log = match fetched {
                    Ok(Some(log)) => log,
                    Ok(None) => {
                        self.current = None;
                        return Err(self.hole(begin.max(self.position), None));
                    }
                    Err(error) => {
                        self.current = None;
                        return Err(error);
                    }
                };
                let end = begin.advance(log.len() as u64).min(self.to).min(cursor.end);
                if end <= self.position {
                    continue;
                }
                let index = |lsn: Lsn| {
                    usize::try_from(lsn.bytes_since(begin)).expect("an index in a slice in memory")
                };
                let piece = log.slice(index(self.position)..index(end));
                let position = std::mem::replace(&mut self.position, end);
                return Ok(Some((position, piece)));
            }
            let cursor = self.locate().await?;
            self.current = Some(cursor);
        }
        Ok(None)
    }

    /// Reads everything that is left into one piece. For short stretches such as a segment.
    pub async fn read_to_end(&mut self) -> Result<Vec<u8>, Error> {
        let mut all = Vec::new();
        while let Some((_, piece)) = self.next().await? {
            all.extend_from_slice(&piece);
        }
        Ok(all)
    }

    /// Returns the chain that reaches furthest among those that hold `position`.
    fn covering(&self, position: Lsn) -> Result<&(ChainId, Tail), Error> {
        let holds =
            |(_, tail): &&(ChainId, Tail)| tail.origin.start_lsn <= position && position < tail.end;
        self.tails
            .iter()
            .filter(holds)
            .max_by_key(|(_, tail)| tail.end)
            .ok_or_else(|| {
                let begins = self
                    .tails
                    .iter()
                    .filter(|(_, tail)| tail.origin.start_lsn < tail.end);
                let next = begins
                    .map(|(_, tail)| tail.origin.start_lsn)
                    .filter(|start| *start > position)
                    .min();
                self.hole(position, next)
            })
    }

    fn hole(&self, from: Lsn, next: Option<Lsn>) -> Error {
        Error::Hole {
            subject: format!(
                "cluster {}, timeline {}",
                self.system_identifier, self.timeline
            ),
            from,
            to: next.unwrap_or(self.to).min(self.to),
            location: self.store.location().to_owned(),
        }
    }

    /// Finds a link on the chain at or before the position, near to it.
    async fn locate(&mut self) -> Result<Cursor, Error> {
        let (chain, tail) = self.covering(self.position)?.clone();
        let chain = &chain;
        let listed = newest_links(
            &*self.store,
            chain,
            Some(self.position),
            NEAR,
            self.patience,
        )
        .await
        .map_err(|error| Error::store(chain, error))?;
        let origin = tail.origin.start_lsn;
        let at = start_of_walk(&*self.store, chain, &listed, origin, self.patience).await?;
        Ok(Cursor {
            chain: *chain,
            end: tail.end,
            at,
            listed: listed.into_iter().filter(|lsn| *lsn >= at).collect(),
            listed_to: self.position,
            wanted_to: self.to,
            asked: VecDeque::new(),
            fetching: FuturesOrdered::new(),
        })
    }
}

impl Cursor {
    /// Returns the log of the link at `at` and moves on; `None` if it is proven not to be there.
    async fn fetch(
        &mut self,
        store: &Arc<dyn ObjectStore>,
        patience: Patience,
    ) -> Result<Option<Bytes>, Error> {
        let chain = self.chain;
        let failed = |error| Error::store(chain, error);
        self.look_ahead(store, patience).await.map_err(failed)?;
        let at = self.at;
        // What was fetched for keys before `at` hangs on nothing: the walk has passed it.
        while self.asked.front().is_some_and(|lsn| *lsn < at) {
            self.asked.pop_front();
            self.fetching.next().await;
        }
        let fetched = if self.asked.front() == Some(&at) {
            self.asked.pop_front();
            self.fetching.next().await
        } else {
            None
        };
        let fetched = match fetched {
            Some(fetched) => fetched,
            None => read(&**store, &self.chain.link_key(at), patience).await,
        };
        let Some(bytes) = fetched.map_err(failed)? else {
            return Ok(None);
        };
        match link_with_log(&bytes, &self.chain, at) {
            Ok(Link::Chunk((header, log))) => {
                self.at = header.end;
                Ok(Some(log))
            }
            // The tail was found behind this position, so a seal here was made by nobody who followed the rules.
            Ok(Link::Seal(_)) => Err(corrupt(&**store, &self.chain, at, "a seal inside the log")),
            Err(why) => Err(corrupt(&**store, &self.chain, at, why)),
        }
    }

    /// Asks for the next listed chunks, so that several are under way.
    async fn look_ahead(
        &mut self,
        store: &Arc<dyn ObjectStore>,
        patience: Patience,
    ) -> dr_provider::Result<()> {
        let last = Lsn(self.end.0.saturating_sub(1)).min(self.wanted_to);
        while self.asked.len() < AHEAD {
            let Some(lsn) = self.listed.pop_front() else {
                if self.listed_to >= last {
                    return Ok(());
                }
                let after = Some(self.listed_to);
                let page = links_after(&**store, &self.chain, after, last, PAGE, patience).await?;
                self.listed_to = match page.last() {
                    Some(lsn) if page.len() == PAGE => *lsn,
                    _ => last,
                };
                self.listed.extend(page);
                continue;
            };
            if lsn < self.at {
                continue;
            }
            let (store, key) = (store.clone(), self.chain.link_key(lsn));
            self.asked.push_back(lsn);
            self.fetching
                .push_back(Box::pin(async move { read(&*store, &key, patience).await }));
        }
        Ok(())
    }
}
