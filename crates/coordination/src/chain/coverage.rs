//! From which objects the log of a timeline can be read, and what is missing.

use std::collections::VecDeque;

use dr_model::{Lsn, SystemIdentifier, TimelineId};
use dr_provider::ObjectStore;

use super::available::Available;
use super::catalogue::chains_of_timeline;
use super::follow::{Stretch, follow};
use super::tail::read_origin;
use super::{ChainId, Error};
use crate::operation::Patience;

/// An object that holds log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Object {
    /// The chain that it is a link of.
    pub(crate) chain: ChainId,
    /// Its first position.
    pub(crate) from: Lsn,
    /// The position after the last that is wanted of it.
    pub(crate) to: Lsn,
}

/// Objects to be read one after the other.
#[derive(Debug)]
pub(crate) struct Source {
    chain: ChainId,
    links: VecDeque<Lsn>,
    to: Lsn,
}

impl Source {
    /// Takes the next object.
    pub(crate) fn next_object(&mut self) -> Option<Object> {
        let from = self.links.pop_front()?;
        Some(Object {
            chain: self.chain,
            from,
            to: self.links.front().copied().unwrap_or(self.to),
        })
    }
}

/// What a store holds of a part of a timeline's log.
#[derive(Debug)]
pub(crate) struct Coverage {
    subject: String,
    location: String,
    /// Parts of chains in order of where they begin, which may overlap.
    pub(crate) stretches: Vec<Stretch>,
    damage: Vec<(ChainId, Lsn, String)>,
}

/// Looks at what a store holds of a timeline's log from `from` to `to`.
pub(crate) async fn coverage(
    store: &dyn ObjectStore,
    system_identifier: SystemIdentifier,
    timeline: TimelineId,
    from: Lsn,
    to: Lsn,
    patience: Patience,
) -> Result<Coverage, Error> {
    let mut covered = Coverage {
        subject: format!("cluster {system_identifier}, timeline {timeline}"),
        location: store.location().to_owned(),
        stretches: Vec::new(),
        damage: Vec::new(),
    };
    let chains = chains_of_timeline(store, system_identifier, timeline)
        .await
        .map_err(|error| Error::store(&covered.subject, error))?;
    for chain in chains {
        let Some(origin) = read_origin(store, &chain, patience).await? else {
            continue;
        };
        if origin.start_lsn >= to {
            continue;
        }
        let followed = follow(store, &chain, origin.start_lsn, from, to, patience).await?;
        covered.stretches.extend(followed.stretches);
        let damage = followed.damage.into_iter();
        covered
            .damage
            .extend(damage.map(|(at, why)| (chain, at, why)));
    }
    covered.stretches.sort_by_key(Stretch::from);
    Ok(covered)
}

impl Coverage {
    /// Returns what is there, parts that touch joined.
    pub(crate) fn joined(&self) -> Vec<Available> {
        let mut joined: Vec<Available> = Vec::new();
        for stretch in &self.stretches {
            match joined.last_mut() {
                Some(last) if stretch.from() <= last.to => last.to = last.to.max(stretch.to),
                _ => joined.push(Available {
                    from: stretch.from(),
                    to: stretch.to,
                }),
            }
        }
        joined
    }

    /// Fails with the first part that is missing between two positions.
    pub(crate) fn check(&self, from: Lsn, to: Lsn) -> Result<(), Error> {
        let mut reached = from;
        while reached < to {
            reached = self.furthest(reached, to)?.to;
        }
        Ok(())
    }

    /// Returns what is to be read to get everything between two positions.
    ///
    /// # Errors
    ///
    /// As [`Coverage::check`].
    pub(crate) fn sources(&self, from: Lsn, to: Lsn) -> Result<VecDeque<Source>, Error> {
        let mut sources = VecDeque::new();
        let mut reached = from;
        while reached < to {
            let stretch = self.furthest(reached, to)?;
            let passed = stretch.links.partition_point(|link| *link <= reached) - 1;
            let wanted = stretch.links.partition_point(|link| *link < to);
            let links = stretch.links[passed..wanted].iter().copied().collect();
            let end = stretch.links.get(wanted).copied().unwrap_or(stretch.to);
            sources.push_back(Source {
                chain: stretch.chain,
                links,
                to: end,
            });
            reached = end;
        }
        Ok(sources)
    }

    /// Returns what holds `position` and reaches furthest.
    fn furthest(&self, position: Lsn, to: Lsn) -> Result<&Stretch, Error> {
        let holds = |part: &&Stretch| part.from() <= position && position < part.to;
        let found = self.stretches.iter().filter(holds);
        found
            .max_by_key(|part| part.to)
            .ok_or_else(|| self.hole(position, to))
    }

    /// Names what is missing from `from` on.
    fn hole(&self, from: Lsn, to: Lsn) -> Error {
        if let Some((chain, at, why)) = self.damage.iter().find(|(_, at, _)| *at == from) {
            return Error::Corrupt {
                chain: *chain,
                at: *at,
                location: self.location.clone(),
                why: why.clone(),
            };
        }
        let next = self.stretches.iter().map(Stretch::from);
        let next = next.filter(|start| *start > from).min();
        Error::Hole {
            subject: self.subject.clone(),
            from,
            to: next.unwrap_or(to).min(to),
            location: self.location.clone(),
        }
    }
}
