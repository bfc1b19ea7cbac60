//! A plan for a standby, and what came of it, as a person reads them.

use dr_postgres::{Divergence, Kept, Method, StandbyPlan, StandbyReport};

use crate::output::{Style, Tone};
use crate::wiring::Setup;

/// Writes what will be done.
pub(super) fn plan(plan: &StandbyPlan, style: Style) -> String {
    let mut lines = vec![format!(
        "{} of {} in {}, which follows {} on timeline {}",
        style.paint(Tone::Strong, "Standby"),
        plan.resource,
        plan.region,
        plan.primary,
        plan.timeline
    )];
    let mut line = |name: &str, text: String| lines.push(format!("  {name:<10} {text}"));
    line("directory", plan.directory.display().to_string());
    line("found", plan.found.clone());
    if let Some(divergence) = &plan.divergence {
        for text in divergence_lines(divergence) {
            line("", text);
        }
    }
    match plan.method {
        None => line("do", "nothing: it is one already".to_owned()),
        Some(method) => line("do", described(method, plan.recovery_point.as_deref())),
    }
    for why in &plan.passed_over {
        line("not", why.clone());
    }
    match &plan.kept {
        Some(place) => line("keep", format!("what is there now, in {}", place.display())),
        None if plan.divergence.is_some() => line(
            "keep",
            style.paint(Tone::Bad, "nothing: what it has beyond the primary is lost"),
        ),
        None => {}
    }
    if plan.method.is_some() {
        line("slot", format!("{} on the primary", plan.slot));
    }
    lines.join("\n")
}

/// Writes what came of it.
pub(super) fn report(
    plan: &StandbyPlan,
    report: &StandbyReport,
    setup: &Setup,
    style: Style,
) -> String {
    let mut lines = Vec::new();
    let said = match report.method {
        None => format!(
            "{} in {} is a standby already, and has received {}.",
            plan.resource, plan.region, report.received
        ),
        Some(method) => format!(
            "{} in {} is a standby ({}) that streams from {}, and has received {}.",
            plan.resource,
            plan.region,
            method.as_str(),
            plan.primary,
            report.received
        ),
    };
    lines.push(style.paint(Tone::Good, &said));
    lines.extend(report.kept.iter().map(|note| kept(note, setup)));
    lines.extend(report.notes.iter().map(|note| format!("  note: {note}")));
    lines.join("\n")
}

/// Says where a directory is kept, and how to look into it.
pub(crate) fn kept(kept: &Kept, setup: &Setup) -> String {
    let options = setup.postgres_options(&kept.resource).ok();
    let instance = options
        .as_ref()
        .and_then(|known| known.instances.get(&kept.region));
    let address = instance.map_or_else(|| "ADDRESS".to_owned(), |known| known.reached_at());
    format!(
        "  kept: {}: start it there with `{}`, and read it with `psql --host {address} --port {} --dbname postgres`",
        kept.directory.display(),
        kept.start.join(" "),
        kept.port,
    )
}

/// Says what an old primary has that nobody else has.
pub(crate) fn divergence_lines(divergence: &Divergence) -> Vec<String> {
    let count = match (divergence.commits, divergence.counts_all()) {
        (1, true) => "1 commit".to_owned(),
        (count, true) => format!("{count} commits"),
        (count, false) => format!("at least {count} commits, some of the log is missing"),
    };
    let mut lines = vec![format!(
        "{count} behind {} on timeline {}, to {}",
        divergence.fork, divergence.timeline, divergence.end
    )];
    if let (Some(first), Some(last)) = (divergence.first, divergence.last) {
        lines.push(format!("committed from {first:.3} to {last:.3}"));
    }
    lines.extend(
        divergence
            .tables
            .iter()
            .map(|table| format!("changed {table}")),
    );
    if !divergence.unnamed.is_empty() {
        lines.push(format!(
            "changed tables that the primary does not know: {}",
            divergence.unnamed.join(", ")
        ));
    }
    lines.extend(divergence.unread.iter().map(ToString::to_string));
    lines
}

fn described(method: Method, recovery_point: Option<&str>) -> String {
    match (method, recovery_point) {
        (Method::Follow, _) => "follow: its log is part of the primary's".to_owned(),
        (Method::Rewind, _) => "rewind it to where it diverged, by pg_rewind".to_owned(),
        (Method::RecoveryPoint, Some(label)) => {
            format!("rebuild it from recovery point {label} in the region's store")
        }
        (Method::RecoveryPoint, None) => "rebuild it from a recovery point".to_owned(),
        (Method::BaseBackup, _) => "copy the primary's files, by pg_basebackup".to_owned(),
    }
}
