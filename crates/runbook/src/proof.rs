//! What proves that the old primary accepts no more writes, and what is lost at most given that proof (PROTOCOL 7, 8).
//!
//! Pure: read out of the plan and of the evidence in the journal, so that the gate before a promotion, the report and
//! another machine that resumes all come to the same answer.

use std::fmt;
use std::time::Duration;

use dr_model::ResourceName;
use dr_model::loss::Bound;
use dr_provider::driver::{Drained, Fenced, Recovered, Sealed, StopProof};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::history::History;
use crate::plan::{COMES_UP, Mode, PlannedStep};
use crate::request::{override_reason, witness};
use crate::steps::{await_fence, fence_primary, replace_database, seal_wal, stop_writes};

/// How old the promise conditions may be when the log is sealed (PROTOCOL 5).
pub const PROMISE_WINDOW: Duration = Duration::from_secs(10);

/// A kind of proof, strongest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProofName {
    /// Synchronous mode, its conditions held, and the log is sealed: what was not shipped was never acknowledged.
    Sealed,
    /// The instance is gone and cannot come back writable by itself.
    Stopped,
    /// The platform confirmed that it stopped it.
    Provider,
    /// A dead-man is known to have stopped it.
    SelfStopped,
    /// A named human states it.
    Witness,
    /// There is none.
    None,
}

impl fmt::Display for ProofName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sealed => "sealed",
            Self::Stopped => "stopped",
            Self::Provider => "provider",
            Self::SelfStopped => "self-stopped",
            Self::Witness => "witness",
            Self::None => "none",
        })
    }
}

/// Tells whether a seal proves that nothing acknowledged is lost: the promise conditions held when it was put there.
#[must_use]
pub fn seal_proves(sealed: &Sealed) -> bool {
    sealed.promise.is_some_and(|(held, checked_at)| {
        // The clocks of two machines: a check that lies in the future proves as little as an old one.
        held && sealed
            .sealed_at
            .duration_since(checked_at)
            .abs()
            .as_secs_f64()
            <= PROMISE_WINDOW.as_secs_f64()
    })
}

/// Returns where the log of a resource was sealed, if it was.
#[must_use]
pub fn sealed(history: &History, resource: &ResourceName) -> Option<Sealed> {
    history.evidence(&[seal_wal::NAME], resource)
}

/// Returns what came up in the region moved to, if it did.
#[must_use]
pub fn recovered(history: &History, resource: &ResourceName) -> Option<Recovered> {
    history.evidence(&COMES_UP, resource)
}

/// Tells whether the region moved to is proven to hold everything that the old primary wrote; the error says what is missing.
///
/// The old primary was shut down, and the log was sealed at exactly the position at which its own ends.
pub fn is_whole(history: &History, resource: &ResourceName) -> Result<(), String> {
    let drained: Option<Drained> = history.evidence(&[stop_writes::NAME], resource);
    let Some(drained) = drained else {
        return Err(format!(
            "the primary of `{resource}` in {} was not shut down in good order, so nobody knows where its log ends",
            history.plan.from
        ));
    };
    let to = &history.plan.to;
    match sealed(history, resource) {
        Some(sealed) if sealed.timeline == drained.timeline && sealed.lsn == drained.end => Ok(()),
        Some(sealed) => Err(format!(
            "the log of `{resource}` ends at {} on timeline {}, and {to} holds it up to {} on timeline {}",
            drained.end, drained.timeline, sealed.lsn, sealed.timeline
        )),
        None => Err(format!("the log of `{resource}` is not sealed")),
    }
}

/// Tells whether the old primary is known to have stopped, by what was seen and not by anybody's word.
pub(crate) fn has_stopped(history: &History, resource: &ResourceName) -> bool {
    fenced(history, resource).is_some() && alive(history, resource).is_none()
}

fn fence(history: &History, resource: &ResourceName) -> Option<Fenced> {
    history.evidence(&[fence_primary::NAME], resource)
}

fn fenced(history: &History, resource: &ResourceName) -> Option<(StopProof, Timestamp)> {
    // The strongest first: what was seen to be stopped counts from when that was.
    let steps = [stop_writes::NAME, fence_primary::NAME, await_fence::NAME];
    steps.iter().find_map(|step| {
        let fenced: Fenced = history.evidence(&[step], resource)?;
        Some((fenced.proof?, fenced.at))
    })
}

/// Returns what was seen of the old primary if it was seen to be alive when it was last fenced or looked at: then no witness counts.
#[must_use]
pub fn alive(history: &History, resource: &ResourceName) -> Option<String> {
    let fenced = fence(history, resource).and_then(|fenced| fenced.alive);
    fenced.or_else(|| history.alive(resource).map(str::to_owned))
}

/// Tells whether the old primary was seen to be alive during the execution, whatever became of it then.
#[must_use]
pub fn lived_on(history: &History, resource: &ResourceName) -> bool {
    let ran = fence(history, resource).is_some_and(|fenced| fenced.ran);
    ran || alive(history, resource).is_some()
}

/// Returns how long the old primary may have acknowledged commits after what the seal covers, if it ran on after the seal
/// until it was stopped: a plan, which was made before, knows nothing of them. `None` if it did not, or if the seal
/// proves that none of them was acknowledged.
#[must_use]
pub fn ran_on(history: &History, resource: &ResourceName) -> Option<Duration> {
    let sealed = sealed(history, resource)?;
    let awaited = || history.evidence(&[await_fence::NAME], resource);
    // What was seen stopped counts from when that was, what stops by itself from when it must have.
    let fence = fence(history, resource).filter(|fence| fence.proof.is_some());
    let fence = fence
        .or_else(awaited)
        .or_else(|| self::fence(history, resource))?;
    if !fence.ran || fence.at <= sealed.sealed_at || seal_proves(&sealed) {
        return None;
    }
    let since = sealed.covered_at.unwrap_or(sealed.sealed_at);
    Some(fence.at.duration_since(since).unsigned_abs())
}

/// Returns every proof that there is for a resource, strongest first.
#[must_use]
pub fn proofs(history: &History, resource: &ResourceName) -> Vec<ProofName> {
    let mut proofs = Vec::new();
    if sealed(history, resource).is_some_and(|sealed| seal_proves(&sealed)) {
        proofs.push(ProofName::Sealed);
    }
    if let Some((proof, _)) = fenced(history, resource) {
        proofs.push(match proof {
            StopProof::Stopped => ProofName::Stopped,
            StopProof::Provider => ProofName::Provider,
            StopProof::SelfStopped => ProofName::SelfStopped,
        });
    }
    if witness(&history.statements).is_some() && alive(history, resource).is_none() {
        proofs.push(ProofName::Witness);
    }
    proofs
}

/// Returns the weakest proof over the workload's resources.
#[must_use]
pub fn weakest(history: &History) -> ProofName {
    let strongest = |resource| {
        let proofs = proofs(history, resource);
        proofs.first().copied().unwrap_or(ProofName::None)
    };
    // What goes on where it is needs none.
    let all = history.plan.proofs.keys().map(strongest);
    all.max().unwrap_or(ProofName::None)
}

/// Tells whether a resource may come up elsewhere: there is a proof, or a named override.
#[must_use]
pub fn may_come_up(history: &History, resource: &ResourceName) -> bool {
    !proofs(history, resource).is_empty() || override_reason(&history.statements).is_some()
}

/// Tells whether there is a proof that rests on nobody's word.
#[must_use]
pub fn is_seen(history: &History, resource: &ResourceName) -> bool {
    let proofs = proofs(history, resource);
    proofs.iter().any(|proof| *proof < ProofName::Witness)
}

/// Returns what a resource loses at most, as known from what has been proven so far.
#[must_use]
pub fn bound(history: &History, resource: &ResourceName) -> Bound {
    let planned = history.plan.loss.resources.get(resource);
    let put_back = |step: &PlannedStep| step.uses == replace_database::NAME;
    if let (Mode::InPlace, Some(planned)) = (history.plan.mode, planned)
        && (!history.plan.claims.contains_key(resource) || history.plan.steps.iter().any(put_back))
    {
        // It goes on with its log, or loses what somebody wanted to be lost: all until it was stopped.
        let stopped = fenced(history, resource).map(|(_, at)| at);
        let doubted = recovered(history, resource).is_some_and(|found| !found.doubts.is_empty());
        return match &planned.bound {
            // It goes on with its log, but may not have written all of it.
            Bound::Zero if doubted => Bound::Growing { since: None },
            Bound::Growing { since } => Bound::new(false, *since, stopped),
            known => known.clone(),
        };
    }
    if history.plan.loss.behind.contains(resource) {
        return Bound::Growing { since: None };
    }
    let sealed = sealed(history, resource);
    let foreseen = planned.and_then(|loss| since(&loss.bound));
    let covered = match &sealed {
        // The seal knows of the store alone, and a standby may have been ahead of it.
        Some(sealed) if has_come_up(history, resource, sealed) => sealed.covered_at.max(foreseen),
        Some(sealed) => sealed.covered_at,
        None => foreseen,
    };
    let stopped = fenced(history, resource).map(|(_, at)| at);
    let whole = history.plan.mode == Mode::Planned && is_whole(history, resource).is_ok();
    let undone = history.plan.mode == Mode::Undo;
    let proven_zero = whole || undone || sealed.as_ref().is_some_and(seal_proves);
    let witnessed = history
        .witnessed_at
        .filter(|_| alive(history, resource).is_none());
    Bound::new(proven_zero, covered, stopped.or(witnessed))
}

/// Tells whether what came up holds all that the plan's bound rests on.
fn has_come_up(history: &History, resource: &ResourceName, sealed: &Sealed) -> bool {
    let planned = history.plan.loss.resources.get(resource);
    let rests_on = planned.and_then(|loss| loss.rests_on);
    rests_on
        .zip(recovered(history, resource))
        .is_some_and(|((timeline, lsn), found)| timeline == sealed.timeline && found.start >= lsn)
}

/// Returns since when a bound counts, if that is known.
pub(crate) fn since(bound: &Bound) -> Option<Timestamp> {
    match bound {
        Bound::Zero => None,
        Bound::Seconds { since, .. } => Some(*since),
        Bound::Growing { since } => *since,
    }
}

/// Returns the worse of two bounds.
#[must_use]
pub fn worse(one: Bound, other: Bound) -> Bound {
    let rank = |bound: &Bound| match bound {
        Bound::Zero => (0, 0.0),
        Bound::Seconds { seconds, .. } => (1, *seconds),
        // Unknown beginnings are the worst; of two known ones the earlier.
        Bound::Growing { since: Some(since) } => (2, -since.as_duration().as_secs_f64()),
        Bound::Growing { since: None } => (3, 0.0),
    };
    if rank(&one) >= rank(&other) {
        one
    } else {
        other
    }
}
