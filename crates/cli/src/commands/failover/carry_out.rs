//! Carrying out a plan that somebody has seen: asking, looking whether it is still the same, executing, reporting.

use std::sync::Arc;

use dr_config::Workload;
use dr_model::WorkloadName;
use dr_runbook::{Plan, Refusal, Report, Site};

use super::{Progress, ask, can_ask, plan_text, report_text, watched};
use crate::error::{CommandError, Result};
use crate::exit::Exit;
use crate::output::Output;
use crate::wiring::Setup;

/// A workload and a plan for it.
pub(crate) struct Prepared<'a> {
    pub(crate) name: WorkloadName,
    pub(crate) workload: &'a Workload,
    pub(crate) site: Arc<Site>,
    pub(crate) plan: Plan,
}

/// Refuses to go on where a question would have to be asked and nobody is there; `look` is how the plan is seen instead.
pub(crate) fn require_somebody(yes: bool, look: &str) -> Result<()> {
    if yes || can_ask() {
        return Ok(());
    }
    let error = CommandError::new(
        Exit::Usage,
        "nobody is there to be asked: this is not a terminal",
    );
    Err(error.hint(format!("look at it with `{look}`, then add `--yes`")))
}

/// Asks whether to do `what`, unless nobody wants to be asked (`None`), and executes. `again` makes the plan once more: somebody may
/// have thought about it for a while, and what they agreed to has to be what there still is.
pub(crate) async fn carry_out(
    setup: &Setup,
    mut prepared: Prepared<'_>,
    what: Option<&str>,
    again: impl AsyncFnOnce(&Prepared<'_>) -> std::result::Result<Plan, Refusal>,
    output: &Output,
) -> Result<(Report, Exit)> {
    output.say(&plan_text::render(&prepared.plan, output.stderr));
    setup.refuse_root(&prepared.name)?;
    if let Some(what) = what {
        ask(&prepared.name, what, output)?;
        let now = again(&prepared).await?;
        if !now.is_as_shown(&prepared.plan) {
            output.say(&plan_text::render(&now, output.stderr));
            return Err(CommandError::new(
                Exit::Refused,
                "the situation has changed since the plan was shown; nothing was done",
            )
            .hint("look at the new plan, above, and run the command again"));
        }
        prepared.plan = now;
    }
    let Prepared {
        workload,
        site,
        plan,
        ..
    } = prepared;
    let progress = Progress::new(output, Arc::clone(&setup.clock));
    let execution = dr_runbook::execute(site, plan, &progress);
    let report = watched(execution, &progress, output).await?;
    let exit = report_text::exit(&report, workload.objectives);
    let text = report_text::render(&report, workload.objectives, output.stderr);
    output.say(&text);
    Ok((report, exit))
}
