//! Runbooks that are there without a file: those at the root of the repository, embedded.
//!
//! A file in `runbooks/` with the same name takes the place of one. `dr init` writes `failover-region` alone, as an example; of the others
//! a configuration gets those of the program that reads it.

use std::path::Path;
use std::sync::Arc;

use dr_model::RunbookName;
use dr_model::document::{Context, Resolver};

use crate::scope::Scope;
use crate::{Runbook, runbook, yaml};

/// The runbook of `dr failover`, which readiness tries too.
pub(crate) const FAILOVER: &str = "failover-region";

const TEXTS: [(&str, &str); 6] = [
    (
        "runbooks/failover-region.yaml",
        include_str!("../../../runbooks/failover-region.yaml"),
    ),
    (
        "runbooks/failover-planned.yaml",
        include_str!("../../../runbooks/failover-planned.yaml"),
    ),
    (
        "runbooks/failback-region.yaml",
        include_str!("../../../runbooks/failback-region.yaml"),
    ),
    (
        "runbooks/undo-move.yaml",
        include_str!("../../../runbooks/undo-move.yaml"),
    ),
    (
        "runbooks/recover-component.yaml",
        include_str!("../../../runbooks/recover-component.yaml"),
    ),
    (
        "runbooks/restore-database.yaml",
        include_str!("../../../runbooks/restore-database.yaml"),
    ),
];

/// Reads them; one that uses steps which this program does not have is not there.
pub(crate) fn runbooks(
    directory: &Path,
    resolver: &Arc<dyn Resolver>,
    scope: &Scope<'_>,
) -> Vec<Runbook> {
    let read = |(name, text): &(&str, &str)| {
        let mut context = Context::new(directory, Arc::clone(resolver));
        let node = yaml::parse(name, text).ok()?;
        let read = runbook::read(&node, &mut context, scope)?;
        let runbook = Runbook {
            built_in: true,
            ..read.value
        };
        (context.errors() == 0).then_some(runbook)
    };
    TEXTS.iter().filter_map(read).collect()
}

/// Tells whether a command uses the runbook of this name unless another one is asked for.
#[must_use]
pub fn is_used_unasked(name: &RunbookName) -> bool {
    let file = format!("runbooks/{name}.yaml");
    TEXTS.iter().any(|(path, _)| *path == file)
}
