//! What is wrong with a runbook, or will be on the day, seen without looking at any region.
//!
//! For some of it every plan is refused; the rules of the plan say so. The rest is about whether it should be used. What depends on facts
//! a plan says.

use dr_config::Runbook;
use dr_model::StepId;

use crate::plan::{self, Mode, awaits_guards, left_down, ordered, wrong};
use crate::steps::{
    await_fence, check_data_loss, check_health, fence_primary, open_epoch, prepare_database,
    promote_database, rearm_protection, record_evidence, registry, replace_database,
    restore_database, seal_wal, switch_traffic, verify_traffic,
};

/// Something to put right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The step.
    pub step: StepId,
    /// Whether the runbook should not be used like this; advice otherwise.
    pub is_grave: bool,
    /// What is wrong: a lower-case fragment.
    pub what: String,
    /// What to do.
    pub hint: &'static str,
}

/// Tells whether a runbook asks people before it changes anything: a workload with `approval.quorum` cannot be planned with one that does
/// not.
#[must_use]
pub fn asks_people(runbook: &Runbook) -> bool {
    plan::asks_people(runbook)
}

/// Tells whether it may, as it turns out which of its steps are left out.
#[must_use]
pub fn may_ask_people(runbook: &Runbook) -> bool {
    plan::may_ask_people(runbook)
}

/// The runbooks that commands use by their names, and how they leave a region. One of another kind under such a name is found out on the
/// day, when the command that uses it is refused, or does what it was not asked for.
const BY_NAME: [(&str, Mode); 6] = [
    ("failover-region", Mode::Unplanned),
    ("failover-planned", Mode::Planned),
    ("failback-region", Mode::Planned),
    ("recover-component", Mode::InPlace),
    ("restore-database", Mode::InPlace),
    ("undo-move", Mode::Undo),
];

fn misnamed(runbook: &Runbook, mode: Mode) -> Option<Finding> {
    let mut known = BY_NAME.iter();
    let (name, expected) = known.find(|(name, _)| *name == runbook.name.as_str())?;
    if *expected == mode {
        return None;
    }
    let does = |mode| match mode {
        Mode::Unplanned => "moves out of a region that may be lost",
        Mode::Planned => "moves with the help of the region that is left (`stop-writes`)",
        Mode::InPlace => "recovers in place (`restart-database` or `replace-database`)",
        Mode::Undo => "takes a move back (`resume-primary`)",
    };
    Some(Finding {
        step: runbook.steps.first()?.id.clone(),
        is_grave: true,
        what: format!(
            "`{name}` is used as a runbook that {}, and this one {}",
            does(*expected),
            does(mode)
        ),
        hint: "give it another name, and use it with `--runbook`",
    })
}

/// What a move does once something has come up, and what it means for the workload if no step does.
const EXPECTED: [(&str, &str); 5] = [
    (
        check_health::NAME,
        "nothing proves that the workload works where it was moved to",
    ),
    (
        switch_traffic::NAME,
        "nothing leads clients to where the workload was moved to",
    ),
    (
        verify_traffic::NAME,
        "nothing proves that clients reach the workload where it was moved to",
    ),
    (
        rearm_protection::NAME,
        "nothing makes sure that the workload is protected where it was moved to",
    ),
    (
        record_evidence::NAME,
        "what came of the move is recorded in its journal alone",
    ),
];

/// Advises the steps that somebody has left out of a move.
fn left_out(runbook: &Runbook) -> Vec<Finding> {
    let steps = ordered(&runbook.steps);
    let comes_up = steps.iter().rfind(|step| plan::comes_up(&step.uses));
    let Some(up) = comes_up else {
        return Vec::new();
    };
    let missing = EXPECTED
        .iter()
        .filter(|(name, _)| steps.iter().all(|step| step.uses != *name));
    let finding = |(name, means): &(&str, &str)| Finding {
        step: up.id.clone(),
        is_grave: false,
        what: format!("no step uses `{name}`: {means}"),
        hint: "put it behind this step, or make sure of it in another way",
    };
    missing.map(finding).collect()
}

/// Looks a runbook over.
#[must_use]
pub fn check(runbook: &Runbook) -> Vec<Finding> {
    let mode = Mode::of(runbook);
    let wrong = wrong(runbook).into_iter().chain(left_down(runbook));
    let wrong = wrong.map(|wrong| Finding {
        step: wrong.step,
        is_grave: true,
        what: wrong.what,
        hint: wrong.hint,
    });
    let mut findings: Vec<_> = wrong.collect();
    findings.extend(misnamed(runbook, mode));
    if matches!(mode, Mode::Unplanned | Mode::Planned) {
        findings.extend(left_out(runbook));
    }
    let mut is_healthy = false;
    let checks_health = runbook
        .steps
        .iter()
        .any(|step| step.uses == check_health::NAME);
    let fences = runbook
        .steps
        .iter()
        .any(|step| step.uses == fence_primary::NAME);
    let mut is_fenced = false;
    let mut gated = false;
    let is_awaited = awaits_guards(runbook);
    for step in ordered(&runbook.steps) {
        let Some(kind) = registry::find(&step.uses) else {
            continue;
        };
        let mut find = |is_grave, what: String, hint| {
            findings.push(Finding {
                step: step.id.clone(),
                is_grave,
                what,
                hint,
            });
        };
        let name = kind.name();
        // People who approve are shown the loss, and only the step compares it with what is allowed.
        gated |= name == check_data_loss::NAME && step.condition.is_none();
        // Whoever names a moment has said what is to be lost, and it is proven before anything is changed.
        gated |= name == prepare_database::NAME;
        // A fence is tried for what it is worth, and the register has a rule of its own.
        let waits = kind.may_touch_region_left() && !kind.is_best_effort();
        if mode == Mode::Unplanned && waits && name != open_epoch::NAME {
            find(
                true,
                format!("`{name}` depends on the region being left, which may be gone"),
                "use it in a planned move only, one with `stop-writes`",
            );
        }
        if name == await_fence::NAME && !is_awaited {
            find(
                true,
                format!(
                    "`{name}` is waited for by nothing that comes up, so that a guard proves nothing here"
                ),
                "put it before the promotion, without `if`, in a runbook for a region that is lost",
            );
        }
        if name == seal_wal::NAME && !is_fenced && fences {
            find(
                false,
                format!(
                    "`{name}` ends the log before `{}` has stopped the old primary: what that acknowledges in between is lost",
                    fence_primary::NAME
                ),
                "put it behind that step",
            );
        }
        is_fenced |= name == fence_primary::NAME;
        is_healthy |= name == check_health::NAME;
        if name == switch_traffic::NAME && checks_health && !is_healthy {
            find(
                false,
                format!(
                    "`{name}` leads clients to what `{}` has not looked at yet",
                    check_health::NAME
                ),
                "put it behind that step",
            );
        }
        let is_point_of_no_return = [
            promote_database::NAME,
            restore_database::NAME,
            replace_database::NAME,
        ]
        .contains(&name);
        if is_point_of_no_return && !gated && mode != Mode::Undo {
            find(
                true,
                format!(
                    "`{name}` is a point of no return without a gate before it: nothing compares what would be lost with `max_loss`"
                ),
                "put `check-data-loss` before it, without `if` and `continue_on_error`",
            );
        }
        if name == restore_database::NAME {
            find(
                false,
                format!("`{name}` creates the database on the day"),
                "let it be the fallback of `promote-database`, and keep a standby: what is there already needs no room, no rights and no time",
            );
        }
    }
    findings
}
