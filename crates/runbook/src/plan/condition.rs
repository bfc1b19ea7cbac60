//! What `if:` of a step may ask: a closed set of facts, decided when the plan is made.
//!
//! The plan says which steps are left out and why, and the execution makes no choice of its own: whoever approves a plan
//! has seen what will be done. A step that others have to follow cannot have a condition; the configuration sees to that.

use std::collections::BTreeSet;

use dr_provider::driver::{Instance, Role};

use crate::step::Scene;

/// A fact that a step can be made to depend on.
#[derive(Debug)]
pub struct Condition {
    /// The word after `if:`.
    pub word: &'static str,
    /// What it asks, as a statement.
    pub means: &'static str,
    holds: fn(&Scene<'_>) -> bool,
}

/// Every condition.
pub static ALL: [Condition; 4] = [
    Condition {
        word: "primary-answers",
        means: "every database runs in the region being left",
        holds: primary_answers,
    },
    Condition {
        word: "primary-silent",
        means: "a database does not run in the region being left, or does not answer",
        holds: |scene| !primary_answers(scene),
    },
    Condition {
        word: "standby-runs",
        means: "every database has a standby that runs in the region moved to",
        holds: standby_runs,
    },
    Condition {
        word: "standby-missing",
        means: "a database has no standby that runs in the region moved to",
        holds: |scene| !standby_runs(scene),
    },
];

/// Returns the words, for the configuration.
#[must_use]
pub fn words() -> BTreeSet<&'static str> {
    ALL.iter().map(|condition| condition.word).collect()
}

/// Words of which exactly one holds on any day.
const OPPOSITES: [[&str; 2]; 2] = [
    ["primary-answers", "primary-silent"],
    ["standby-runs", "standby-missing"],
];

/// Tells whether one of these words holds on any day.
pub(super) fn one_holds(words: &[&str]) -> bool {
    let mut pairs = OPPOSITES.iter();
    pairs.any(|pair| pair.iter().all(|word| words.contains(word)))
}

/// Tells whether there is such a word.
pub(super) fn is_known(word: &str) -> bool {
    ALL.iter().any(|condition| condition.word == word)
}

/// Says why a step with this condition is left out, if it is.
pub(super) fn left_out(word: &str, scene: &Scene<'_>) -> Option<String> {
    let condition = ALL.iter().find(|condition| condition.word == word)?;
    (!(condition.holds)(scene)).then(|| format!("`{word}` does not hold"))
}

fn primary_answers(scene: &Scene<'_>) -> bool {
    runs(scene, scene.from, Role::Primary)
}

fn standby_runs(scene: &Scene<'_>) -> bool {
    runs(scene, scene.to(), Role::Standby)
}

fn runs(scene: &Scene<'_>, region: &dr_model::RegionName, wanted: Role) -> bool {
    scene.world.resources.values().all(|resource| {
        let seen = resource
            .facts
            .regions
            .get(region)
            .map(|seen| &seen.instance);
        matches!(seen, Some(Instance::Running { role, .. }) if *role == wanted)
    })
}
