//! Refuses resources that share a cluster: they move together or not at all, so that they are one (PROTOCOL 1).

use dr_model::document::{Context, Problem, Value};

use crate::config::Contents;

/// Where an instance is, as far as the configuration says the same for all kinds.
#[derive(PartialEq)]
struct Place<'a> {
    kind: &'a str,
    region: &'a str,
    says: [Option<&'a Value>; 3],
}

/// Two resources are taken for the same one if they say the same of their kind, host, address and port in a region.
pub(crate) fn check(contents: &Contents, context: &mut Context) {
    let mut seen: Vec<(Place<'_>, String)> = Vec::new();
    for (workload_name, workload) in &contents.workloads {
        for (resource_name, resource) in &workload.resources {
            let name = format!("{workload_name}/{resource_name}");
            let Some(Value::Map(regions)) = resource.node.get("regions").map(|n| &n.value) else {
                continue;
            };
            for (region, instance) in regions {
                let place = Place {
                    kind: &resource.kind,
                    region: &region.value,
                    says: ["host", "address", "port"].map(|key| Some(&instance.get(key)?.value)),
                };
                if let Some((_, other)) = seen.iter().find(|(seen, _)| *seen == place) {
                    let what = format!("`{other}` is the same instance in `{}`", region.value);
                    let problem = Problem::error(&region.span, what).hint(
                        "a server moves as a whole, with all databases in it: make one resource of both, in one workload",
                    );
                    let path = format!("workloads.{workload_name}.resources.{resource_name}");
                    context.within(&path, |c| c.report(problem));
                }
                seen.push((place, name.clone()));
            }
        }
    }
}
