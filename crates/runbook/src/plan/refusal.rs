//! Why there is no plan.

use std::time::Duration;

use dr_model::document::Problem;
use dr_model::{Epoch, ExecutionId, RegionName, ResourceName, RunbookName, StepId, WorkloadName};

use super::lint;
use crate::executions::Unfinished;
use crate::plan::Target;
use crate::steps::check_data_loss::shown;

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The region moved to has the primary already.
    #[error("{to} has the primary of `{workload}` already; the newest epoch is {epoch}")]
    TargetIsPrimary {
        /// The region asked for.
        to: RegionName,
        /// The workload.
        workload: WorkloadName,
        /// The newest epoch.
        epoch: Epoch,
    },
    /// The region has the primary by the register alone: nobody can tell how far whoever made it the primary came.
    #[error(
        "{to} has the primary of `{workload}` by the register, since epoch {epoch}, and no primary is seen there: {why}, so nobody can \
         tell how far execution {execution} came"
    )]
    Unreadable {
        /// The region asked for.
        to: RegionName,
        /// The workload.
        workload: WorkloadName,
        /// The newest epoch.
        epoch: Epoch,
        /// The execution that opened it.
        execution: ExecutionId,
        /// What is wrong with its journal.
        why: String,
    },
    /// What is to be recovered in its own region has its primary in another.
    #[error("the primary of `{workload}` is in {primary}, not in {region}")]
    NotPrimary {
        /// The workload.
        workload: WorkloadName,
        /// The region of the primary.
        primary: RegionName,
        /// The region asked for.
        region: RegionName,
    },
    /// The workload has no such part where its primary is.
    #[error("`{workload}` has no `{component}`")]
    NoComponent {
        /// What was asked for.
        component: String,
        /// The workload.
        workload: WorkloadName,
        /// Where its primary is.
        region: Option<RegionName>,
        /// What it has.
        known: Vec<String>,
    },
    /// The region moved to is not one of the workload's.
    #[error("`{workload}` cannot be moved to `{to}`: it is neither its home nor a recovery region")]
    NotARegion {
        /// The region asked for.
        to: RegionName,
        /// The workload.
        workload: WorkloadName,
        /// The regions that it can be moved to.
        allowed: Vec<RegionName>,
    },
    /// The workload has never had a primary.
    #[error("`{workload}` has no epoch yet, so nothing says where its primary is")]
    NoEpoch {
        /// The workload.
        workload: WorkloadName,
    },
    /// It cannot be told which epoch is the newest.
    #[error(
        "the register of `{workload}` cannot be read, so nobody can tell who is primary: {why}"
    )]
    RegisterUnreachable {
        /// The workload.
        workload: WorkloadName,
        /// Why not.
        why: String,
        /// Whether a copy of a record was seen, on which an override could rest.
        has_copy: bool,
    },
    /// Records of the register are missing, or are not what they should be. No override goes past this.
    #[error("{why}")]
    RegisterDamaged {
        /// What is wrong, and with which record of which workload.
        why: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// A store that has to take the journal or the epoch takes nothing.
    #[error("the store of {region} takes no writes, so that nothing can be begun: {why}")]
    Unwritable {
        /// Its region.
        region: RegionName,
        /// What it answered.
        why: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// The configuration at hand does not say what the one said that the plan was made with.
    #[error(
        "the configuration here says something else than the one that the plan was made with of {}",
        .parts.join(", ")
    )]
    Reconfigured {
        /// What it says something else of, as paths in a workload.
        parts: Vec<String>,
    },
    /// A name server does not take our key: clients would be left with the old answer, and everything else be done by then.
    #[error(
        "the switch of {record} would be refused, so that clients would be left where they are: {why}"
    )]
    TrafficDenied {
        /// The record.
        record: String,
        /// What the server answered.
        why: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// A name server does not answer, and nothing makes a planned move hurry.
    #[error(
        "whether the switch of {record} would be taken cannot be told, and a planned move would leave clients where they are: {why}"
    )]
    TrafficSilent {
        /// The record.
        record: String,
        /// Why it could not be asked.
        why: String,
    },
    /// Another execution has not ended.
    #[error(
        "execution {} for `{}` has not ended: {} to {}, begun at {:.0} by {}, {}",
        .0.execution, .0.workload, .0.from, .0.to, .0.started_at, .0.holder, .0.state.as_str()
    )]
    Unfinished(Box<Unfinished>),
    /// The newest epoch writes a log of which the region moved to has nothing: what it has is what was left behind.
    #[error("nothing of what `{resource}` wrote since has reached {to}: {why}")]
    Behind {
        /// The resource.
        resource: ResourceName,
        /// The region moved to.
        to: RegionName,
        /// What the epoch claims, since when and by whom, and what there is instead.
        why: String,
    },
    /// What a database would be rebuilt from may lack what commits waited for.
    #[error(
        "commits on `{resource}` waited for the store of {region}, which cannot be looked at: what it would be rebuilt from in {to} may lack some of them"
    )]
    UnseenElsewhere {
        /// The resource.
        resource: ResourceName,
        /// The region that it would be rebuilt in.
        to: RegionName,
        /// The region whose store cannot be seen.
        region: RegionName,
    },
    /// The estimated loss is larger than what is accepted.
    #[error(
        "moving now would lose {}, more than the {budget:?} that are accepted",
        shown(Some(estimate))
    )]
    LossExceeds {
        /// The estimate.
        estimate: Box<dr_model::loss::Estimate>,
        /// The budget.
        budget: Duration,
    },
    /// Nothing is known of what would be lost.
    #[error("what moving would lose is unknown: {because}")]
    LossUnknown {
        /// What that rests on.
        because: String,
        /// Whether it may be accepted: not where the store moved to cannot be seen, nor by a move that loses nothing.
        may_be_accepted: bool,
    },
    /// Nothing will prove that the old primary has stopped.
    #[error("nothing proves that `{resource}` in {from} accepts no more writes: {why}")]
    NoProof {
        /// The resource.
        resource: ResourceName,
        /// The region being left.
        from: RegionName,
        /// Why no proof is expected.
        why: String,
        /// What to do about it, as whoever was asked said.
        hint: Option<String>,
        /// The parts of the look that ran out of time, each with its limit.
        late: Vec<String>,
    },
    /// The old primary answers, and it is known beforehand that it cannot be stopped.
    #[error("`{resource}` in {from} runs, and it could not be proven to be stopped: {why}")]
    Alive {
        /// The resource.
        resource: ResourceName,
        /// The region being left.
        from: RegionName,
        /// Why stopping it would prove nothing.
        why: String,
        /// What to do about it, as whoever was asked said.
        hint: Option<String>,
    },
    /// A step cannot do its part, and neither can its fallback.
    #[error("step `{step}` cannot be planned for `{target}`: {why}")]
    Impossible {
        /// The step.
        step: StepId,
        /// What it would act on.
        target: Target,
        /// Why not, with the reasons of each rung.
        why: String,
        /// What to do.
        hint: Option<String>,
        /// What stands in the way. A rule does only where what was asked for is forbidden, and another way may be open.
        class: Class,
    },
    /// An action needs the region being left (L1).
    #[error("step `{step}` needs {what} in {region}, the region being left")]
    DependsOnRegionLeft {
        /// The step.
        step: StepId,
        /// What it needs.
        what: String,
        /// The region.
        region: RegionName,
    },
    /// A moment was named, and nothing would be put back to it.
    #[error("an earlier moment was named, and `{runbook}` puts {} back to none", component.as_deref().unwrap_or("nothing"))]
    NoMoment {
        /// The runbook.
        runbook: RunbookName,
        /// What is to be recovered, if it is not all.
        component: Option<String>,
    },
    /// Something would be stopped in its own place and not be brought up again.
    #[error(
        "step `{step}` stops `{target}` in its own region, and no later step brings it up again"
    )]
    LeftDown {
        /// The step.
        step: StepId,
        /// What it stops.
        target: Target,
    },
    /// A database would be taken from its primary, and nothing would bring it up in the other region.
    #[error(
        "step `{step}` takes `{target}` from its primary, and no step behind it that is not left out brings it up again"
    )]
    TakenAway {
        /// The step.
        step: StepId,
        /// What it takes.
        target: Target,
    },
    /// A move was asked for, and no step of the runbook opens an epoch.
    #[error("the runbook `{runbook}` moves nothing: no step of it opens an epoch")]
    MovesNothing {
        /// Its name.
        runbook: RunbookName,
    },
    /// People have to approve, and the runbook does not ask them before it changes something.
    #[error(
        "`{workload}` requires {quorum} approvals, and the runbook `{runbook}` does not wait for them before it changes something"
    )]
    Approval {
        /// The workload.
        workload: WorkloadName,
        /// How many are required.
        quorum: u32,
        /// The runbook.
        runbook: RunbookName,
    },
    /// The runbook cannot be used.
    #[error("the runbook `{runbook}` cannot be used: {}", listed(problems))]
    Runbook {
        /// Its name.
        runbook: String,
        /// What is wrong with it.
        problems: Vec<Problem>,
    },
}

fn listed(problems: &[Problem]) -> String {
    let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
    lines.join("; ")
}

/// What kind of refusal it is, for exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// A safety rule.
    Safety,
    /// Another execution has not ended.
    Busy,
    /// Something needed cannot be reached.
    Unavailable,
    /// What was asked for is wrong: the command line.
    Asked,
    /// The configuration or the runbook is wrong.
    Invalid,
}

impl Refusal {
    /// Returns what kind of refusal it is.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::TargetIsPrimary { .. }
            | Self::Unreadable { .. }
            | Self::Behind { .. }
            | Self::UnseenElsewhere { .. }
            | Self::LossExceeds { .. }
            | Self::LossUnknown { .. }
            | Self::NoProof { .. }
            | Self::Alive { .. }
            | Self::RegisterDamaged { .. }
            | Self::Reconfigured { .. }
            | Self::DependsOnRegionLeft { .. } => Class::Safety,
            Self::Unfinished(_) => Class::Busy,
            Self::Impossible { class, .. } => *class,
            Self::RegisterUnreachable { .. }
            | Self::Unwritable { .. }
            | Self::TrafficSilent { .. } => Class::Unavailable,
            Self::NotPrimary { .. }
            | Self::NoComponent { .. }
            | Self::NotARegion { .. }
            | Self::NoMoment { .. } => Class::Asked,
            Self::NoEpoch { .. }
            | Self::LeftDown { .. }
            | Self::TakenAway { .. }
            | Self::MovesNothing { .. }
            | Self::Approval { .. }
            | Self::TrafficDenied { .. }
            | Self::Runbook { .. } => Class::Invalid,
        }
    }

    /// Returns what to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::RegisterDamaged { hint, .. } => return hint.clone(),
            Self::TargetIsPrimary { to, .. } => format!("name the other region; `dr status` shows who is primary, {to} now"),
            Self::Unreadable { to, workload, execution, .. } => format!(
                "if the region that was left can be reached, give it its place back: `dr execution abort {execution} --override \"reason\"`; if it \
                 is lost, make sure that its server is off, stop the one in {to}, move its data directory away, and rebuild it from \
                 all that the store of {to} holds: `dr runbook run recover-component {workload} --component RESOURCE --override \
                 \"reason\"`"
            ),
            Self::NotPrimary { primary, .. } => {
                format!("run it for {primary}; to move the workload: `dr failover --to REGION`")
            }
            Self::NoComponent { known, .. } => format!("name one of {}", known.join(", ")),
            Self::NotARegion { allowed, .. } => {
                let names: Vec<_> = allowed.iter().map(|r| format!("`{r}`")).collect();
                format!("it can be moved to {}", names.join(" or "))
            }
            Self::NoEpoch { .. } => {
                "start `dr daemon` in its home region, which opens the first epoch".to_owned()
            }
            Self::RegisterUnreachable { has_copy: true, .. } => "make it readable and run the command again; only if that store is lost for good, go on with `--override \"reason\"`: the epoch is then reported as unproven for ever".to_owned(),
            Self::RegisterUnreachable { .. } => {
                "there is no copy of it in reach either; check the stores with `dr check --online`".to_owned()
            }
            Self::Unwritable { hint, .. } => {
                let first = hint.as_deref().unwrap_or("see why it refuses them");
                format!("{first}, and run the command again; `dr check --online` tries the same")
            }
            Self::TrafficDenied { hint, .. } => {
                let first = hint.as_deref().unwrap_or("put the key right");
                format!("{first}; or lead the clients yourself, and say how with `--clients-by-hand \"reason\"`")
            }
            Self::TrafficSilent { .. } => {
                "see why its name server does not answer; or lead the clients yourself, and say how with `--clients-by-hand \"reason\"`".to_owned()
            }
            Self::Reconfigured { .. } => {
                "people have agreed to the plan: resume with the configuration that it was made with, or end it with `dr execution abort` and ask anew; where neither \
                 can be done, go by the new one with `--override \"reason\"`"
                    .to_owned()
            }
            Self::Unfinished(other) => {
                let aside = match other.from == other.to {
                    true => "; a failover out of its region goes past it with `--override \"reason\"`, and without once it is stuck or paused",
                    false => "",
                };
                format!(
                    "see how far it comes: `dr execution show {} --follow`; {}{aside}",
                    other.execution,
                    other.ways_on()
                )
            }
            Self::Behind { to, .. } => format!(
                "let the daemon of {to} run, and make its standby anew with `dr standby create`; only if the primary is lost for good, go \
                 back to what there is with `--override \"reason\"`: all that was written since is lost, and what was taken back comes back"
            ),
            Self::UnseenElsewhere { region, to, .. } => format!(
                "see why the store of {region} does not answer, or move there: `dr failover --to {region}`; to rebuild in {to} with what there is, say why \
                 with `--override \"reason\"`"
            ),
            Self::LossExceeds { estimate, .. } => {
                match estimate.lived_on_seconds > 0.0 {
                    // It grows with every second until the command is run again.
                    true => format!(
                        "accept it with `--max-loss {}s`, which has a minute to spare: it may still grow",
                        (estimate.delay_seconds + 60.0).ceil()
                    ),
                    false => format!("accept it with `--max-loss {}s`", estimate.delay_seconds.ceil()),
                }
            }
            Self::LossUnknown {
                may_be_accepted: true,
                ..
            } => "accept an unknown loss with `--override \"reason\"`".to_owned(),
            Self::LossUnknown { .. } => {
                "bring back what cannot be seen, and run the command again".to_owned()
            }
            Self::NoProof { late, .. } if !late.is_empty() => format!("run it again first: the look ran out of time ({}), and sees on a second try what a busy machine did not say on the first; if that stays so: make sure that it has stopped and say so with `--witness \"NAME: what was seen\"`, or go on without proof with `--override \"reason\"`", late.join("; ")),
            Self::NoProof { hint, .. } => format!("{}, if that can be done; else make sure that it has stopped and say so with `--witness \"NAME: what was seen\"`, or go on without proof with `--override \"reason\"`", hint.as_deref().unwrap_or("put right what keeps it from being seen")),
            Self::Alive { hint, .. } => format!("{}, or stop it by hand and run the command again; a witness does not outweigh a server that answers, or whose processes are there", hint.as_deref().unwrap_or("put right what stands in the way")),
            Self::Impossible { hint, .. } => return hint.clone(),
            Self::DependsOnRegionLeft { .. } => {
                "put what the step needs into the region moved to".to_owned()
            }
            Self::NoMoment { .. } => {
                "take `--at` away, or use a runbook with `prepare-database` and `replace-database`, as `restore-database` is, for a database".to_owned()
            }
            Self::LeftDown { .. } => {
                "add a step that brings it up: `restart-database` or `replace-database` for a database, `start-service` for a service".to_owned()
            }
            Self::TakenAway { .. } => {
                "put `promote-database` with `fallback: restore-database` behind it, without `if`".to_owned()
            }
            Self::MovesNothing { .. } => lint::MOVES.to_owned(),
            Self::Approval { .. } => {
                "add a step that uses `await-approval` before the one that uses `open-epoch`".to_owned()
            }
            Self::Runbook { .. } => return None,
        })
    }
}
