//! What the configuration says of the parts that a plan rests on, as hashes: whoever goes on with an execution must mean by each name
//! what was meant when its plan was made.

use std::collections::BTreeMap;

use dr_model::document::{Node, Value};

use super::{HealthCheck, HealthCheckKind, Resource, Service, Workload};
use crate::digest::digest;

/// What of a resource is the same thing on every machine: how a password is found, or another machine is reached, is not.
const OF_RESOURCE: [&str; 3] = ["kind", "database", REGIONS];

/// Where a resource has its instances.
const REGIONS: &str = "regions";

/// The same of its instance in a region.
const OF_INSTANCE: [&str; 7] = [
    "host",
    "address",
    "port",
    "data_directory",
    "start",
    "stop",
    "promote",
];

/// What of a traffic record is this machine's own: how its key is found.
const OF_MACHINE: [&str; 1] = ["tsig"];

impl Workload {
    /// Returns a hash, in hexadecimal, of what is said of each resource, service, traffic record and check, by its path.
    ///
    /// Secrets and ways to reach another machine are not part of it, so that it is the same on every machine.
    #[must_use]
    pub fn definitions(&self) -> BTreeMap<String, String> {
        let resources = self.resources.iter();
        let resources = resources.map(|(name, one)| (format!("resources.{name}"), resource(one)));
        let services = self.services.iter();
        let services = services.map(|(name, one)| (format!("services.{name}"), service(one)));
        let traffic = self.traffic.iter().enumerate();
        let traffic = traffic.map(|(at, one)| (format!("traffic[{at}]"), record(&one.node)));
        let checks = self.checks.iter().enumerate();
        let checks = checks.map(|(at, one)| (format!("checks[{at}]"), check(one)));
        let all = resources.chain(services).chain(traffic).chain(checks);
        all.map(|(path, hash)| (path, hash.to_hex().to_string()))
            .collect()
    }
}

fn resource(resource: &Resource) -> blake3::Hash {
    let mut said = only(&resource.node, &OF_RESOURCE);
    let entries = match &mut said.value {
        Value::Map(entries) => entries.as_mut_slice(),
        _ => &mut [],
    };
    for (_, regions) in entries.iter_mut().filter(|(key, _)| key.value == REGIONS) {
        if let Value::Map(regions) = &mut regions.value {
            for (_, instance) in regions {
                *instance = only(instance, &OF_INSTANCE);
            }
        }
    }
    digest(std::iter::once(&said))
}

fn record(node: &Node) -> blake3::Hash {
    let said = filtered(node, |key| !OF_MACHINE.contains(&key));
    digest(std::iter::once(&said))
}

fn only(node: &Node, keys: &[&str]) -> Node {
    filtered(node, |key| keys.contains(&key))
}

/// Returns a map with those of its entries that count; what is no map counts as it is.
fn filtered(node: &Node, counts: impl Fn(&str) -> bool) -> Node {
    let Value::Map(entries) = &node.value else {
        return node.clone();
    };
    let entries = entries.iter().filter(|(key, _)| counts(&key.value));
    Node::new(node.span.clone(), Value::Map(entries.cloned().collect()))
}

fn service(service: &Service) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    for (region, instance) in &service.regions {
        words(&mut hasher, [region.as_str(), &instance.host]);
        words(&mut hasher, &instance.start);
        words(&mut hasher, instance.stop.iter().flatten());
        words(&mut hasher, instance.check.iter().flatten());
    }
    hasher.finalize()
}

fn check(check: &HealthCheck) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    match &check.kind {
        HealthCheckKind::Http { url, .. } => words(&mut hasher, ["http", url]),
        HealthCheckKind::Sql { resource, query } => {
            words(&mut hasher, ["sql", resource.as_str(), query]);
        }
        HealthCheckKind::Command {
            run,
            on,
            timeout: _,
        } => {
            words(&mut hasher, ["command"]);
            words(&mut hasher, on.iter().map(dr_model::ServiceName::as_str));
            words(&mut hasher, run);
        }
    }
    hasher.finalize()
}

/// Takes a list of words with its end, so that no two lists are taken for one.
fn words(hasher: &mut blake3::Hasher, words: impl IntoIterator<Item = impl AsRef<str>>) {
    for word in words {
        let word = word.as_ref();
        hasher.update(&word.len().to_le_bytes());
        hasher.update(word.as_bytes());
    }
    hasher.update(&usize::MAX.to_le_bytes());
}
