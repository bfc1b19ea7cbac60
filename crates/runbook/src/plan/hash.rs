//! The plan's fingerprint.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::Plan;

/// Fields that differ between two observations of the same situation.
const VOLATILE: [&str; 5] = ["hash", "loss", "observed_at", "disrupted_at", "disruption"];

/// What is measured from past executions, in the plan and in each of its steps: as if nothing had been measured yet.
const PREDICTED: &str = "predicted_seconds";

/// Returns the BLAKE3 hash, in hexadecimal, of the plan's canonical JSON: keys sorted, no white space, without what
/// changes by the second.
///
/// Two plans with one hash do the same things; whether they lose the same is for the gate.
pub(super) fn of(plan: &Plan) -> String {
    let mut value = serde_json::to_value(plan)
        .expect("a plan holds text keys, numbers, texts and times, which are always valid JSON");
    if let Value::Object(fields) = &mut value {
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
