//! Choosing the recovery point, and proving that the log reaches from it to the target (R27, R28, R29).

use std::sync::Arc;

use dr_model::{Lsn, TimelineId};
use dr_provider::driver::{RestoreRequest, RestoreTarget, TargetTimeline};
use dr_provider::error::chain;
use dr_provider::{Error, ErrorKind, ObjectStore, Result};
use dr_repository::Label;
use jiff::Timestamp;

use super::OPERATION;
use super::end::{End, Ends};
use super::log::{self, Log};
use crate::archive::{Held, Reach};
use crate::backup::{Base, Bases};
use crate::driver::PostgresDriver;

/// Reasons shown when no recovery point will do.
const REASONS: usize = 5;

/// What will be restored.
#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) base: Base,
    pub(super) reach: Reach,
    /// Newer ones that will not do, each with the reason.
    pub(super) passed_over: Vec<String>,
}

/// Why a recovery point will not do.
#[derive(Debug)]
struct Reason {
    label: Label,
    why: String,
}

/// What could be restored instead.
#[derive(Debug, Default)]
struct Possible {
    earliest: Option<(Timestamp, Lsn)>,
    newest: Option<String>,
}

impl PostgresDriver {
    /// Chooses the newest recovery point from which the target can be reached; one that the proofs speak against only if no
    /// other will do.
    pub(super) async fn choose(
        &self,
        store: &Arc<dyn ObjectStore>,
        bases: &Bases,
        held: &Held,
        request: &RestoreRequest,
    ) -> Result<(Chosen, End)> {
        let Some(newest) = held.newest_timeline() else {
            return Err(
                Error::new(ErrorKind::NotFound, OPERATION, self.resource().to_string())
                    .because(format!("{} holds no log of it", store.location())),
            );
        };
        if let TargetTimeline::Number(timeline) = request.timeline {
            held.history(timeline)?;
        }
        let (mut usable, mut reasons) = self.only_asked_for(store, bases, request)?;
        let mut too_late = Vec::new();
        let mut possible = Possible::default();
        let mut ends = Ends::new(request);
        // Those after the ones that can be relied on, each group in the order of time.
        usable.sort_by_key(|base| !base.is_sound());
        let doubtful: Vec<Reason> = usable
            .iter()
            .filter_map(|base| {
                let why = base.failure.clone()?;
                let label = base.label.clone();
                Some(Reason { label, why })
            })
            .collect();
        for base in usable {
            let label = base.label.clone();
            let timeline = timeline_of(held, newest, &base, request)?;
            let (base, reach) = match prove(base, held, timeline) {
                Ok(proven) => proven,
                Err(why) => {
                    reasons.push(Reason { label, why });
                    continue;
                }
            };
            let source = &base.source;
            let earliest = (source.stopped_at, source.stop);
            possible.earliest = Some(
                possible
                    .earliest
                    .map_or(earliest, |so_far| so_far.min(earliest)),
            );
            if let Some(why) = completed_after(&base, &request.target) {
                too_late.push(Reason { label, why });
                continue;
            }
            let log = Log {
                store: Arc::clone(store),
                keys: self.keys().clone(),
                cluster: source.system_identifier,
                size: source.segment_bytes,
            };
            let history = held.history(timeline)?;
            let whole = log::since(&base, reach.end, history);
            match ends.find(&log, &whole, &base, &reach).await? {
                Ok(mut end) => {
                    let older = |other: &Base| other.source.stop < base.source.stop;
                    if let RestoreTarget::Name(name) = &request.target
                        && request.recovery_point.is_none()
                        && bases.usable.iter().any(older)
                    {
                        end.notes.push(format!(
                            "restore point `{name}` was looked for from {} on, where the recovery point is consistent: one of the same name before that \
                             is reached with `--recovery-point`",
                            base.source.stop
                        ));
                    }
                    if let Some(why) = &base.failure
                        && request.recovery_point.is_none()
                    {
                        return Err(self.doubtful(&label, why));
                    }
                    if base.failure.is_none() {
                        reasons.extend(doubtful);
                        reasons.sort_by(|a, b| b.label.cmp(&a.label));
                    }
                    // Labels of one second are in no order: one that may be newer is named.
                    let newer = reasons
                        .into_iter()
                        .filter(|reason| reason.label.second() >= base.label.second());
                    let passed_over = newer
                        .map(|reason| format!("{}: {}", reason.label, reason.why))
                        .collect();
                    return Ok((
                        Chosen {
                            base,
                            reach,
                            passed_over,
                        },
                        end,
                    ));
                }
                Err(short) => {
                    possible.newest = possible.newest.or(short.newest);
                    let why = short.why;
                    reasons.push(Reason { label, why });
                }
            }
        }
        // What kept a newer one from being used says more than that an older one would be too late.
        reasons.append(&mut too_late);
        Err(self.nothing_will_do(store, request, &reasons, &possible, bases))
    }

    /// Returns the recovery points that may be taken, only the one that was asked for if one was, and why others may not.
    fn only_asked_for(
        &self,
        store: &Arc<dyn ObjectStore>,
        bases: &Bases,
        request: &RestoreRequest,
    ) -> Result<(Vec<Base>, Vec<Reason>)> {
        let asked = request.recovery_point.as_deref();
        let is_asked_for = |label: &Label| asked.is_none_or(|asked| label.as_str() == asked);
        let usable = bases.usable.iter().filter(|base| is_asked_for(&base.label));
        let (usable, locked): (Vec<Base>, Vec<Base>) =
            usable.cloned().partition(|base| base.locked.is_none());
        let locked = locked.into_iter().filter_map(|base| {
            let why = base.locked?;
            let label = base.label;
            Some(Reason { label, why })
        });
        let unusable = bases
            .unusable
            .iter()
            .filter(|(label, _)| is_asked_for(label));
        let unusable = unusable.map(|(label, error)| Reason {
            label: label.clone(),
            why: chain(error),
        });
        let reasons: Vec<Reason> = unusable.chain(locked).collect();
        if let Some(wanted) = asked.filter(|_| usable.is_empty() && reasons.is_empty()) {
            let place = (&request.region, store.location());
            return Err(self.no_such_point(OPERATION, place, bases, wanted));
        }
        Ok((usable, reasons))
    }

    /// Refuses the only recovery point that will do, because it may not be whole: what is restored of it may end in the middle.
    fn doubtful(&self, label: &Label, why: &str) -> Error {
        let resource = self.resource().to_string();
        Error::new(ErrorKind::Corrupt, OPERATION, resource)
            .because(format!("the only recovery point that will do is {label}: {why}"))
            .with_hint(format!(
                "restore from the store of another region (`--in`); `--recovery-point {label}` tries it all the same"
            ))
    }

    fn nothing_will_do(
        &self,
        store: &Arc<dyn ObjectStore>,
        request: &RestoreRequest,
        reasons: &[Reason],
        possible: &Possible,
        bases: &Bases,
    ) -> Error {
        let shown: Vec<String> = reasons
            .iter()
            .take(REASONS)
            .map(|reason| format!("{}: {}", reason.label, reason.why))
            .collect();
        let shown = shown.join("; ");
        let place = store.location();
        let why = match reasons.len().saturating_sub(REASONS) {
            _ if reasons.is_empty() => format!("{place} holds no recovery point of it"),
            0 => format!("no recovery point in {place} will do: {shown}"),
            more => format!("no recovery point in {place} will do: {shown}; and {more} more"),
        };
        let error = self.failed(OPERATION, why);
        let earliest = possible.earliest.map(|(at, lsn)| match request.target {
            RestoreTarget::Lsn(_) => format!("the earliest position that can be restored is {lsn}"),
            _ => format!("the earliest moment that can be restored is {at}"),
        });
        let taken_back = match request.target {
            RestoreTarget::Time(at) if request.recovery_point.is_none() => bases
                .given_up
                .iter()
                .filter(|label| label.begun_at().is_some_and(|begun| begun <= at))
                .max()
                .map(|label| {
                    let resource = self.resource();
                    format!(
                        "{label} was given up and is not deleted yet: `dr recovery-point hold {resource} {label} --reason WHY` keeps \
                         it, and the next run of `expire-recovery-points` takes it back"
                    )
                }),
            _ => None,
        };
        let is_locked = bases.usable.iter().any(|base| base.locked.is_some());
        let locked = is_locked.then(|| {
            "name the key file of what is encrypted under `encryption` in `dr.yaml`".to_owned()
        });
        let hints: Vec<String> = earliest
            .into_iter()
            .chain(locked)
            .chain(possible.newest.clone())
            .chain(taken_back)
            .collect();
        if hints.is_empty() {
            return error;
        }
        error.with_hint(hints.join("; "))
    }
}

/// Returns the timeline that a recovery from `base` follows.
fn timeline_of(
    held: &Held,
    newest: TimelineId,
    base: &Base,
    request: &RestoreRequest,
) -> Result<TimelineId> {
    Ok(match (request.timeline, &request.target) {
        (TargetTimeline::Number(timeline), _) => timeline,
        // Consistency is reached on the recovery point's own timeline (R28).
        (TargetTimeline::Current, _) | (_, RestoreTarget::Immediate) => base.source.timeline,
        // The byte before the position says on which timeline it is.
        (TargetTimeline::Latest, RestoreTarget::Lsn(lsn)) => held
            .history(newest)?
            .timeline_at(Lsn(lsn.0.saturating_sub(1))),
        (TargetTimeline::Latest, _) => newest,
    })
}

/// Says that a recovery point was not complete yet at the target (R29); `None` if it was.
fn completed_after(base: &Base, target: &RestoreTarget) -> Option<String> {
    let source = &base.source;
    match target {
        RestoreTarget::Time(at) => (*at < source.stopped_at)
            .then(|| format!("it was complete only at {}", source.stopped_at)),
        RestoreTarget::Lsn(lsn) => {
            (*lsn < source.stop).then(|| format!("it is consistent only from {} on", source.stop))
        }
        RestoreTarget::Latest
        | RestoreTarget::Immediate
        | RestoreTarget::Transaction(_)
        | RestoreTarget::Name(_) => None,
    }
}

/// Proves that the log makes `base` consistent on the way to `timeline`; the error says why not.
pub(super) fn prove(
    base: Base,
    held: &Held,
    timeline: TimelineId,
) -> std::result::Result<(Base, Reach), String> {
    let history = held.history(timeline).map_err(|error| chain(&error))?;
    let source = &base.source;
    if !history.covers(source.timeline, source.stop) {
        return Err(format!(
            "it is of timeline {} up to {}, which is not part of timeline {timeline}",
            source.timeline, source.stop
        ));
    }
    let reach = held.reach(
        history,
        source.timeline,
        base.log_start(),
        source.segment_bytes,
    );
    if reach.end < source.stop {
        return Err(match &reach.hole {
            Some(hole) => hole.to_string(),
            None => format!(
                "the log ends at {}, and it is consistent only from {} on",
                reach.end, source.stop
            ),
        });
    }
    Ok((base, reach))
}
