//! What only a planned move has: the orderly end of a primary that runs, its turning into a standby, and the way back.

use dr_model::RegionName;
use dr_provider::driver::{Action, Facts, Instance, Role, Undo};
use dr_provider::{Error, ErrorKind, Result};

use super::Shown;
use super::obstacles::describe;
use crate::actions::Work;
use crate::data_directory::Claimed;
use crate::driver::PostgresDriver;
use crate::observe::Detail;

/// Tells whether something in `to`, its receiver or its standby, streams from the primary in `region`: it gets the last byte when that is
/// shut down.
pub(super) fn streams(region: &RegionName, to: &RegionName, facts: &Facts) -> bool {
    let detail = |region| facts.regions.get(region).and_then(Detail::of);
    let sends = detail(region).is_some_and(|primary| primary.streams_to.contains(to));
    sends || detail(to).is_some_and(|standby| standby.receives)
}

/// Refuses to leave a primary that runs for a region whose host cannot be reached: what comes behind its end is done there.
pub(super) fn refuse_away(operation: &str, to: &RegionName, facts: &Facts) -> Result<()> {
    let Some((why, host)) = away(to, facts) else {
        return Ok(());
    };
    Err(
        Error::new(ErrorKind::Unavailable, operation, to.to_string())
            .because(why)
            .with_hint(reach(&host, to)),
    )
}

/// Returns why the host in a region cannot be reached, and its name; `None` if it can.
fn away(region: &RegionName, facts: &Facts) -> Option<(String, String)> {
    let detail = facts.regions.get(region).and_then(Detail::of)?;
    let why = detail.directory.err().filter(|_| detail.is_host_away)?;
    Some((why, detail.host))
}

/// What to do about a host that cannot be reached.
fn reach(host: &str, region: &RegionName) -> String {
    format!(
        "see to it that the host `{host}` in {region} can be reached from here, or run the command on it; then again"
    )
}

impl PostgresDriver {
    pub(super) fn plan_stop_writes(
        &self,
        region: &RegionName,
        to: &RegionName,
        facts: &Facts,
    ) -> Result<Vec<Action>> {
        let operation = "plan the orderly end of";
        let instance = self.instance_options(region)?;
        let seen = self.seen(region, facts, operation)?;
        let (_, claimed) = self.to_be_fenced(region, seen)?;
        if !matches!(
            seen.instance,
            Instance::Running {
                role: Role::Primary,
                ..
            }
        ) {
            let why = format!("no primary runs in {region}: {}", describe(&seen.instance));
            return Err(self.failed(operation, why).with_hint(
                "a planned move needs the primary; without it `dr failover` moves what there is",
            ));
        }
        refuse_away(operation, to, facts)?;
        let mut current = describe(&seen.instance);
        if !streams(region, to, facts) {
            current.push_str(&format!(
                "; nothing in {to} streams from it now, which is waited for before anything is changed"
            ));
        }
        let undo = "start it again, in a new epoch: `dr execution abort` does";
        Ok(vec![
            self.action(
                Work::CheckpointPrimary {
                    region: region.clone(),
                },
                region,
                Shown {
                    summary: format!("let the primary in {region} write a checkpoint, so that it stops faster"),
                    current: None,
                    intended: None,
                    undo: Undo::ReadOnly,
                },
            ),
            self.action(
                Work::StopWrites {
                    region: region.clone(),
                    claimed,
                    to: Some(to.clone()),
                },
                region,
                Shown {
                    summary: format!(
                        "leave standby.signal in {} on {}, shut the server down so that the other region gets its last byte",
                        instance.data_directory.display(),
                        instance.host
                    ),
                    current: Some(current),
                    intended: Some("shut down, the end of its log known".to_owned()),
                    undo: Undo::Compensable(undo.to_owned()),
                },
            ),
        ])
    }

    pub(super) fn plan_follow(
        &self,
        region: &RegionName,
        primary: &RegionName,
    ) -> Result<Vec<Action>> {
        self.instance_options(region)?;
        Ok(vec![self.action(
            Work::FollowPrimary {
                region: region.clone(),
                primary: primary.clone(),
            },
            region,
            Shown {
                summary: format!("start the old primary in {region} as a standby of {primary}"),
                current: Some("stopped".to_owned()),
                intended: Some(format!("a standby that streams from {primary}")),
                undo: Undo::Reversible("stop it".to_owned()),
            },
        )])
    }

    pub(super) fn plan_resume(
        &self,
        region: &RegionName,
        standby: &RegionName,
        unpromoted: bool,
        facts: &Facts,
    ) -> Result<Vec<Action>> {
        let operation = "plan to resume the primary of";
        let refused = |kind, why: String| {
            Error::new(kind, operation, self.resource().to_string()).because(why)
        };
        let seen = self.seen(region, facts, operation)?;
        let Some(detail) = Detail::of(seen) else {
            let why = format!("nothing is known of its data directory in {region}");
            return Err(refused(ErrorKind::Unavailable, why));
        };
        let (host, is_host_away) = (detail.host, detail.is_host_away);
        let found = detail.directory.map_err(|why| match is_host_away {
            // What stands there may allow it, and nobody can look.
            true => refused(ErrorKind::Unavailable, why).with_hint(reach(&host, region)),
            false => refused(ErrorKind::Conflict, why),
        })?;
        let claimed = Claimed {
            system_identifier: found.system_identifier,
            timeline: found.fenced.unwrap_or(found.timeline),
        };
        if let Some(why) = found.is_not(claimed) {
            return Err(refused(ErrorKind::Conflict, why));
        }
        let other = self.seen(standby, facts, operation)?;
        let follows = matches!(
            &other.instance,
            Instance::Running { role: Role::Standby, timeline, .. } if *timeline == claimed.timeline
        );
        let promoted = matches!(
            other.instance,
            Instance::Running {
                role: Role::Primary,
                ..
            }
        );
        // Whoever would promote it reads the register first, under a newer epoch than its own from here on. So what was not begun
        // is not done any more, and whether the server is there does not matter.
        if promoted || !(follows || unpromoted) {
            let why = format!(
                "the server in {standby} is not seen to be a standby on timeline {}: {}",
                claimed.timeline,
                describe(&other.instance)
            );
            return Err(refused(ErrorKind::Conflict, why)
                .with_hint("once it is promoted there is no way back but another move"));
        }
        // It can be attached through its host alone. Where a promotion may have been begun, it must be.
        let away = away(standby, facts).filter(|_| unpromoted);
        let left_alone = match (&away, follows) {
            (None, true) => None,
            (Some((why, _)), true) => Some(why.clone()),
            (_, false) => Some(describe(&other.instance)),
        };
        let left_alone = left_alone.map_or_else(String::new, |why| {
            format!("; the one in {standby}, which was not promoted, is left as it is: {why}")
        });
        let attach = (follows && away.is_none()).then(|| {
            self.action(
                Work::AttachStandby {
                    region: standby.clone(),
                    primary: region.clone(),
                    timeline: claimed.timeline,
                },
                standby,
                Shown {
                    summary: format!("let the standby in {standby} follow {region} again"),
                    current: Some(describe(&other.instance)),
                    intended: Some(format!("primary_conninfo leads to {region}")),
                    undo: Undo::Reversible("set primary_conninfo again".to_owned()),
                },
            )
        });
        let resume = self.action(
            Work::ResumePrimary {
                region: region.clone(),
                claimed,
            },
            region,
            Shown {
                summary: format!(
                    "remove standby.signal in {region}, start the server as the primary that it was{left_alone}"
                ),
                current: Some(describe(&seen.instance)),
                intended: Some(format!("a primary on timeline {}", claimed.timeline)),
                undo: Undo::Compensable("another move".to_owned()),
            },
        );
        // Where nobody can promote the standby any more, clients come first: its disk may be full, and theirs is the primary.
        Ok(match unpromoted {
            true => [resume].into_iter().chain(attach).collect(),
            false => attach.into_iter().chain([resume]).collect(),
        })
    }
}
