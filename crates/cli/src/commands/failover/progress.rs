//! Progress of an execution, and stopping it between two actions.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use dr_model::{Clock, ExecutionId, StepId};
use dr_provider::driver::Undo;
use dr_runbook::outcome::StepState;
use dr_runbook::record::Outcome;
use dr_runbook::steps::await_approval;
use dr_runbook::{Event, Monitor};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

use crate::error::{CommandError, Result};
use crate::exit::Exit;
use crate::output::{Output, Tone, took};

/// Writes what an execution does to stderr, one line each.
pub(crate) struct Progress {
    output: Output,
    clock: Arc<dyn Clock>,
    began: Duration,
    execution: OnceLock<ExecutionId>,
    /// The ids of the steps, to say which is next.
    steps: OnceLock<Vec<StepId>>,
    stop: AtomicBool,
    halted: Notify,
}

impl Progress {
    pub(crate) fn new(output: &Output, clock: Arc<dyn Clock>) -> Self {
        Self {
            output: *output,
            began: clock.elapsed(),
            clock,
            execution: OnceLock::new(),
            steps: OnceLock::new(),
            stop: AtomicBool::new(false),
            halted: Notify::new(),
        }
    }

    /// Writes a line with the time since the beginning.
    fn line(&self, text: &str) {
        let at = self
            .clock
            .elapsed()
            .saturating_sub(self.began)
            .as_secs_f64();
        let at = self
            .output
            .stderr
            .paint(Tone::Faint, &format!("{at:7.2} s"));
        self.output.say(&format!("{at}  {text}"));
    }

    fn paint(&self, tone: Tone, text: &str) -> String {
        self.output.stderr.paint(tone, text)
    }

    /// Tells whether the execution stops here, between two actions, and lets whoever waits know: what would be next is not begun.
    fn stops(&self) -> bool {
        let stops = self.stop.load(Ordering::Relaxed);
        if stops {
            self.halted.notify_one();
        }
        stops
    }
}

impl Monitor for Progress {
    fn event(&self, event: &Event<'_>) {
        match event {
            Event::Started {
                execution,
                plan,
                resumed,
            } => {
                // The first one stays: an execution begins once in a process.
                self.execution.get_or_init(|| (*execution).clone());
                let ids = plan.steps.iter().map(|step| step.id.clone());
                self.steps.get_or_init(|| ids.collect());
                let verb = if *resumed { "Resuming" } else { "Execution" };
                self.line(&format!(
                    "{verb} {}: {} from {} to {}, epoch {}",
                    self.paint(Tone::Strong, execution.as_str()),
                    plan.workload,
                    plan.from,
                    plan.to,
                    plan.opens
                ));
            }
            Event::StepBegan { .. } | Event::ActionBegan { .. } if self.stops() => {}
            Event::StepBegan { step, number, of } => {
                let id = self.paint(Tone::Strong, &step.id.to_string());
                let takes = step.predicted_seconds.map(|seconds| {
                    let time = took(Duration::from_secs_f64(seconds.max(0.0)));
                    format!("took {time} lately")
                });
                let next = self.steps.get().and_then(|steps| steps.get(*number));
                let next = next.map(|next| format!("next: {next}"));
                let more: Vec<_> = takes.into_iter().chain(next).collect();
                let more = match more.is_empty() {
                    true => String::new(),
                    false => self.paint(Tone::Faint, &format!("  ({})", more.join("; "))),
                };
                self.line(&format!("[{number:>2}/{of}] {id}{more}"));
            }
            Event::ActionBegan {
                action, attempt, ..
            } => {
                let again = if *attempt > 1 {
                    format!(" (attempt {attempt})")
                } else {
                    String::new()
                };
                if action.name == await_approval::WAIT {
                    self.line(&format!("        {}", action.summary));
                    if let Some(execution) = self.execution.get() {
                        self.line(
                            "        each of them runs, on any machine with the configuration:",
                        );
                        let command = format!("dr execution approve {execution} --key FILE");
                        self.line(&format!("          {}", self.paint(Tone::Strong, &command)));
                        self.line(&format!(
                            "        cut short, the wait goes on with `dr execution resume {execution}`"
                        ));
                    }
                } else if !matches!(action.undo, Undo::ReadOnly) || *attempt > 1 {
                    self.line(&format!("        {}{again}", action.summary));
                }
            }
            Event::ActionWaits { target, seen } => {
                let waits = format!("        waits for `{target}`: {seen}");
                self.line(&self.paint(Tone::Faint, &waits));
            }
            Event::ActionEnded {
                action, outcome, ..
            } => match outcome {
                // What was done otherwise than was planned is not only for the journal.
                Outcome::Done { applied, .. } => {
                    for recovery_point in passed_over(&applied.evidence) {
                        self.line(&format!(
                            "        {} {recovery_point}",
                            self.paint(Tone::Warning, "passed over")
                        ));
                    }
                }
                Outcome::NotDone { why } => {
                    self.line(&format!(
                        "        {} {}: {why}",
                        self.paint(Tone::Warning, "not done:"),
                        action.name
                    ));
                }
                Outcome::Unknown { why } => {
                    self.line(&format!(
                        "        {} {}: {why}",
                        self.paint(Tone::Warning, "unknown:"),
                        action.name
                    ));
                }
            },
            Event::FellBack { target, uses, why } => {
                self.line(&format!(
                    "        {} {uses} for {target}, because {why}",
                    self.paint(Tone::Warning, "falling back to")
                ));
            }
            Event::StepEnded {
                step,
                state,
                summary,
                took: time,
            } => {
                let mark = match state {
                    StepState::Done => self.paint(Tone::Good, "done"),
                    StepState::Excepted => self.paint(Tone::Warning, "failed, going on"),
                    StepState::Skipped => self.paint(Tone::Warning, "left out"),
                    StepState::Failed => self.paint(Tone::Bad, "failed"),
                    StepState::Pending | StepState::Running => "running".to_owned(),
                };
                self.line(&format!(
                    "        {} {mark} in {}: {summary}",
                    step.id,
                    took(*time)
                ));
            }
            Event::Note(text) => self.line(&format!("        {text}")),
            Event::Ended(report) => self.line(report.state.as_str()),
        }
    }
}

/// Carries out an execution. The first SIGINT or SIGTERM stops it before its next action, the
/// second at once; either way its journal tells how far it came.
pub(crate) async fn watched<T>(
    work: impl Future<Output = std::result::Result<T, dr_runbook::Error>>,
    progress: &Progress,
    output: &Output,
) -> Result<T> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            biased;
            () = progress.halted.notified() => return Err(interrupted(progress)),
            done = &mut work => return Ok(done?),
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        if progress.stop.swap(true, Ordering::Relaxed) {
            return Err(interrupted(progress));
        }
        output.say("Stopping after the current action; once more to stop at once.");
    }
}

fn interrupted(progress: &Progress) -> CommandError {
    let error = CommandError::new(Exit::Interrupted, "interrupted");
    match progress.execution.get() {
        Some(id) => error.hint(format!("go on with it: `dr execution resume {id}`; see how far it came: `dr execution show {id}`")),
        None => error.hint("nothing was begun"),
    }
}

/// Returns the recovery points that a restore has passed over, each with the reason: what was found while it was written, and what the note
/// of one that was cut off says.
fn passed_over(evidence: &Value) -> impl Iterator<Item = &str> {
    let places = [&evidence["passed_over"], &evidence["plan"]["passed_over"]];
    let all = places.into_iter().filter_map(Value::as_array).flatten();
    all.filter_map(Value::as_str)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use dr_model::SystemClock;
    use dr_provider::driver::Action;
    use dr_runbook::plan::Target;
    use rustix::process::{Signal, getpid, kill_process};
    use serde_json::Value;

    use super::*;
    use crate::output::Color;

    fn progress() -> (Output, Progress) {
        let output = Output::new(Color::Never, false);
        (output, Progress::new(&output, Arc::new(SystemClock::new())))
    }

    /// One after the other, because a signal reaches every test of a process.
    #[tokio::test]
    async fn interrupts_stop_between_actions_and_then_at_once() {
        the_first_interrupt_stops_before_the_next_action().await;
        the_second_interrupt_waits_for_nothing().await;
    }

    async fn the_first_interrupt_stops_before_the_next_action() {
        let (output, progress) = progress();
        let action = Action {
            name: "act".to_owned(),
            summary: "act".to_owned(),
            current: None,
            intended: None,
            dependencies: Vec::new(),
            undo: Undo::ReadOnly,
            parameters: Value::Null,
        };
        let ended = Cell::new(0);
        let work = async {
            loop {
                progress.event(&Event::ActionBegan {
                    target: &Target::Workload,
                    action: &action,
                    attempt: 1,
                });
                // The intent is written before anything is done.
                tokio::task::yield_now().await;
                if ended.get() == 0 {
                    kill_process(getpid(), Signal::INT).unwrap();
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                ended.set(ended.get() + 1);
            }
        };
        let error = watched::<()>(work, &progress, &output).await.unwrap_err();
        assert_eq!((error.exit, ended.get()), (Exit::Interrupted, 1));
    }

    async fn the_second_interrupt_waits_for_nothing() {
        let (output, progress) = progress();
        let work = async {
            for _ in 0..2 {
                kill_process(getpid(), Signal::INT).unwrap();
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            std::future::pending().await
        };
        let error = watched::<()>(work, &progress, &output).await.unwrap_err();
        assert_eq!(error.exit, Exit::Interrupted);
    }
}
