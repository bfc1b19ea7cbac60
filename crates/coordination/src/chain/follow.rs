//! Proves which part of a chain is there, by following it link by link.
//!
//! The headers of the listed links are read several at a time and then followed in order: a link counts when the one before
//! ends where it starts. A header also states a position that was on the chain when it was written, which is where following
//! goes on behind a missing link. A listing is a hint: a link that it does not show is asked for by its key.

use std::collections::BTreeMap;

use dr_model::Lsn;
use dr_provider::ObjectStore;
use futures::stream::{self, StreamExt};

use super::catalogue::{links_after, newest_links};
use super::link::{Link, Reply, read_header};
use super::piece::KeyName;
use super::tail::persist;
use super::{ChainId, ChunkHeader, Error};
use crate::operation::Patience;

/// How many headers are read at once.
const AT_ONCE: usize = 64;

/// How many links are listed at once.
const PAGE: usize = 1000;

/// How many links before a position are looked at to find one on the chain.
const NEAR: usize = 16;

/// A part of a chain of which every link was seen to follow the one before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stretch {
    /// The chain.
    pub(crate) chain: ChainId,
    /// The positions of its links, in order. The first is where it begins.
    pub(crate) links: Vec<Lsn>,
    /// Where it ends.
    pub(crate) to: Lsn,
    /// The keys that its links are encrypted with: from which link on which.
    pub(crate) keys: Vec<(Lsn, KeyName)>,
}

impl Stretch {
    /// Returns where it begins.
    pub(crate) fn from(&self) -> Lsn {
        self.links.first().copied().unwrap_or(self.to)
    }

    /// Returns the name of the key that one of its links is encrypted with, if it is.
    pub(crate) fn key_of(&self, link: Lsn) -> Option<&str> {
        let passed = self.keys.partition_point(|(from, _)| *from <= link);
        self.keys[..passed].last()?.1.as_deref()
    }
}

/// What following a chain came to.
#[derive(Debug, Default)]
pub(crate) struct Followed {
    /// What is there, in order.
    pub(crate) stretches: Vec<Stretch>,
    /// Links on the chain that are not what they should be: where, and what is wrong.
    pub(crate) damage: Vec<(Lsn, String)>,
}

/// Follows `chain`, whose links begin at `begin`, from a link at or before `from` until `to` is reached or the chain ends.
pub(crate) async fn follow(
    store: &dyn ObjectStore,
    chain: &ChainId,
    begin: Lsn,
    from: Lsn,
    to: Lsn,
    patience: Patience,
) -> Result<Followed, Error> {
    let failed = |error| Error::store(chain, error);
    let mut listed = if from <= begin {
        Vec::new()
    } else {
        newest_links(store, chain, Some(from), NEAR, patience)
            .await
            .map_err(failed)?
    };
    listed.retain(|lsn| *lsn >= begin);
    let at = nearest(store, chain, &listed, patience).await?;
    let mut follower = Follower::new(chain, at.unwrap_or(begin).max(begin));
    // Where all links before `from` are gone or damaged, the next one that states a position on the chain is waited for.
    follower.ended = at.is_none() && !listed.is_empty();
    listed.retain(|lsn| *lsn >= follower.at);
    let before = begin.0.checked_sub(1).map(Lsn);
    let mut after = if from > begin { Some(from) } else { before };
    let last = Lsn(to.0.saturating_sub(1));
    loop {
        let headers: Vec<_> = stream::iter(listed.iter().copied())
            .map(|lsn| async move {
                let read = persist(patience, || {
                    read_header(store, chain, lsn, patience.timeout)
                });
                (lsn, read.await)
            })
            .buffered(AT_ONCE)
            .collect()
            .await;
        for (lsn, reply) in headers {
            let reply = reply.map_err(failed)?;
            while follower.lacks_link_before(lsn) && follower.at < to {
                let at = follower.at;
                let missed = persist(patience, || read_header(store, chain, at, patience.timeout));
                follower.take_by_key(missed.await.map_err(failed)?);
            }
            follower.take(lsn, reply);
        }
        if follower.at >= to {
            break;
        }
        listed = links_after(store, chain, after, last, PAGE, patience)
            .await
            .map_err(failed)?;
        let Some(reached) = listed.last() else { break };
        after = Some(*reached);
    }
    while follower.can_ask() && follower.at < to {
        let at = follower.at;
        let next = persist(patience, || read_header(store, chain, at, patience.timeout));
        follower.take_by_key(next.await.map_err(failed)?);
    }
    Ok(follower.finish())
}

/// Returns a position on the chain, as near to the last listed link as can be told.
async fn nearest(
    store: &dyn ObjectStore,
    chain: &ChainId,
    listed: &[Lsn],
    patience: Patience,
) -> Result<Option<Lsn>, Error> {
    for lsn in listed.iter().rev() {
        let reply = persist(patience, || {
            read_header(store, chain, *lsn, patience.timeout)
        });
        match reply.await.map_err(|error| Error::store(chain, error))? {
            Reply::Found(Link::Chunk(header)) => return Ok(Some(header.durable_through)),
            Reply::Found(Link::Seal(_)) => return Ok(Some(*lsn)),
            _ => {}
        }
    }
    Ok(None)
}

/// The state machine: takes links in the order of their keys.
struct Follower {
    chain: ChainId,
    /// The position reached: on the chain.
    at: Lsn,
    /// Whether it is known that nothing that counts stands at `at`.
    ended: bool,
    links: Vec<Lsn>,
    keys: Vec<(Lsn, KeyName)>,
    /// Where links end that were met behind `at`, and may or may not be on the chain, and with which key their log is encrypted if they
    /// hold it.
    behind: BTreeMap<Lsn, (Lsn, Option<KeyName>)>,
    followed: Followed,
}

impl Follower {
    fn new(chain: &ChainId, at: Lsn) -> Self {
        Self {
            chain: *chain,
            at,
            ended: false,
            links: Vec::new(),
            keys: Vec::new(),
            behind: BTreeMap::new(),
            followed: Followed::default(),
        }
    }

    /// Tells whether the link at `at` was not listed although one after it is.
    fn lacks_link_before(&self, listed: Lsn) -> bool {
        !self.ended && self.at < listed
    }

    fn can_ask(&self) -> bool {
        !self.ended
    }

    /// Takes what stands at the position reached, which no listing showed.
    fn take_by_key(&mut self, reply: Reply<ChunkHeader>) {
        let at = self.at;
        self.take(at, reply);
        if self.at == at {
            self.ended = true;
        }
    }

    fn take(&mut self, lsn: Lsn, reply: Reply<ChunkHeader>) {
        match reply {
            Reply::Found(Link::Chunk(header)) => {
                let key = header.encryption.as_ref().map(|with| with.key.clone());
                let held = (!header.is_lost()).then_some(key);
                self.behind.insert(lsn, (header.end, held));
                self.advance();
                if header.durable_through > self.at {
                    self.resume(header.durable_through);
                    self.advance();
                }
            }
            Reply::Found(Link::Seal(_)) => {
                // A seal is created at the tail only, so everything before it was there.
                if lsn > self.at {
                    self.resume(lsn);
                }
                if lsn == self.at {
                    self.ended = true;
                }
            }
            Reply::Damaged(why) if lsn == self.at => {
                self.followed.damage.push((lsn, why));
                self.ended = true;
            }
            // Gone since it was listed, or nothing that is known to be on the chain.
            _ => {}
        }
    }

    /// Follows the links that were met.
    fn advance(&mut self) {
        while let Some((end, held)) = self.behind.remove(&self.at) {
            if let Some(key) = held {
                if self.keys.last().is_none_or(|(_, last)| *last != key) {
                    self.keys.push((self.at, key));
                }
                self.links.push(self.at);
                self.at = end;
            } else {
                self.resume(end);
            }
            self.ended = false;
        }
        self.behind = self.behind.split_off(&self.at);
    }

    /// Goes on at a later position that is known to be on the chain.
    fn resume(&mut self, at: Lsn) {
        self.close();
        self.at = at;
        self.ended = false;
    }

    fn close(&mut self) {
        if !self.links.is_empty() {
            self.followed.stretches.push(Stretch {
                chain: self.chain,
                links: std::mem::take(&mut self.links),
                to: self.at,
                keys: std::mem::take(&mut self.keys),
            });
        }
    }

    fn finish(mut self) -> Followed {
        self.close();
        self.followed
    }
}
