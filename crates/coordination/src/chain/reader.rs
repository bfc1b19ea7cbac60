//! Reads log back, across the chains of a timeline, verifying every byte and refusing holes.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use dr_model::{Lsn, SystemIdentifier, TimelineId};
use dr_provider::ObjectStore;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;

use super::Error;
use super::coverage::{Object, Source, coverage};
use super::link::{Link, link_with_log};
use super::tail::corrupt;
use crate::operation::{Patience, read};

/// How many chunks are asked for ahead.
const AHEAD: usize = 16;

type Fetched = dr_provider::Result<Option<Bytes>>;

/// Reads the log of one timeline from one position to another, in order.
///
/// Epochs follow each other: where a chain ends, one that holds the next position continues. What will be read was proven
/// to hang together before the first byte is handed out; a few objects are fetched ahead.
pub struct ChainReader {
    store: Arc<dyn ObjectStore>,
    system_identifier: SystemIdentifier,
    timeline: TimelineId,
    patience: Patience,
    position: Lsn,
    to: Lsn,
    /// What is to be read, in order, and has not been asked for.
    sources: VecDeque<Source>,
    /// What was asked for, and the answers to come in the same order.
    asked: VecDeque<Object>,
    fetching: FuturesOrdered<BoxFuture<'static, Fetched>>,
    /// Where something had gone between looking and reading, the last time.
    missed_at: Option<Lsn>,
}

impl std::fmt::Debug for ChainReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChainReader")
            .field("position", &self.position)
            .field("to", &self.to)
            .finish_non_exhaustive()
    }
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
        let mut reader = Self {
            store,
            system_identifier,
            timeline,
            patience,
            position: from,
            to,
            sources: VecDeque::new(),
            asked: VecDeque::new(),
            fetching: FuturesOrdered::new(),
            missed_at: None,
        };
        reader.look().await?;
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
            if self.asked.is_empty() && self.sources.is_empty() {
                self.look().await?;
            }
            self.look_ahead();
            let Some(object) = self.asked.pop_front() else {
                continue;
            };
            let fetched = self.fetching.next().await;
            let log = match fetched {
                Some(Ok(Some(bytes))) => self.open_object(object, &bytes),
                Some(Err(error)) => Err(Error::store(object.chain, error)),
                Some(Ok(None)) | None => {
                    // Somebody merges chunks and removes them: then the log is elsewhere by now.
                    self.forget();
                    if self.missed_at.replace(self.position) == Some(self.position) {
                        return Err(self.hole(object.to));
                    }
                    continue;
                }
            };
            let log = match log {
                Ok(log) => log,
                Err(error) => {
                    self.forget();
                    return Err(error);
                }
            };
            let begin = object.from;
            let end = begin.advance(log.len() as u64).min(self.to).min(object.to);
            if end <= self.position {
                continue;
            }
            let index = |lsn: Lsn| {
                usize::try_from(lsn.bytes_since(begin)).expect("an index in a slice in memory")
            };
            let part = log.slice(index(self.position)..index(end));
            let position = std::mem::replace(&mut self.position, end);
            return Ok(Some((position, part)));
        }
        Ok(None)
    }

    /// Reads everything that is left into one piece. For short stretches such as a segment.
    pub async fn read_to_end(&mut self) -> Result<Vec<u8>, Error> {
        let mut all = Vec::new();
        while let Some((_, part)) = self.next().await? {
            all.extend_from_slice(&part);
        }
        Ok(all)
    }

    /// Finds out from which objects the rest can be read.
    async fn look(&mut self) -> Result<(), Error> {
        let covered = coverage(
            &*self.store,
            self.system_identifier,
            self.timeline,
            self.position,
            self.to,
            self.patience,
        );
        self.sources = covered.await?.sources(self.position, self.to)?;
        Ok(())
    }

    fn forget(&mut self) {
        self.sources.clear();
        self.asked.clear();
        self.fetching = FuturesOrdered::new();
    }

    fn look_ahead(&mut self) {
        while self.asked.len() < AHEAD {
            let Some(source) = self.sources.front_mut() else {
                return;
            };
            let Some(object) = source.next_object() else {
                self.sources.pop_front();
                continue;
            };
            if object.to <= self.position {
                continue;
            }
            let (store, patience) = (Arc::clone(&self.store), self.patience);
            let key = object.chain.link_key(object.from);
            self.asked.push_back(object);
            self.fetching
                .push_back(Box::pin(async move { read(&*store, &key, patience).await }));
        }
    }

    fn open_object(&self, object: Object, bytes: &Bytes) -> Result<Bytes, Error> {
        let Object { chain, from, to } = object;
        let bad = |why: String| corrupt(&*self.store, &chain, from, why);
        match link_with_log(bytes, &chain, from).map_err(&bad)? {
            Link::Chunk((_, log)) if from.advance(log.len() as u64) >= to => Ok(log),
            Link::Chunk(_) => Err(bad("it is shorter than its header said before".to_owned())),
            // What hangs on it was met, so a seal here was made by nobody who followed the rules.
            Link::Seal(_) => Err(bad("a seal inside the log".to_owned())),
        }
    }

    fn hole(&self, to: Lsn) -> Error {
        Error::Hole {
            subject: format!(
                "cluster {}, timeline {}",
                self.system_identifier, self.timeline
            ),
            from: self.position,
            to: to.min(self.to),
            location: self.store.location().to_owned(),
        }
    }
}
