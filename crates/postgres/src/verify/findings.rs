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
use dr_repository::{Label, Repository};
use jiff::Timestamp;

use super::{record, runs};

/// A pack, by the label that it lies under, and number.
type Pack = (Label, u32);

/// Returns the packs that looks since then have read back, finding them good. What a look left out is not in its record, so
/// that nothing stays unread for longer than was asked for.
pub(super) async fn known(
    store: &Arc<dyn ObjectStore>,
    cluster: SystemIdentifier,
    since: Timestamp,
) -> Result<BTreeSet<Pack>> {
    let mut last: BTreeMap<Pack, (Timestamp, bool)> = BTreeMap::new();
    for (label, proofs) in record::marks(store, cluster).await? {
        let lately = |mark: &VerifyMark| mark.means != VerifyMeans::Boot && mark.at >= since;
        if !proofs.marks.iter().any(lately) {
            continue;
        }
        for record in record::read(store, cluster, &label).await? {
            let at = record.began_at;
            let good = runs::packs(&record.read).map(|pack| (pack, true));
            let damaged = runs::packs(&record.damaged).map(|pack| (pack, false));
            for (pack, is_good) in good.chain(damaged).filter(|_| at >= since) {
                let last = last.entry(pack).or_insert((at, is_good));
                *last = (*last).max((at, is_good));
            }
        }
    }
    let good = last.into_iter().filter(|(_, (_, is_good))| *is_good);
    Ok(good.map(|(pack, _)| pack).collect())
}

/// Returns the labels whose own last look failed, those among them that have been deleted since.
pub(crate) async fn failed(
    store: &Arc<dyn ObjectStore>,
    cluster: SystemIdentifier,
) -> Result<BTreeSet<String>> {
    let marks = record::marks(store, cluster).await?;
    let failed = marks.into_iter().filter(|(_, proofs)| proofs.failed());
    Ok(failed.map(|(label, _)| label).collect())
}

/// Says of each of these recovery points that cannot be relied on why.
pub(crate) async fn failures(
    store: &Arc<dyn ObjectStore>,
    repository: &Repository,
    cluster: SystemIdentifier,
    labels: &[Label],
) -> Result<BTreeMap<Label, String>> {
    let marks = record::marks(store, cluster).await?;
    let mut failures = BTreeMap::new();
    let mut damaged: BTreeMap<Pack, Timestamp> = BTreeMap::new();
    for (label, proofs) in &marks {
        for mark in proofs.failures() {
            let record = record_of(store, cluster, label, mark).await?;
            let found = record.as_ref().map(|record| runs::packs(&record.damaged));
            for pack in found.into_iter().flatten() {
                let at = damaged.entry(pack).or_insert(mark.at);
                *at = mark.at.max(*at);
            }
            let Ok(label) = label.parse::<Label>() else {
                continue;
            };
            let what = record.and_then(|record| record.failure);
            let what = what.unwrap_or_else(|| "its record cannot be read".to_owned());
            failures.insert(
                label,
                format!("the look at it of {:.0} failed: {what}", mark.at),
            );
        }
    }
    if damaged.is_empty() {
        return Ok(failures);
    }
    for label in labels {
        if failures.contains_key(label) {
            continue;
        }
        let backup = match repository.open(label).await {
            Ok(backup) => backup,
            // Deleted meanwhile, or damaged in a way that shows without a proof.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Corrupt) => {
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let read = marks.get(label.as_str()).and_then(read_at);
        let found = backup.packs().iter().find_map(|pack| {
            let at = damaged.get(&(pack.label.clone(), pack.number))?;
            let is_open = read.is_none_or(|read| read < *at);
            is_open.then_some((pack, at))
        });
        if let Some((pack, at)) = found {
            let why = format!(
                "it refers to pack {} of {}, which a look of {at:.0} found damaged",
                pack.number, pack.label
            );
            failures.insert(label.clone(), why);
        }
    }
    Ok(failures)
}

/// Returns when all of a recovery point was read back last, and found good.
fn read_at(proofs: &Proofs) -> Option<Timestamp> {
    let last = proofs.last(VerifyMeans::Hash).filter(|mark| mark.passed);
    last.map(|mark| mark.at)
}

/// Reads the record of a look; `None` if it is damaged or of another version: its name says that the look failed all the same.
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
