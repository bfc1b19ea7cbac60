//! Why an execution could not be carried out at all.

use dr_coordination::{Actor, journal};
use dr_model::{ExecutionId, RegionName, StepId, WorkloadName};
use dr_provider::ErrorKind;
use jiff::Timestamp;

use crate::outcome::State;
use crate::plan::{Class, Refusal};

/// Why an execution could not be carried out, resumed or ended. What happens within one is a state in its report.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The region moved to has no store.
    #[error("{region} has no store to keep the journal in")]
    NoStore {
        /// The region.
        region: RegionName,
    },
    /// A driver put a secret into its actions.
    #[error("the plan holds a secret in the clear and must not be written down")]
    SecretInPlan,
    /// The journal could not be created, so that nothing was begun.
    #[error("no execution was begun: its journal cannot be created in the store of {region}")]
    NotBegun {
        /// The id that it would have had.
        execution: ExecutionId,
        /// The region of the store.
        region: RegionName,
        /// Why not.
        #[source]
        source: Box<journal::Error>,
    },
    /// The journal cannot be read or written.
    #[error("the journal of execution {execution} cannot be used")]
    Journal {
        /// The execution.
        execution: ExecutionId,
        /// Why not.
        #[source]
        source: Box<journal::Error>,
    },
    /// Somebody else has taken it over.
    #[error("execution {execution} is {by}'s since {at:.0}")]
    TakenOver {
        /// The execution.
        execution: ExecutionId,
        /// Who runs it.
        by: Box<Actor>,
        /// Since when, by that actor's clock.
        at: Timestamp,
    },
    /// There is no such execution.
    #[error("there is no execution {execution} in any store")]
    NotFound {
        /// The execution.
        execution: ExecutionId,
    },
    /// It was not found, and some stores could not be read.
    #[error("execution {execution} was not found in the stores that could be read: {}", unseen.join("; "))]
    NotSeen {
        /// The execution.
        execution: ExecutionId,
        /// The stores that could not be read, and why.
        unseen: Vec<String>,
    },
    /// It belongs to another workload.
    #[error("execution {execution} is for `{workload}`")]
    OtherWorkload {
        /// The execution.
        execution: ExecutionId,
        /// Its workload.
        workload: WorkloadName,
    },
    /// It is over.
    #[error("execution {execution} is over: {}", state.as_str())]
    Over {
        /// The execution.
        execution: ExecutionId,
        /// How it ended.
        state: State,
    },
    /// Nobody runs it.
    #[error("execution {execution} does not run: it is {}", state.as_str())]
    NotRunning {
        /// The execution.
        execution: ExecutionId,
        /// Its state.
        state: State,
    },
    /// A step cannot be left out.
    #[error("step `{step}` of execution {execution} cannot be left out: {why}")]
    Skip {
        /// The execution.
        execution: ExecutionId,
        /// The step.
        step: StepId,
        /// Why not.
        why: String,
    },
    /// A step that was left out cannot be done after all.
    #[error("step `{step}` of execution {execution} cannot be done after all: {why}")]
    Unskip {
        /// The execution.
        execution: ExecutionId,
        /// The step.
        step: StepId,
        /// Why not.
        why: String,
    },
    /// It would come to a halt further on, and is not gone on with while it can still be taken back.
    #[error("{refusal}")]
    NotResumed {
        /// The execution.
        execution: ExecutionId,
        /// What would stop it.
        refusal: Box<Refusal>,
    },
    /// It cannot be undone.
    #[error("execution {execution} cannot be undone")]
    Undo {
        /// The execution.
        execution: ExecutionId,
        /// Why not.
        #[source]
        refusal: Box<Refusal>,
    },
    /// It is no move that could be taken back.
    #[error("execution {execution} is not what is to be taken back: {why}")]
    NotTakenBack {
        /// The execution.
        execution: ExecutionId,
        /// Why not.
        why: String,
    },
    /// It has changed something and cannot be ended by saying so.
    #[error("execution {execution} cannot be ended: {why}")]
    HasEffects {
        /// The execution.
        execution: ExecutionId,
        /// What stands in the way.
        why: String,
        /// What it changed, one line each.
        residue: Vec<String>,
        /// What to do instead.
        hint: String,
    },
}

impl Error {
    pub(crate) fn journal(execution: &ExecutionId, source: journal::Error) -> Self {
        match source {
            journal::Error::TakenOver { by, at, .. } => Self::TakenOver {
                execution: execution.clone(),
                by,
                at,
            },
            source => Self::Journal {
                execution: execution.clone(),
                source: Box::new(source),
            },
        }
    }

    /// Returns what to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoStore { region } => format!("configure a store for `{region}`"),
            Self::SecretInPlan => "this is a mistake in a driver: please report it".to_owned(),
            Self::NotBegun { execution, source, .. } => match source.kind() {
                ErrorKind::Unknown => format!(
                    "nothing was changed. Whether the journal is there after all, `dr execution list` shows; then `dr execution resume {execution}` goes on with it"
                ),
                _ => "nothing was changed, and there is nothing to resume: let the store be written to, or make room in it, and run the command again".to_owned(),
            },
            Self::Journal { execution, source } if matches!(**source, journal::Error::Damaged { .. }) => {
                format!(
                    "do not go on with it: nobody can tell what was done. `dr status` shows who is primary. If it is a move that has opened the newest \
                     epoch and promoted nothing, `dr execution abort {execution} --override \"reason\"` gives the region that was left its place back; \
                     otherwise a new move can be begun"
                )
            }
            Self::Journal { execution, .. } => {
                format!(
                    "what was done stands: `dr status` shows who is primary. Once the store answers and takes entries: `dr execution resume {execution}`"
                )
            }
            Self::TakenOver { execution, .. } => {
                format!("see how far it comes: `dr execution show {execution} --follow`")
            }
            Self::NotFound { .. } => "`dr execution list` prints them".to_owned(),
            Self::NotSeen { .. } => "see why these stores cannot be read".to_owned(),
            Self::OtherWorkload { workload, .. } => format!("resume it for `{workload}`"),
            Self::Over { execution, .. } => format!(
                "`dr execution show {execution}` prints what came of it; what is begun next is an execution of its own"
            ),
            Self::NotRunning { execution, .. } => {
                format!("go on with it: `dr execution resume {execution}`")
            }
            Self::Skip { execution, .. } | Self::Unskip { execution, .. } => {
                format!("`dr execution show {execution}` prints its steps")
            }
            Self::NotResumed { execution, .. } => format!(
                "until then execution {execution} stays as it is; `dr execution abort {execution}` ends it"
            ),
            Self::Undo { execution, refusal } => match (refusal.hint(), refusal.class()) {
                (Some(hint), _) => hint,
                (None, Class::Unavailable) => {
                    format!("put that right, and run `dr execution abort {execution}` again")
                }
                (None, _) => format!("go forward with `dr execution resume {execution}`"),
            },
            Self::NotTakenBack { .. } => {
                "`dr status` shows who is primary; a new move can be begun".to_owned()
            }
            Self::HasEffects { hint, .. } => hint.clone(),
        })
    }
}
