//! Choosing the recovery point, and proving that the log reaches from it to the target (R27, R28, R29).

use std::sync::Arc;

use dr_model::{Lsn, TimelineId};
use dr_provider::driver::RestoreTarget;
use dr_provider::error::chain;
use dr_provider::{Error, ErrorKind, ObjectStore, Result};
use dr_repository::Label;

use super::OPERATION;
use super::settings::Ending;
use super::target::log_times;
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

impl PostgresDriver {
    /// Chooses the newest recovery point from which the target can be reached.
    pub(super) async fn choose(
        &self,
        store: &Arc<dyn ObjectStore>,
        bases: Bases,
        held: &Held,
        target: &RestoreTarget,
    ) -> Result<(Chosen, Ending)> {
        let Some(newest) = held.newest_timeline() else {
            return Err(
                Error::new(ErrorKind::NotFound, OPERATION, self.resource().to_string())
                    .because(format!("{} holds no log of it", store.location())),
            );
        };
        let timeline = match target {
            // The byte before the position says on which timeline it is.
            RestoreTarget::Lsn(lsn) => held
                .history(newest)?
                .timeline_at(Lsn(lsn.0.saturating_sub(1))),
            RestoreTarget::Latest | RestoreTarget::Time(_) => newest,
        };
        let mut reasons: Vec<(Label, String)> = bases
            .unusable
            .into_iter()
            .map(|(label, error)| (label, chain(&error)))
            .collect();
        let mut too_late = Vec::new();
        for base in bases.usable {
            let label = base.label.clone();
            if let Some(why) = completed_after(&base, target) {
                too_late.push((label, why));
                continue;
            }
            match self.fit(store, base, held, timeline, target).await? {
                Ok((base, reach, ending)) => {
                    // Labels of one second are in no order: one that may be newer is named.
                    let newer = reasons
                        .into_iter()
                        .filter(|(label, _)| label.second() >= base.label.second());
                    let passed_over = newer
                        .map(|(label, why)| format!("{label}: {why}"))
                        .collect();
                    return Ok((
                        Chosen {
                            base,
                            reach,
                            passed_over,
                        },
                        ending,
                    ));
                }
                Err(why) => reasons.push((label, why)),
            }
        }
        reasons.append(&mut too_late);
        let shown: Vec<String> = reasons
            .iter()
            .take(REASONS)
            .map(|(label, why)| format!("{label}: {why}"))
            .collect();
        let why = match reasons.len().saturating_sub(REASONS) {
            _ if reasons.is_empty() => {
                format!("{} holds no recovery point of it", store.location())
            }
            0 => format!(
                "no recovery point in {} will do: {}",
                store.location(),
                shown.join("; ")
            ),
            more => format!(
                "no recovery point in {} will do: {}; and {more} more",
                store.location(),
                shown.join("; ")
            ),
        };
        Err(self.failed(OPERATION, why))
    }

    /// Tells whether the target can be reached from `base`; the inner error says why not.
    async fn fit(
        &self,
        store: &Arc<dyn ObjectStore>,
        base: Base,
        held: &Held,
        timeline: TimelineId,
        target: &RestoreTarget,
    ) -> Result<std::result::Result<(Base, Reach, Ending), String>> {
        let (base, reach) = match prove(base, held, timeline) {
            Ok(proven) => proven,
            Err(why) => return Ok(Err(why)),
        };
        let short = |end: String| match &reach.hole {
            Some(hole) => hole.to_string(),
            None => end,
        };
        let ending = match target {
            RestoreTarget::Latest => match &reach.hole {
                None => Ok(Ending::Promote {
                    through: reach.end,
                    until: None,
                }),
                Some(hole) => Err(hole.to_string()),
            },
            // Nothing after the position is served, so that recovery ends with the last record that is complete there.
            RestoreTarget::Lsn(lsn) if *lsn <= reach.end => Ok(Ending::Promote {
                through: *lsn,
                until: None,
            }),
            RestoreTarget::Lsn(lsn) => Err(short(format!(
                "the log ends at {}, before {lsn}",
                reach.end
            ))),
            RestoreTarget::Time(at) => {
                let history = held.history(timeline)?;
                let times =
                    log_times(store, base.source.system_identifier, history, &reach).await?;
                match times.ending(*at, reach.end) {
                    Some(ending) => Ok(ending),
                    None => Err(short(format!(
                        "the log ends at {}, {}; {at} is later",
                        reach.end,
                        times.describe()
                    ))),
                }
            }
        };
        Ok(ending.map(|ending| (base, reach, ending)))
    }
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
        RestoreTarget::Latest => None,
    }
}

/// Proves that the log reaches from `base` along the history of `timeline` at least to where the base is consistent.
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
