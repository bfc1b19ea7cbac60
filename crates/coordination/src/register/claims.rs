//! Who may claim which timeline.
//!
//! Two regions never both write one timeline. A record may claim a timeline that is newer than every claim on that cluster
//! before it, or repeat a claim that the same region made earlier: moving the register changes nothing, and undoing a seal
//! gives the old primary its old timeline back.

use super::EpochRecord;

/// Checks the claims of `record` against all records before it; the error says which rule it breaks.
pub(crate) fn check(history: &[EpochRecord], record: &EpochRecord) -> Result<(), String> {
    for (resource, claim) in &record.clusters {
        let earlier = || {
            history.iter().flat_map(|old| {
                let same =
                    |c: &&super::ClusterClaim| c.system_identifier == claim.system_identifier;
                old.clusters.values().filter(same).map(move |c| (old, c))
            })
        };
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
