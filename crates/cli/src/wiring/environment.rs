//! What a server's `restore_command` needs of the environment to open the stores.
//!
//! PostgreSQL hands its own environment on to it, and hosts start programs with next to none, so that a server that `dr` starts is
//! given these. One that something else starts, as a standby that systemd keeps, has what that gave it.

use std::collections::BTreeSet;

use dr_config::{Config, StoreLocation};
use dr_model::document::{Node, Value};
use dr_provider::Secret;

/// Returns the variables that the stores are opened with: those that their entries refer to, and those of AWS's own chain that are
/// set, where an entry names no keys.
pub(crate) fn names(config: &Config) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for region in config.regions.values() {
        let StoreLocation::Other { node, .. } = &region.store else {
            continue;
        };
        if !names_keys(node) {
            let set = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
            found.extend(set.filter(|name| name.starts_with("AWS_")));
        }
        refers(node, &mut found);
    }
    found
}

/// Returns those of them that are set, with their values.
pub(super) fn variables(config: &Config) -> Vec<(String, Secret)> {
    let set = |name: String| {
        std::env::var(&name)
            .ok()
            .map(|value| (name, Secret::new(value)))
    };
    names(config).into_iter().filter_map(set).collect()
}

fn names_keys(entry: &Node) -> bool {
    let Value::Map(entries) = &entry.value else {
        return false;
    };
    entries.iter().any(|(key, _)| key.value == "credentials")
}

/// Collects the variables that texts refer to. Nothing that a server does needs the keys for deleting.
fn refers(node: &Node, found: &mut BTreeSet<String>) {
    match &node.value {
        Value::String(text) => {
            let references = text.split("${env:").skip(1);
            let names = references.filter_map(|rest| rest.split(['}', ':']).next());
            found.extend(names.map(str::to_owned));
        }
        Value::List(entries) => entries.iter().for_each(|entry| refers(entry, found)),
        Value::Map(entries) => {
            let kept = entries
                .iter()
                .filter(|(key, _)| key.value != "prune_credentials");
            kept.for_each(|(_, entry)| refers(entry, found));
        }
        Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Float(_) => {}
    }
}
