//! What a restore would do, for people.

use std::fmt::Write as _;

use dr_provider::driver::RestorePlan;

use crate::output::amount;

/// Writes a plan.
pub(super) fn text(plan: &RestorePlan, location: &str) -> String {
    let point = &plan.recovery_point;
    let mut lines = vec![
        ("from", location.to_owned()),
        (
            "recovery point",
            format!(
                "{}, timeline {}, {} to {}, complete at {}",
                point.label, point.timeline, point.start, point.stop, point.stopped_at
            ),
        ),
        (
            "to read",
            format!(
                "at most {} for {} of files",
                amount(plan.pack_bytes),
                amount(point.database_bytes)
            ),
        ),
    ];
    for stretch in &plan.log {
        let log = format!(
            "timeline {} from {} to {}",
            stretch.timeline, stretch.from, stretch.to
        );
        lines.push(("log", log));
    }
    lines.push((
        "to replay",
        format!(
            "at most {} in {} segments",
            amount(plan.log_bytes),
            plan.log_segments
        ),
    ));
    let verified = if plan.log_verified {
        "present, and read: every byte is what was stored"
    } else {
        "present; contents are verified as they are replayed, or before that with `--verify-log`"
    };
    lines.push(("log is", verified.to_owned()));
    let proven = if plan.end_proven {
        ""
    } else {
        " (not looked up)"
    };
    lines.push(("ends", format!("{}{proven}", plan.end)));
    lines.extend(
        plan.passed_over
            .iter()
            .map(|what| ("passed over", what.clone())),
    );
    lines.extend(plan.notes.iter().map(|what| ("note", what.clone())));
    let mut text = String::new();
    for (name, what) in lines {
        writeln!(text, "{name:<15} {what}").expect("writing to a string cannot fail");
    }
    text.truncate(text.trim_end().len());
    text
}
