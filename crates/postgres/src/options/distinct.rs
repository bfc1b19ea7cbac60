//! Refuses two regions whose servers are one and the same.
//!
//! Every host is `local`, the machine that runs `dr`. Whoever moves away from a region stops what
//! runs in the data directory written for it, and takes that for proof (PROTOCOL 7). If it were the
//! directory of the target as well, the standby would be stopped in place of the old primary, which
//! could go on accepting writes.

use dr_model::document::{Context, Node, Problem, cleaned};

use super::{InstanceOptions, Options};

/// Reports each region whose data directory or address is that of another one; `regions` is the
/// node of them all.
pub(super) fn check(regions: &Node, options: &Options, context: &mut Context) {
    let instances: Vec<_> = options.instances.iter().collect();
    for (at, (region, instance)) in instances.iter().enumerate() {
        for (earlier, other) in &instances[..at] {
            let Some(node) = regions.get(region.as_str()) else {
                continue;
            };
            let Some((what, key)) = shared(instance, other) else {
                continue;
            };
            let span = &node.get(key).unwrap_or(node).span;
            context.report(
                Problem::error(
                    span,
                    format!("the {what} in `{region}` is that in `{earlier}`"),
                )
                .expected("a server of its own in each region")
                .hint("`local` is the machine that runs dr: one fence would stop both"),
            );
        }
    }
}

/// Returns what the two have in common that they may not, and the key under which it is written.
fn shared(one: &InstanceOptions, other: &InstanceOptions) -> Option<(&'static str, &'static str)> {
    if one.host != other.host {
        return None;
    }
    if cleaned(&one.data_directory) == cleaned(&other.data_directory) {
        Some(("data directory", "data_directory"))
    } else if (&one.address, one.port) == (&other.address, other.port) {
        Some(("address and port", "port"))
    } else {
        None
    }
}
