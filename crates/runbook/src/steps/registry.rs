//! All steps by name.

use std::collections::BTreeMap;

use dr_config::StepKind;
use dr_model::document::{Context, Node};

use super::{
    AssessRegion, AwaitApproval, AwaitFence, CheckDataLoss, CheckHealth, FencePrimary,
    FollowPrimary, Notify, OpenEpoch, PrepareDatabase, PromoteDatabase, RearmProtection,
    RecordEvidence, ReplaceDatabase, RestartDatabase, RestoreDatabase, ResumePrimary, RunCommand,
    SealWal, StartService, StopService, StopWrites, SwitchTraffic, VerifyTraffic, Wait,
};
use crate::step::Step;

/// A step, and how the configuration checks its parameters.
#[derive(Debug)]
pub struct Entry {
    /// The step.
    pub step: &'static dyn Step,
    check: fn(&Node, &mut Context),
}

macro_rules! steps {
    ($($step:ident),* $(,)?) => {
        /// Every step, in the order in which a failover uses them.
        pub static ALL: &[Entry] = &[$(Entry {
            step: &$step,
            check: |node, context| {
                $step.parameters(node, context);
            },
        }),*];
    };
}

steps![
    AssessRegion,
    CheckDataLoss,
    AwaitApproval,
    PrepareDatabase,
    OpenEpoch,
    StopService,
    FencePrimary,
    AwaitFence,
    StopWrites,
    SealWal,
    PromoteDatabase,
    RestartDatabase,
    RestoreDatabase,
    ReplaceDatabase,
    StartService,
    CheckHealth,
    SwitchTraffic,
    VerifyTraffic,
    Notify,
    FollowPrimary,
    RearmProtection,
    ResumePrimary,
    RecordEvidence,
    RunCommand,
    Wait,
];

/// Returns the step of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static dyn Step> {
    let mut all = ALL.iter().map(|entry| entry.step);
    all.find(|step| step.name() == name)
}

/// Returns what the configuration has to know of the steps to read a runbook.
#[must_use]
pub fn kinds() -> BTreeMap<&'static str, StepKind> {
    let kind = |entry: &Entry| {
        let kind = StepKind {
            check: entry.check,
            follows: entry.step.follows(),
            stands_for: entry.step.stands_for(),
        };
        (entry.step.name(), kind)
    };
    ALL.iter().map(kind).collect()
}
