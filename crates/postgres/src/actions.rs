//! The actions that plans for a cluster are made of, one file each.

mod archive_surplus;
mod confirm_absent;
mod confirm_protection;
mod detach_standby;
mod follow_primary;
mod forget_target;
mod gather_log;
mod install_restored;
mod processes;
mod promote_standby;
mod replay_tail;
mod restore_base;
mod restore_beside;
mod resume_primary;
mod seal_log;
mod start_installed;
mod start_restored;
mod start_server;
mod stop_old_primary;
mod stop_server;
mod stop_standby;
mod stop_writes;

use std::sync::Arc;

use dr_coordination::chain::ChainId;
use dr_model::{Epoch, RegionName, SystemIdentifier, TimelineId};
use dr_provider::driver::{Action, Applied, Fence, RestoreTarget, Verified};
use dr_provider::{Error, ErrorKind, Host, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub(crate) use processes::processes;
pub(crate) use restore_beside::NOTE as PREPARED_NOTE;

use crate::data_directory::Claimed;
use crate::driver::PostgresDriver;

/// What an action does, with its parameters: what stands in [`Action::parameters`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub(crate) enum Work {
    /// Prove that the old primary is stopped and will not come back writable.
    StopOldPrimary {
        region: RegionName,
        /// Whom the proof has to be about.
        claimed: Claimed,
    },
    /// Take the standby off its primary, so that what it has received stands still.
    DetachStandby { region: RegionName },
    /// Put into the store what the standby has received beyond it.
    ArchiveSurplus { region: RegionName, log: Log },
    /// Put into the store what other regions hold of the log beyond it.
    GatherLog {
        region: RegionName,
        log: Log,
        others: Vec<RegionName>,
    },
    /// End the epoch's log in the store. `promised` is the epoch being ended, if commits waited for this region in it.
    SealLog {
        region: RegionName,
        log: Log,
        #[serde(default)]
        promised: Option<Epoch>,
    },
    /// Let the instance replay everything up to the seal.
    ReplayTail { region: RegionName, log: Log },
    /// Make the instance the primary.
    PromoteStandby { region: RegionName, log: Log },
    /// Rebuild the data directory from a recovery point.
    RestoreBase {
        region: RegionName,
        log: Log,
        label: String,
    },
    /// Start what was rebuilt, as a standby.
    StartRestored { region: RegionName },
    /// See that the new primary's log reaches the store.
    ConfirmProtection { region: RegionName },
    /// Let the primary write what it has in memory, so that stopping it takes less time.
    CheckpointPrimary { region: RegionName },
    /// Shut the primary down, and see where its log ends.
    StopWrites {
        region: RegionName,
        /// Whom the proof has to be about.
        claimed: Claimed,
        /// The region that gets its log to the last byte; absent in plans of before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<RegionName>,
    },
    /// Make the stopped old primary a standby of the new one.
    FollowPrimary {
        region: RegionName,
        primary: RegionName,
    },
    /// Let the standby, which nobody promoted, follow the old primary again.
    AttachStandby {
        region: RegionName,
        primary: RegionName,
        timeline: TimelineId,
    },
    /// Start the old primary as the primary that it was.
    ResumePrimary {
        region: RegionName,
        claimed: Claimed,
    },
    /// See that nothing runs in a data directory that is gone.
    ConfirmAbsent {
        region: RegionName,
        /// Whom the proof has to be about.
        claimed: Claimed,
    },
    /// Restore beside the data directory, start that alone and look at it.
    RestoreBeside {
        region: RegionName,
        target: RestoreTarget,
    },
    /// Keep the data directory, and put in its place what was restored.
    InstallRestored { region: RegionName },
    /// Start what was installed, and wait until it pauses where it is to end.
    StartInstalled { region: RegionName },
    /// Take the end of the restore out of the configuration.
    ForgetTarget { region: RegionName },
}

/// The chain that a plan is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Log {
    pub(crate) system_identifier: SystemIdentifier,
    pub(crate) timeline: TimelineId,
    pub(crate) epoch: Epoch,
}

impl From<Log> for ChainId {
    fn from(log: Log) -> Self {
        Self {
            system_identifier: log.system_identifier,
            timeline: log.timeline,
            epoch: log.epoch,
        }
    }
}

impl Work {
    /// Returns the action's name, the kind in kebab case.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::StopOldPrimary { .. } => "stop-old-primary",
            Self::DetachStandby { .. } => "detach-standby",
            Self::ArchiveSurplus { .. } => "archive-surplus",
            Self::GatherLog { .. } => "gather-log",
            Self::SealLog { .. } => "seal-log",
            Self::ReplayTail { .. } => "replay-tail",
            Self::PromoteStandby { .. } => "promote-standby",
            Self::RestoreBase { .. } => "restore-base",
            Self::StartRestored { .. } => "start-restored",
            Self::ConfirmProtection { .. } => "confirm-protection",
            Self::CheckpointPrimary { .. } => "checkpoint-primary",
            Self::StopWrites { .. } => "stop-writes",
            Self::FollowPrimary { .. } => "follow-primary",
            Self::AttachStandby { .. } => "attach-standby",
            Self::ResumePrimary { .. } => "resume-primary",
            Self::ConfirmAbsent { .. } => "confirm-absent",
            Self::RestoreBeside { .. } => "restore-beside",
            Self::InstallRestored { .. } => "install-restored",
            Self::StartInstalled { .. } => "start-installed",
            Self::ForgetTarget { .. } => "forget-target",
        }
    }

    fn of(action: &Action) -> Result<Self> {
        serde_json::from_value(action.parameters.clone()).map_err(|error| {
            Error::new(ErrorKind::Invalid, "understand action", &action.name)
                .because(error)
                .with_hint("the plan was made by another version of dr; make it again")
        })
    }
}

impl PostgresDriver {
    /// Returns the host of a region's server, once it is told for which epoch something is done there: it refuses an older one
    /// than it has seen.
    async fn admitted(&self, region: &RegionName, fence: &Fence) -> Result<&Arc<dyn Host>> {
        let host = self.host(region)?;
        host.admit(&fence.workload, fence.epoch).await?;
        Ok(host)
    }

    /// Does one action.
    pub(crate) async fn apply_action(&self, action: &Action, fence: &Fence) -> Result<Applied> {
        match Work::of(action)? {
            Work::StopOldPrimary { region, claimed } => {
                match self.stop_old_primary(&region, claimed, fence).await {
                    // Whatever stood in the way: if it answers, nobody can have seen it stopped.
                    Err(error)
                        if !matches!(error.kind(), ErrorKind::Conflict | ErrorKind::Superseded) =>
                    {
                        Err(self.not_stopped(&region, claimed, error).await)
                    }
                    ended => ended,
                }
            }
            Work::DetachStandby { region } => self.detach_standby(&region, fence).await,
            Work::ArchiveSurplus { region, log } => self.archive_surplus(&region, log, fence).await,
            Work::GatherLog {
                region,
                log,
                others,
            } => self.gather_log(&region, log, &others, fence).await,
            Work::SealLog {
                region,
                log,
                promised,
            } => self.seal_log(&region, log, promised, fence).await,
            Work::ReplayTail { region, log } => self.replay_tail(&region, log, fence).await,
            Work::PromoteStandby { region, .. } => self.promote_standby(&region, fence).await,
            Work::RestoreBase { region, log, label } => {
                self.restore_base(&region, log, &label, fence).await
            }
            Work::StartRestored { region } => self.start_restored(&region, fence).await,
            Work::ConfirmProtection { region } => self.confirm_protection(&region, fence).await,
            Work::CheckpointPrimary { region } => self.checkpoint_primary(&region).await,
            Work::StopWrites {
                region, claimed, ..
            } => self.stop_writes(&region, claimed, fence).await,
            Work::FollowPrimary { region, primary } => {
                self.follow_primary(&region, &primary, fence).await
            }
            Work::AttachStandby {
                region,
                primary,
                timeline,
            } => {
                self.attach_standby(&region, &primary, timeline, fence)
                    .await
            }
            Work::ResumePrimary { region, claimed } => {
                self.resume_primary(&region, claimed, fence).await
            }
            Work::ConfirmAbsent { region, claimed } => {
                self.confirm_absent(&region, claimed, fence).await
            }
            Work::RestoreBeside { region, target } => {
                self.restore_beside(&region, &target, fence).await
            }
            Work::InstallRestored { region } => self.install_restored(&region, fence).await,
            Work::StartInstalled { region } => self.start_installed(&region, fence).await,
            Work::ForgetTarget { region } => self.forget_target(&region, fence).await,
        }
    }

    /// Looks whether one action has been done.
    pub(crate) async fn verify_action(&self, action: &Action, fence: &Fence) -> Result<Verified> {
        let looked = match Work::of(action)? {
            Work::StopOldPrimary { region, claimed } => {
                self.is_old_primary_stopped(&region, claimed).await
            }
            Work::DetachStandby { region } => self.is_standby_detached(&region).await,
            Work::ArchiveSurplus { region, log } => self.is_surplus_archived(&region, log).await,
            Work::GatherLog {
                region,
                log,
                others,
            } => self.is_log_gathered(&region, log, &others).await,
            Work::SealLog {
                region,
                log,
                promised,
            } => self.is_log_sealed(&region, log, promised, fence).await,
            Work::ReplayTail { region, log } => self.is_tail_replayed(&region, log).await,
            Work::PromoteStandby { region, .. } => self.is_standby_promoted(&region, fence).await,
            Work::RestoreBase { region, .. } => self.is_base_restored(&region, fence).await,
            Work::StartRestored { region } => self.is_restored_started(&region).await,
            Work::ConfirmProtection { region } => {
                self.is_protection_confirmed(&region, fence).await
            }
            // It changes nothing that counts.
            Work::CheckpointPrimary { .. } => Ok(Verified::NotDone {
                seen: "it can be done again".to_owned(),
            }),
            Work::StopWrites {
                region, claimed, ..
            } => self.are_writes_stopped(&region, claimed).await,
            Work::FollowPrimary { region, primary } => self.is_following(&region, &primary).await,
            Work::AttachStandby {
                region, timeline, ..
            } => self.is_standby_attached(&region, timeline).await,
            Work::ResumePrimary { region, claimed } => {
                self.is_primary_resumed(&region, claimed).await
            }
            Work::ConfirmAbsent { region, claimed } => self.is_absent(&region, claimed).await,
            Work::RestoreBeside { region, target } => {
                self.is_restored_beside(&region, &target, fence).await
            }
            Work::InstallRestored { region } => self.is_restored_installed(&region, fence).await,
            Work::StartInstalled { region } => self.is_installed_started(&region).await,
            Work::ForgetTarget { region } => self.is_target_forgotten(&region).await,
        };
        // What could not be looked at is unknown, not undone (principle 6).
        Ok(match looked {
            Ok(verified) => verified,
            Err(error) => {
                let down = self.is_standby_down(&Work::of(action)?, &error).await;
                Verified::unknown(&match down {
                    Some(start) => error.with_hint(start),
                    None => error,
                })
            }
        })
    }

    /// Says what to do where the standby that an action needs does not answer because it does not run.
    async fn is_standby_down(&self, work: &Work, error: &Error) -> Option<String> {
        let (Work::DetachStandby { region }
        | Work::ArchiveSurplus { region, .. }
        | Work::ReplayTail { region, .. }
        | Work::PromoteStandby { region, .. }) = work
        else {
            return None;
        };
        if error.kind() != ErrorKind::Unavailable {
            return None;
        }
        let host = self.host(region).ok()?;
        let instance = self.instance_options(region).ok()?;
        let directory = &instance.data_directory;
        let processes = processes(&**host, directory).await.ok()?;
        processes.is_empty().then(|| {
            let start = match &instance.start {
                Some(argv) => argv.join(" "),
                None => self.pg_ctl(directory, &["start"]).argv.join(" "),
            };
            format!("the standby does not run: start it as it is, without promoting it: `{start}`")
        })
    }

    /// Notes what an action left behind.
    pub(crate) fn applied(&self, summary: impl Into<String>, evidence: Value) -> Applied {
        Applied {
            summary: summary.into(),
            evidence,
            at: self.clock().now(),
        }
    }
}
