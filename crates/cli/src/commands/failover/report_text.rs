//! What came of an execution, as a person reads it, and how the program ends.

use dr_config::Objectives;
use dr_model::StepId;
use dr_model::loss::Bound;
use dr_runbook::executions::Summary;
use dr_runbook::outcome::StepState;
use dr_runbook::steps::{check_health, open_epoch, verify_traffic};
use dr_runbook::{Mode, Report, Rung, State};
use jiff::Timestamp;

use super::plan_text::{bounded, estimated};
use crate::exit::Exit;
use crate::output::{Style, Tone, seconds};

/// Returns how the program ends: an execution that did everything still fails its objectives if
/// what was achieved is worse, or was not measured (principle 6).
pub(crate) fn exit(report: &Report, objectives: Objectives) -> Exit {
    match report.state {
        // Nothing was to be achieved but what was before.
        State::Completed if matches!(report.mode, Mode::Undo | Mode::InPlace) => Exit::Ok,
        State::Completed => {
            let judge = |measured: Option<f64>, objective: std::time::Duration| match measured {
                None => Exit::Unknown,
                Some(value) if value > objective.as_secs_f64() => Exit::Breach,
                Some(_) => Exit::Ok,
            };
            let rpo = objectives.rpo;
            let rpa = match (report.rpa_at_least_seconds, report.rpa_at_most_seconds) {
                (Some(least), _) if least > rpo.as_secs_f64() => Exit::Breach,
                (Some(_), Some(most)) if most <= rpo.as_secs_f64() => Exit::Ok,
                (Some(_), _) => Exit::Unknown,
                _ => judge(report.rpa_seconds, rpo),
            };
            judge(report.rta_seconds, objectives.rto).worse(rpa)
        }
        State::CompletedWithExceptions => Exit::Breach,
        State::Stuck | State::Paused => Exit::Stuck,
        State::Superseded => Exit::Busy,
        State::Running | State::AwaitingApproval => Exit::Busy,
        State::Failed | State::Aborted => Exit::Failed,
    }
}

/// Writes the summary.
pub(crate) fn render(report: &Report, objectives: Objectives, style: Style) -> String {
    render_found(report, Beside::default(), objectives, style)
}

/// What is known of an execution beside its journal.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Beside<'a> {
    /// It, if its process is known to have ended in its midst.
    pub(crate) interrupted: Option<&'a Summary>,
    /// When its request for approvals expired, if it waits for them in vain.
    pub(crate) expired_at: Option<Timestamp>,
}

/// The same of an execution of which more is known.
pub(crate) fn render_found(
    report: &Report,
    Beside {
        interrupted,
        expired_at,
    }: Beside<'_>,
    objectives: Objectives,
    style: Style,
) -> String {
    let mut lines = vec![match (interrupted, expired_at) {
        (_, Some(at)) => {
            let moving = moving(report);
            let text = format!("{moving} was not approved: the request expired at {at:.0}.");
            style.paint(Tone::Bad, &text)
        }
        (None, None) => headline(report, style),
        (Some(summary), None) => {
            let (moving, holder) = (moving(report), &summary.holder);
            let text = format!("{moving} was interrupted: its process has ended ({holder}).");
            style.paint(Tone::Bad, &text)
        }
    }];
    let mut line = |name: &str, text: String| lines.push(format!("  {name:<9} {text}"));
    if let Some(reason) = &report.reason {
        line("because", reason.clone());
    }
    if let Some(stuck) = &report.stuck {
        for residue in &stuck.residue {
            line("stays", residue.clone());
        }
        for remedy in &stuck.remedy {
            line("do", style.paint(Tone::Strong, remedy));
        }
    }
    // One that runs is told so too: whoever ran it may have died, and taking it over stops them.
    match report.state {
        // One that is stuck says it with what is to be done first.
        State::Stuck if report.stuck.is_some() => {}
        State::Running | State::Stuck | State::Paused => {
            line("then", format!("dr execution resume {}", report.execution));
        }
        State::AwaitingApproval if expired_at.is_some() => {
            line("then", format!("dr execution abort {}", report.execution));
            line(
                "and",
                "ask anew: `dr failover` makes another plan and request".to_owned(),
            );
        }
        State::AwaitingApproval => {
            let approve = format!("dr execution approve {} --key FILE", report.execution);
            line("then", approve);
            if interrupted.is_some() {
                line("and", format!("dr execution resume {}", report.execution));
            }
        }
        _ => {}
    }
    if expired_at.is_none() && interrupted.is_some_and(|summary| summary.may_be_aborted) {
        line("or", format!("dr execution abort {}", report.execution));
    }
    if let Some(sight) = &report.sight {
        for unknown in sight.unknown() {
            line(
                "not seen",
                format!("{unknown} (from {})", sight.looked_from),
            );
        }
    }
    let came_up = matches!(
        report.state,
        State::Completed | State::CompletedWithExceptions | State::Stuck
    );
    if came_up && report.mode != Mode::Undo {
        let touched = !report.resources.is_empty();
        if touched || report.rung == Rung::Restart {
            line("rung", report.rung.as_str().to_owned());
        }
        let fence = match &report.override_reason {
            Some(reason) => format!("{}; overridden: {reason}", report.fence),
            None => report.fence.to_string(),
        };
        // What is started again was fenced by nobody.
        if touched && report.rung != Rung::Restart {
            line("fence", fence);
        }
        if let Some(witness) = &report.witness {
            line("witness", witness.clone());
        }
        if let Some(by_hand) = &report.clients_by_hand {
            line("clients", format!("by hand: {by_hand}"));
        }
        for (name, resource) in &report.resources {
            if let Some(seen) = &resource.seen_alive {
                let text = format!("the old primary of {name} was seen alive: {seen}");
                line("", style.paint(Tone::Bad, &text));
            }
        }
        for (name, resource) in &report.resources {
            if let Some(sealed) = &resource.sealed {
                line(
                    "sealed",
                    format!("{name}: timeline {} at {}", sealed.timeline, sealed.lsn),
                );
            }
        }
        if !touched || report.rung == Rung::Restart {
            for (index, text) in restarted(report, style).into_iter().enumerate() {
                line(if index == 0 { "loss" } else { "" }, text);
            }
        } else {
            let estimate = report
                .loss
                .estimate
                .as_ref()
                .map_or_else(|| "unknown".to_owned(), estimated);
            line("loss", format!("estimate {estimate}"));
            let bound = bounded(
                report.mode,
                &report.loss.bound,
                "the old primary was shut down, and all that it wrote is there",
            );
            line("", format!("bound {bound}"));
        }
        if touched && report.loss.bound == Bound::Zero {
            let looks = report
                .resources
                .values()
                .filter_map(|r| r.conditions_checked_at);
            if let Some(oldest) = looks.min() {
                line(
                    "",
                    format!("its conditions were last seen at {oldest:.3}, before the seal"),
                );
            }
        }
        if report.unproven_epoch {
            line(
                "epoch",
                style.paint(Tone::Bad, "unproven: the register could not be read"),
            );
        }
        if let Some(approval) = &report.approval {
            let names: Vec<_> = approval.approved_by.iter().map(|n| n.as_str()).collect();
            let waited = seconds(approval.waited_seconds);
            let by = format!("by {}, waited for {waited}", names.join(", "));
            line("approved", by);
        }
        line(
            "RTA",
            measured(
                report.rta_seconds,
                None,
                objectives.rto.as_secs_f64(),
                style,
            ) + &rta_parts(report),
        );
        line(
            "RPA",
            match report.rpa_at_least_seconds {
                Some(least) => between(least, report, objectives.rpo.as_secs_f64(), style),
                None => measured(
                    report.rpa_seconds,
                    report.rpa_interval_seconds,
                    objectives.rpo.as_secs_f64(),
                    style,
                ),
            },
        );
        if let Some(since) = report.unprotected_since {
            line(
                "",
                style.paint(Tone::Bad, &format!("UNPROTECTED since {since:.0}")),
            );
        }
    }
    line("execution", report.execution.to_string());
    lines.join("\n")
}

/// Says what is lost where every database was started again with its own files, and of which that cannot be said.
fn restarted(report: &Report, style: Style) -> Vec<String> {
    if report.resources.is_empty() {
        return vec!["nothing: no database was touched".to_owned()];
    }
    let is_over = report.state.is_final();
    let said = report.resources.iter().flat_map(|(name, resource)| {
        let warn = |why: &str| style.paint(Tone::Warning, &format!("unknown for {name}: {why}"));
        match (resource.timeline, resource.doubts.as_slice()) {
            (Some(_), []) => vec![format!(
                "nothing that {name} had acknowledged: its own files hold it, and the server has replayed them"
            )],
            (Some(_), doubts) => doubts.iter().map(|doubt| warn(doubt)).collect(),
            (None, _) if is_over => vec![format!("nothing of {name}: it ran, and was left as it is")],
            (None, _) => vec![warn("it has not come up")],
        }
    });
    said.collect()
}

/// Says what the time to recover consists of, or what it leaves out.
fn rta_parts(report: &Report) -> String {
    if !report.rta_excludes.is_empty() {
        return format!("; {}", report.rta_excludes);
    }
    let parts = [
        ("detection", report.detection_seconds),
        ("decision", report.decision_seconds),
        ("execution", report.execution_seconds),
    ];
    let known = parts
        .iter()
        .filter_map(|(name, value)| Some((name, (*value)?)));
    let known: Vec<String> = known
        .map(|(name, value)| format!("{name} {value:.2} s"))
        .collect();
    format!("; {}", known.join(", "))
}

fn headline(report: &Report, style: Style) -> String {
    let (workload, to, epoch) = (&report.workload, &report.to, report.epoch);
    let served = match unseen(report) {
        None => format!("{workload} is served from {to}, epoch {epoch}"),
        Some(step) => format!(
            "{workload} is up in {to}, epoch {epoch}; that it serves was not seen (step `{step}`)"
        ),
    };
    let moving = moving(report);
    let (tone, text) = match report.state {
        State::Completed => (Tone::Good, format!("{served}.")),
        State::CompletedWithExceptions => (
            Tone::Warning,
            format!("{served}, with exceptions: this is not a pass."),
        ),
        State::Stuck => (Tone::Bad, format!("{moving} is stuck and needs you.")),
        State::Paused => (
            Tone::Warning,
            format!("{moving} is paused and waits to be resumed."),
        ),
        State::Superseded => {
            let text = format!("Somebody else has the say over {workload} now; stopped.");
            (Tone::Bad, text)
        }
        State::AwaitingApproval => (
            Tone::Warning,
            format!("{moving} waits for approval, or the wait was interrupted."),
        ),
        State::Running => (
            Tone::Warning,
            format!("{moving} is under way, or was interrupted."),
        ),
        State::Failed => (
            Tone::Bad,
            format!("{workload} was not moved; nothing was changed."),
        ),
        State::Aborted if report.mode == Mode::InPlace => (
            Tone::Strong,
            format!("{moving} was called off; what it did stays."),
        ),
        // An abort ends only what an execution of its own has taken back.
        State::Aborted if has_opened(report) => (
            Tone::Strong,
            format!(
                "{moving} was called off, and what it had done was taken back: `dr execution list` has the execution that did."
            ),
        ),
        State::Aborted => (
            Tone::Strong,
            format!("{moving} was called off; nothing was changed."),
        ),
    };
    style.paint(tone, &text)
}

/// Says what the execution is.
fn moving(report: &Report) -> String {
    let (workload, to) = (&report.workload, &report.to);
    match report.mode {
        Mode::InPlace => format!("The recovery of {workload} in {to}"),
        _ => format!("The move of {workload} to {to}"),
    }
}

/// Tells whether its epoch was opened, which comes before everything that changes something.
fn has_opened(report: &Report) -> bool {
    let mut steps = report.steps.iter();
    steps.any(|step| step.uses == open_epoch::NAME && step.state == StepState::Done)
}

/// Returns the step that was to see clients be served and did not.
fn unseen(report: &Report) -> Option<&StepId> {
    let mut steps = report.steps.iter();
    let step = steps.find(|step| {
        let looks = [check_health::NAME, verify_traffic::NAME].contains(&step.uses.as_str());
        looks && step.state != StepState::Done
    });
    step.map(|step| &step.id)
}

fn measured(value: Option<f64>, error: Option<f64>, objective: f64, style: Style) -> String {
    let Some(value) = value else {
        return style.paint(Tone::Warning, "not measured");
    };
    let precise = match error {
        Some(error) => format!("{value:.2} s ± {error:.2} s"),
        None => format!("{value:.2} s"),
    };
    let (tone, word) = if value > objective {
        (Tone::Bad, "beyond")
    } else {
        (Tone::Good, "within")
    };
    style.paint(tone, &precise) + &format!(" ({word} the objective of {})", seconds(objective))
}

/// Says between what the achieved recovery point is, of an execution whose disruption nobody saw begin.
fn between(least: f64, report: &Report, objective: f64, style: Style) -> String {
    let most = report.rpa_at_most_seconds;
    let (tone, word) = match most {
        _ if least > objective => (Tone::Bad, "beyond"),
        Some(most) if most <= objective => (Tone::Good, "within"),
        _ => (Tone::Warning, "not proven to be within"),
    };
    let range = match most {
        Some(most) => format!("between {least:.2} s and {most:.2} s"),
        None => format!("at least {least:.2} s"),
    };
    let objective = seconds(objective);
    let why = match (report.rpa_seconds, &report.loss.bound) {
        (_, Bound::Growing { .. }) => "nothing proves that the old primary has stopped",
        (Some(_), _) => "the disruption began between two looks",
        (None, _) => "nobody saw when the disruption began",
    };
    format!(
        "{} ({word} the objective of {objective}): {why}",
        style.paint(tone, &range)
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    fn report(state: &str) -> Report {
        let report = json!({
            "execution": "20261121T093012Z-3f9a2c", "state": state, "reason": null,
            "workload": "orders", "from": "east", "to": "west", "epoch": 2,
            "unproven_epoch": false, "rung": "promote", "fence": "stopped",
            "override_reason": null, "sealed": null,
            "loss": { "estimate": null, "bound": { "kind": "zero" } }, "resources": {},
            "started_at": "2026-11-21T09:30:12Z", "finished_at": null, "rta_seconds": null,
            "rta_excludes": "detection", "rpa_seconds": null, "rpa_interval_seconds": null,
            "unprotected_since": null, "stuck": null, "steps": [],
        });
        serde_json::from_value(report).unwrap()
    }

    fn objectives() -> Objectives {
        let hour = Duration::from_secs(3600);
        Objectives {
            rpo: hour,
            rto: hour,
        }
    }

    fn rendered(state: &str) -> String {
        render(&report(state), objectives(), Style::new(false))
    }

    /// Nobody is sent to approve what can be approved no more.
    #[test]
    fn a_request_that_expired_is_ended_and_made_anew() {
        let report = report("awaiting-approval");
        let beside = Beside {
            interrupted: None,
            expired_at: Some("2026-11-21T10:30:12Z".parse().unwrap()),
        };
        let text = render_found(&report, beside, objectives(), Style::new(false));
        assert!(
            text.contains("the request expired at 2026-11-21T10:30:12Z"),
            "{text}"
        );
        assert!(text.contains("dr execution abort"), "{text}");
        assert!(!text.contains("dr execution approve"), "{text}");
        assert!(rendered("awaiting-approval").contains("dr execution approve"));
    }

    #[test]
    fn what_is_not_over_says_how_to_go_on() {
        for (state, goes_on) in [
            ("running", true),
            ("stuck", true),
            ("paused", true),
            ("completed", false),
            ("failed", false),
            ("superseded", false),
        ] {
            let text = rendered(state);
            let resume = text.contains("dr execution resume 20261121T093012Z-3f9a2c");
            assert_eq!(resume, goes_on, "{text}");
        }
    }
}
