//! What stands in the way of a goal: what is there must be what the goal takes, and what is not empty is never overwritten.

use std::path::PathBuf;

use dr_model::{Lsn, RegionName};
use dr_provider::driver::{Action, Facts, Instance, RegionFacts, Role};
use dr_provider::{Error, ErrorKind, Result};

use crate::actions::{Log, Work};
use crate::driver::PostgresDriver;
use crate::observe::{Detail, would_accept_writes};
use crate::plan::planned_move::{refuse_away, streams};

/// What to do about a standby that is there and does not run. By hand nothing is ever promoted: that would go around the epoch, the
/// fence and the seal.
const STOPPED: &str = "if it is the standby, start it as it is, without promoting it, and run the command again; otherwise `dr standby \
     create` makes a standby of it and keeps what only it has. A restore never overwrites: it wants an empty place, so move the directory away";

/// What is done about a server that runs where a restore would go.
const RUNS: &str = "a restore never overwrites: stop the server there; then `dr standby create` makes a standby of it and keeps what only it \
     has, or move the directory away";

/// What is done about a server that runs and does not follow the primary.
const MADE_ANEW: &str = "stop the server there; then `dr standby create` makes a standby of it and keeps what only it has, as long as the primary \
     answers";

/// What to do about an old primary that nobody has fenced.
const NOT_FENCED: &str = "it is an old primary that was not fenced: do not start it, it would accept writes; `dr standby create` makes a \
     standby of it and keeps what only it has";

impl PostgresDriver {
    /// Refuses a data directory that is, all links followed, that of another region's server on the same host.
    pub(super) fn refuse_shared(&self, region: &RegionName, facts: &Facts) -> Result<()> {
        let detail = |region: &RegionName| -> Option<(String, PathBuf)> {
            let detail = Detail::of(facts.regions.get(region)?)?;
            Some((detail.host, detail.directory.ok()?.path))
        };
        let Some(own) = detail(region) else {
            return Ok(());
        };
        let same = |other: &&RegionName| *other != region && detail(other).as_ref() == Some(&own);
        match facts.regions.keys().find(same) {
            Some(other) => {
                let why = format!("`{}` is that of {other} as well", own.1.display());
                Err(self.failed("plan the fence of", why).with_hint(
                    "each region's server has a data directory of its own: correct `data_directory`",
                ))
            }
            None => Ok(()),
        }
    }

    /// Refuses to promote where no standby runs that follows the log.
    pub(super) fn refuse_no_standby(
        &self,
        operation: &str,
        region: &RegionName,
        log: Log,
        seen: &RegionFacts,
    ) -> Result<()> {
        match &seen.instance {
            Instance::Running {
                role: Role::Standby,
                timeline,
                ..
            } if *timeline == log.timeline => {}
            Instance::Running {
                role: Role::Standby,
                timeline,
                ..
            } => {
                return Err(self.failed(
                    operation,
                    format!(
                        "the standby in {region} is on timeline {timeline}, the log to be ended is of timeline {}",
                        log.timeline
                    ),
                )
                .with_hint(MADE_ANEW));
            }
            other => {
                let why = format!("no standby runs in {region}: {}", describe(other));
                let error = self.failed(operation, why);
                return Err(match other {
                    Instance::Unreachable {
                        hint: Some(hint), ..
                    } => error.with_hint(hint),
                    Instance::Stopped if would_accept_writes(seen).is_some() => {
                        error.with_hint(NOT_FENCED)
                    }
                    Instance::Stopped => error.with_hint(STOPPED),
                    Instance::Running { .. } => error.with_hint(MADE_ANEW),
                    _ => error,
                });
            }
        }
        Ok(())
    }

    /// Refuses to seal log for which the store has no room: the standby's comes before the seal, and the epoch before both.
    pub(super) fn refuse_full(
        &self,
        region: &RegionName,
        seen: &RegionFacts,
        received: Lsn,
    ) -> Result<()> {
        let free = Detail::of(seen).and_then(|detail| detail.store_free_bytes);
        let (Some(free), Ok(Some(held))) = (free, &seen.log) else {
            return Ok(());
        };
        let missing = received.bytes_since(held.end);
        if missing <= free {
            return Ok(());
        }
        let subject = self.resource().to_string();
        Err(Error::new(ErrorKind::Unavailable, "plan the seal of", subject)
            .because(format!(
                "the standby in {region} has {} KiB of log that have to go into its store first, where {} KiB are free",
                missing.div_ceil(1024),
                free >> 10
            ))
            .with_hint("make room in that store"))
    }

    /// Refuses to restore where something is, or may be.
    pub(super) fn refuse_present(
        &self,
        operation: &str,
        region: &RegionName,
        seen: &RegionFacts,
    ) -> Result<()> {
        let directory = self.instance_options(region)?.data_directory.display();
        if seen.instance != Instance::Absent {
            let why = format!(
                "`{directory}` in {region} is not proven to be empty: {}",
                describe(&seen.instance)
            );
            // What is known to be there is never overwritten, whoever asks for it.
            let kind = match &seen.instance {
                Instance::Running { .. } | Instance::Stopped => ErrorKind::AlreadyExists,
                _ => ErrorKind::Failed,
            };
            return Err(Error::new(kind, operation, self.resource().to_string())
                .because(why)
                .with_hint(match &seen.instance {
                    Instance::Unreachable { hint: Some(hint), .. } => hint,
                    Instance::Unreachable { .. } => "see why it does not answer: if a standby runs there it can be promoted, and a restore never overwrites one",
                    Instance::Stopped if would_accept_writes(seen).is_some() => NOT_FENCED,
                    Instance::Stopped => STOPPED,
                    _ => RUNS,
                }));
        }
        Ok(())
    }

    /// Refuses to restore where there is no room, or where a tablespace would go to a place that is taken.
    pub(super) fn refuse_no_place(&self, operation: &str, seen: &RegionFacts) -> Result<()> {
        match Detail::of(seen).and_then(|detail| detail.no_place) {
            Some(why) => Err(self.failed(operation, why)),
            None => Ok(()),
        }
    }

    /// Looks whether a promotion or a restore that was planned before can still be done.
    pub(crate) fn is_still_possible(&self, actions: &[Action], facts: &Facts) -> Result<()> {
        let operation = "bring up";
        for action in actions {
            let work = serde_json::from_value(action.parameters.clone());
            match work {
                Ok(Work::PromoteStandby { region, log }) => {
                    let seen = self.seen(&region, facts, operation)?;
                    let refused = self.refuse_no_standby(operation, &region, log, seen);
                    return refused.map_err(|error| unseen(error, seen));
                }
                Ok(Work::RestoreBase { region, label, .. }) => {
                    let seen = self.seen(&region, facts, operation)?;
                    let refused = self.refuse_present(operation, &region, seen);
                    refused.map_err(|error| unseen(error, seen))?;
                    self.refuse_without(operation, &region, &label, seen)?;
                    return self.refuse_no_place(operation, seen);
                }
                Ok(Work::StopWrites {
                    region,
                    to: Some(to),
                    ..
                }) => {
                    let seen = self.seen(&region, facts, operation)?;
                    let runs = matches!(
                        seen.instance,
                        Instance::Running {
                            role: Role::Primary,
                            ..
                        }
                    );
                    if runs {
                        refuse_away(operation, &to, facts)?;
                    }
                    // Stopped by an attempt before this one, it has nothing left to hand over.
                    if runs && !streams(&region, &to, facts) {
                        let subject = self.resource().to_string();
                        return Err(Error::new(ErrorKind::Unavailable, operation, subject)
                            .because(format!(
                                "nothing in {to} streams from the primary in {region}, so that the last of its log would not get there"
                            ))
                            .with_hint(format!(
                                "see that `dr daemon --region {to}` runs and reaches the primary, and that its standby streams: `dr status` says"
                            )));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Refuses to restore a recovery point that is not there.
    pub(super) fn refuse_without(
        &self,
        operation: &str,
        region: &RegionName,
        label: &str,
        seen: &RegionFacts,
    ) -> Result<()> {
        let held = seen.log.as_ref().map_err(|why| {
            Error::new(
                ErrorKind::Unavailable,
                operation,
                self.resource().to_string(),
            )
            .because(format!("the store of {region}: {why}"))
        })?;
        let why = match held.as_ref().and_then(|log| {
            let mut points = log.recovery_points.iter();
            Some((log, points.find(|point| point.label == label)?))
        }) {
            None => format!("the store of {region} has no recovery point {label} any more"),
            // What is newer than it was looked at first, and its log begins later.
            Some((log, point))
                if point.timeline == log.timeline
                    && log.start > point.start
                    && !log.missing.is_empty() =>
            {
                format!(
                    "the log behind recovery point {label} in the store of {region} is not whole: {}",
                    log.missing.join("; ")
                )
            }
            Some(_) => return Ok(()),
        };
        Err(self
            .failed(operation, why)
            .with_hint("`dr recovery-point list` shows what each store holds"))
    }
}

/// Marks an error about an instance that could not be seen: another look may tell.
fn unseen(error: Error, seen: &RegionFacts) -> Error {
    let hint = error.hint().map(str::to_owned);
    match &seen.instance {
        Instance::Unreachable { why, .. } => {
            let told = Error::new(ErrorKind::Unavailable, "bring up", error.subject())
                .because(format!("the instance that was there cannot be seen: {why}"));
            match hint {
                Some(hint) => told.with_hint(hint),
                None => told,
            }
        }
        _ => error,
    }
}

/// Says what an instance is seen to be.
pub(super) fn describe(instance: &Instance) -> String {
    match instance {
        Instance::Running {
            role: Role::Primary,
            timeline,
            position,
            ..
        } => {
            format!("a primary on timeline {timeline} at {position}")
        }
        Instance::Running {
            role: Role::Standby,
            timeline,
            position,
            ..
        } => {
            format!("a standby on timeline {timeline} at {position}")
        }
        Instance::Stopped => "its server is stopped".to_owned(),
        Instance::Absent => "its data directory is empty".to_owned(),
        Instance::NotConfigured => "no instance is configured".to_owned(),
        Instance::Unreachable { why, .. } => format!("it cannot be seen: {why}"),
    }
}
