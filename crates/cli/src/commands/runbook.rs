//! `dr runbook`.

use std::path::Path;

use dr_config::{Runbook, Step};
use dr_model::RunbookName;
use dr_runbook::steps::registry;
use serde_json::{Value, json};

use crate::error::Result;
use crate::exit::Exit;
use crate::output::{Output, Table, Tone};
use crate::wiring::{Setup, unknown};

/// Look at runbooks
#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// List the runbooks
    List,
    /// Show the steps of a runbook
    Show {
        /// Its name
        name: RunbookName,
    },
    /// Check all runbooks: that every step exists, and that nothing comes up before what it must
    /// follow
    Check,
}

pub(crate) async fn run(command: &Command, config: &Path, output: &Output) -> Result<Exit> {
    let setup = Setup::load(config)?;
    let runbooks = &setup.config.runbooks;
    match command {
        Command::List if output.json => {
            let all: Vec<_> = runbooks
                .values()
                .map(|runbook| json!({ "name": runbook.name, "summary": runbook.summary }))
                .collect();
            output.json(&all)?;
        }
        Command::List => {
            let mut table = Table::new(&["RUNBOOK", "STEPS", "SUMMARY"]);
            for runbook in runbooks.values() {
                table.row([
                    runbook.name.to_string(),
                    runbook.steps.len().to_string(),
                    runbook.summary.clone(),
                ]);
            }
            output.data(&table.render(output.stdout))?;
        }
        Command::Show { name } => {
            let runbook = runbooks
                .get(name)
                .ok_or_else(|| unknown("runbook", name.as_str(), runbooks.keys()))?;
            if output.json {
                output.json(&document(runbook))?
            } else {
                output.data(&text(runbook, output))?
            }
        }
        // A configuration with a runbook that cannot be used does not load.
        Command::Check if output.json => output
            .json(&json!({ "valid": true, "runbooks": runbooks.keys().collect::<Vec<_>>() }))?,
        Command::Check => {
            for name in runbooks.keys() {
                output.data(&format!("{} {name}", output.stdout.paint(Tone::Good, "ok")))?;
            }
        }
    }
    Ok(Exit::Ok)
}

fn document(runbook: &Runbook) -> Value {
    let step = |step: &Step| {
        json!({
            "id": step.id,
            "uses": step.uses,
            "needs": step.needs,
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
