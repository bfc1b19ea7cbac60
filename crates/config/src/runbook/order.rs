//! The order of steps: what they need exists, there is no circle, and what must come first does.
//!
//! That promotion and restore come after seal and fence (PROTOCOL 9) is checked here, before anything runs. It holds
//! only if the earlier step cannot be skipped: so it has no condition and its failure ends the execution.

use std::collections::BTreeSet;

use dr_model::StepId;
use dr_model::document::{Context, Problem};

use super::RawStep;
use crate::Kinds;

/// Reports everything that is wrong with the order of `steps`.
pub(super) fn check(steps: &[RawStep], context: &mut Context, kinds: &Kinds) {
    let before = context.errors();
    check_ids(steps, context);
    let needs: Vec<_> = (0..steps.len())
        .map(|index| needs(steps, index, context))
        .collect();
    if steps.is_empty() || context.errors() > before {
        return;
    }
    let ancestors: Vec<_> = (0..steps.len())
        .map(|index| ancestors(&needs, index))
        .collect();
    for (index, step) in steps.iter().enumerate() {
        if ancestors[index].contains(&index) {
            let problem = Problem::error(&step.span, format!("`{}` needs itself", step.id.value))
                .hint("follow its `needs`: they lead back to it");
            context.within(&format!("[{index}]"), |c| c.report(problem));
        }
    }
    if context.errors() > before {
        return;
    }
    for (index, step) in steps.iter().enumerate() {
        let used = [Some(&step.uses), step.fallback.as_ref()];
        for kind in used.into_iter().flatten() {
            let follows = kinds
                .steps
                .get(kind.value.as_str())
                .map_or(&[][..], |k| k.follows);
            for required in follows {
                let problem =
                    misplaced(steps, &ancestors[index], required, kinds).map(|(what, hint)| {
                        Problem::error(&kind.span, format!("`{}` {what}", kind.value)).hint(hint)
                    });
                if let Some(problem) = problem {
                    context.within(&format!("[{index}]"), |c| c.report(problem));
                }
            }
        }
    }
}

fn check_ids(steps: &[RawStep], context: &mut Context) {
    for (index, step) in steps.iter().enumerate() {
        if let Some(first) = steps[..index].iter().find(|s| s.id.value == step.id.value) {
            let what = format!("there is a step `{}` already", step.id.value);
            let hint = format!("it stands in line {}", first.id.span.line);
            let problem = Problem::error(&step.id.span, what).hint(hint);
            context.within(&format!("[{index}].id"), |c| c.report(problem));
        }
    }
}

/// Returns the positions of what a step needs; reports what does not exist.
fn needs(steps: &[RawStep], index: usize, context: &mut Context) -> Vec<usize> {
    let Some(written) = &steps[index].needs else {
        return index.checked_sub(1).into_iter().collect();
    };
    let position = |id: &StepId| steps.iter().position(|s| s.id.value == *id);
    let mut found = Vec::new();
    for need in written {
        match position(&need.value) {
            Some(position) => found.push(position),
            None => {
                let ids = steps.iter().map(|s| s.id.value.0.as_str());
                let what = format!("there is no step `{}`", need.value);
                let problem = Problem::error(&need.span, what).suggest(&need.value.0, ids);
                context.within(&format!("[{index}].needs"), |c| c.report(problem));
            }
        }
    }
    found
}

/// Returns everything that is over before a step begins; includes the step itself if there is a circle.
fn ancestors(needs: &[Vec<usize>], index: usize) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    let mut open = needs[index].clone();
    while let Some(next) = open.pop() {
        if found.insert(next) {
            open.extend(&needs[next]);
        }
    }
    found
}

/// Tells whether a step is of the kind `required`, or of one that counts in its place.
fn counts_as(step: &RawStep, required: &str, kinds: &Kinds) -> bool {
    let stands_for = kinds.steps.get(step.uses.value.as_str());
    step.uses.value == required
        || stands_for.is_some_and(|kind| kind.stands_for.contains(&required))
}

/// Says what is wrong with the place of a step that must follow one of the kind `required`, and what to do.
fn misplaced(
    steps: &[RawStep],
    ancestors: &BTreeSet<usize>,
    required: &str,
    kinds: &Kinds,
) -> Option<(String, String)> {
    let before: Vec<_> = ancestors
        .iter()
        .filter(|i| counts_as(&steps[**i], required, kinds))
        .collect();
    if before.is_empty() {
        let hint = match steps.iter().find(|s| s.uses.value == required) {
            Some(step) => format!(
                "make it need `{}`, directly or through others",
                step.id.value
            ),
            None => format!("add a step that uses `{required}` above it"),
        };
        return Some((format!("must come after `{required}`"), hint));
    }
    let certain = |i: &&usize| steps[**i].condition.is_none() && !steps[**i].continue_on_error;
    if before.iter().any(certain) {
        return None;
    }
    let what = format!("must come after a `{required}` that cannot be skipped");
    let hint = format!("take `if` and `continue_on_error` from the step that uses `{required}`");
    Some((what, hint))
}
