//! What all looks together have found: the packs that were read back lately, and the recovery points that cannot be relied
//! on. It stands in the proofs of a store and nowhere else, so that a daemon that starts anew knows what the last one knew.
//!
//! A recovery point fails with its own last look of a kind. It fails as well with a pack that it refers to and that a look at
//! another one has found damaged, until a look at itself passes later: that look has read the pack.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dr_model::SystemIdentifier;
use dr_provider::driver::{Proofs, VerifyMark, VerifyMeans, VerifyRecord};
use dr_provider::{ErrorKind, ObjectStore, Result};
use dr_repository::{BackupReader, Label, Repository};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;

use super::{record, runs};
use crate::backup::Base;

/// A pack, by the label that it lies under, and number.
pub(super) type Pack = (Label, u32);

/// Records and manifests that are read at a time.
const OBJECTS_IN_FLIGHT: usize = 8;

/// What is wrong with a recovery point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// In words.
    pub(crate) why: String,
    /// Whether reading it back may clear it. What a server that was booted from it did wrong stays when its bytes were found right
    /// afterwards.
    pub(crate) may_be_cleared: bool,
}

/// Returns the packs that looks since then have read back, finding them good. What a look left out is not in its record, so
/// that nothing stays unread for longer than was asked for.
pub(super) async fn known(
    store: &Arc<dyn ObjectStore>,
    cluster: SystemIdentifier,
    proofs: &BTreeMap<String, Proofs>,
    since: Timestamp,
) -> Result<BTreeSet<Pack>> {
    let lately = |mark: &&VerifyMark| mark.means != VerifyMeans::Boot && mark.at >= since;
    let marks = proofs.iter().flat_map(|(label, proofs)| {
        let marks = proofs.marks.iter().filter(lately);
        marks.map(move |mark| (label, mark))
    });
    // One that cannot be read has read nothing that is known.
    let reads = marks.map(|(label, mark)| record_of(store, cluster, label, mark));
    let records: Vec<Option<VerifyRecord>> = stream::iter(reads.collect::<Vec<_>>())
        .buffer_unordered(OBJECTS_IN_FLIGHT)
        .try_collect()
        .await?;
    let mut records: Vec<VerifyRecord> = records.into_iter().flatten().collect();
    records.sort_unstable_by_key(|record| record.began_at);
    let mut known = BTreeSet::new();
    for record in &records {
        learn(&mut known, record);
    }
    Ok(known)
}

/// Adds what a look has read, and takes out what it has found damaged.
pub(super) fn learn(known: &mut BTreeSet<Pack>, record: &VerifyRecord) {
    known.extend(runs::packs(&record.read));
    for pack in runs::packs(&record.damaged) {
        known.remove(&pack);
    }
}

/// Says of each of these recovery points that cannot be relied on why.
pub(crate) async fn failures(
    store: &Arc<dyn ObjectStore>,
    repository: &Repository,
    cluster: SystemIdentifier,
    proofs: &BTreeMap<String, Proofs>,
    bases: &[Base],
) -> Result<BTreeMap<Label, Failure>> {
    let failed = proofs.iter().flat_map(|(label, proofs)| {
        let marks = proofs.failures().into_iter();
        marks.map(move |mark| (label, proofs.read_at(), mark))
    });
    let reads = failed.map(async |(label, read, mark)| {
        let record = record_of(store, cluster, label, mark).await?;
        Ok::<_, dr_provider::Error>((label, read, mark, record))
    });
    let found: Vec<_> = stream::iter(reads.collect::<Vec<_>>())
        .buffered(OBJECTS_IN_FLIGHT)
        .try_collect()
        .await?;
    let mut failures: BTreeMap<Label, Failure> = BTreeMap::new();
    let mut damaged: BTreeMap<Pack, Timestamp> = BTreeMap::new();
    for (label, read, mark, record) in found {
        let packs = record.as_ref().map(|record| runs::packs(&record.damaged));
        for pack in packs.into_iter().flatten() {
            let at = damaged.entry(pack).or_insert(mark.at);
            *at = mark.at.max(*at);
        }
        let Ok(label) = label.parse::<Label>() else {
            continue;
        };
        let what = record.and_then(|record| record.failure);
        let what = what.unwrap_or_else(|| "its record cannot be read".to_owned());
        let before = failures.get(&label);
        let is_open = mark.means != VerifyMeans::Boot || read < Some(mark.at);
        let failure = Failure {
            why: format!("the look at it of {:.0} failed: {what}", mark.at),
            may_be_cleared: is_open || before.is_some_and(|before| before.may_be_cleared),
        };
        failures.insert(label, failure);
    }
    for (label, why) in by_damage(repository, proofs, bases, &damaged, &failures).await? {
        let failure = failures.entry(label).or_insert(Failure {
            why,
            may_be_cleared: true,
        });
        failure.may_be_cleared = true;
    }
    Ok(failures)
}

/// Says of each recovery point that refers to a damaged pack, and has not been read since that was found, to which. Those of which nothing
/// new would be learnt are not asked, nor those that have nothing where damage is.
async fn by_damage(
    repository: &Repository,
    proofs: &BTreeMap<String, Proofs>,
    bases: &[Base],
    damaged: &BTreeMap<Pack, Timestamp>,
    failures: &BTreeMap<Label, Failure>,
) -> Result<Vec<(Label, String)>> {
    let read = |label: &Label| proofs.get(label.as_str()).and_then(Proofs::read_at);
    let places: BTreeSet<&Label> = damaged.keys().map(|(label, _)| label).collect();
    let newest = damaged.values().max().copied();
    let suspects = bases.iter().filter(|base| {
        let mut all = base.references.iter().chain([&base.label]);
        let known = failures.get(&base.label);
        read(&base.label) < newest
            && known.is_none_or(|failure| !failure.may_be_cleared)
            && all.any(|label| places.contains(label))
    });
    let opens = suspects.map(async |base| match repository.open(&base.label).await {
        Ok(backup) => Ok(Some(backup)),
        // Deleted meanwhile, or damaged in a way that shows without a proof.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Corrupt) => Ok(None),
        Err(error) => Err(dr_provider::Error::from(error)),
    });
    let opened: Vec<Option<BackupReader>> = stream::iter(opens.collect::<Vec<_>>())
        .buffered(OBJECTS_IN_FLIGHT)
        .try_collect()
        .await?;
    let found = opened.iter().flatten().filter_map(|backup| {
        let label = &backup.header().label;
        let (pack, at) = backup.packs().iter().find_map(|pack| {
            let at = damaged.get(&(pack.label.clone(), pack.number))?;
            (read(label) < Some(*at)).then_some((pack, at))
        })?;
        let why = format!(
            "it refers to pack {} of {}, which a look of {at:.0} found damaged",
            pack.number, pack.label
        );
        Some((label.clone(), why))
    });
    Ok(found.collect())
}

/// Reads the record of a look; `None` if it is damaged or of another version: its name says all the same whether the look passed.
async fn record_of(
    store: &Arc<dyn ObjectStore>,
    cluster: SystemIdentifier,
    label: &str,
    mark: &VerifyMark,
) -> Result<Option<VerifyRecord>> {
    match record::read_one(store, cluster, label, mark).await {
        Ok(record) => Ok(Some(record)),
        Err(error) => match error.kind() {
            ErrorKind::Corrupt | ErrorKind::Unsupported | ErrorKind::NotFound => Ok(None),
            _ => Err(error),
        },
    }
}

#[cfg(test)]
mod tests;
