//! Who may claim which timeline.
//!
//! Two regions never both write one timeline. A record may claim a timeline that is newer than every claim on that cluster
//! before it, or repeat a claim that the same region made earlier: moving the register changes nothing, and undoing a seal
//! gives the old primary its old timeline back.
//!
//! A claim may go on with the chain of an earlier epoch only if every record from that epoch on names the same primary and
//! the same timeline: otherwise that chain is, or will be, sealed.

use dr_model::{Epoch, ResourceName};

use super::{ClusterClaim, EpochRecord};

/// Checks the claims of `record` against all records before it; the error says which rule it breaks.
pub(crate) fn check(history: &[EpochRecord], record: &EpochRecord) -> Result<(), String> {
    if !record.guards.is_empty()
        && history.last().map(|before| &before.primary) != Some(&record.primary)
    {
        return Err(format!(
            "nobody can have seen a guard of the primary in `{}` before that was the primary",
            record.primary
        ));
    }
    for (resource, claim) in &record.clusters {
        let earlier = || {
            history.iter().flat_map(|old| {
                let same = |c: &&ClusterClaim| c.system_identifier == claim.system_identifier;
                old.clusters.values().filter(same).map(move |c| (old, c))
            })
        };
        if let Some(from) = claim.log_epoch {
            check_continues(history, record, resource, claim, from)?;
        }
        let holder = earlier().find(|(_, old)| old.timeline == claim.timeline);
        if let Some((old, _)) = holder {
            if old.primary != record.primary {
                return Err(format!(
                    "timeline {} of `{resource}` was claimed for `{}` in epoch {}",
                    claim.timeline, old.primary, old.epoch
                ));
            }
        } else if let Some(highest) = earlier().map(|(_, old)| old.timeline).max()
            && claim.timeline < highest
        {
            return Err(format!(
                "timeline {} of `{resource}` is older than timeline {highest}, which is claimed already",
                claim.timeline
            ));
        }
    }
    Ok(())
}

fn check_continues(
    history: &[EpochRecord],
    record: &EpochRecord,
    resource: &ResourceName,
    claim: &ClusterClaim,
    from: Epoch,
) -> Result<(), String> {
    let since: Vec<_> = history.iter().filter(|old| old.epoch >= from).collect();
    let begins = since.first().is_some_and(|old| {
        old.epoch == from
            && old
                .clusters
                .get(resource)
                .is_some_and(|c| c.log_epoch.is_none())
    });
    let unbroken = since.iter().all(|old| {
        let same = |c: &ClusterClaim| {
            c.system_identifier == claim.system_identifier
                && c.timeline == claim.timeline
                && c.log_epoch.unwrap_or(old.epoch) == from
        };
        old.primary == record.primary && old.clusters.get(resource).is_some_and(same)
    });
    if begins && unbroken {
        return Ok(());
    }
    Err(format!(
        "`{resource}` cannot go on with the log of epoch {from}: not every epoch since then has the primary in `{}` and that log",
        record.primary
    ))
}
