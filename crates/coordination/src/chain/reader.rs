//! Reads log back, across the chains of a timeline, verifying every byte and refusing holes.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use dr_encryption::Keys;
use dr_model::{Lsn, SystemIdentifier, TimelineId};
use dr_provider::ObjectStore;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;

use super::coverage::{Look, Object, Place, Source, coverage};
use super::encryption::is_locked;
use super::link::{Link, link_with_log};
use super::piece::{PieceFacts, PieceHeader, Span, decode_piece};
use super::tail::corrupt;
use super::{ChainId, Error};
use crate::operation::{Patience, read};

/// How much is asked for ahead: so many chunks, or a quarter as many pieces.
const AHEAD: usize = 16;

/// What a piece, which may be four times as long as a chunk usually is at most, counts among what is asked for ahead.
const PIECE: usize = 4;

type Fetched = Result<Option<Part>, Error>;

/// Log as it was stored together.
#[derive(Debug)]
pub(crate) struct Part {
    /// Where it starts.
    pub(crate) start: Lsn,
    /// Its bytes.
    pub(crate) log: Bytes,
    /// What is known of all that was stored together, of which the bytes may be a part.
    pub(crate) facts: PieceFacts,
}

/// Reads the log of one timeline from one position to another, in order.
///
/// Epochs follow each other: where a chain ends, one that holds the next position continues. What will be read was proven
/// to hang together before the first byte is handed out; a few objects are fetched ahead.
pub struct ChainReader {
    store: Arc<dyn ObjectStore>,
    system_identifier: SystemIdentifier,
    timeline: TimelineId,
    patience: Patience,
    keys: Keys,
    position: Lsn,
    to: Lsn,
    /// What is to be read, in order, and has not been asked for.
    sources: VecDeque<Source>,
    /// What was asked for, and the answers to come in the same order.
    asked: VecDeque<Object>,
    fetching: FuturesOrdered<BoxFuture<'static, Fetched>>,
    /// Where something had gone between looking and reading, the last time.
    missed_at: Option<Lsn>,
    /// Pieces that were read and are damaged, each with what is wrong: the chunks that they were made of may still be there.
    damaged: Vec<(Span, String)>,
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
            keys: Keys::default(),
            position: from,
            to,
            sources: VecDeque::new(),
            asked: VecDeque::new(),
            fetching: FuturesOrdered::new(),
            missed_at: None,
            damaged: Vec::new(),
        };
        reader.look().await?;
        Ok(reader)
    }

    /// Makes it read what is encrypted, too.
    #[must_use]
    pub fn with_keys(mut self, keys: &Keys) -> Self {
        self.keys = keys.clone();
        self
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
        let part = self.next_part().await?;
        Ok(part.map(|part| (part.start, part.log)))
    }

    /// Returns the next bytes with what is known of them.
    pub(crate) async fn next_part(&mut self) -> Result<Option<Part>, Error> {
        while self.position < self.to {
            if self.asked.is_empty() && self.sources.is_empty() {
                self.look().await?;
            }
            self.look_ahead();
            let Some(object) = self.asked.pop_front() else {
                continue;
            };
            let fetched = self.fetching.next().await;
            let mut part = match fetched {
                Some(Ok(Some(part))) => part,
                Some(Err(error)) => {
                    self.forget();
                    if !self.is_replaced(object.place, &error).await {
                        return Err(error);
                    }
                    continue;
                }
                Some(Ok(None)) | None => {
                    // Somebody merges chunks and removes them: then the log is elsewhere by now.
                    self.forget();
                    if self.missed_at.replace(self.position) == Some(self.position) {
                        return Err(self.hole(object.to));
                    }
                    continue;
                }
            };
            let begin = object.from;
            let end = object.to.min(self.to);
            if end <= self.position {
                continue;
            }
            let index = |lsn: Lsn| {
                usize::try_from(lsn.bytes_since(begin)).expect("an index in a slice in memory")
            };
            part.log = part.log.slice(index(self.position)..index(end));
            part.start = std::mem::replace(&mut self.position, end);
            return Ok(Some(part));
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
            Look::Names(&self.damaged),
        );
        self.sources = covered.await?.sources(self.position, self.to)?;
        Ok(())
    }

    /// Looks for what holds the log of a piece that is damaged; tells whether there is anything.
    async fn is_replaced(&mut self, place: Place, error: &Error) -> bool {
        let (Place::Piece(span), Error::CorruptPiece { why, .. }) = (place, error) else {
            return false;
        };
        if self.damaged.iter().any(|(known, _)| *known == span) {
            return false;
        }
        self.damaged.push((span, why.clone()));
        let is_replaced = self.look().await.is_ok();
        if is_replaced {
            tracing::warn!("{error}; the chunks that it was made of take its place");
        }
        is_replaced
    }

    fn forget(&mut self) {
        self.sources.clear();
        self.asked.clear();
        self.fetching = FuturesOrdered::new();
    }

    fn look_ahead(&mut self) {
        let weight = |object: &Object| match object.place {
            Place::Link(_) => 1,
            Place::Piece(_) => PIECE,
        };
        let mut ahead: usize = self.asked.iter().map(weight).sum();
        while ahead < AHEAD {
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
            ahead += weight(&object);
            self.asked.push_back(object);
            let fetch = Fetch {
                store: Arc::clone(&self.store),
                system_identifier: self.system_identifier,
                timeline: self.timeline,
                patience: self.patience,
                keys: self.keys.clone(),
            };
            self.fetching.push_back(Box::pin(fetch.object(object)));
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

/// What it takes to read one object.
struct Fetch {
    store: Arc<dyn ObjectStore>,
    system_identifier: SystemIdentifier,
    timeline: TimelineId,
    patience: Patience,
    keys: Keys,
}

impl Fetch {
    async fn object(self, object: Object) -> Fetched {
        match object.place {
            Place::Link(chain) => self.link(chain, object).await,
            Place::Piece(span) => self.piece(span).await,
        }
    }

    async fn link(self, chain: ChainId, object: Object) -> Fetched {
        let Object { from, to, .. } = object;
        let found = read(&*self.store, &chain.link_key(from), self.patience).await;
        let Some(bytes) = found.map_err(|error| Error::store(chain, error))? else {
            return Ok(None);
        };
        let bad = |why: String| match is_locked(&why) {
            true => Error::Locked {
                key: chain.link_key(from).to_string(),
                location: self.store.location().to_owned(),
                why,
            },
            false => corrupt(&*self.store, &chain, from, why),
        };
        match link_with_log(&bytes, &chain, from, &self.keys).map_err(&bad)? {
            Link::Chunk((header, log)) if header.end >= to => Ok(Some(Part {
                start: from,
                log,
                facts: PieceFacts {
                    epochs: vec![header.epoch],
                    commits: header.commits,
                    last_commit_at: header.last_commit_at,
                    received_at: header.received_at,
                },
            })),
            Link::Chunk(_) => Err(bad("it is shorter than its header said before".to_owned())),
            // What hangs on it was met, so a seal here was made by nobody who followed the rules.
            Link::Seal(_) => Err(bad("a seal inside the log".to_owned())),
        }
    }

    async fn piece(self, span: Span) -> Fetched {
        let (cluster, timeline) = (self.system_identifier, self.timeline);
        let how = (self.patience, &self.keys);
        let read = read_piece(&*self.store, cluster, timeline, span, how).await?;
        Ok(read.map(|(header, log)| Part {
            start: span.from,
            log,
            facts: header.facts(),
        }))
    }
}

/// Reads a piece and verifies every byte; `None` if it is proven not to be there.
pub(crate) async fn read_piece(
    store: &dyn ObjectStore,
    system_identifier: SystemIdentifier,
    timeline: TimelineId,
    span: Span,
    (patience, keys): (Patience, &Keys),
) -> Result<Option<(PieceHeader, Bytes)>, Error> {
    let key = span.key(system_identifier, timeline);
    let subject = || format!("cluster {system_identifier}, timeline {timeline}");
    let found = read(store, &key, patience).await;
    let Some(bytes) = found.map_err(|error| Error::store(subject(), error))? else {
        return Ok(None);
    };
    // A whole segment takes tens of milliseconds.
    let keys = keys.clone();
    let opened = tokio::task::spawn_blocking(move || {
        decode_piece(&bytes, system_identifier, timeline, span, &keys)
    });
    let opened = opened.await.unwrap_or_else(|error| Err(error.to_string()));
    opened.map(Some).map_err(|why| {
        let (key, location) = (key.to_string(), store.location().to_owned());
        match is_locked(&why) {
            true => Error::Locked { key, location, why },
            false => Error::CorruptPiece { key, location, why },
        }
    })
}
