//! Finds the tail of a chain.
//!
//! Every header names a position up to which the chain hung together when it was written; the newest header that a listing
//! shows is thus a place to start walking, a few links before the tail. The walk itself rests on reads of keys only: what a
//! listing shows from there on is read ahead, all at once, because a store in another region answers each read after a round trip.
//!
//! A chain that is written to may grow faster than one read after the other can follow. So whoever walks looks at the listing
//! again now and then, and is content with a position that was not passed when the walk began.

use std::collections::BTreeMap;
use std::future::Future;

use dr_model::Lsn;
use dr_provider::{Error as StoreError, ErrorKind, ObjectStore};
use futures::stream::{self, StreamExt};

use super::catalogue::{links_after, newest_links, newest_links_after};
use super::floor::floor;
use super::link::{Link, Reply, read_header};
use super::{ChainId, ChunkHeader, Error, Origin, SealRecord};
use crate::operation::{Patience, back_off, read};

/// Headers that were read, by position. A link never changes.
pub(crate) type Headers = BTreeMap<Lsn, Link<ChunkHeader>>;

/// How many links before the tail are looked at.
const CANDIDATES: usize = 16;

/// How many links are followed one by one, unlisted, before the listing is looked at again.
const BY_KEY: usize = 4;

/// How often a listing may show more before the chain is taken for one that is written to: once an old listing may have been
/// replaced by a new one.
const ROUNDS: usize = 2;

/// Where a chain stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tail {
    /// Its beginning.
    pub origin: Origin,
    /// Its end: everything from the origin to here hangs together. Of a chain that is written to meanwhile, no less than what
    /// was there when it was asked for.
    pub end: Lsn,
    /// The seal at the end, if the chain is sealed.
    pub seal: Option<Box<SealRecord>>,
    /// The chunk that ends there; `None` if the chain is empty, or if that chunk is not there any more.
    pub last: Option<ChunkHeader>,
}

/// How a walk ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum WalkEnd {
    /// Nothing follows.
    Open,
    /// A seal follows.
    Sealed(Box<SealRecord>),
    /// What follows is not a link.
    Damaged(String),
}

/// The state machine: follows links by their keys.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Walk {
    /// The position reached.
    pub(crate) at: Lsn,
    /// The chunk that ends there.
    pub(crate) last: Option<ChunkHeader>,
}

impl Walk {
    /// Starts at a position that is on the chain.
    pub(crate) fn new(at: Lsn) -> Self {
        Self { at, last: None }
    }

    /// Takes what stands at the position reached.
    pub(crate) fn feed(&mut self, reply: Reply<ChunkHeader>) -> Option<WalkEnd> {
        match reply {
            Reply::Found(Link::Chunk(header)) => {
                self.at = header.end;
                self.last = Some(header);
                None
            }
            Reply::Found(Link::Seal(seal)) => Some(WalkEnd::Sealed(seal)),
            Reply::Missing => Some(WalkEnd::Open),
            Reply::Damaged(why) => Some(WalkEnd::Damaged(why)),
            Reply::Created | Reply::Exists | Reply::Failed => None,
        }
    }
}

/// Finds the tail of a chain; `None` if it is proven that this store has no such chain.
///
/// # Errors
///
/// [`Error::Corrupt`] if a link is not what it should be, [`Error::Store`] if the store does not answer.
pub async fn find_tail(
    store: &dyn ObjectStore,
    chain: &ChainId,
    patience: Patience,
) -> Result<Option<Tail>, Error> {
    let found = find_tail_and_links(store, chain, CANDIDATES, patience).await?;
    Ok(found.map(|found| found.tail))
}

/// Finds the tail of a chain for somebody who is going to create something there, and where the walk to it began.
///
/// Links are removed below a floor only: as long as that is not above where the walk began, nothing that was met on the way
/// can have been removed meanwhile, or be something that was created late in the place of what was.
pub(crate) async fn find_tail_to_write(
    store: &dyn ObjectStore,
    chain: &ChainId,
    patience: Patience,
) -> Result<Option<(Tail, Lsn)>, Error> {
    loop {
        let Some(found) = find_tail_and_links(store, chain, CANDIDATES, patience).await? else {
            return Ok(None);
        };
        let floor = floor(store, chain, patience).await?;
        if floor.is_none_or(|floor| floor <= found.begun) {
            return Ok(Some((found.tail, found.begun)));
        }
    }
}

/// What looking for a tail came to.
pub(crate) struct Found {
    /// The tail.
    pub(crate) tail: Tail,
    /// Where the walk to it began.
    pub(crate) begun: Lsn,
    /// Positions of links before it, in order: hints.
    pub(crate) links: Vec<Lsn>,
    /// The links that were read.
    pub(crate) read: Headers,
}

/// Finds the tail of a chain, and positions of links before it, in order: hints, at least `wanted` if as many are listed.
pub(crate) async fn find_tail_and_links(
    store: &dyn ObjectStore,
    chain: &ChainId,
    wanted: usize,
    patience: Patience,
) -> Result<Option<Found>, Error> {
    let store_failed = |error| Error::store(chain, error);
    let listing = async {
        newest_links(store, chain, None, wanted.max(CANDIDATES), patience)
            .await
            .map_err(store_failed)
    };
    let (origin, floor, mut listed) = futures::future::try_join3(
        read_origin(store, chain, patience),
        floor(store, chain, patience),
        listing,
    )
    .await?;
    let Some(origin) = origin else {
        return Ok(None);
    };
    let begin = floor.unwrap_or(origin.start_lsn);
    listed.retain(|lsn| *lsn >= begin);
    let mut links = Links::new(store, chain, patience);
    let from = match links.read_ahead(&listed).await? {
        Some(stated) => stated,
        None => {
            let older = &listed[..listed.len() - last_of(&listed).len()];
            links.stated_by_newest(older).await?.unwrap_or(begin)
        }
    };
    let from = from.max(begin);
    let mut walk = Walk::new(from);
    let (mut by_key, mut limit, mut rounds) = (0, BY_KEY, 0);
    let end = loop {
        let reply = match links.known(walk.at) {
            Some(reply) => reply,
            None if by_key == limit => {
                by_key = 0;
                let passed = walk.at.0.checked_sub(1).map(Lsn);
                let more = newest_links_after(store, chain, passed, None, CANDIDATES, patience)
                    .await
                    .map_err(store_failed)?;
                // A listing that shows nothing new says nothing: it may be older than what was read by key.
                if more.last() <= listed.last() {
                    limit *= 2;
                    continue;
                }
                if rounds == ROUNDS {
                    break WalkEnd::Open;
                }
                rounds += 1;
                if let Some(stated) = links.read_ahead(&more).await?
                    && stated > walk.at
                {
                    walk = Walk::new(stated);
                }
                listed.retain(|lsn| *lsn < more[0]);
                listed.extend(more);
                continue;
            }
            None => {
                by_key += 1;
                links.get(walk.at).await?
            }
        };
        if let Some(end) = walk.feed(reply) {
            break end;
        }
    };
    let seal = match end {
        WalkEnd::Open => None,
        WalkEnd::Sealed(seal) => Some(seal),
        WalkEnd::Damaged(why) => {
            return Err(corrupt(store, chain, walk.at, why));
        }
    };
    let last = match walk.last {
        None if walk.at > begin => links.chunk_before(&listed, walk.at).await?,
        last => last,
    };
    let tail = Tail {
        origin,
        end: walk.at,
        seal,
        last,
    };
    Ok(Some(Found {
        tail,
        begun: from,
        links: listed,
        read: links.found,
    }))
}

/// The links of a chain, each of which is read once.
struct Links<'a> {
    store: &'a dyn ObjectStore,
    chain: &'a ChainId,
    patience: Patience,
    found: Headers,
    /// Where nothing stood when it was asked for ahead: what is created there later was not there when the search began.
    open: Option<Lsn>,
}

impl<'a> Links<'a> {
    fn new(store: &'a dyn ObjectStore, chain: &'a ChainId, patience: Patience) -> Self {
        Self {
            store,
            chain,
            patience,
            found: Headers::new(),
            open: None,
        }
    }

    /// Returns what stands at a position, if that was read.
    fn known(&self, at: Lsn) -> Option<Reply<ChunkHeader>> {
        match self.found.get(&at) {
            Some(link) => Some(Reply::Found(link.clone())),
            None => (self.open == Some(at)).then_some(Reply::Missing),
        }
    }

    /// Reads what stands at a position, unless that was read.
    async fn get(&mut self, at: Lsn) -> Result<Reply<ChunkHeader>, Error> {
        if let Some(reply) = self.known(at) {
            return Ok(reply);
        }
        let reply = self.ask(at).await;
        let reply = reply.map_err(|error| Error::store(self.chain, error))?;
        if let Reply::Found(link) = &reply {
            self.found.insert(at, link.clone());
        }
        Ok(reply)
    }

    async fn ask(&self, at: Lsn) -> Result<Reply<ChunkHeader>, StoreError> {
        let (store, chain, limit) = (self.store, self.chain, self.patience.timeout);
        persist(self.patience, || read_header(store, chain, at, limit)).await
    }

    /// Reads the newest of the last links listed, and then, at once, those from where it says that the chain hung together, and what
    /// follows it; if it is not there, all of them. Returns the position on the chain that the newest of those found states.
    ///
    /// What is missing or damaged is met by the walk, or not on the chain; nor does a read that failed count unless nothing was
    /// found: the walk asks again for what it needs.
    async fn read_ahead(&mut self, listed: &[Lsn]) -> Result<Option<Lsn>, Error> {
        let last = last_of(listed);
        let Some((newest, older)) = last.split_last() else {
            return Ok(None);
        };
        let first = self.ask(*newest).await;
        let (from, next) = match &first {
            Ok(Reply::Found(link)) => (on_chain(*newest, link), end_of(link)),
            _ => (Lsn::INVALID, None),
        };
        let wanted = older.iter().filter(|lsn| **lsn >= from).chain(&next);
        let wanted: Vec<_> = wanted.copied().collect();
        let links = &*self;
        let replies: Vec<_> = stream::iter(wanted)
            .map(|lsn| async move { (lsn, links.ask(lsn).await) })
            .buffered(CANDIDATES)
            .collect()
            .await;
        let mut failed = None;
        for (lsn, reply) in replies.into_iter().chain([(*newest, first)]) {
            match reply {
                Ok(Reply::Found(link)) => {
                    self.found.insert(lsn, link);
                }
                Ok(Reply::Missing) if next == Some(lsn) => self.open = next,
                Ok(_) => {}
                Err(error) => failed = Some(error),
            }
        }
        let state = |lsn: &Lsn| Some(on_chain(*lsn, self.found.get(lsn)?));
        match (last.iter().rev().find_map(state), failed) {
            (None, Some(error)) => Err(Error::store(self.chain, error)),
            (stated, _) => Ok(stated),
        }
    }

    /// Returns the position on the chain that the newest link of those listed states.
    async fn stated_by_newest(&mut self, listed: &[Lsn]) -> Result<Option<Lsn>, Error> {
        for lsn in listed.iter().rev() {
            // Gone, or damaged: if it is on the chain, the walk meets it and says so.
            if let Reply::Found(link) = self.get(*lsn).await? {
                return Ok(Some(on_chain(*lsn, &link)));
            }
        }
        Ok(None)
    }

    /// Looks for the chunk that ends at `end` among the links listed before it.
    async fn chunk_before(
        &mut self,
        listed: &[Lsn],
        end: Lsn,
    ) -> Result<Option<ChunkHeader>, Error> {
        let candidates = listed.iter().rev().filter(|lsn| **lsn < end);
        for lsn in candidates.take(CANDIDATES) {
            if let Reply::Found(Link::Chunk(header)) = self.get(*lsn).await?
                && header.end == end
            {
                return Ok(Some(header));
            }
        }
        Ok(None)
    }
}

/// Returns the last of the links listed that are read ahead.
fn last_of(listed: &[Lsn]) -> &[Lsn] {
    &listed[listed.len().saturating_sub(CANDIDATES)..]
}

/// Returns the position on the chain that a link states.
fn on_chain(lsn: Lsn, link: &Link<ChunkHeader>) -> Lsn {
    match link {
        Link::Chunk(header) => header.durable_through,
        // A seal is created at the tail only.
        Link::Seal(_) => lsn,
    }
}

/// Returns the position after a link; a seal has none.
fn end_of(link: &Link<ChunkHeader>) -> Option<Lsn> {
    match link {
        Link::Chunk(header) => Some(header.end),
        Link::Seal(_) => None,
    }
}

/// Reads a chain's origin; `None` if nobody has begun the chain. One that is gone from behind its links is damage: the chain is
/// not to be taken for none, or what follows the merged log would be left out without a word.
pub(crate) async fn read_origin(
    store: &dyn ObjectStore,
    chain: &ChainId,
    patience: Patience,
) -> Result<Option<Origin>, Error> {
    let key = chain.origin_key();
    let found = read(store, &key, patience)
        .await
        .map_err(|error| Error::store(chain, error))?;
    let found = match found {
        Some(bytes) => Some(bytes),
        None => {
            let links = links_after(store, chain, None, Lsn(u64::MAX), 1, patience).await;
            if links
                .map_err(|error| Error::store(chain, error))?
                .is_empty()
            {
                return Ok(None);
            }
            // It is created before any link, so that it is there now if the chain was begun in between.
            let found = read(store, &key, patience).await;
            found.map_err(|error| Error::store(chain, error))?
        }
    };
    let Some(bytes) = found else {
        let why = "it is missing, and log stands behind it";
        return Err(corrupt(store, chain, Lsn::INVALID, why));
    };
    Origin::from_bytes(&bytes, chain)
        .map(Some)
        .map_err(|why| corrupt(store, chain, Lsn::INVALID, why))
}

/// Repeats a read until it is answered or patience ends.
pub(crate) async fn persist<C, F>(
    patience: Patience,
    mut once: impl FnMut() -> F,
) -> Result<Reply<C>, StoreError>
where
    F: Future<Output = (Reply<C>, Option<StoreError>)>,
{
    let mut attempt = 0;
    loop {
        back_off(attempt).await;
        match once().await {
            (Reply::Failed, Some(error)) => {
                attempt += 1;
                if error.is_permanent() || attempt >= patience.attempts {
                    return Err(error);
                }
            }
            (Reply::Failed, None) => {
                return Err(StoreError::new(ErrorKind::Failed, "read", "a link"));
            }
            (reply, _) => return Ok(reply),
        }
    }
}

pub(crate) fn corrupt(
    store: &dyn ObjectStore,
    chain: &ChainId,
    at: Lsn,
    why: impl Into<String>,
) -> Error {
    Error::Corrupt {
        chain: *chain,
        at,
        location: store.location().to_owned(),
        why: why.into(),
    }
}
