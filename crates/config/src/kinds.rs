//! What the binary can do, as far as the configuration may name it.
//!
//! The configuration knows no driver, job or step: whoever wires the binary hands in the names, and for each subtree
//! that is not the configuration's own a function that reads it and reports its problems.

use std::collections::{BTreeMap, BTreeSet};

use dr_model::document::{Context, Node};

/// Reads a subtree only to find its problems.
pub type Check = fn(&Node, &mut Context);

/// A kind of step.
#[derive(Clone, Copy, Debug)]
pub struct StepKind {
    /// Reads `with`, which is an empty map if it was left out.
    pub check: Check,
    /// The kinds of step that must be over before a step of this kind may begin: PROTOCOL 9 orders promotion and
    /// restore after seal and fence.
    pub follows: &'static [&'static str],
    /// The kinds of step in whose place one of this kind counts there.
    pub stands_for: &'static [&'static str],
}

/// Everything that a configuration may name.
#[derive(Clone, Debug, Default)]
pub struct Kinds {
    /// Schemes of store locations, such as `s3`; directories are always known. The check reads the whole entry, which is a
    /// location or a map with one as `url`.
    pub stores: BTreeMap<&'static str, Check>,
    /// Kinds of resource; the check reads the whole resource, `kind` included.
    pub resources: BTreeMap<&'static str, Check>,
    /// Kinds of traffic; the check reads the whole record, `kind` included.
    pub traffic: BTreeMap<&'static str, Check>,
    /// Names of jobs.
    pub jobs: BTreeSet<&'static str>,
    /// Those of them that `keep` says something to.
    pub expiries: BTreeSet<&'static str>,
    /// Kinds of step.
    pub steps: BTreeMap<&'static str, StepKind>,
    /// The words that `if` of a step may hold.
    pub conditions: BTreeSet<&'static str>,
}
