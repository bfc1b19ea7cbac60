//! A plan as a person reads it at 3 a.m.: what is lost first, then each step, with the point of no
//! return.

use std::collections::BTreeSet;
use std::time::Duration;

use dr_model::loss::{Bound, Estimate, Verdict};
use dr_provider::driver::{Action, Plane, Undo};
use dr_runbook::plan::{Branch, Lane, LossPlan, PlannedStep, Target};
use dr_runbook::step::Step;
use dr_runbook::steps::registry;
use dr_runbook::{Disruption, Mode, Plan};

use crate::output::{Style, Tone, amount, seconds, took};

/// What the signs before actions mean, and what is behind a step.
const LEGEND: &str = "  · only looks  - can be put back  ~ can be made up for  ! no way back; a step needs the data plane of a region, \
                      unless it says control plane";

/// Says since when, and who says so.
pub(super) fn disrupted(disruption: &Disruption) -> String {
    let Disruption {
        not_before,
        not_after,
        detected_at,
        seen_from,
        by_heartbeat,
    } = disruption;
    let sign = match by_heartbeat {
        true => "; the first is its last heartbeat, no answer was seen",
        false => "",
    };
    match (detected_at, seen_from) {
        (Some(detected), Some(region)) => format!(
            "between {not_before:.1} and {not_after:.1}, seen from {region} after {}{sign}",
            seconds(detected.duration_since(*not_before).as_secs_f64())
        ),
        _ => format!("at {not_before:.1}, as stated"),
    }
}

/// Writes the plan.
pub(crate) fn render(plan: &Plan, style: Style) -> String {
    let by = match plan.mode {
        Mode::Unplanned => plan.rung.as_str().to_owned(),
        Mode::Planned => format!("{}, planned", plan.rung.as_str()),
        Mode::Undo => "taking a move back".to_owned(),
        Mode::InPlace => plan.rung.as_str().to_owned(),
    };
    let to = style.paint(Tone::Strong, plan.to.as_str());
    let what = match plan.mode {
        Mode::InPlace => format!(
            "{} in {to}",
            style.paint(Tone::Strong, &format!("Recover {}", plan.workload))
        ),
        _ => format!(
            "{} from {} to {to}",
            style.paint(Tone::Strong, &format!("Move {}", plan.workload)),
            plan.from
        ),
    };
    let (ended, opens) = (plan.ended, plan.opens);
    let mut lines = vec![format!(
        "{what} by {by}: epoch {ended} ends, epoch {opens} begins"
    )];
    lines.push(String::new());
    loss(plan, style, &mut lines);
    for (resource, proof) in &plan.proofs {
        lines.push(format!(
            "  proof     {resource}: {} expected",
            proof.as_str()
        ));
    }
    if let Some(disruption) = &plan.disruption {
        lines.push(format!("  disrupted {}", disrupted(disruption)));
    }
    match &plan.register.unproven {
        None => lines.push(format!("  register  store of {}", plan.register.region)),
        Some(why) => lines.push(format!(
            "  register  store of {}, {}: {why}",
            plan.register.region,
            style.paint(Tone::Bad, "UNPROVEN")
        )),
    }
    for (resource, claim) in &plan.claims {
        lines.push(format!(
            "  timeline  {resource}: {} is claimed",
            claim.timeline
        ));
    }
    if let Some(predicted) = plan.predicted_seconds {
        lines.push(format!(
            "  takes     {} until clients are led there, as lately",
            seconds(predicted)
        ));
    }
    lines.push(String::new());
    let mut returned = false;
    for (number, step) in plan.steps.iter().enumerate() {
        if let (Undo::Irreversible(why), false) = (&step.undo, returned) {
            returned = true;
            lines.push(format!(
                "  {} {why}",
                style.paint(Tone::Bad, "── point of no return:")
            ));
        }
        self::step(number + 1, step, style, &mut lines);
    }
    lines.push(style.paint(Tone::Faint, LEGEND));
    for warning in &plan.warnings {
        lines.push(format!(
            "  {} {warning}",
            style.paint(Tone::Warning, "warning:")
        ));
    }
    lines.push(style.paint(
        Tone::Faint,
        &format!("  plan {}", &plan.hash[..plan.hash.len().min(16)]),
    ));
    lines.join("\n")
}

fn loss(plan: &Plan, style: Style, lines: &mut Vec<String>) {
    let estimate = match (&plan.loss.estimate, &plan.loss.bound) {
        (Some(estimate), _) if plan.loss.verdict == Verdict::Chosen => {
            seconds(estimate.delay_seconds)
        }
        (Some(estimate), _) => estimated(estimate),
        (None, Bound::Zero) => "nothing".to_owned(),
        (None, _) => "unknown".to_owned(),
    };
    let budget = seconds(plan.loss.budget_seconds);
    let (tone, verdict) = judged(&plan.loss, plan.moment.is_some());
    lines.push(format!(
        "  loss      estimate: {estimate}; {}",
        style.paint(tone, &verdict)
    ));
    let rate = rate(&plan.loss);
    let mut bound = bounded(
        plan.mode,
        &plan.loss.bound,
        "nothing is promoted before everything is proven to be there",
    );
    if plan.mode == Mode::Unplanned && plan.loss.bound_exceeds() {
        let beyond = format!("beyond the budget of {budget}");
        bound = format!("{bound}, {}", style.paint(Tone::Bad, &beyond));
    }
    lines.push(format!("            bound:    {bound}{rate}"));
    for (resource, facts) in &plan.loss.resources {
        for because in &facts.because {
            lines.push(style.paint(Tone::Faint, &format!("            {resource}: {because}")));
        }
    }
}

/// Says how a loss compares with the budget. Whoever names a moment is asked for no budget, and told of none; plans of version 1 judged
/// that too.
fn judged(loss: &LossPlan, is_wanted: bool) -> (Tone, String) {
    let (tone, verdict) = match loss.verdict {
        _ if is_wanted => return wanted(),
        Verdict::Chosen => return wanted(),
        Verdict::Within => (Tone::Good, "within"),
        Verdict::Exceeds => (Tone::Bad, "more than"),
        Verdict::Unknown => (Tone::Bad, "unknown against"),
    };
    let budget = seconds(loss.budget_seconds);
    (
        tone,
        format!("the estimate is {verdict} the budget of {budget}"),
    )
}

fn wanted() -> (Tone, String) {
    let text = "all that was written after the moment that was named";
    (Tone::Warning, text.to_owned())
}

/// Says how many commits a bound is: nobody counted what was committed after the last contact.
fn rate(loss: &LossPlan) -> String {
    let rates = loss
        .resources
        .values()
        .map(|facts| facts.commits_per_second);
    let Some(rate) = rates
        .collect::<Option<Vec<f64>>>()
        .map(|rates| rates.iter().sum::<f64>())
    else {
        return String::new();
    };
    match &loss.bound {
        Bound::Seconds { seconds, .. } if rate > 0.0 => {
            let at_most = (seconds * rate).ceil();
            let plural = if at_most > 1.0 { "s" } else { "" };
            format!(", about {at_most:.0} commit{plural} if they went on as before it")
        }
        Bound::Growing { since: Some(_) } if rate > 0.0 => match rate {
            10.0.. => format!(", by about {rate:.0} commits a second as before it"),
            _ => format!(", by about {rate:.1} commits a second as before it"),
        },
        _ => String::new(),
    }
}

/// Writes a bound; what makes it zero is not the same in every mode.
pub(super) fn bounded(mode: Mode, bound: &Bound, planned: &str) -> String {
    match (mode, bound) {
        (Mode::Planned, Bound::Zero) => format!("0 s: {planned}"),
        (Mode::Undo, Bound::Zero) => "0 s: nothing was promoted".to_owned(),
        (Mode::InPlace, Bound::Zero) => "0 s: the log goes on".to_owned(),
        _ => bound.to_string(),
    }
}

/// Writes an estimate with what it rests on.
pub(super) fn estimated(estimate: &Estimate) -> String {
    let mut text = seconds(estimate.delay_seconds);
    match estimate.commits {
        Some(0) => text.push_str(", no commit"),
        Some(1) => text.push_str(", about 1 commit"),
        Some(commits) => text.push_str(&format!(", about {commits} commits")),
        None => {}
    }
    if estimate.missing_bytes > 0 {
        text.push_str(&format!(", {} of log", amount(estimate.missing_bytes)));
    }
    let contact = estimate.last_contact;
    text.push_str(&match estimate.lived_on_seconds {
        0.0 => format!(" at last contact, {contact:.3}"),
        on => format!(
            ", counting that the primary lived {} after the last contact, {contact:.3}",
            seconds(on)
        ),
    });
    text
}

fn step(number: usize, step: &PlannedStep, style: Style, lines: &mut Vec<String>) {
    let mut marks = Vec::new();
    if step.background {
        marks.push("in the background".to_owned());
    }
    if step.continue_on_error {
        marks.push("may fail".to_owned());
    }
    marks.extend(dependencies(step));
    if let Some(predicted) = step.predicted_seconds {
        marks.push(format!(
            "takes {}",
            // A plan of an earlier version may hold what a clock that was set back has measured.
            took(Duration::try_from_secs_f64(predicted).unwrap_or_default())
        ));
    }
    let marks = if marks.is_empty() {
        String::new()
    } else {
        format!("  ({})", marks.join(", "))
    };
    let id = style.paint(Tone::Strong, &format!("{:<9}", step.id.to_string()));
    lines.push(format!(
        "  {number:>2}  {id} {}{}",
        step.uses,
        style.paint(Tone::Faint, &marks)
    ));
    if let Some(why) = &step.left_out {
        lines.push(format!(
            "        {}",
            style.paint(Tone::Warning, &format!("left out: {why}"))
        ));
    }
    for lane in &step.lanes {
        self::lane(step, lane, style, lines);
    }
}

/// Says what a step depends on, its fallbacks included; nothing of one that acts nowhere.
fn dependencies(step: &PlannedStep) -> Option<String> {
    let branches = step.lanes.iter().flat_map(|lane| {
        let other = lane.fallback.as_ref();
        let other = other.and_then(|branch| branch.actions.as_deref().ok());
        [lane.actions.as_slice(), other.unwrap_or_default()]
    });
    let places: BTreeSet<_> = branches
        .flatten()
        .flat_map(|action| &action.dependencies)
        .map(|dependency| match dependency.plane {
            Plane::Data => dependency.region.to_string(),
            Plane::Control => format!("the control plane of {}", dependency.region),
        })
        .collect();
    if places.is_empty() {
        return None;
    }
    // What is tried for what it is worth waits for nobody.
    let tried = registry::find(&step.uses).is_some_and(Step::is_best_effort);
    let verb = if tried { "tries" } else { "needs" };
    let places: Vec<_> = places.into_iter().collect();
    Some(format!("{verb} {}", places.join(" and ")))
}

/// Says what a lane is about where its actions do not, and that it is optional.
fn named(lane: &Lane) -> String {
    let name = match &lane.target {
        Target::Resource(name) => name.as_str(),
        Target::Service(name) => name.as_str(),
        _ => "",
    };
    match (name, lane.optional) {
        ("", false) => String::new(),
        ("", true) => "optional: ".to_owned(),
        (name, false) => format!("{name}: "),
        (name, true) => format!("{name}, optional: "),
    }
}

fn lane(step: &PlannedStep, lane: &Lane, style: Style, lines: &mut Vec<String>) {
    let name = named(lane);
    if let Some(replaced) = &lane.replaces {
        let instead = format!(
            "{name}{} instead of {}: {}",
            lane.uses, replaced.uses, replaced.why
        );
        lines.push(format!("        {}", style.paint(Tone::Warning, &instead)));
    }
    actions(&name, &lane.actions, "      ", style, lines);
    match &lane.fallback {
        Some(Branch {
            uses,
            condition,
            actions: Ok(branch),
        }) if step.uses != *uses => {
            lines.push(format!(
                "        {} {uses}, {condition}:",
                style.paint(Tone::Faint, "otherwise")
            ));
            actions("", branch, "          ", style, lines);
        }
        Some(Branch {
            uses,
            actions: Err(why),
            ..
        }) => {
            lines.push(format!(
                "        {}",
                style.paint(Tone::Faint, &format!("no fallback to {uses}: {why}"))
            ));
        }
        _ => {}
    }
}

fn actions(name: &str, actions: &[Action], indent: &str, style: Style, lines: &mut Vec<String>) {
    for action in actions {
        let change = match (&action.current, &action.intended) {
            (Some(current), Some(intended)) => format!(" ({current} → {intended})"),
            (None, Some(intended)) => format!(" (→ {intended})"),
            _ => String::new(),
        };
        let mark = match action.undo {
            Undo::Irreversible(_) => style.paint(Tone::Bad, "!"),
            Undo::ReadOnly => style.paint(Tone::Faint, "·"),
            Undo::Reversible(_) => "-".to_owned(),
            Undo::Compensable(_) => "~".to_owned(),
        };
        lines.push(format!(
            "{indent}{mark} {name}{}{}",
            action.summary,
            style.paint(Tone::Faint, &change)
        ));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// Writes a step with one action for each undo class, each in a region, and with a fallback that calls a control plane.
    fn written(uses: &str) -> String {
        let action = |class: &str, region: &str, plane: &str| {
            json!({
                "name": class, "summary": class, "current": null, "intended": null,
                "dependencies": [{ "region": region, "plane": plane, "what": "store" }],
                "undo": { "class": class, "detail": "so" }, "parameters": null,
            })
        };
        let mut looks = action("read-only", "us-west-2", "data");
        looks["undo"] = json!({ "class": "read-only" });
        let actions = [
            looks,
            action("reversible", "us-west-2", "data"),
            action("compensable", "us-west-2", "data"),
            action("irreversible", "us-east-1", "data"),
        ];
        let other = [action("reversible", "eu-west-1", "control")];
        let step = json!({
            "id": "it", "uses": uses, "parameters": null, "needs": [], "continue_on_error": false,
            "timeout_seconds": 1.0, "attempts": 1, "retry_delay_seconds": 0.0, "background": false,
            "undo": { "class": "read-only" }, "idempotency": "read-only", "predicted_seconds": null,
            "lanes": [{
                "target": { "kind": "workload" }, "uses": uses, "replaces": null, "actions": actions,
                "fallback": { "uses": "other", "condition": "if not", "actions": { "Ok": other } },
            }],
        });
        let mut lines = Vec::new();
        super::step(
            1,
            &serde_json::from_value(step).unwrap(),
            Style::new(false),
            &mut lines,
        );
        lines.join("\n")
    }

    #[test]
    fn what_is_optional_is_said_to_be() {
        let written = |target: Value, optional: bool| {
            let lane = json!({
                "target": target, "optional": optional, "uses": "start-service", "replaces": null,
                "actions": [{
                    "name": "it", "summary": "run `mail …` on local", "current": null, "intended": null,
                    "dependencies": [], "undo": { "class": "read-only" }, "parameters": null,
                }],
                "fallback": null,
            });
            let lane: Lane = serde_json::from_value(lane).unwrap();
            let mut lines = Vec::new();
            actions(
                &named(&lane),
                &lane.actions,
                "",
                Style::new(false),
                &mut lines,
            );
            lines.concat()
        };
        let mail = json!({ "kind": "service", "name": "mail" });
        let needed = written(mail.clone(), false);
        assert_eq!(needed, "· mail: run `mail …` on local");
        let optional = written(mail, true);
        assert_eq!(optional, "· mail, optional: run `mail …` on local");
        let record = json!({ "kind": "traffic", "name": "rfc2136 status.acme.example" });
        assert_eq!(written(record, true), "· optional: run `mail …` on local");
    }

    #[test]
    fn each_undo_class_has_its_sign_and_what_a_step_depends_on_is_said() {
        let text = written("seal-wal");
        for (sign, class) in [
            ('·', "read-only"),
            ('-', "reversible"),
            ('~', "compensable"),
            ('!', "irreversible"),
        ] {
            assert!(text.contains(&format!("{sign} {class}")), "{text}");
            assert!(LEGEND.contains(&format!("  {sign} ")), "{class}");
        }
        let needs = "(needs the control plane of eu-west-1 and us-east-1 and us-west-2)";
        assert!(text.contains(needs), "{text}");
        assert!(written("fence-primary").contains("(tries "));
    }

    #[test]
    fn a_loss_that_somebody_wants_is_within_no_budget() {
        let loss = json!({
            "estimate": null, "bound": { "kind": "growing", "since": null },
            "budget_seconds": 60.0, "verdict": "within", "resources": {},
        });
        let loss: LossPlan = serde_json::from_value(loss).unwrap();
        assert_eq!(
            judged(&loss, false).1,
            "the estimate is within the budget of 60 s"
        );
        let (tone, text) = judged(&loss, true);
        assert!(tone == Tone::Warning && !text.contains("budget"), "{text}");
    }
}
