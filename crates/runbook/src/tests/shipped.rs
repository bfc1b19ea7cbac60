//! One name for one thing: files, registry, shipped runbook.

use std::collections::BTreeSet;
use std::path::Path;

use super::world::{
    shipped, shipped_failback, shipped_planned, shipped_recover, shipped_restore, shipped_undo,
};
use crate::check::{Finding, asks_people, check};
use crate::step::Step;
use crate::steps::registry;

fn names() -> BTreeSet<String> {
    let all = registry::ALL.iter();
    all.map(|entry| entry.step.name().to_owned()).collect()
}

#[test]
fn files_and_registry_name_the_same_steps() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/steps");
    let files: BTreeSet<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "registry.rs")
        .map(|name| name.trim_end_matches(".rs").replace('_', "-"))
        .collect();
    assert_eq!(files, names());
}

#[test]
fn types_are_named_after_their_steps() {
    for entry in registry::ALL {
        let words = entry.step.name().split('-');
        let camel: String = words
            .map(|word| word[..1].to_uppercase() + &word[1..])
            .collect();
        assert_eq!(format!("{:?}", entry.step), camel);
    }
}

#[test]
fn the_shipped_runbooks_use_every_step_but_those_for_ones_own() {
    let all = [
        shipped(),
        shipped_planned(),
        shipped_failback(),
        shipped_undo(),
        shipped_recover(),
        shipped_restore(),
    ];
    let used: BTreeSet<_> = all
        .iter()
        .flat_map(|runbook| &runbook.steps)
        .flat_map(|step| std::iter::once(step.uses.clone()).chain(step.fallback.clone()))
        .collect();
    let own = ["run-command", "wait"].map(str::to_owned);
    assert!(used.is_disjoint(&own.clone().into()));
    let all: BTreeSet<_> = used.into_iter().chain(own).collect();
    assert_eq!(all, names());
}

#[test]
fn nothing_is_wrong_with_the_shipped_runbooks() {
    for runbook in [
        shipped(),
        shipped_planned(),
        shipped_failback(),
        shipped_undo(),
        shipped_recover(),
        shipped_restore(),
    ] {
        assert_eq!(check(&runbook), [], "{}", runbook.name);
        assert!(asks_people(&runbook), "{}", runbook.name);
    }
}

/// A runbook of one's own may do it in another way, and is told what then nobody does.
#[test]
fn what_is_left_out_of_a_move_is_named() {
    for name in [
        "check-health",
        "switch-traffic",
        "verify-traffic",
        "rearm-protection",
        "record-evidence",
    ] {
        for mut runbook in [shipped(), shipped_planned(), shipped_failback()] {
            runbook.steps.retain(|step| step.uses != name);
            let what = format!("no step uses `{name}`");
            let advised = |found: &Finding| !found.is_grave && found.what.starts_with(&what);
            let found = check(&runbook);
            assert!(found.iter().any(advised), "{name}: {found:?}");
        }
    }
}

#[test]
fn fallbacks_and_predecessors_exist() {
    for entry in registry::ALL {
        let step: &dyn Step = entry.step;
        for name in step.fallbacks().iter().chain(step.follows()) {
            assert!(registry::find(name).is_some(), "{name}");
        }
    }
}

#[test]
fn the_documentation_has_a_heading_for_every_step() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/steps.md");
    let text = std::fs::read_to_string(path).unwrap();
    let headings: BTreeSet<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .map(|heading| heading.trim_matches('`').to_owned())
        .collect();
    assert_eq!(headings, names());
}
