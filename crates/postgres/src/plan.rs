//! Deciding what reaches a goal: pure, from facts alone.

use std::fmt::Write;

use dr_model::{Epoch, RegionName};
use dr_provider::driver::{
    Action, Dependency, Facts, Goal, Instance, LogFacts, Plane, RecoveryPoint, RegionFacts, Role,
    Undo,
};
use dr_provider::{Error, ErrorKind, Result};

use crate::actions::{Log, Work};
use crate::data_directory::Claimed;
use crate::driver::PostgresDriver;
use crate::observe::Detail;

mod in_place;
mod obstacles;
mod planned_move;

/// What stands in an [`Action`] beside its parameters.
struct Shown {
    summary: String,
    current: Option<String>,
    intended: Option<String>,
    undo: Undo,
}

impl PostgresDriver {
    /// Decides what reaches the goal from these facts.
    pub(crate) fn plan_goal(&self, goal: &Goal, facts: &Facts) -> Result<Vec<Action>> {
        match goal {
            Goal::Fence { region } => self.plan_fence(region, facts),
            Goal::Seal {
                region,
                ended,
                gather,
            } => self.plan_seal(region, *ended, gather, facts),
            Goal::Promote { region, ended } => self.plan_promote(region, *ended, facts),
            Goal::Restore { region, ended } => self.plan_restore(region, *ended, facts),
            Goal::Rearm { region } => self.plan_rearm(region),
            Goal::StopWrites { region, to } => self.plan_stop_writes(region, to, facts),
            Goal::Follow { region, primary } => self.plan_follow(region, primary),
            Goal::ResumePrimary {
                region,
                standby,
                unpromoted,
            } => self.plan_resume(region, standby, *unpromoted, facts),
            Goal::Vacate { region } => self.plan_vacate(region, facts),
            Goal::Restart { region } => self.plan_restart(region, facts),
            Goal::Prepare { region, target } => self.plan_prepare(region, target, facts),
            Goal::Replace { region, ended } => self.plan_replace(region, *ended, facts),
        }
    }

    fn plan_fence(&self, region: &RegionName, facts: &Facts) -> Result<Vec<Action>> {
        let instance = self.instance_options(region)?;
        let seen = self.seen(region, facts, "plan the fence of")?;
        let (current, claimed) = self.to_be_fenced(region, seen)?;
        self.refuse_shared(region, facts)?;
        Ok(vec![self.action(
            Work::StopOldPrimary { region: region.clone(), claimed },
            region,
            Shown {
                summary: format!(
                    "leave standby.signal and `hot_standby = off` in {} on {}, stop the server there, prove that no process of it is left",
                    instance.data_directory.display(),
                    instance.host
                ),
                current: Some(current.to_owned()),
                intended: Some("stopped, and a standby that answers nobody when started again".to_owned()),
                undo: Undo::Reversible("remove standby.signal and start the server, in a new epoch".to_owned()),
            },
        )])
    }

    /// Returns what runs in the region being left and whom a proof has to be about; fails if what was seen there is not
    /// the primary of the epoch, so that stopping it would prove nothing.
    fn to_be_fenced(
        &self,
        region: &RegionName,
        seen: &RegionFacts,
    ) -> Result<(&'static str, Claimed)> {
        let refuse = |why: String| Err(self.failed("plan the fence of", why));
        let Some(detail) = Detail::of(seen) else {
            let why = format!("nothing is known of its data directory in {region}");
            return refuse(late(why, seen));
        };
        let Some(claimed) = detail.claimed else {
            let why = "no record of an epoch says which cluster it is".to_owned();
            return refuse(late(why, seen));
        };
        let is_not = match &detail.directory {
            Ok(directory) => directory.is_not(claimed),
            Err(why) => Some(why.clone()),
        };
        let current = match &seen.instance {
            Instance::Unreachable { on_host: true, .. } => "a server that does not answer",
            // Whether it can be told when it is tried is seen then.
            Instance::Unreachable { .. } => return Ok(("unknown", claimed)),
            Instance::NotConfigured => {
                return refuse(format!("no instance is configured in {region}"));
            }
            Instance::Absent => {
                return refuse(is_not.unwrap_or_else(|| "its data directory is empty".to_owned()));
            }
            Instance::Running {
                role: Role::Primary,
                timeline,
                ..
            } if *timeline != claimed.timeline => {
                return refuse(format!(
                    "the primary in {region} is on timeline {timeline}, that of this epoch writes timeline {}",
                    claimed.timeline
                ));
            }
            Instance::Running {
                role: Role::Primary,
                ..
            } => "a running primary",
            Instance::Running {
                role: Role::Standby,
                ..
            } => "a running standby",
            Instance::Stopped => "stopped",
        };
        match is_not {
            Some(why) => refuse(why),
            None => Ok((current, claimed)),
        }
    }

    fn plan_seal(
        &self,
        region: &RegionName,
        ended: Epoch,
        gather: &[RegionName],
        facts: &Facts,
    ) -> Result<Vec<Action>> {
        let seen = self.seen(region, facts, "plan the seal of")?;
        let log = self.log(region, ended, facts)?;
        let mut actions = Vec::new();
        let mut end = match &seen.log {
            Ok(Some(held)) => held.end.to_string(),
            _ => "nothing yet".to_owned(),
        };
        if let Instance::Running {
            role: Role::Standby,
            position,
            ..
        } = &seen.instance
        {
            self.refuse_full(region, seen, *position)?;
            actions.push(self.action(
                Work::DetachStandby {
                    region: region.clone(),
                },
                region,
                Shown {
                    summary: format!("take the standby in {region} off its primary"),
                    current: Some(format!("received {position}")),
                    intended: Some("primary_conninfo = ''".to_owned()),
                    undo: Undo::Reversible("set primary_conninfo again".to_owned()),
                },
            ));
            actions.push(self.action(
                Work::ArchiveSurplus {
                    region: region.clone(),
                    log,
                },
                region,
                Shown {
                    summary: format!(
                        "put into the store of {region} what the standby has received beyond it"
                    ),
                    current: Some(format!("store {end}, standby {position}")),
                    intended: Some("the further of the two".to_owned()),
                    undo: Undo::Compensable("not needed: the log only grows".to_owned()),
                },
            ));
            if let Ok(Some(held)) = &seen.log {
                end = held.end.max(*position).to_string();
            }
        }
        if !gather.is_empty() {
            let names: Vec<_> = gather.iter().map(RegionName::as_str).collect();
            let names = names.join(" and ");
            actions.push(self.action(
                Work::GatherLog {
                    region: region.clone(),
                    log,
                    others: gather.to_vec(),
                },
                region,
                Shown {
                    summary: format!(
                        "put into the store of {region} what {names} holds of the log beyond it"
                    ),
                    current: Some(format!("ends at {end}")),
                    intended: Some("the furthest of all".to_owned()),
                    undo: Undo::Compensable("not needed: the log only grows".to_owned()),
                },
            ));
        }
        actions.push(self.action(
            Work::SealLog {
                region: region.clone(),
                log,
                promised: promised(region, ended, facts),
            },
            region,
            Shown {
                summary: format!(
                    "seal timeline {} of epoch {} in the store of {region}",
                    log.timeline, log.epoch
                ),
                current: Some(format!("open, ends at {end}")),
                intended: Some(format!("sealed for epoch {}", ended.next())),
                undo: Undo::Compensable(
                    "a new epoch for the old primary, from the sealed position".to_owned(),
                ),
            },
        ));
        Ok(actions)
    }

    fn plan_promote(
        &self,
        region: &RegionName,
        ended: Epoch,
        facts: &Facts,
    ) -> Result<Vec<Action>> {
        let operation = "plan the promotion of";
        let seen = self.seen(region, facts, operation)?;
        let log = self.log(region, ended, facts)?;
        self.refuse_no_standby(operation, region, log, seen)?;
        let directory = Detail::of(seen).and_then(|detail| detail.directory.ok());
        let is_managed = directory.is_some_and(|directory| directory.managed);
        self.refuse_managed(operation, region, is_managed)?;
        Ok(vec![
            self.plan_replay(
                region,
                log,
                Detail::of(seen).and_then(|detail| detail.delay),
            ),
            self.plan_promotion(region, log, ended),
        ])
    }

    fn plan_restore(
        &self,
        region: &RegionName,
        ended: Epoch,
        facts: &Facts,
    ) -> Result<Vec<Action>> {
        let operation = "plan the restore of";
        let seen = self.seen(region, facts, operation)?;
        let log = self.log(region, ended, facts)?;
        let instance = self.instance_options(region)?;
        let directory = instance.data_directory.display();
        // A host that is not known is no host elsewhere, and what stands in the way is said first.
        if self.host(region).is_ok() {
            self.only_here(region, operation)?;
        }
        self.refuse_present(operation, region, seen)?;
        let held = match &seen.log {
            Ok(Some(held)) => held,
            Ok(None) => {
                return Err(self.failed(operation, format!("the store of {region} holds no log")));
            }
            Err(why) => return Err(self.failed(operation, format!("the store of {region}: {why}"))),
        };
        let point = usable(held).ok_or_else(|| {
            let mut why = format!(
                "no recovery point in the store of {region} is complete before {}",
                held.end
            );
            if !held.missing.is_empty() {
                why = format!(
                    "{why} with all that follows it: {}",
                    held.missing.join("; ")
                );
            }
            if !held.unusable.is_empty() {
                why = format!("{why}; {}", named(&held.unusable));
            }
            self.failed(operation, why)
                .with_hint("`dr recovery-point list` shows what each store holds")
        })?;
        self.refuse_no_place(operation, seen)?;
        let mut summary = format!("rebuild {directory} from recovery point {}", point.label);
        write!(summary, " ({} MiB)", point.database_bytes >> 20)
            .expect("writing to a string cannot fail");
        let newer: Vec<&str> = held.unusable_since(&point.label).collect();
        if !newer.is_empty() {
            write!(summary, ", passing over {}", named(&newer))
                .expect("writing to a string cannot fail");
        }
        Ok(vec![
            self.action(
                Work::RestoreBase {
                    region: region.clone(),
                    log,
                    label: point.label.clone(),
                },
                region,
                Shown {
                    summary,
                    current: Some("empty".to_owned()),
                    intended: Some(format!("as of {} and what follows it", point.stop)),
                    undo: Undo::Reversible("remove the directory".to_owned()),
                },
            ),
            self.action(
                Work::StartRestored {
                    region: region.clone(),
                },
                region,
                Shown {
                    summary: format!(
                        "start the server in {region} as a standby that replays from the store"
                    ),
                    current: Some("stopped".to_owned()),
                    intended: Some("a standby that answers queries".to_owned()),
                    undo: Undo::Reversible("stop it".to_owned()),
                },
            ),
            self.plan_replay(region, log, None),
            self.plan_promotion(region, log, ended),
        ])
    }

    fn plan_rearm(&self, region: &RegionName) -> Result<Vec<Action>> {
        self.instance_options(region)?;
        Ok(vec![self.action(
            Work::ConfirmProtection {
                region: region.clone(),
            },
            region,
            Shown {
                summary: format!(
                    "see the log of the new primary in {region} reach the region's store"
                ),
                current: Some("UNPROTECTED".to_owned()),
                intended: Some("the daemon ships the log of the new epoch".to_owned()),
                undo: Undo::ReadOnly,
            },
        )])
    }

    /// Plans the replay of what is left of the log; `delay` is how long the standby is kept behind, if it is.
    fn plan_replay(&self, region: &RegionName, log: Log, delay: Option<String>) -> Action {
        let mut summary = format!(
            "let the standby in {region} replay up to the seal, from the store where it has to"
        );
        let current = delay.map(|delay| {
            summary.push_str(", at once: `recovery_min_apply_delay` is set to 0");
            format!("kept behind by {delay}")
        });
        self.action(
            Work::ReplayTail {
                region: region.clone(),
                log,
            },
            region,
            Shown {
                summary,
                current,
                intended: Some("replayed to the last complete record before the seal".to_owned()),
                undo: Undo::Compensable("not needed: replay only goes forward".to_owned()),
            },
        )
    }

    fn plan_promotion(&self, region: &RegionName, log: Log, ended: Epoch) -> Action {
        self.action(
            Work::PromoteStandby {
                region: region.clone(),
                log,
            },
            region,
            Shown {
                summary: format!("promote the server in {region}"),
                current: Some(format!("standby on timeline {}", log.timeline)),
                intended: Some(format!("primary of epoch {}", ended.next())),
                undo: Undo::Irreversible("a promoted server has a history of its own".to_owned()),
            },
        )
    }

    fn seen<'a>(
        &self,
        region: &RegionName,
        facts: &'a Facts,
        operation: &str,
    ) -> Result<&'a RegionFacts> {
        facts
            .regions
            .get(region)
            .ok_or_else(|| self.failed(operation, format!("nothing was seen of {region}")))
    }

    /// Returns the chain of the epoch being ended, as far as the facts tell it.
    fn log(&self, region: &RegionName, ended: Epoch, facts: &Facts) -> Result<Log> {
        let operation = "plan the end of the log of";
        let seen = self.seen(region, facts, operation)?;
        let unseen = |why: String| {
            Error::new(
                ErrorKind::Unavailable,
                operation,
                self.resource().to_string(),
            )
            .because(why)
        };
        let system_identifier = facts
            .system_identifier
            .ok_or_else(|| unseen("its system identifier could not be learnt".to_owned()))?;
        // A record that changes only whom commits wait for goes on with the chain of an earlier one.
        let claim = facts.claim.as_ref().filter(|claim| claim.epoch == ended);
        let epoch = claim.map_or(ended, |claim| claim.log_epoch);
        let timeline = match (&seen.log, &seen.instance) {
            (Err(why), _) => return Err(unseen(format!("the store of {region}: {why}"))),
            (Ok(Some(held)), _) if held.epoch == epoch => held.timeline,
            // No receiver has written for this epoch yet: the standby says which timeline it follows.
            (Ok(_), Instance::Running { timeline, .. }) => *timeline,
            // Nothing of this epoch is here: whoever goes back to what is, by override, takes the chain that is there.
            (Ok(Some(held)), _) if claim.is_some() && held.epoch < epoch => {
                return Ok(Log {
                    system_identifier,
                    timeline: held.timeline,
                    epoch: held.epoch,
                });
            }
            (Ok(_), _) => {
                return Err(unseen(format!(
                    "the store of {region} holds no log of epoch {epoch}"
                )));
            }
        };
        Ok(Log {
            system_identifier,
            timeline,
            epoch,
        })
    }

    fn action(&self, work: Work, region: &RegionName, shown: Shown) -> Action {
        let mut dependencies = Vec::new();
        let mut depends = |what: String| {
            dependencies.push(Dependency {
                region: region.clone(),
                plane: Plane::Data,
                what,
            });
        };
        if !matches!(work, Work::SealLog { .. })
            && let Some(instance) = self.options().instances.get(region)
        {
            depends(format!("host {}", instance.host));
        }
        if !matches!(
            work,
            Work::StopOldPrimary { .. }
                | Work::DetachStandby { .. }
                | Work::CheckpointPrimary { .. }
                | Work::StopWrites { .. }
                | Work::FollowPrimary { .. }
                | Work::AttachStandby { .. }
                | Work::ResumePrimary { .. }
                | Work::ConfirmAbsent { .. }
                | Work::InstallRestored { .. }
                | Work::ForgetTarget { .. }
        ) && let Some(store) = self.parts().stores.get(region)
        {
            depends(format!("store {}", store.location()));
        }
        Action {
            name: work.name().to_owned(),
            summary: shown.summary,
            current: shown.current,
            intended: shown.intended,
            dependencies,
            undo: shown.undo,
            parameters: serde_json::to_value(&work)
                .expect("parameters are names and numbers, which are always valid JSON"),
        }
    }
}

/// Adds to why something is not known what of the look ran out of time.
fn late(why: String, seen: &RegionFacts) -> String {
    match seen.late.as_slice() {
        [] => why,
        late => format!("{why}: the look ran out of time ({})", late.join("; ")),
    }
}

/// Returns the epoch being ended if its record, read where it counts, says that commits wait for the store of `region`.
fn promised(region: &RegionName, ended: Epoch, facts: &Facts) -> Option<Epoch> {
    let claim = facts.claim.as_ref()?;
    (claim.proven && claim.epoch == ended && claim.sync.contains(region)).then_some(ended)
}

/// Returns the newest recovery point from which the end of the log can be reached; one that the proofs speak against only if there
/// is no other.
///
/// Only one of the log's own timeline: the history of others is followed by `dr restore`, with a person to decide.
fn usable(held: &LogFacts) -> Option<&RecoveryPoint> {
    let mut usable = held.recovery_points.iter().filter(|point| {
        let within = held.start <= point.start && point.stop <= held.end;
        point.timeline == held.timeline && within
    });
    let newest = usable.clone().next();
    let earlier = || {
        let label = held.earlier.as_ref()?;
        let mut points = held.recovery_points.iter();
        points.find(|point| point.label == *label)
    };
    let usable = usable.find(|point| point.failure.is_none()).or(newest);
    usable.or_else(earlier)
}

/// Names the first few of what cannot be restored, each of which says why.
fn named<T: AsRef<str>>(unusable: &[T]) -> String {
    const SHOWN: usize = 3;
    let shown: Vec<&str> = unusable.iter().take(SHOWN).map(AsRef::as_ref).collect();
    match unusable.len().saturating_sub(SHOWN) {
        0 => shown.join("; "),
        more => format!("{}; and {more} more", shown.join("; ")),
    }
}

#[cfg(test)]
mod tests;
