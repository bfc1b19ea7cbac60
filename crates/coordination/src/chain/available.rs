//! Which log of a timeline a store holds, proven: every position by a link that was seen to follow the one before.

use dr_encryption::Keys;
use dr_model::{Lsn, SystemIdentifier, TimelineId};
use dr_provider::ObjectStore;

use super::catalogue::chains_of_timeline;
use super::coverage::{Look, coverage};
use super::piece::{Span, pieces};
use super::section::Section;
use super::{Error, find_tail};
use crate::operation::Patience;

/// A piece of log that hangs together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Available {
    /// Its first position.
    pub from: Lsn,
    /// The position after its last.
    pub to: Lsn,
}

/// Returns which parts of a section a store holds, in order; parts that touch are joined.
///
/// Nothing rests on what a header says about others: a chunk that was removed leaves a gap in the result. Costs a listing of
/// the pieces, and where there are none a read of each chunk's header, many at once. Rests on names and headers: [`ChainReader`](super::ChainReader) verifies the bytes.
pub async fn available(
    store: &dyn ObjectStore,
    section: Section,
    patience: Patience,
) -> Result<Vec<Available>, Error> {
    let look = Look::Names(&[]);
    let covered = coverage(store, section, patience, look).await?;
    Ok(covered.joined())
}

/// What a close look at a section found.
#[derive(Debug)]
pub struct Examined {
    /// Whether all of it is there and its keys are at hand; otherwise the first that is in the way, as [`prove_readable`] says it.
    pub whole: Result<(), Error>,
    /// Which parts are there, in order; parts that touch are joined.
    pub there: Vec<Available>,
    /// Those within the section whose keys are at hand.
    pub readable: Vec<Available>,
}

/// As [`available`], and what pieces hold is not taken from their names but from their headers, compared with the lengths of
/// their objects: costs a read of each header, many at once.
pub async fn examine(
    store: &dyn ObjectStore,
    section: Section,
    keys: &Keys,
    patience: Patience,
) -> Result<Examined, Error> {
    let Section { from, to, .. } = section;
    let covered = coverage(store, section, patience, Look::Headers).await?;
    let there = covered.joined();
    let within = there.iter().map(|part| Available {
        from: part.from.max(from),
        to: part.to.min(to),
    });
    let is_readable = |part: &Available| covered.check_keys(part.from, part.to, keys).is_ok();
    let readable = within.filter(is_readable).collect();
    Ok(Examined {
        whole: covered
            .check(from, to)
            .and_then(|()| covered.check_keys(from, to, keys)),
        readable,
        there,
    })
}

/// Returns the first position and the last of what a store has ever been given of a timeline's log; `None` if nothing.
///
/// Cheap, and no proof: between the two something may be missing.
pub async fn bounds(
    store: &dyn ObjectStore,
    system_identifier: SystemIdentifier,
    timeline: TimelineId,
    patience: Patience,
) -> Result<Option<Available>, Error> {
    let subject = || format!("cluster {system_identifier}, timeline {timeline}");
    let chains = chains_of_timeline(store, system_identifier, timeline)
        .await
        .map_err(|error| Error::store(subject(), error))?;
    let mut outer: Option<Available> = None;
    for chain in chains {
        let Some(tail) = find_tail(store, &chain, patience).await? else {
            continue;
        };
        let (from, to) = (tail.origin.start_lsn, tail.end);
        if from < to {
            outer = Some(outer.map_or(Available { from, to }, |outer| Available {
                from: outer.from.min(from),
                to: outer.to.max(to),
            }));
        }
    }
    let reached = outer.map_or(Lsn::INVALID, |outer| outer.to);
    let spans = pieces(
        store,
        Section::new(system_identifier, timeline, reached, Lsn(u64::MAX)),
        patience,
    )
    .await
    .map_err(|error| Error::store(subject(), error))?;
    for Span { from, to } in spans {
        outer = Some(outer.map_or(Available { from, to }, |outer| Available {
            from: outer.from.min(from),
            to: outer.to.max(to),
        }));
    }
    Ok(outer)
}

/// As [`prove`], and what pieces hold is taken from their names: costs a listing of them, and where there are none a read of each
/// chunk's header.
pub async fn prove_by_names(
    store: &dyn ObjectStore,
    section: Section,
    patience: Patience,
) -> Result<(), Error> {
    let look = Look::Names(&[]);
    let covered = coverage(store, section, patience, look).await?;
    covered.check(section.from, section.to)
}

/// Proves that a store holds all of a section, by the headers of chunks and pieces and the lengths of
/// their objects.
///
/// # Errors
///
/// [`Error::Hole`] with the first part that is missing; [`Error::Corrupt`] and [`Error::CorruptPiece`] if what stands there is not
/// readable, or cut off.
pub async fn prove(
    store: &dyn ObjectStore,
    section: Section,
    patience: Patience,
) -> Result<(), Error> {
    let look = Look::Headers;
    let covered = coverage(store, section, patience, look).await?;
    covered.check(section.from, section.to)
}

/// As [`prove`], and that the keys of all of it are at hand.
///
/// # Errors
///
/// Those of [`prove`], and [`Error::Locked`] with the first object whose key is missing.
pub async fn prove_readable(
    store: &dyn ObjectStore,
    section: Section,
    keys: &Keys,
    patience: Patience,
) -> Result<(), Error> {
    examine(store, section, keys, patience).await?.whole
}
