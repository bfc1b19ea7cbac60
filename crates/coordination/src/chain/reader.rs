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
use super::link::{Link, link_with_log};
use super::piece::{PieceFacts, PieceHeader, Span, decode_piece};
use super::section::Section;
use super::{ChainId, Error, Flaw};
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
    /// What is to be read, from the position of the next byte on.
    left: Section,
    patience: Patience,
    keys: Keys,
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
            .field("left", &self.left)
            .finish_non_exhaustive()
    }
}

impl ChainReader {
    /// Starts reading a section. Nothing is promised until the reads succeed.
    ///
    /// # Errors
    ///
    /// [`Error::Hole`] at once, if it is not all there.
    pub async fn open(
        store: Arc<dyn ObjectStore>,
        section: Section,
        patience: Patience,
    ) -> Result<Self, Error> {
        let mut reader = Self {
            store,
            left: section,
            patience,
            keys: Keys::default(),
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
        self.left.from
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
        while self.left.from < self.left.to {
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
                    self.replace(object.place, error).await?;
                    continue;
                }
                Some(Ok(None)) | None => {
                    // Somebody merges chunks and removes them: then the log is elsewhere by now.
                    self.forget();
                    if self.missed_at.replace(self.left.from) == Some(self.left.from) {
                        return Err(self.hole(object.to));
                    }
                    continue;
                }
            };
            let begin = object.from;
            let end = object.to.min(self.left.to);
            if end <= self.left.from {
                continue;
            }
            let index = |lsn: Lsn| {
                usize::try_from(lsn.bytes_since(begin)).expect("an index in a slice in memory")
            };
            part.log = part.log.slice(index(self.left.from)..index(end));
            part.start = std::mem::replace(&mut self.left.from, end);
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
            self.left,
            self.patience,
            Look::Names(&self.damaged),
        );
        self.sources = covered.await?.sources(self.left.from, self.left.to)?;
        Ok(())
    }

    /// Looks for what holds the log of a piece that is damaged; fails with what is wrong if there is nothing, or with why that could not
    /// be seen.
    async fn replace(&mut self, place: Place, error: Error) -> Result<(), Error> {
        let (Place::Piece(span), Error::CorruptPiece { why, .. }) = (place, &error) else {
            return Err(error);
        };
        if self.damaged.iter().any(|(known, _)| *known == span) {
            return Err(error);
        }
        self.damaged.push((span, why.clone()));
        match self.look().await {
            Ok(()) => {
                tracing::warn!("{error}; the chunks that it was made of take its place");
                Ok(())
            }
            Err(silent @ (Error::Store { .. } | Error::Away { .. })) => Err(silent),
            Err(_) => Err(error),
        }
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
            if object.to <= self.left.from {
                continue;
            }
            ahead += weight(&object);
            self.asked.push_back(object);
            let fetch = Fetch {
                store: Arc::clone(&self.store),
                whose: (self.left.system_identifier, self.left.timeline),
                patience: self.patience,
                keys: self.keys.clone(),
            };
            self.fetching.push_back(Box::pin(fetch.object(object)));
        }
    }

    fn hole(&self, to: Lsn) -> Error {
        Error::Hole {
            subject: self.left.to_string(),
            from: self.left.from,
            to: to.min(self.left.to),
            location: self.store.location().to_owned(),
        }
    }
}

/// What it takes to read one object.
struct Fetch {
    store: Arc<dyn ObjectStore>,
    whose: (SystemIdentifier, TimelineId),
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
        let bad = |flaw: Flaw| flaw.of_link(chain, from, self.store.location());
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
            Link::Chunk(_) => Err(bad("it is shorter than its header said before"
                .to_owned()
                .into())),
            // What hangs on it was met, so a seal here was made by nobody who followed the rules.
            Link::Seal(_) => Err(bad("a seal inside the log".to_owned().into())),
        }
    }

    async fn piece(self, span: Span) -> Fetched {
        let (cluster, timeline) = self.whose;
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
    let subject = Section::whole(system_identifier, timeline);
    let found = read(store, &key, patience).await;
    let Some(bytes) = found.map_err(|error| Error::store(subject, error))? else {
        return Ok(None);
    };
    // A whole segment takes tens of milliseconds.
    let keys = keys.clone();
    let opened = tokio::task::spawn_blocking(move || {
        decode_piece(&bytes, system_identifier, timeline, span, &keys)
    });
    let opened = opened
        .await
        .unwrap_or_else(|error| Err(error.to_string().into()));
    opened
        .map(Some)
        .map_err(|flaw| flaw.of_piece(&key, store.location()))
}
