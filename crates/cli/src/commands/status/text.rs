//! `dr status` for people.

use dr_postgres::Slot;
use dr_provider::driver::{Instance, Role};
use jiff::Timestamp;

use super::judge::{CONDITIONS_SECONDS, blocking};
use super::view::{RegionView, ResourceView, StatusView, Verdict, WorkloadView};
use crate::commands::execution::{needs_somebody, standing};
use crate::output::{Style, Table, Tone, amount, seconds};
use crate::readiness::{Found, Readiness};

/// Writes the whole status.
pub(super) fn render(view: &StatusView, style: Style) -> String {
    let mut parts: Vec<String> = view
        .workloads
        .iter()
        .map(|workload| self::workload(workload, view.observed_at, style))
        .collect();
    let mut daemons = Vec::new();
    for daemon in &view.daemons {
        let (tone, word) = match daemon.status.as_deref() {
            Some("healthy") => (Tone::Good, "healthy"),
            Some("unhealthy") => (Tone::Bad, "unhealthy"),
            None if daemon.is_seen_at_work(view.observed_at) => (
                Tone::Good,
                "cannot be asked from here, and its store takes the log",
            ),
            _ => (Tone::Warning, "unknown"),
        };
        let uptime = daemon
            .uptime_seconds
            .map(|up| format!(", up {}", seconds(up)))
            .unwrap_or_default();
        daemons.push(format!(
            "daemon of {}: {}{uptime}",
            daemon.region,
            style.paint(tone, word)
        ));
        daemons.extend(daemon.problems.iter().map(|problem| format!("  {problem}")));
    }
    if !daemons.is_empty() {
        parts.push(daemons.join("\n"));
    }
    parts.join("\n\n")
}

fn workload(view: &WorkloadView, now: Timestamp, style: Style) -> String {
    let (tone, word) = headline(view);
    let name = style.paint(Tone::Strong, view.workload.as_str());
    let mut lines = vec![format!("{name}: {}", style.paint(tone, word))];
    // What has been begun and not ended explains most of the rest.
    for execution in &view.executions {
        let id = &execution.execution;
        lines.push(format!(
            "  execution {id} to {}: {}, by {}",
            execution.to,
            style.paint(Tone::Warning, &standing(execution, now)),
            execution.holder
        ));
        if needs_somebody(execution) {
            lines.push(format!("            {}", execution.ways_on()));
        }
    }
    lines.extend(
        view.reasons
            .iter()
            .map(|reason| format!("  {} {reason}", style.paint(tone, "!"))),
    );
    lines.push(match (&view.primary, view.epoch) {
        (Some(primary), Some(epoch)) => {
            let proven = if view.register.proven {
                ""
            } else {
                ", from a copy that may be old"
            };
            let register = view
                .register
                .region
                .as_ref()
                .map(|region| format!(", register in {region}"));
            format!(
                "  primary   {primary}, epoch {epoch}{}{proven}",
                register.unwrap_or_default()
            )
        }
        _ => "  primary   unknown".to_owned(),
    });
    let exposure = view
        .exposure_seconds
        .map_or_else(|| "unknown".to_owned(), seconds);
    lines.push(match view.resources.is_empty() {
        true => "  exposure  nothing: it has no database".to_owned(),
        false => format!(
            "  exposure  {exposure}; the objective is {}",
            seconds(view.rpo_seconds)
        ),
    });
    for traffic in &view.traffic {
        let leads = match (&traffic.problem, &traffic.answer) {
            (Some(why), _) => format!("unknown: {why}"),
            (None, answer) => {
                let region = traffic
                    .region
                    .as_ref()
                    .map_or_else(|| "no region".to_owned(), ToString::to_string);
                let epoch = traffic
                    .epoch
                    .map(|epoch| format!(", epoch {epoch}"))
                    .unwrap_or_default();
                format!(
                    "{region} ({}){epoch}",
                    answer.as_deref().unwrap_or_default()
                )
            }
        };
        lines.push(format!("  traffic   {}: {leads}", traffic.name));
    }
    if let Some(outage) = &view.outage {
        lines.push(format!(
            "  outage    detected at {:.0} from {}; proposed: {}",
            outage.detected_at,
            outage.seen_from,
            match (&outage.proposal.plan, &outage.proposal.refusal) {
                (Some(hash), _) => format!("plan {}", &hash[..hash.len().min(16)]),
                (None, why) => format!("none, {}", why.as_deref().unwrap_or_default()),
            }
        ));
    }
    for failover in &view.failovers {
        let said = view.register.problem.as_deref();
        lines.extend(self::failover(failover, said, style));
    }
    for resource in &view.resources {
        lines.push(self::resource(resource, now, style));
    }
    lines.join("\n")
}

/// Says the worst first.
fn headline(view: &WorkloadView) -> (Tone, &'static str) {
    match (view.verdict, view.protected) {
        _ if view.two_primaries => (Tone::Bad, "TWO PRIMARIES"),
        (Verdict::Ok, _) => (Tone::Good, "protected"),
        (_, Some(false)) => (Tone::Bad, "UNPROTECTED"),
        (Verdict::Breach, Some(true)) => (Tone::Bad, "BREACHED, although its log is protected"),
        (Verdict::Breach, None) => (Tone::Bad, "BREACHED, and not known to be protected"),
        (Verdict::Unknown, None) => (Tone::Bad, "not known to be protected"),
        (Verdict::Unknown, Some(true)) => (Tone::Warning, "protected, but not known to be well"),
    }
}

/// Says what a move would come to; what has been `said` of the register already is not said again.
fn failover(view: &Readiness, said: Option<&str>, style: Style) -> Vec<String> {
    let brief = |text: &str| match said.filter(|said| !said.is_empty()) {
        Some(said) => text.replace(said, "see above"),
        None => text.to_owned(),
    };
    let would = match (&view.refusal, view.rung, view.proof) {
        (Some(why), ..) => {
            let tone = match view.verdict {
                Verdict::Ok => Tone::Warning,
                Verdict::Unknown | Verdict::Breach => Tone::Bad,
            };
            let why = brief(why);
            format!("{}: {why}", style.paint(tone, "would be refused"))
        }
        (None, Some(rung), Some(proof)) => {
            format!("would go by {}, {} expected", rung.as_str(), proof.as_str())
        }
        (None, ..) => "would go".to_owned(),
    };
    let mut lines = vec![format!(
        "  failover  to {}: {would}; readiness {} of 100",
        view.to, view.score
    )];
    for check in view
        .objections()
        .filter(|check| view.refusal.as_ref() != Some(&check.detail))
    {
        let tone = match check.found {
            Found::Failed => Tone::Bad,
            _ => Tone::Warning,
        };
        let line = format!("{}: {}", check.name, brief(&check.detail));
        lines.push(format!("            {}", style.paint(tone, &line)));
    }
    lines
}

fn resource(view: &ResourceView, now: Timestamp, style: Style) -> String {
    let identity = view
        .system_identifier
        .map(|id| format!(" (cluster {id})"))
        .unwrap_or_default();
    let mut table = Table::new(&[
        "REGION",
        "ROLE",
        "INSTANCE",
        "LOG IN ITS STORE",
        "EXPOSURE",
        "RECOVERY POINTS",
    ]);
    for region in &view.regions {
        let (tone, instance) = instance(region);
        table.toned(vec![
            (None, region.region.to_string()),
            (None, region.role.to_owned()),
            (tone, instance),
            (None, log(region)),
            (
                None,
                region
                    .exposure_seconds
                    .map_or_else(|| "unknown".to_owned(), seconds),
            ),
            (None, points(region)),
        ]);
    }
    // Beside a whole sentence no column has a width.
    let unseen = view.regions.iter().flat_map(|region| {
        let store = region
            .log_problem
            .as_ref()
            .map(|why| format!("store of {}: {why}", region.region));
        let server = match &region.instance {
            Instance::Unreachable { why, .. } => {
                Some(format!("server in {}: {why}", region.region))
            }
            _ => None,
        };
        store.into_iter().chain(server)
    });
    let unseen: String = unseen
        .map(|line| format!("\n    {}", style.paint(Tone::Faint, &line)))
        .collect();
    let table = table.render(style).replace('\n', "\n    ");
    let waits: String = waits(view, now, style)
        .iter()
        .map(|line| format!("\n    {line}"))
        .collect();
    let kept: String = kept(view, style)
        .iter()
        .map(|line| format!("\n    {line}"))
        .collect();
    format!(
        "  {}{identity}\n    {table}{waits}{kept}{unseen}",
        view.resource
    )
}

/// Says what the primary keeps for the receivers, if that is worth a line: a slot that is asleep or keeps too much.
fn kept(view: &ResourceView, style: Style) -> Vec<String> {
    let slots = view.slots.iter().flatten();
    let worth = slots.filter(|slot| !slot.active || slot.alarm().is_some());
    let line = |slot: &Slot| {
        if let Some(why) = slot.alarm() {
            return style.paint(Tone::Bad, &why);
        }
        let kept = slot.kept_bytes.map_or_else(|| "nothing".to_owned(), amount);
        let until = slot.safe_bytes.map_or_else(String::new, |safe| {
            format!(", loses log after {} more", amount(safe))
        });
        let free = slot.free_bytes.map_or_else(String::new, |free| {
            format!(", {} free on its disk", amount(free))
        });
        let streams = if slot.active {
            ""
        } else {
            ", nobody streams from it"
        };
        let name = &slot.name;
        let text = format!("the primary keeps {kept} for slot {name}{streams}{until}{free}");
        style.paint(Tone::Faint, &text)
    };
    worth.map(line).collect()
}

/// Says whom commits wait for, and for each of them whether a seal there would prove that nothing is lost, or why not.
fn waits(view: &ResourceView, now: Timestamp, style: Style) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(since) = view.sync_lost_since {
        lines.push(style.paint(
            Tone::Bad,
            &format!("synchronous mode is lost since {since}: commits do not wait"),
        ));
    }
    for region in &view.sync {
        let log = view.regions.iter().find(|seen| seen.region == *region);
        let log = log.and_then(|seen| seen.log.as_ref());
        let slots = view.slots.as_deref();
        let hangs = slots.map(|slots| blocking(std::slice::from_ref(region), slots));
        if let Some((_, why)) = hangs.and_then(|hangs| hangs.into_iter().next()) {
            let line = format!("commits wait for the store of {region}, and hang: {why}");
            lines.push(style.paint(Tone::Bad, &line));
            continue;
        }
        let age = log.and_then(|log| Some(now.duration_since(log.promise_checked_at?)));
        let age = age.map_or(f64::INFINITY, |age| age.as_secs_f64());
        let (tone, found) = match log.map(|log| (log.promise_held, &log.promise_reasons)) {
            Some((Some(true), _)) if age > CONDITIONS_SECONDS => (
                Tone::Warning,
                format!("its conditions were last seen to hold {} ago", seconds(age)),
            ),
            Some((Some(true), _)) => (Tone::Good, "its conditions hold".to_owned()),
            Some((Some(false), reasons)) => (
                Tone::Warning,
                format!("its conditions do not hold: {}", reasons.join("; ")),
            ),
            _ => (Tone::Warning, "its conditions are unknown".to_owned()),
        };
        let line = format!("commits are to wait for the store of {region}: {found}");
        lines.push(style.paint(tone, &line));
    }
    lines
}

fn instance(view: &RegionView) -> (Option<Tone>, String) {
    match &view.instance {
        Instance::Running {
            role: Role::Primary,
            timeline,
            position,
            ..
        } => {
            let tone = if view.role == "primary" {
                Tone::Good
            } else {
                Tone::Bad
            };
            (
                Some(tone),
                format!("primary at {position}, timeline {timeline}"),
            )
        }
        Instance::Running {
            role: Role::Standby,
            timeline,
            position,
            replayed,
        } => {
            let replayed = replayed
                .map(|lsn| format!(", replayed {lsn}"))
                .unwrap_or_default();
            let tone = (view.role == "primary").then_some(Tone::Bad);
            (
                tone,
                format!("standby at {position}{replayed}, timeline {timeline}"),
            )
        }
        Instance::Stopped => (None, "stopped".to_owned()),
        Instance::Absent => (None, "absent".to_owned()),
        Instance::NotConfigured => (None, "none".to_owned()),
        Instance::Unreachable { .. } => (Some(Tone::Warning), "cannot be seen".to_owned()),
    }
}

fn log(view: &RegionView) -> String {
    match (&view.log, &view.log_problem) {
        (_, Some(_)) => "cannot be seen".to_owned(),
        (None, None) => "none".to_owned(),
        (Some(log), None) => {
            let sealed = if log.sealed { ", sealed" } else { "" };
            format!(
                "to {}, timeline {}, epoch {}{sealed}",
                log.end, log.timeline, log.epoch
            )
        }
    }
}

fn points(view: &RegionView) -> String {
    match &view.newest_recovery_point {
        Some(newest) => format!(
            "{}, newest {} old",
            view.recovery_points,
            seconds(newest.age_seconds)
        ),
        None if view.log_problem.is_some() => "cannot be seen".to_owned(),
        None => "none".to_owned(),
    }
}
