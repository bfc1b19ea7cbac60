//! What a configuration may name.

use std::collections::{BTreeMap, BTreeSet};

use dr_config::{Check, Kinds};
use dr_model::document::{Context, FromNode, Node};

/// Returns the names of every implementation, with the functions that check their subtrees.
pub(crate) fn kinds() -> Kinds {
    Kinds {
        stores: super::stores::kinds(),
        resources: BTreeMap::from([("postgres", checked::<dr_postgres::Options> as Check)]),
        traffic: BTreeMap::from([(
            "rfc2136",
            checked::<dr_local::rfc2136::Rfc2136Options> as Check,
        )]),
        jobs: BTreeSet::from(dr_jobs::registry::NAMES),
        expiries: BTreeSet::from([dr_jobs::ExpireRecoveryPoints::NAME]),
        steps: dr_runbook::steps::registry::kinds(),
        conditions: dr_runbook::plan::condition::words(),
    }
}

/// Reads a subtree for its problems alone.
pub(super) fn checked<T: FromNode>(node: &Node, context: &mut Context) {
    T::from_node(node, context);
}
