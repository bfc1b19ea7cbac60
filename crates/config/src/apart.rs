//! What regions must not share: a store is the copy that survives the other region, and two daemons on one machine each need
//! an address and a state directory.

use dr_model::document::{Context, Node, Problem, Span, Value, cleaned};

use crate::config::Contents;
use crate::region::{Region, StoreLocation};

/// Reports regions of `contents`, which was read from `root`, that share a store, an address or a state directory.
pub(crate) fn check(root: &Node, contents: &Contents, context: &mut Context) {
    let Some(Value::Map(entries)) = root.get("regions").map(|node| &node.value) else {
        return;
    };
    let regions: Vec<(&str, &Node, &Region)> = entries
        .iter()
        .filter_map(|(name, node)| {
            let (_, region) = contents
                .regions
                .iter()
                .find(|(known, _)| known.as_str() == name.value)?;
            Some((name.value.as_str(), node, region))
        })
        .collect();
    for (at, (name, node, region)) in regions.iter().enumerate() {
        // The same name twice is a problem of its own.
        for (other, _, earlier) in regions[..at].iter().filter(|(other, ..)| other != name) {
            let problems = [
                stores(node, region, other, earlier),
                daemons(node, region, other, earlier),
            ];
            context.within(&format!("regions.{name}"), |context| {
                for problem in problems.into_iter().flatten() {
                    context.report(problem);
                }
            });
        }
    }
}

fn stores(node: &Node, region: &Region, other: &str, earlier: &Region) -> Option<Problem> {
    let what = match (&region.store, &earlier.store) {
        (StoreLocation::Directory(one), StoreLocation::Directory(two)) => {
            let (one, two) = (cleaned(one), cleaned(two));
            if one == two {
                format!("`{other}` has the same store")
            } else if one.starts_with(&two) || two.starts_with(&one) {
                format!("the store and that of `{other}` lie in each other")
            } else {
                return None;
            }
        }
        (StoreLocation::Other { node: one, .. }, StoreLocation::Other { node: two, .. })
            if place(one) == place(two) =>
        {
            format!("`{other}` has the same store")
        }
        _ => return None,
    };
    let problem = Problem::error(span(node, &["store"]), what);
    Some(problem.hint("what is lost with one region must be in the store of another"))
}

/// Only a warning: on two machines both are as they should be.
fn daemons(node: &Node, region: &Region, other: &str, earlier: &Region) -> Option<Problem> {
    let (one, two) = (region.daemon.as_ref()?, earlier.daemon.as_ref()?);
    let key = if one.listen == two.listen {
        "listen"
    } else if cleaned(&one.state_directory) == cleaned(&two.state_directory) {
        "state_directory"
    } else {
        return None;
    };
    let what = format!("`{other}` has the same `{key}`");
    let problem = Problem::warning(span(node, &["daemon", key]), what);
    Some(problem.hint("on one machine only one of both daemons can run"))
}

/// Returns what tells a location from another: where it is, and who is asked for it.
fn place(node: &Node) -> (Option<&str>, Option<&str>) {
    let url = node.get("url").unwrap_or(node).as_text();
    let endpoint = node.get("endpoint").and_then(Node::as_text);
    (url.map(|url| url.trim_end_matches('/')), endpoint)
}

fn span<'a>(node: &'a Node, keys: &[&str]) -> &'a Span {
    let mut node = node;
    for key in keys {
        node = node.get(key).unwrap_or(node);
    }
    &node.span
}
