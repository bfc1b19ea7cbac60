//! `dr execution show`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dr_coordination::Actor;
use dr_model::{ExecutionId, StepId};
use dr_runbook::executions::{Found, Summary};
use dr_runbook::history::Progress as ActionProgress;
use dr_runbook::outcome::StepState;
use dr_runbook::record::Place;
use dr_runbook::steps::await_approval;
use dr_runbook::{Event, History, Monitor, Report, State};
use jiff::Timestamp;
use serde::Serialize;

use super::{approve, is_interrupted, needs_somebody};
use crate::commands::failover::Progress;
use crate::commands::failover::report_text::{self, Beside};
use crate::error::Result;
use crate::exit::Exit;
use crate::output::{Output, Table, Tone, seconds};
use crate::wiring::Setup;

/// How often the journal is read while following.
const INTERVAL: Duration = Duration::from_secs(1);

/// How often it is read while nobody works at it: people may take days.
const RESTING_INTERVAL: Duration = Duration::from_secs(5);

/// Show an execution as its journal tells it
///
/// On the machine that ran it, also whether its process has ended in its midst, and what to do then.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Its id, as `dr execution list` prints it
    execution: ExecutionId,
    /// Go on until it is over, also while it is paused or stuck
    #[arg(long, short)]
    follow: bool,
}

pub(super) async fn run(args: &Args, setup: &Setup, output: &Output) -> Result<Exit> {
    let mut found = super::find(setup, &args.execution).await?;
    if args.follow {
        let mut told = Told::new(setup, output);
        let mut history = found.history.clone();
        told.tell(&history);
        let mut read = found.records().count();
        loop {
            let state = history.state();
            if state.is_final() {
                break;
            }
            let summary = found.summary();
            told.tell_ended(&summary);
            tokio::time::sleep(match state {
                _ if needs_somebody(&summary) => RESTING_INTERVAL,
                State::AwaitingApproval => RESTING_INTERVAL,
                _ => INTERVAL,
            })
            .await;
            found = super::find(setup, &args.execution).await?;
            // Record by record: what came and went between two looks is told as well, as a pause that somebody has ended.
            for record in found.records().skip(read) {
                read += 1;
                history.take(record);
                told.tell(&history);
            }
        }
    }
    let report = found.history.report();
    let summary = found.summary();
    let interrupted = Some(&summary).filter(|summary| is_interrupted(summary));
    if output.json {
        output.json(&Shown {
            report: &report,
            interrupted: interrupted.is_some(),
        })?;
    } else {
        let beside = Beside {
            interrupted,
            expired_at: expired_at(&found, setup),
        };
        let mut lines = vec![text(&found, &report, beside, setup, output)?];
        lines.extend(approve::lines(&found, setup).await?);
        output.data(&lines.join("\n"))?;
    }
    Ok(Exit::Ok)
}

/// What is printed as JSON: the report, and what is known beside the journal.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    report: &'a Report,
    /// Whether its process is known to have ended in its midst; of one that ran on another machine nobody can tell from here.
    interrupted: bool,
}

/// Tells what happens as its executor does, by what is new in the journal.
struct Told {
    progress: Progress,
    state: Option<State>,
    /// Whose process was told to have ended.
    ended: Option<Actor>,
    steps: BTreeMap<StepId, StepState>,
    actions: BTreeMap<Place, ActionProgress>,
}

impl Told {
    fn new(setup: &Setup, output: &Output) -> Self {
        Self {
            progress: Progress::new(output, Arc::clone(&setup.clock)),
            state: None,
            ended: None,
            steps: BTreeMap::new(),
            actions: BTreeMap::new(),
        }
    }

    fn tell(&mut self, history: &History) {
        let plan = &history.plan;
        if self.state.is_none() {
            self.progress.event(&Event::Started {
                execution: &history.execution,
                plan,
                resumed: false,
            });
        }
        for (index, step) in plan.steps.iter().enumerate() {
            let Some(known) = history.step(&step.id) else {
                continue;
            };
            if !self.steps.contains_key(&step.id) {
                self.progress.event(&Event::StepBegan {
                    step,
                    number: index + 1,
                    of: plan.steps.len(),
                });
            }
            self.tell_actions(history, &step.id);
            let before = self.steps.insert(step.id.clone(), known.state);
            if known.state != StepState::Running && before != Some(known.state) {
                let took = known.took_seconds().unwrap_or_default();
                let took = Duration::try_from_secs_f64(took);
                self.progress.event(&Event::StepEnded {
                    step,
                    state: known.state,
                    summary: known.summary.as_deref().unwrap_or_default(),
                    took: took.unwrap_or_default(),
                });
            }
        }
        let state = history.state();
        if self.state.replace(state) == Some(state) {
            return;
        }
        let id = &history.execution;
        let note = match state {
            State::Stuck => {
                let why = history.stuck.as_ref().map_or("", |stuck| &stuck.why);
                format!("stuck: {why}; once that is put right: `dr execution resume {id}`")
            }
            State::Paused => {
                let why = history.paused.as_deref().unwrap_or_default();
                format!("{why}; go on with it: `dr execution resume {id}`")
            }
            _ => return,
        };
        self.progress.event(&Event::Note(&note));
    }

    /// Tells once of each process that was to carry it out and has ended.
    fn tell_ended(&mut self, summary: &Summary) {
        let holder = &summary.holder;
        if !is_interrupted(summary) || self.ended.as_ref() == Some(holder) {
            return;
        }
        self.ended = Some(holder.clone());
        let ways_on = summary.ways_on();
        let note = format!("interrupted: its process has ended ({holder}); {ways_on}");
        self.progress.event(&Event::Note(&note));
    }

    fn tell_actions(&mut self, history: &History, step: &StepId) {
        for (place, known) in history.actions().filter(|(place, _)| place.step == *step) {
            let before = self.actions.insert(place.clone(), known.clone());
            if before.as_ref() == Some(known) {
                continue;
            }
            let lane = history.plan.step(&place.step);
            let lane = lane.and_then(|step| step.lanes.get(place.lane));
            let Some((lane, action)) = lane.zip(history.action(place)) else {
                continue;
            };
            if before.is_none() {
                self.progress.event(&Event::ActionBegan {
                    target: &lane.target,
                    action,
                    attempt: 1,
                });
            }
            if let ActionProgress::Concluded(outcome) = known {
                self.progress.event(&Event::ActionEnded {
                    target: &lane.target,
                    action,
                    outcome,
                    took: Duration::ZERO,
                });
            }
        }
    }
}

/// Returns when the request for approvals expired that an execution waits for.
fn expired_at(found: &Found, setup: &Setup) -> Option<Timestamp> {
    let waits = found.history.state() == State::AwaitingApproval;
    let asked = await_approval::asked(&found.history).filter(|_| waits)?;
    let is_expired = asked.is_expired(setup.clock.now());
    is_expired.then(|| asked.expires_at())
}

fn text(
    found: &Found,
    report: &Report,
    beside: Beside<'_>,
    setup: &Setup,
    output: &Output,
) -> Result<String> {
    let style = output.stdout;
    let mut table = Table::new(&["STEP", "USES", "STATE", "TOOK", "SUMMARY"]);
    for step in &report.steps {
        let tone = match step.state {
            StepState::Done => Some(Tone::Good),
            StepState::Failed => Some(Tone::Bad),
            StepState::Excepted | StepState::Skipped | StepState::Running => Some(Tone::Warning),
            StepState::Pending => Some(Tone::Faint),
        };
        table.toned(vec![
            (None, step.id.to_string()),
            (None, step.uses.clone()),
            (
                tone,
                word(step.state, beside.interrupted.is_some()).to_owned(),
            ),
            (None, step.took_seconds.map(seconds).unwrap_or_default()),
            (None, step.summary.clone().unwrap_or_default()),
        ]);
    }
    let (_, objectives) = super::site(setup, found)?;
    Ok(format!(
        "{}\n\n{}",
        table.render(style),
        report_text::render_found(report, beside, objectives, style)
    ))
}

fn word(state: StepState, interrupted: bool) -> &'static str {
    match state {
        StepState::Pending => "pending",
        StepState::Running if interrupted => "interrupted",
        StepState::Running => "running",
        StepState::Done => "done",
        StepState::Excepted => "excepted",
        StepState::Skipped => "skipped",
        StepState::Failed => "failed",
    }
}
