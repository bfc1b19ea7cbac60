//! Removing what pieces hold.

use std::collections::BTreeMap;
use std::time::Duration;

use dr_model::Lsn;
use dr_provider::{ErrorKind, Key, ObjectStore};
use futures::stream::{self, StreamExt};

use super::super::catalogue::{links_after, newest_links};
use super::super::floor::floors;
use super::super::follow::follow;
use super::super::piece::Span;
use super::super::reader::read_piece;
use super::super::{ChainId, Error, FORMAT_VERSION, Floor, Tail};
use super::{KEPT_LINKS, Run};
use crate::operation::limited;
use crate::publish::publish;

/// How many links a floor is raised over at least: each raise costs a few requests.
const WORTH_LINKS: usize = 64;

/// How much log is read back in one run before its chunks go.
const AT_MOST_BYTES: u64 = 1 << 30;

const AT_ONCE: usize = 16;
const PAGE: usize = 1000;

impl Run<'_> {
    /// Removes the links of a chain that pieces have held up to `ripe` for long enough.
    pub(super) async fn remove_links(
        &mut self,
        chain: &ChainId,
        tail: &Tail,
        ripe: Lsn,
        held: &[Span],
    ) -> Result<(), Error> {
        let patience = self.options.patience;
        let mut all = floors(&**self.store, chain, patience).await?;
        let floor = all.last().copied().unwrap_or(tail.origin.start_lsn);
        let mut reached = floor;
        if let Some(next) = self.next_floor(chain, floor, ripe).await? {
            self.verify(held, floor, next).await?;
            self.raise(chain, next).await?;
            reached = next;
            all.push(next);
        }
        if reached == tail.origin.start_lsn {
            return Ok(());
        }
        self.remove_below(chain, reached).await?;
        // The last two stay: a listing that is under way sees one of them.
        for old in &all[..all.len().saturating_sub(2)] {
            if !self.remove(&Floor::key(chain, *old)).await? {
                break;
            }
        }
        Ok(())
    }

    /// Returns a link's position below which all may go; `None` if it is not worth it.
    async fn next_floor(
        &self,
        chain: &ChainId,
        floor: Lsn,
        ripe: Lsn,
    ) -> Result<Option<Lsn>, Error> {
        let patience = self.options.patience;
        let ripe = ripe.min(floor.advance(AT_MOST_BYTES));
        let links = newest_links(&**self.store, chain, Some(ripe), 2 * KEPT_LINKS, patience)
            .await
            .map_err(|error| Error::store(chain, error))?;
        let Some(near) = links.iter().find(|lsn| **lsn >= floor) else {
            return Ok(None);
        };
        let followed = follow(&**self.store, chain, floor, *near, ripe, patience).await?;
        let Some(stretch) = followed.stretches.last() else {
            return Ok(None);
        };
        // Links that are listed and lead nowhere are not counted.
        let kept = stretch.links.len().checked_sub(KEPT_LINKS + 1);
        let next = kept
            .map(|index| stretch.links[index])
            .filter(|next| *next > floor);
        let Some(next) = next else { return Ok(None) };
        let below = links_after(
            &**self.store,
            chain,
            floor.0.checked_sub(1).map(Lsn),
            Lsn(next.0 - 1),
            WORTH_LINKS,
            patience,
        )
        .await
        .map_err(|error| Error::store(chain, error))?;
        Ok((below.len() >= WORTH_LINKS).then_some(next))
    }

    /// Reads everything between two positions back from the pieces that hold it.
    async fn verify(&self, held: &[Span], from: Lsn, to: Lsn) -> Result<(), Error> {
        let mut reached = from;
        while reached < to {
            let lost = |span: &&Span| span.from <= reached && reached < span.to;
            if let Some(lost) = self.lost.iter().find(lost) {
                reached = lost.to;
                continue;
            }
            let holds = |span: &&Span| span.from <= reached && reached < span.to;
            let Some(span) = held.iter().filter(holds).max_by_key(|span| span.to) else {
                return Err(Error::Hole {
                    subject: self.subject(),
                    from: reached,
                    to,
                    location: self.store.location().to_owned(),
                });
            };
            self.verify_piece(*span).await?;
            reached = span.to;
        }
        Ok(())
    }

    async fn verify_piece(&self, span: Span) -> Result<(), Error> {
        let (cluster, timeline) = (self.system_identifier, self.timeline);
        let read = read_piece(
            &**self.store,
            cluster,
            timeline,
            span,
            (self.options.patience, &self.options.keys),
        );
        match read.await? {
            Some(_) => Ok(()),
            None => Err(Error::Hole {
                subject: self.subject(),
                from: span.from,
                to: span.to,
                location: self.store.location().to_owned(),
            }),
        }
    }

    async fn raise(&self, chain: &ChainId, lsn: Lsn) -> Result<(), Error> {
        let floor = Floor {
            version: FORMAT_VERSION,
            system_identifier: chain.system_identifier,
            timeline: chain.timeline,
            epoch: chain.epoch,
            lsn,
            created_at: self.options.clock.now(),
            writer: self.options.writer.clone(),
        };
        let key = Floor::key(chain, lsn);
        // Whoever wrote it, it says the same.
        publish(&**self.store, key, floor.to_bytes(), self.options.patience)
            .await
            .map_err(|error| Error::store(chain, error))?;
        Ok(())
    }

    /// Removes every link below a floor.
    async fn remove_below(&mut self, chain: &ChainId, floor: Lsn) -> Result<(), Error> {
        let last = Lsn(floor.0 - 1);
        let mut after = None;
        loop {
            let links = links_after(
                &**self.store,
                chain,
                after,
                last,
                PAGE,
                self.options.patience,
            )
            .await
            .map_err(|error| Error::store(chain, error))?;
            after = links.last().copied();
            if after.is_none() {
                return Ok(());
            }
            // What says that log is lost says so for ever.
            let is_lost = |lsn: &Lsn| self.lost.iter().any(|span| span.from == *lsn);
            let gone = links.iter().filter(|lsn| !is_lost(lsn));
            let keys = gone.map(|lsn| chain.link_key(*lsn)).collect();
            if !self.remove_all(keys).await? {
                return Ok(());
            }
        }
    }

    /// Removes pieces that have been part of a longer one for long enough.
    pub(super) async fn remove_superseded(
        &mut self,
        since: &mut BTreeMap<Key, Duration>,
        held: &[Span],
        now: Duration,
    ) -> Result<(), Error> {
        let (cluster, timeline) = (self.system_identifier, self.timeline);
        let mut verified = None;
        let mut keys = Vec::new();
        let mut longest: Option<Span> = None;
        let mut in_order = held.to_vec();
        // Of those that begin together the longest comes first.
        in_order.sort_unstable_by_key(|span| (span.from, std::cmp::Reverse(span.to)));
        for span in in_order {
            let Some(outer) = longest.filter(|outer| outer.contains(&span)) else {
                longest = Some(span);
                continue;
            };
            let key = span.key(cluster, timeline);
            let first = *since.entry(key.clone()).or_insert(now);
            if now.saturating_sub(first) <= self.options.grace || outer == span {
                continue;
            }
            if verified != Some(outer) {
                self.verify_piece(outer).await?;
                verified = Some(outer);
            }
            keys.push(key);
        }
        for key in &keys {
            since.remove(key);
        }
        self.remove_all(keys).await?;
        Ok(())
    }

    /// Removes objects; false if the store does not allow it.
    async fn remove_all(&mut self, keys: Vec<Key>) -> Result<bool, Error> {
        let (store, limit) = (&**self.store, self.options.patience.timeout);
        let removed: Vec<_> = stream::iter(keys)
            .map(|key| async move { remove(store, &key, limit).await })
            .buffered(AT_ONCE)
            .collect()
            .await;
        for removed in removed {
            if !self.count(removed)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn remove(&mut self, key: &Key) -> Result<bool, Error> {
        let removed = remove(&**self.store, key, self.options.patience.timeout).await;
        self.count(removed)
    }

    fn count(&mut self, removed: dr_provider::Result<()>) -> Result<bool, Error> {
        match removed {
            Ok(()) => {
                self.report.removed += 1;
                Ok(true)
            }
            // A writer's credentials do not allow it, and need not (PROTOCOL 1).
            Err(error) if matches!(error.kind(), ErrorKind::Denied | ErrorKind::Unsupported) => {
                self.report.removal_denied = true;
                Ok(false)
            }
            Err(error) => Err(Error::store(self.subject(), error)),
        }
    }
}

async fn remove(store: &dyn ObjectStore, key: &Key, limit: Duration) -> dr_provider::Result<()> {
    let subject = || format!("{}/{key}", store.location());
    limited(limit, "remove object", subject, store.delete(key)).await
}
