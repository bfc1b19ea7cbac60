//! `dr runbook`.

mod run;

use std::collections::BTreeMap;
use std::path::Path;

use dr_config::{Config, HealthCheckKind, Runbook, Step, Workload, is_used_unasked};
use dr_model::RunbookName;
use dr_model::document::{Context, Problem};
use dr_runbook::check::Finding;
use dr_runbook::steps::{registry, run_command};
use serde_json::{Value, json};

use crate::error::Result;
use crate::exit::Exit;
use crate::output::{Output, Table, Tone};
use crate::wiring::Setup;

/// Look at runbooks, and run those that recover something where it is
#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// List the runbooks
    List,
    /// Show the steps of a runbook
    Show {
        /// Its name
        name: RunbookName,
    },
    /// Check all runbooks
    ///
    /// That every step exists and that nothing comes up before what it must follow, or twice; that
    /// people are asked where a workload wants approvals; that nothing waits for the region being left,
    /// that every point of no return has a gate before it, that nothing is created on the day that could
    /// be there already, and that clients do not keep an old answer for longer than 60 s. What every
    /// plan is refused for, or should not be used like this, ends with 65; advice does not. It also
    /// names what is optional, which a move goes on without.
    Check,
    /// Make the plan of a runbook that stays in the primary's region
    ///
    /// Changes nothing but for one small object in the store, which shows that it takes writes.
    Plan(run::Args),
    /// Run a runbook that stays in the primary's region
    ///
    /// `recover-component` starts a database or a service again that died, or rebuilds a database
    /// whose files are gone; `restore-database` puts databases back to a moment before something was
    /// damaged in them. Each opens an epoch with the same primary, so that nobody moves the workload
    /// meanwhile. `dr failover` is for moving it.
    Run(run::Args),
}

pub(crate) async fn run(command: &Command, config: &Path, output: &Output) -> Result<Exit> {
    match command {
        Command::Plan(args) => return Box::pin(run::run(args, true, config, output)).await,
        Command::Run(args) => return Box::pin(run::run(args, false, config, output)).await,
        Command::List | Command::Show { .. } | Command::Check => {}
    }
    let setup = Setup::load(config)?;
    let runbooks = &setup.config.runbooks;
    match command {
        Command::List if output.json => {
            let usable = runbooks.usable().map(|runbook| {
                json!({
                    "name": runbook.name, "summary": runbook.summary, "built_in": runbook.built_in, "usable": true,
                })
            });
            let unusable = runbooks
                .unusable()
                .iter()
                .map(|file| json!({ "name": file.name, "file": file.file, "usable": false }));
            let all: Vec<_> = usable.chain(unusable).collect();
            output.json(&json!({ "runbooks": all }))?;
        }
        Command::List => {
            let mut table = Table::new(&["RUNBOOK", "STEPS", "SUMMARY"]);
            for runbook in runbooks.usable() {
                table.row([
                    runbook.name.to_string(),
                    runbook.steps.len().to_string(),
                    runbook.summary.clone(),
                ]);
            }
            for file in runbooks.unusable() {
                table.row([
                    file.name
                        .as_ref()
                        .map_or("unknown".to_owned(), ToString::to_string),
                    "unknown".to_owned(),
                    format!("`{}` cannot be used: `dr runbook check`", file.file),
                ]);
            }
            output.data(&table.render(output.stdout))?;
        }
        Command::Show { name } => {
            let runbook = setup.runbook(name)?;
            if output.json {
                output.json(&document(runbook))?
            } else {
                output.data(&text(runbook, output))?
            }
        }
        Command::Check => return check(&setup, output),
        Command::Plan(_) | Command::Run(_) => {}
    }
    Ok(Exit::Ok)
}

/// Looks a runbook over, together with the workloads that it is for: `dr check` says the same.
pub(crate) fn findings(config: &Config, runbook: &Runbook) -> Vec<Finding> {
    let mut findings = dr_runbook::check::check(runbook);
    let asking = config.workloads.iter();
    let asking = asking.filter(|(_, workload)| workload.approval.quorum > 0);
    let asking: Vec<_> = asking.map(|(name, _)| format!("`{name}`")).collect();
    if let Some(first) = runbook.steps.first()
        && !asking.is_empty()
        && !dr_runbook::check::asks_people(runbook)
    {
        findings.push(Finding {
            step: first.id.clone(),
            // One of a name of its own may be for the other workloads.
            is_grave: !dr_runbook::check::may_ask_people(runbook)
                && (asking.len() == config.workloads.len() || is_used_unasked(&runbook.name)),
            what: format!(
                "nobody is asked before something is changed, and {} {} approvals: a plan in which that happens is refused",
                asking.join(", "),
                if asking.len() == 1 { "wants" } else { "want" },
            ),
            hint: "put `await-approval` before the first step that changes something, without `if`",
        });
    }
    findings.extend(nowhere(config, runbook));
    findings
}

/// Finds the commands that no workload has a machine for.
fn nowhere(config: &Config, runbook: &Runbook) -> Vec<Finding> {
    let commands = runbook
        .steps
        .iter()
        .filter(|step| step.uses == run_command::NAME);
    let nowhere = commands.filter_map(|step| {
        let mut context = Context::without_references("");
        let parameters = registry::find(run_command::NAME)?.parameters(&step.with, &mut context);
        let on = parameters.get("on")?.as_str()?;
        let mut services = config
            .workloads
            .values()
            .flat_map(|known| known.services.keys());
        (!services.any(|name| name.as_str() == on)).then(|| Finding {
            step: step.id.clone(),
            is_grave: true,
            what: format!(
                "no workload has a service `{on}`, on whose machine `{}` would run it",
                run_command::NAME
            ),
            hint: "name one of a workload's services",
        })
    });
    nowhere.collect()
}

fn check(setup: &Setup, output: &Output) -> Result<Exit> {
    let style = output.stdout;
    let (mut shown, mut lines, mut grave) = (Vec::new(), Vec::new(), 0);
    let runbooks = &setup.config.runbooks;
    for file in runbooks.unusable() {
        grave += 1;
        for problem in &file.problems.0 {
            lines.push(format!("{} {problem}", style.paint(Tone::Bad, "wrong")));
            shown.push(json!({
                "runbook": file.name, "file": file.file, "grave": true, "what": problem.to_string(),
            }));
        }
    }
    for runbook in runbooks.usable() {
        let name = &runbook.name;
        let findings = findings(&setup.config, runbook);
        grave += findings.iter().filter(|finding| finding.is_grave).count();
        if findings.is_empty() {
            let built_in = if runbook.built_in { " (built in)" } else { "" };
            lines.push(format!(
                "{} {name}{built_in}",
                style.paint(Tone::Good, "ok")
            ));
        }
        for finding in findings {
            let (tone, word) = match finding.is_grave {
                true => (Tone::Bad, "wrong"),
                false => (Tone::Warning, "advice"),
            };
            let (step, what) = (&finding.step, &finding.what);
            lines.push(format!(
                "{} {name}: step `{step}`: {what}",
                style.paint(tone, word)
            ));
            lines.push(format!("  hint: {}", finding.hint));
            shown.push(json!({
                "runbook": name, "step": step, "grave": finding.is_grave, "what": what, "hint": finding.hint,
            }));
        }
    }
    let mut optional = BTreeMap::new();
    for (name, workload) in &setup.config.workloads {
        let members = members_gone_without(workload);
        if members.is_empty() {
            continue;
        }
        lines.push(format!(
            "{} every move of `{name}` goes on without {}, and ends with exceptions then",
            style.paint(Tone::Faint, "optional"),
            members.join(", ")
        ));
        optional.insert(name, members);
    }
    // Whatever else the configuration warns of, it says elsewhere.
    let ours = |problem: &&Problem| {
        let cached = problem.path.contains(".traffic[") && problem.path.ends_with(".ttl");
        cached || problem.path.ends_with(".max_loss") || problem.what.starts_with("`runbooks/`")
    };
    for problem in setup.warnings.iter().filter(ours) {
        lines.push(format!(
            "{} {problem}",
            style.paint(Tone::Warning, "advice")
        ));
        shown.push(json!({ "grave": false, "what": problem.to_string() }));
    }
    if output.json {
        let names: Vec<_> = runbooks.names().collect();
        output.json(&json!({ "valid": grave == 0, "runbooks": names, "findings": shown, "optional": optional }))?;
    } else {
        output.data(&lines.join("\n"))?;
    }
    Ok(if grave == 0 {
        Exit::Ok
    } else {
        Exit::Configuration
    })
}

/// Names what a move of a workload goes on without.
fn members_gone_without(workload: &Workload) -> Vec<String> {
    let services = workload.services.iter();
    let services = services.filter(|(_, service)| service.optional);
    let services = services.map(|(name, _)| format!("service `{name}`"));
    let checks = workload.checks.iter().filter(|check| check.optional);
    let checks = checks.map(|check| match &check.kind {
        HealthCheckKind::Http { url, .. } => format!("check `{url}`"),
        HealthCheckKind::Sql { query, .. } => format!("check `{query}`"),
        HealthCheckKind::Command { run, .. } => format!("check `{}`", run.join(" ")),
    });
    let records = workload.traffic.iter().filter(|record| record.optional);
    let records = records.map(|record| {
        let name = record.node.get("name").and_then(|name| name.as_text());
        format!("traffic `{} {}`", record.kind, name.unwrap_or_default())
    });
    services.chain(checks).chain(records).collect()
}

fn document(runbook: &Runbook) -> Value {
    let step = |step: &Step| {
        json!({
            "id": step.id,
            "uses": step.uses,
            "needs": step.needs,
            "if": step.condition,
            "fallback": step.fallback,
            "continue_on_error": step.continue_on_error,
            "timeout_seconds": step.timeout.map(|timeout| timeout.as_secs_f64()),
        })
    };
    let steps: Vec<_> = runbook.steps.iter().map(step).collect();
    json!({ "name": runbook.name, "summary": runbook.summary, "steps": steps })
}

fn text(runbook: &Runbook, output: &Output) -> String {
    let mut table = Table::new(&["STEP", "USES", "NEEDS", "OTHERWISE", "WHAT IT DOES"]);
    for step in &runbook.steps {
        let needs: Vec<_> = step.needs.iter().map(ToString::to_string).collect();
        let summary = registry::find(&step.uses)
            .map(|kind| kind.summary())
            .unwrap_or_default();
        table.row([
            step.id.to_string(),
            step.uses.clone(),
            needs.join(", "),
            step.fallback.clone().unwrap_or_default(),
            summary.to_owned(),
        ]);
    }
    format!("{}\n\n{}", runbook.summary, table.render(output.stdout))
}
