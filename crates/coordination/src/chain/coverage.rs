//! From which objects the log of a timeline can be read, and what is missing.

use std::collections::{BTreeMap, VecDeque};

use dr_encryption::{KeyId, Keys};
use dr_model::Lsn;
use dr_provider::ObjectStore;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};

use super::available::Available;
use super::catalogue::chains_of_timeline;
use super::floor::floor;
use super::follow::{Stretch, follow};
use super::piece::{Span, glance, list};
use super::section::Section;
use super::tail::read_origin;
use super::{ChainId, Error, Flaw};
use crate::operation::Patience;

/// Where an object stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A link of a chain.
    Link(ChainId),
    /// A piece.
    Piece(Span),
}

/// An object that holds log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Object {
    /// Where it stands.
    pub(crate) place: Place,
    /// Its first position.
    pub(crate) from: Lsn,
    /// The position after the last that is wanted of it.
    pub(crate) to: Lsn,
}

/// Objects to be read one after the other.
#[derive(Debug)]
pub(crate) enum Source {
    /// One piece; `None` once it was taken.
    Piece(Option<Span>),
    /// Links of a chain.
    Links {
        /// The chain.
        chain: ChainId,
        /// Where they start.
        links: VecDeque<Lsn>,
        /// Where the last ends.
        to: Lsn,
    },
}

impl Source {
    /// Takes the next object.
    pub(crate) fn next_object(&mut self) -> Option<Object> {
        match self {
            Self::Piece(span) => {
                let span = span.take()?;
                Some(Object {
                    place: Place::Piece(span),
                    from: span.from,
                    to: span.to,
                })
            }
            Self::Links { chain, links, to } => {
                let from = links.pop_front()?;
                Some(Object {
                    place: Place::Link(*chain),
                    from,
                    to: links.front().copied().unwrap_or(*to),
                })
            }
        }
    }
}

/// What a store holds of a part of a timeline's log.
#[derive(Debug)]
pub(crate) struct Coverage {
    section: Section,
    location: String,
    /// Pieces in order of where they begin, which may overlap.
    pieces: Vec<Span>,
    /// The keys that pieces are encrypted with, where their headers were looked at.
    keys: BTreeMap<Span, String>,
    /// Parts of chains where there are no pieces, in order of where they begin, which may overlap.
    stretches: Vec<Stretch>,
    damage: Vec<(ChainId, Lsn, String)>,
    /// Pieces that are there and cannot be used, each with its key and what is wrong.
    bad: Vec<(Span, String, String)>,
}

/// How closely pieces are looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Look<'a> {
    /// By their names, but for those that were read and found to be damaged, each with what is wrong.
    Names(&'a [(Span, String)]),
    /// By their headers and lengths, as chunks are. What is in them is verified when it is read.
    Headers,
}

/// How many headers of pieces are read at once.
const AT_ONCE: usize = 64;

/// Looks at what a store holds of a section. A piece that cannot be used counts as one that is not
/// there, so that the chunks that it was made of take its place while they are there.
pub(crate) async fn coverage(
    store: &dyn ObjectStore,
    section: Section,
    patience: Patience,
    look: Look<'_>,
) -> Result<Coverage, Error> {
    let Section {
        system_identifier,
        timeline,
        from,
        to,
    } = section;
    let mut covered = Coverage {
        section,
        location: store.location().to_owned(),
        pieces: Vec::new(),
        keys: BTreeMap::new(),
        stretches: Vec::new(),
        damage: Vec::new(),
        bad: Vec::new(),
    };
    let whose = (system_identifier, timeline);
    let listed = list(store, section, patience).await;
    let listed = listed.map_err(|error| Error::store(section, error))?;
    let looked_at: Vec<_> = match look {
        Look::Names(avoided) => {
            let known = |span: &Span| {
                let found = avoided.iter().find(|(avoided, _)| avoided == span);
                Some(found.map_or(Ok(None), |(_, why)| Err(why.clone())))
            };
            let looks = listed.iter().map(|(span, _)| (*span, known(span)));
            looks.collect()
        }
        Look::Headers => stream::iter(listed)
            .map(|one| async move {
                let seen = glance(store, whose, one, patience).await?;
                Ok::<_, dr_provider::Error>((one.0, seen))
            })
            .buffered(AT_ONCE)
            .try_collect()
            .await
            .map_err(|error| Error::store(section, error))?,
    };
    for (span, seen) in looked_at {
        match seen {
            None => {}
            Some(Ok(key)) => {
                covered.pieces.push(span);
                covered.keys.extend(key.map(|key| (span, key)));
            }
            Some(Err(why)) => {
                let key = span.key(system_identifier, timeline).to_string();
                covered.bad.push((span, key, why));
            }
        }
    }
    let gaps = gaps(&covered.pieces, from, to);
    if gaps.is_empty() {
        return Ok(covered);
    }
    let chains = chains_of_timeline(store, system_identifier, timeline)
        .await
        .map_err(|error| Error::store(section, error))?;
    for chain in chains {
        let Some(origin) = read_origin(store, &chain, patience).await? else {
            continue;
        };
        let begin = floor(store, &chain, patience).await?;
        let begin = begin.unwrap_or(origin.start_lsn);
        for gap in gaps.iter().filter(|gap| begin < gap.to) {
            let followed = follow(store, &chain, begin, gap.from, gap.to, patience).await?;
            covered.stretches.extend(followed.stretches);
            let damage = followed.damage.into_iter();
            covered
                .damage
                .extend(damage.map(|(at, why)| (chain, at, why)));
        }
    }
    covered.stretches.sort_by_key(Stretch::from);
    Ok(covered)
}

/// Returns what no piece holds between two positions.
pub(crate) fn gaps(pieces: &[Span], from: Lsn, to: Lsn) -> Vec<Span> {
    let mut gaps = Vec::new();
    let mut reached = from;
    for piece in pieces {
        if reached < piece.from.min(to) {
            gaps.push(Span {
                from: reached,
                to: piece.from.min(to),
            });
        }
        reached = reached.max(piece.to);
    }
    if reached < to {
        gaps.push(Span { from: reached, to });
    }
    gaps
}

impl Coverage {
    /// Returns what is there, parts that touch joined.
    pub(crate) fn joined(&self) -> Vec<Available> {
        let mut parts: Vec<Available> = self.parts().collect();
        parts.sort_unstable_by_key(|part| part.from);
        let mut joined: Vec<Available> = Vec::new();
        for part in parts {
            match joined.last_mut() {
                Some(last) if part.from <= last.to => last.to = last.to.max(part.to),
                _ => joined.push(part),
            }
        }
        joined
    }

    fn parts(&self) -> impl Iterator<Item = Available> {
        let pieces = self.pieces.iter().map(|span| Available {
            from: span.from,
            to: span.to,
        });
        let stretches = self.stretches.iter().map(|stretch| Available {
            from: stretch.from(),
            to: stretch.to,
        });
        pieces.chain(stretches)
    }

    /// Fails with the first part that is missing between two positions.
    pub(crate) fn check(&self, from: Lsn, to: Lsn) -> Result<(), Error> {
        self.sources(from, to).map(drop)
    }

    /// Fails with the first object between two positions, all of which must be there, that is encrypted with a key that is not at hand.
    pub(crate) fn check_keys(&self, from: Lsn, to: Lsn, keys: &Keys) -> Result<(), Error> {
        let unknown = |name: &&str| keys.get(&KeyId::named(name)).is_none();
        for source in self.sources(from, to)? {
            match source {
                Source::Piece(Some(span)) => {
                    let name = self.keys.get(&span).map(String::as_str);
                    if let Some(name) = name.filter(unknown) {
                        let Section {
                            system_identifier,
                            timeline,
                            ..
                        } = self.section;
                        let key = span.key(system_identifier, timeline);
                        return Err(Flaw::Locked(name.to_owned()).of_piece(&key, &self.location));
                    }
                }
                Source::Piece(None) => {}
                Source::Links { chain, links, .. } => {
                    for link in links {
                        let holds = |part: &&Stretch| {
                            part.chain == chain && part.from() <= link && link < part.to
                        };
                        let stretch = self.stretches.iter().find(holds);
                        let name = stretch.and_then(|stretch| stretch.key_of(link));
                        if let Some(name) = name.filter(unknown) {
                            let flaw = Flaw::Locked(name.to_owned());
                            return Err(flaw.of_link(chain, link, &self.location));
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Returns what is to be read to get everything between two positions: pieces where there are any.
    ///
    /// # Errors
    ///
    /// [`Error::Hole`] with the first part that is missing; [`Error::Corrupt`] if what stands there is not readable.
    pub(crate) fn sources(&self, from: Lsn, to: Lsn) -> Result<VecDeque<Source>, Error> {
        let mut sources = VecDeque::new();
        let mut reached = from;
        let mut begun = 0;
        while reached < to {
            // What began before and has been passed is looked at no more, or many pieces would take for ever.
            while self
                .pieces
                .get(begun)
                .is_some_and(|span| span.to <= reached)
            {
                begun += 1;
            }
            let holds = self.pieces[begun..]
                .iter()
                .take_while(|span| span.from <= reached)
                .filter(|span| reached < span.to);
            if let Some(span) = holds.max_by_key(|span| span.to) {
                sources.push_back(Source::Piece(Some(*span)));
                reached = span.to;
                continue;
            }
            let holds = |part: &&Stretch| part.from() <= reached && reached < part.to;
            let Some(stretch) = self
                .stretches
                .iter()
                .filter(holds)
                .max_by_key(|part| part.to)
            else {
                return Err(self.hole(reached, to));
            };
            let next = self.pieces[begun..].iter().map(|span| span.from);
            let until = next
                .filter(|from| *from > reached)
                .min()
                .map_or(to, |next| next.min(to));
            let passed = stretch.links.partition_point(|link| *link <= reached) - 1;
            let wanted = stretch.links.partition_point(|link| *link < until);
            let end = stretch.links.get(wanted).copied().unwrap_or(stretch.to);
            sources.push_back(Source::Links {
                chain: stretch.chain,
                links: stretch.links[passed..wanted].iter().copied().collect(),
                to: end,
            });
            reached = end;
        }
        Ok(sources)
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
        let is_here = |(span, ..): &&(Span, String, String)| span.from <= from && from < span.to;
        if let Some((_, key, why)) = self.bad.iter().find(is_here) {
            return Error::CorruptPiece {
                key: key.clone(),
                location: self.location.clone(),
                why: why.clone(),
            };
        }
        let next = self.parts().map(|part| part.from);
        let next = next.filter(|start| *start > from).min();
        Error::Hole {
            subject: self.section.to_string(),
            from,
            to: next.unwrap_or(to).min(to),
            location: self.location.clone(),
        }
    }
}
