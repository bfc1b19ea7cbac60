//! The plan's fingerprint.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::Plan;

/// Fields that differ between two observations of the same situation.
const VOLATILE: [&str; 6] = [
    "hash",
    "loss",
    "sight",
    "observed_at",
    "disrupted_at",
    "disruption",
];

/// What is measured from past executions, in the plan and in each of its steps: as if nothing had been measured yet.
const PREDICTED: &str = "predicted_seconds";

/// Where texts say what was seen: positions and times in them are others a moment later.
const TOLD: [&str; 3] = ["steps", "warnings", "register"];

/// What an action is done with, to the letter: nothing in it is told.
const PARAMETERS: &str = "parameters";

/// What stands in the place of a position or a time.
const SOME: &str = "…";

/// Returns the BLAKE3 hash, in hexadecimal, of the plan's canonical JSON: keys sorted, no white space, without what
/// changes by the second.
///
/// Two plans with one hash do the same things; whether they lose the same is for the gate. Plans of version 1 have the positions in
/// it that were seen, and keep their hash.
pub(crate) fn of(plan: &Plan) -> String {
    let mut value = serde_json::to_value(plan)
        .expect("a plan holds text keys, numbers, texts and times, which are always valid JSON");
    if let Value::Object(fields) = &mut value {
        if plan.version > 1 {
            for field in TOLD {
                if let Some(told) = fields.get_mut(field) {
                    *told = steady(told.take());
                }
            }
        }
        for field in VOLATILE {
            fields.remove(field);
        }
        forget_predicted(fields);
        let steps = fields.get_mut("steps").and_then(Value::as_array_mut);
        let steps = steps.into_iter().flatten();
        steps
            .filter_map(Value::as_object_mut)
            .for_each(forget_predicted);
    }
    let mut text = String::new();
    canonical(&value, &mut text);
    blake3::hash(text.as_bytes()).to_hex().to_string()
}

/// Takes the positions and times out of all texts but those that something is done with.
fn steady(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(without_moments(&text)),
        Value::Array(values) => values.into_iter().map(steady).collect(),
        Value::Object(fields) => {
            let each = |(key, value): (String, Value)| match key == PARAMETERS {
                true => (key, value),
                false => (key, steady(value)),
            };
            Value::Object(fields.into_iter().map(each).collect())
        }
        scalar => scalar,
    }
}

fn without_moments(text: &str) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || "/:.+-_".contains(c);
    let mut steady = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(begin) = rest.find(is_word) {
        let (before, word) = rest.split_at(begin);
        let (word, after) = word.split_at(word.find(|c| !is_word(c)).unwrap_or(word.len()));
        let core = word.trim_end_matches(['.', ':']);
        steady.push_str(before);
        match is_position(core) || core.parse::<jiff::Timestamp>().is_ok() {
            true => steady.push_str(SOME),
            false => steady.push_str(core),
        }
        steady.push_str(&word[core.len()..]);
        rest = after;
    }
    steady + rest
}

/// Tells whether a word is a position in a log, as PostgreSQL writes it.
fn is_position(word: &str) -> bool {
    let is_half = |half: &str| {
        (1..=8).contains(&half.len())
            && half
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b))
    };
    word.split_once('/')
        .is_some_and(|(high, low)| is_half(high) && is_half(low))
}

fn forget_predicted(fields: &mut Map<String, Value>) {
    if let Some(predicted) = fields.get_mut(PREDICTED) {
        *predicted = Value::Null;
    }
}

fn canonical(value: &Value, text: &mut String) {
    match value {
        Value::Object(fields) => {
            let sorted: BTreeMap<_, _> = fields.iter().collect();
            text.push('{');
            for (index, (key, value)) in sorted.into_iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                text.push_str(&Value::String(key.clone()).to_string());
                text.push(':');
                canonical(value, text);
            }
            text.push('}');
        }
        Value::Array(values) => {
            text.push('[');
            for (index, value) in values.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                canonical(value, text);
            }
            text.push(']');
        }
        scalar => text.push_str(&scalar.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::without_moments;

    #[rstest]
    #[case("a standby on timeline 1 at 0/5000", "a standby on timeline 1 at …")]
    #[case("store 1A/F00, standby 1A/F10.", "store …, standby ….")]
    #[case("held at 2026-11-21T12:00:00.25Z: no", "held at …: no")]
    #[case(
        "`/srv/db/a` in 10.0.0.0/8, epoch 38",
        "`/srv/db/a` in 10.0.0.0/8, epoch 38"
    )]
    #[case(
        "recovery point 20261121T020000Z-0001 (5 MiB)",
        "recovery point 20261121T020000Z-0001 (5 MiB)"
    )]
    fn positions_and_times_are_no_part_of_it(#[case] told: &str, #[case] steady: &str) {
        assert_eq!(without_moments(told), steady);
    }
}
