//! `run-command`: runs a program on the machine of a service in the region moved to, at least once.
//!
//! For what only the workload knows: to warm a cache, to re-point a queue. Nobody can see whether it was done, so after a
//! crash or a lost answer it runs again, with the same idempotency key in its environment, by which it can tell
//! (PROTOCOL 9). The plan says so, and prints it word for word: a plan is written down, so secrets have no place in it. The
//! host refuses it if a higher epoch has been seen there.

use std::time::Duration;

use async_trait::async_trait;
use dr_model::ServiceName;
use dr_model::document::{Context, Node, Reader};
use dr_provider::driver::{Action, Applied, Undo, Verified};
use dr_provider::host::Command;
use dr_provider::{Error, ErrorKind, Result};
use serde_json::{Value, json};

use super::open_epoch;
use super::start_service::find;
use crate::plan::{Idempotency, Target};
use crate::step::{Impossible, Scene, Step, Work};

/// The step's name.
pub const NAME: &str = "run-command";

/// The step.
#[derive(Debug)]
pub struct RunCommand;

#[async_trait]
impl Step for RunCommand {
    fn name(&self) -> &'static str {
        NAME
    }

    fn summary(&self) -> &'static str {
        "run a program where a service runs, at least once"
    }

    fn idempotency(&self) -> Idempotency {
        Idempotency::AtLeastOnce
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(60)
    }

    fn parameters(&self, with: &Node, context: &mut Context) -> Value {
        let Some(mut reader) = Reader::open(with, context) else {
            return Value::Null;
        };
        let on: Option<ServiceName> = reader.required("on");
        let run = reader.required_with("run", dr_config::printed_command);
        reader.finish();
        json!({ "on": on, "run": run.unwrap_or_default() })
    }

    fn follows(&self) -> &'static [&'static str] {
        &[open_epoch::NAME]
    }

    fn may_fail(&self) -> bool {
        true
    }

    fn targets(&self, _: &Scene<'_>) -> Vec<Target> {
        vec![Target::Workload]
    }

    fn plan(
        &self,
        scene: &Scene<'_>,
        _: &Target,
        parameters: &Value,
    ) -> std::result::Result<Vec<Action>, Impossible> {
        let on = parameters["on"].as_str().unwrap_or_default();
        let mut services = scene.world.services.iter();
        let Some(service) = services.find(|service| service.name.as_str() == on) else {
            return Err(Impossible::new(
                format!("there is no service `{on}` in {}", scene.to()),
                "name one of the workload's services, for the machine that it runs on",
            ));
        };
        let words = parameters["run"].as_array().into_iter().flatten();
        let words: Vec<_> = words.filter_map(Value::as_str).collect();
        Ok(vec![Action {
            name: NAME.to_owned(),
            summary: format!(
                "run `{}` on {}, at least once",
                words.join(" "),
                service.host
            ),
            current: None,
            intended: None,
            dependencies: vec![scene.needs_target(format!("host {}", service.host))],
            undo: Undo::Compensable("whatever it did is undone by hand".to_owned()),
            parameters: parameters.clone(),
        }])
    }

    async fn apply(&self, work: &Work, _: &Target, action: &Action) -> Result<Applied> {
        let (target, command) = command(work, action)?;
        let service = find(work, &target, &work.plan().to)?;
        let fence = work.fence();
        service.host.admit(&fence.workload, fence.epoch).await?;
        let limit = Duration::try_from_secs_f64(work.step.timeout_seconds).unwrap_or_default();
        let output = service.host.run(&command, limit).await?;
        let program = command.argv.first().map_or("", String::as_str);
        let host = service.host.name();
        if output.status != Some(0) {
            let subject = format!("`{program}` on {host}");
            return Err(Error::new(ErrorKind::Failed, "run", subject).because(output.said()));
        }
        let evidence = json!({ "host": host, "idempotency_key": key(work) });
        Ok(work.applied(format!("ran `{program}` on {host}"), evidence))
    }

    /// Whether a program has done its work cannot be seen; it runs again, which the key is for.
    async fn verify(&self, _: &Work, _: &Target, _: &Action) -> Verified {
        Verified::NotDone {
            seen: "it cannot be seen whether it ran".to_owned(),
        }
    }
}

fn key(work: &Work) -> String {
    format!("{}/{}", work.history.execution, work.step.id)
}

/// Returns the service whose machine is meant, and what runs there.
fn command(work: &Work, action: &Action) -> Result<(Target, Command)> {
    let on = action.parameters["on"].as_str().unwrap_or_default();
    let name = on
        .parse::<ServiceName>()
        .map_err(|error| Error::new(ErrorKind::Invalid, "run a command on", on).because(error))?;
    let words = action.parameters["run"].as_array().into_iter().flatten();
    let mut command = Command::new(words.filter_map(Value::as_str));
    let plan = work.plan();
    let variables = [
        ("DR_IDEMPOTENCY_KEY", key(work)),
        ("DR_EXECUTION", work.history.execution.to_string()),
        ("DR_WORKLOAD", plan.workload.to_string()),
        ("DR_FROM", plan.from.to_string()),
        ("DR_TO", plan.to.to_string()),
        ("DR_EPOCH", plan.opens.to_string()),
    ];
    let variables = variables.into_iter();
    command.environment = variables
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    Ok((Target::Service(name), command))
}
