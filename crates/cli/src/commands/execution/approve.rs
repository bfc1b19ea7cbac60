//! `dr execution approve`.

use std::path::{Path, PathBuf};

use dr_coordination::approval::{self, Approval, Counted, Refused, Request, tally};
use dr_model::ExecutionId;
use dr_model::document::one_of;
use dr_runbook::executions::Found;
use dr_runbook::steps::await_approval;
use serde_json::json;

use crate::commands::approval::read;
use crate::commands::failover::{ask, can_ask, plan_text};
use crate::error::{CommandError, Result};
use crate::exit::Exit;
use crate::output::Output;
use crate::wiring::Setup;

/// Approve the plan of an execution that waits for it
///
/// Prints the plan, asks, and signs its hash with your key. Whoever asked for the move cannot approve
/// it, nobody counts twice, and the request expires (`approval` in dr.yaml). Works from any machine
/// with the configuration that can write the store of the region moved to.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Its id, as `dr execution list` prints it
    execution: ExecutionId,
    /// The file with your key, which `dr approval keygen` made
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

pub(super) async fn run(args: &Args, setup: &Setup, output: &Output) -> Result<Exit> {
    let key = read(&args.key)?;
    if !args.yes && !can_ask() {
        return Err(CommandError::new(
            Exit::Usage,
            "nobody is there to be asked: this is not a terminal",
        )
        .hint("look at it with `dr execution show`, then add `--yes`"));
    }
    let found = super::find(setup, &args.execution).await?;
    let request = request(setup, &found)?;
    let refuse = |why: &dyn std::fmt::Display| {
        CommandError::new(
            Exit::Refused,
            format!("execution {} is not approved: {why}", args.execution),
        )
    };
    let state = found.history.state();
    if state.is_final() {
        return Err(refuse(&format_args!("it is over, {}", state.as_str())));
    }
    let now = setup.clock.now();
    let approver = request
        .approver(&key.public(), now)
        .map_err(|why| refuse(&why).hint(hint(&why, &request, &args.key)))?;
    output.say(&plan_text::render(&found.history.plan, output.stderr));
    if !args.yes {
        let workload = &found.history.plan.workload;
        ask(
            workload,
            &format!("approve this as {}", approver.name),
            output,
        )?;
    }
    let approval = Approval::sign(
        &key,
        request.execution.clone(),
        request.plan.clone(),
        request.accepted_loss_milliseconds,
        approver.name.clone(),
        setup.clock.now(),
    );
    let store = setup
        .stores
        .get(&found.store)
        .expect("the execution was found in a store of this configuration");
    let standing = approval::give(store.as_ref(), &approval).await?;
    let again = standing.is_some();
    let all = approval::read_all(store.as_ref(), &request.execution).await?;
    let tally = tally(&request, &all, setup.clock.now());
    let ours = |counted: &&Counted| counted.approver == approver.name;
    let Some(counted) = tally.counted.iter().find(ours) else {
        let mut refused = tally.refused.into_iter();
        let why = refused.find(|(name, _)| *name == approver.name.as_str());
        let why = why.map_or_else(|| "it is gone".to_owned(), |(_, why)| why.to_string());
        return Err(refuse(&format_args!(
            "what lies there as yours does not count: {why}"
        )));
    };
    let (have, quorum) = (tally.counted.len(), request.policy.quorum);
    if output.json {
        output.json(&json!({
            "execution": request.execution,
            "plan": request.plan,
            "approver": counted.approver,
            "approved_at": counted.approved_at,
            "approvals": have,
            "quorum": quorum,
        }))?;
    }
    output.say(&match again {
        false => format!("Approved by {}: {have} of {quorum}.", approver.name),
        true => format!(
            "{} approved it already, at {:.0}, and counts once: {have} of {quorum}.",
            approver.name, counted.approved_at
        ),
    });
    Ok(Exit::Ok)
}

/// Says what to do where an approval would not count.
fn hint(why: &Refused, request: &Request, key: &Path) -> String {
    let all = request
        .policy
        .approvers
        .iter()
        .map(|approver| approver.name.as_str());
    match why {
        Refused::NotAKey(_) => format!(
            "sign with the key whose public half stands in `approval.approvers`: that of {}; `{}` holds another",
            one_of(&all.collect::<Vec<_>>()),
            key.display()
        ),
        Refused::Requester(_) => {
            let others = all.filter(|name| *name != request.requested_by.as_str());
            format!(
                "somebody else has to: {}",
                one_of(&others.collect::<Vec<_>>())
            )
        }
        Refused::Expired(_) => {
            "ask again: `dr failover` makes a new plan and a new request".to_owned()
        }
        _ => "`dr execution show` says what it waits for".to_owned(),
    }
}

/// Returns what the execution asks people to approve, if that is what this configuration wants.
fn request(setup: &Setup, found: &Found) -> Result<Request> {
    let history = &found.history;
    let execution = &history.execution;
    let Some(request) = await_approval::asked(history) else {
        return Err(CommandError::new(
            Exit::Refused,
            format!("execution {execution} asks nobody for approval"),
        )
        .hint("it asks where `approval.quorum` of its workload is above 0"));
    };
    let wanted = &setup.workload(&history.plan.workload)?.approval;
    if *wanted != request.policy {
        return Err(CommandError::new(
            Exit::Refused,
            format!("execution {execution} asks for other approvals than this configuration does"),
        )
        .hint("compare `approval` in dr.yaml here and where the execution was begun"));
    }
    Ok(request)
}

/// Says in lines who has approved an execution that waits, for `dr execution show`; nothing if none is asked for.
pub(super) async fn lines(found: &Found, setup: &Setup) -> Result<Vec<String>> {
    let is_over = found.history.state().is_final();
    let Some(request) = await_approval::asked(&found.history).filter(|_| !is_over) else {
        return Ok(Vec::new());
    };
    if found.history.report().approval.is_some() {
        return Ok(Vec::new());
    }
    let Some(store) = setup.stores.get(&found.store) else {
        return Ok(Vec::new());
    };
    let all = approval::read_all(store.as_ref(), &request.execution).await?;
    let tally = tally(&request, &all, setup.clock.now());
    let mut lines = vec![format!(
        "approvals: {} of {}, until {:.0}; plan {:.16}",
        tally.counted.len(),
        request.policy.quorum,
        request.expires_at(),
        request.plan
    )];
    for counted in &tally.counted {
        lines.push(format!(
            "  {} at {:.0}",
            counted.approver, counted.approved_at
        ));
    }
    for (name, why) in &tally.refused {
        lines.push(format!("  {name}: does not count: {why}"));
    }
    Ok(lines)
}
