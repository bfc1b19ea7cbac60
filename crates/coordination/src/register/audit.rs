//! Whether what lies in the stores agrees with what a walk has read: a register with records missing is not believed. Pure.
//!
//! Records are dense and never change, and a copy is made of a record. So a record or a copy beyond the end of the walk
//! proves that records are missing from the register, and a copy that differs from its record proves that one of both is
//! not what was written. Only what is there counts: a copy may lag behind, and a listing may hide what is new.
//!
//! What was written while a walk was under way is beyond its end too. Whoever finds something walks again, after the
//! listing, and looks again: the second walk sees all that the listing showed.

use bytes::Bytes;
use dr_model::{Epoch, RegionName, WorkloadName};
use dr_provider::Key;

use super::{EpochRecord, Walk};

/// What one store holds under one prefix: records of a register, or copies of them.
#[derive(Clone, Debug)]
pub(super) struct Sighting {
    /// The region of the store.
    pub(super) region: RegionName,
    /// The keys, with the epochs that they name.
    pub(super) keys: Vec<(Epoch, Key)>,
    /// The bytes of the newest; `None` if it was not read.
    pub(super) newest: Option<Bytes>,
}

/// What does not agree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Contradiction {
    /// Where the record should be, or the copy is.
    pub(super) region: RegionName,
    /// The record.
    pub(super) epoch: Epoch,
    /// What is wrong.
    pub(super) why: String,
    /// What to do.
    pub(super) hint: String,
}

/// Returns the first thing in `seen` that contradicts `walk`.
pub(super) fn contradiction(
    workload: &WorkloadName,
    walk: &Walk,
    seen: &[Sighting],
) -> Option<Contradiction> {
    missing(workload, walk, seen).or_else(|| differing(workload, walk, seen))
}

fn missing(workload: &WorkloadName, walk: &Walk, seen: &[Sighting]) -> Option<Contradiction> {
    let register = walk.register();
    let end = walk.records().last().map(|record| record.epoch);
    let next = end.map_or(Epoch::FIRST, Epoch::next);
    let all = || {
        seen.iter().flat_map(|sighting| {
            let keys = sighting.keys.iter();
            keys.map(|(epoch, key)| (*epoch, &sighting.region, key))
        })
    };
    let (epoch, region, key) = all()
        .filter(|(epoch, ..)| *epoch >= next)
        .min_by_key(|(epoch, ..)| *epoch)?;
    let place = EpochRecord::key(workload, next);
    let why = match end {
        Some(end) => format!(
            "record {next} is missing, `{place}` in the store of `{register}`: without it the register ends with epoch {end}, but `{key}` in the store of `{region}` is there"
        ),
        None => format!(
            "the register in `{register}` is empty, but this store knows of epoch {epoch}: `{key}`"
        ),
    };
    let source = all()
        .find(|(epoch, region, key)| *epoch == next && !(*region == register && **key == place));
    let put_back = match source {
        Some((_, from, copy)) => format!(
            "put the record back as it was: copy the object `{copy}` of the store of `{from}` to `{place}` in the store of `{register}`"
        ),
        None => format!(
            "no store that answers holds a copy of record {next}: bring `{place}` in the store of `{register}` back from an older version of that store"
        ),
    };
    let hint = match end {
        Some(_) => put_back,
        None => format!(
            "see whether `recovery` names the regions in another order than before; if the records are gone, {put_back}"
        ),
    };
    Some(Contradiction {
        region: if end.is_some() { register } else { region }.clone(),
        epoch: next,
        why,
        hint,
    })
}

fn differing(workload: &WorkloadName, walk: &Walk, seen: &[Sighting]) -> Option<Contradiction> {
    seen.iter().find_map(|sighting| {
        let (epoch, key) = sighting.keys.last()?;
        let bytes = sighting.newest.as_ref()?;
        let record = walk.records().iter().find(|record| record.epoch == *epoch)?;
        let (place, from) = (EpochRecord::key(workload, *epoch), walk.place_of(*epoch));
        let region = &sighting.region;
        let (why, hint) = match EpochRecord::from_bytes(bytes, workload, *epoch) {
            Ok(copy) if copy == *record => return None,
            Ok(copy) => (
                format!(
                    "`{key}` in the store of `{region}` says that {} is primary ({}), and the register that {} is ({})",
                    copy.primary, copy.reason, record.primary, record.reason
                ),
                format!(
                    "one of both was not put there by `dr`: find out which, by the servers and the execution that each names, and put the right one in the place of the other ({place})"
                ),
            ),
            Err(why) => (
                format!("`{key}` in the store of `{region}`: {why}"),
                format!(
                    "the record itself is whole: copy the object `{place}` of the store of `{from}` over `{key}` in the store of `{region}`"
                ),
            ),
        };
        Some(Contradiction {
            region: sighting.region.clone(),
            epoch: *epoch,
            why,
            hint,
        })
    })
}
