//! What only a recovery in the primary's own region has: seeing that nothing runs, starting it again, and putting something else in
//! its place.

use dr_model::{Epoch, RegionName};
use dr_provider::driver::{Action, Facts, Instance, LogFacts, RestoreTarget, Role, Undo};
use dr_provider::{Error, ErrorKind, Result};

use super::Shown;
use super::obstacles::describe;
use crate::actions::Work;
use crate::data_directory::Claimed;
use crate::driver::PostgresDriver;
use crate::observe::Detail;

impl PostgresDriver {
    /// A region that is not left can be asked whether anything runs in a directory that is gone.
    pub(super) fn plan_vacate(&self, region: &RegionName, facts: &Facts) -> Result<Vec<Action>> {
        let operation = "plan the end of";
        let seen = self.seen(region, facts, operation)?;
        if seen.instance != Instance::Absent {
            return self.plan_fence(region, facts);
        }
        let claimed = self.claimed_in(region, facts, operation)?.0;
        let directory = self.instance_options(region)?.data_directory.display();
        Ok(vec![self.action(
            Work::ConfirmAbsent { region: region.clone(), claimed },
            region,
            Shown {
                summary: format!("see that no server runs in {directory}, which is empty, and that nobody answers in its place"),
                current: Some(describe(&seen.instance)),
                intended: None,
                undo: Undo::ReadOnly,
            },
        )])
    }

    pub(super) fn plan_restart(&self, region: &RegionName, facts: &Facts) -> Result<Vec<Action>> {
        let operation = "plan the restart of";
        let seen = self.seen(region, facts, operation)?;
        let (claimed, found) = self.claimed_in(region, facts, operation)?;
        let hung = match &seen.instance {
            Instance::Running {
                role: Role::Primary,
                timeline,
                ..
            } if *timeline == claimed.timeline => {
                return Ok(Vec::new());
            }
            Instance::Stopped => false,
            Instance::Unreachable { runs: true, .. } => true,
            other => return Err(self.failed(operation, describe(other))),
        };
        let found = found.map_err(|why| self.failed(operation, why))?;
        // A recovery in place goes on with the log of the epoch before; what takes a move back begins one, and starts the old primary only
        // under the lock that a promotion holds.
        let moved = facts
            .claim
            .as_ref()
            .is_none_or(|claim| claim.log_epoch == claim.epoch);
        if found.fenced.is_some() && moved {
            let why = "it was fenced by a move, which is being taken back";
            return Err(self
                .failed(operation, why)
                .with_hint("`dr execution list` shows which: resume it"));
        }
        if let Some(why) = found.is_not(claimed) {
            return Err(self.failed(operation, why));
        }
        let mut actions = Vec::new();
        if hung {
            actions.extend(self.plan_fence(region, facts)?);
        }
        actions.push(self.action(
            Work::ResumePrimary {
                region: region.clone(),
                claimed,
            },
            region,
            Shown {
                summary: format!("start the server in {region} as the primary that it was"),
                current: Some(describe(&seen.instance)),
                intended: Some(format!(
                    "a primary on timeline {}, with everything that it had",
                    claimed.timeline
                )),
                undo: Undo::Compensable("stop it".to_owned()),
            },
        ));
        Ok(actions)
    }

    pub(super) fn plan_prepare(
        &self,
        region: &RegionName,
        target: &RestoreTarget,
        facts: &Facts,
    ) -> Result<Vec<Action>> {
        let operation = "plan the restore of";
        let seen = self.seen(region, facts, operation)?;
        self.only_here(region, operation)?;
        match &seen.log {
            Ok(Some(held)) => self.refuse_out_of_reach(operation, target, held, facts)?,
            Ok(None) => {
                return Err(self.failed(operation, format!("the store of {region} holds no log")));
            }
            Err(why) => return Err(self.failed(operation, format!("the store of {region}: {why}"))),
        }
        let beside = self.beside(region)?;
        Ok(vec![self.action(
            Work::RestoreBeside {
                region: region.clone(),
                target: target.clone(),
            },
            region,
            Shown {
                summary: format!(
                    "restore {} to {} into {}, start it there alone, look at it, and stop it",
                    self.resource(),
                    target,
                    beside.display()
                ),
                current: Some("nothing that is needed".to_owned()),
                intended: Some("booted and looked at; the primary goes on meanwhile".to_owned()),
                undo: Undo::Reversible("remove the directory".to_owned()),
            },
        )])
    }

    /// Refuses a moment that lies before all that can be restored, or that has not been yet.
    pub(super) fn refuse_out_of_reach(
        &self,
        operation: &str,
        target: &RestoreTarget,
        held: &LogFacts,
        facts: &Facts,
    ) -> Result<()> {
        let RestoreTarget::Time(at) = target else {
            return Ok(());
        };
        let refuse = |why: String| {
            Error::new(ErrorKind::Invalid, operation, self.resource().to_string()).because(why)
        };
        if *at > facts.observed_at {
            let why = format!("{at} is in the future: it is {:.0} now", facts.observed_at);
            return Err(refuse(why).with_hint("name a moment before the damage"));
        }
        let points = held.recovery_points.iter();
        let Some(earliest) = points.map(|point| point.stopped_at).min() else {
            let why = "its store holds no recovery point of it".to_owned();
            return Err(self
                .failed(operation, why)
                .with_hint("take one: `dr job run`"));
        };
        if *at < earliest {
            let why = format!("{at} is before the first recovery point was complete");
            return Err(refuse(why).with_hint(format!(
                "the earliest moment that can be restored is {earliest}"
            )));
        }
        Ok(())
    }

    pub(super) fn plan_replace(
        &self,
        region: &RegionName,
        ended: Epoch,
        facts: &Facts,
    ) -> Result<Vec<Action>> {
        let operation = "plan the replacement of";
        self.only_here(region, operation)?;
        let log = self.log(region, ended, facts)?;
        let directory = self.instance_options(region)?.data_directory.display();
        let show = |summary: String, current: &str, intended: &str, undo: Undo| Shown {
            summary,
            current: Some(current.to_owned()),
            intended: Some(intended.to_owned()),
            undo,
        };
        Ok(vec![
            self.action(
                Work::InstallRestored { region: region.clone() },
                region,
                show(
                    format!("keep {directory} beside its place, bootable, and put what was restored there"),
                    "the data as it is",
                    "the data as it was",
                    Undo::Reversible("move both directories back".to_owned()),
                ),
            ),
            self.action(
                Work::StartInstalled { region: region.clone() },
                region,
                show(
                    format!("start the server in {region}, and wait until it has replayed up to where it is to end"),
                    "stopped",
                    "paused there",
                    Undo::Reversible("stop it".to_owned()),
                ),
            ),
            self.plan_promotion(region, log, ended),
            self.action(
                Work::ForgetTarget { region: region.clone() },
                region,
                show(
                    "take the end of the restore out of its configuration, which standbys inherit".to_owned(),
                    "set",
                    "none",
                    Undo::Compensable("not needed".to_owned()),
                ),
            ),
        ])
    }

    /// Returns whom the newest epoch is about, and what the data directory in `region` says.
    fn claimed_in(
        &self,
        region: &RegionName,
        facts: &Facts,
        operation: &str,
    ) -> Result<(
        Claimed,
        std::result::Result<crate::data_directory::DataDirectory, String>,
    )> {
        let seen = self.seen(region, facts, operation)?;
        let unknown = || -> Error {
            self.failed(
                operation,
                format!("nothing is known of its data directory in {region}"),
            )
        };
        let detail = Detail::of(seen).ok_or_else(unknown)?;
        let claimed = detail.claimed.ok_or_else(unknown)?;
        Ok((claimed, detail.directory))
    }

    /// Refuses a host that is not this machine.
    pub(super) fn only_here(&self, region: &RegionName, operation: &str) -> Result<()> {
        if self.host(region)?.is_local() {
            return Ok(());
        }
        let why =
            format!("the host in {region} is not this machine, and a restore writes where it runs");
        Err(self.failed(operation, why).with_hint(format!(
            "run the command on the machine of the server in {region}, with that host as `local`"
        )))
    }
}
