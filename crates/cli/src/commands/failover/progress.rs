//! Progress of an execution, and stopping it between two actions.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use dr_model::{Clock, ExecutionId};
use dr_provider::driver::Undo;
use dr_runbook::outcome::StepState;
use dr_runbook::record::Outcome;
use dr_runbook::{Event, Monitor, Report};
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

    /// Lets whoever waits know that the execution stands between two actions.
    fn may_stop(&self) {
        if self.stop.load(Ordering::Relaxed) {
            self.halted.notify_one();
        }
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
            Event::StepBegan { step, number, of } => {
                self.may_stop();
                let id = self.paint(Tone::Strong, &step.id.to_string());
                self.line(&format!("[{number:>2}/{of}] {id}"));
            }
            Event::ActionBegan {
                action, attempt, ..
            } => {
                self.may_stop();
                let again = if *attempt > 1 {
                    format!(" (attempt {attempt})")
                } else {
                    String::new()
                };
                if !matches!(action.undo, Undo::ReadOnly) || *attempt > 1 {
                    self.line(&format!("        {}{again}", action.summary));
                }
            }
            Event::ActionEnded {
                action, outcome, ..
            } => match outcome {
                Outcome::Done { .. } => {}
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

/// Carries out an execution. The first SIGINT or SIGTERM stops it before its next action, the second at once; either way
/// its journal tells how far it came.
pub(crate) async fn watched(
    work: impl Future<Output = std::result::Result<Report, dr_runbook::Error>>,
    progress: &Progress,
    output: &Output,
) -> Result<Report> {
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
