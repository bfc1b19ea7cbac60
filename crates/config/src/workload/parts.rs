//! Reading the parts of a workload: resources, services, traffic, notices.

use std::collections::BTreeMap;
use std::time::Duration;

use dr_model::document::{Context, FromNode, Node, Problem, Reader, Value, one_of};

use super::places::Places;
use super::{Notify, Resource, Service, ServiceInstance, Traffic};
use crate::command::command;
use crate::scope::{Scope, known_word};

impl FromNode for ServiceInstance {
    fn from_node(node: &Node, context: &mut Context) -> Option<Self> {
        let mut reader = Reader::open(node, context)?;
        let host = reader.or("host", "local".to_owned());
        let start = reader.required_with("start", command);
        let stop = reader.optional_with("stop", command);
        let check = reader.optional_with("check", command);
        reader.finish();
        Some(Self {
            host,
            start: start?,
            stop,
            check,
        })
    }
}

impl FromNode for Notify {
    fn from_node(node: &Node, context: &mut Context) -> Option<Self> {
        let mut reader = Reader::open(node, context)?;
        let url = reader.required("webhook");
        let ca_file = reader.optional("ca_file");
        reader.finish();
        Some(Self::Webhook { url: url?, ca_file })
    }
}

/// Reads `kind` and hands the whole entry to the check of that kind.
fn kind(
    node: &Node,
    context: &mut Context,
    what: &str,
    kinds: &BTreeMap<&'static str, crate::Check>,
) -> Option<String> {
    if !matches!(node.value, Value::Map(_)) {
        context.wrong_type(node, "a map");
        return None;
    }
    let Some(kind) = node.get("kind") else {
        let problem = Problem::error(&node.span, "`kind` is missing");
        let names: Vec<&str> = kinds.keys().copied().collect();
        context.report(problem.expected(one_of(&names)));
        // Where there is one kind only the rest is looked at as that.
        if let (1, Some(check)) = (kinds.len(), kinds.values().next()) {
            check(node, context);
        }
        return None;
    };
    let kind = context.within("kind", |c| known_word(kind, c, what, kinds.keys()))?;
    kinds[kind.value.as_str()](node, context);
    Some(kind.value)
}

impl Resource {
    pub(super) fn read(
        node: &Node,
        context: &mut Context,
        scope: &Scope<'_>,
        places: &Places<'_>,
    ) -> Option<Self> {
        let kind = kind(node, context, "kind of resource", &scope.kinds.resources);
        places.check_map(node, "regions", context, scope);
        places.check_sync(node, context);
        Some(Self {
            kind: kind?,
            node: node.clone(),
        })
    }
}

impl Traffic {
    pub(super) fn read(
        node: &Node,
        context: &mut Context,
        scope: &Scope<'_>,
        places: &Places<'_>,
    ) -> Option<Self> {
        let kind = kind(node, context, "kind of traffic", &scope.kinds.traffic);
        places.check_map(node, "answers", context, scope);
        if let Some(ttl) = node.get("ttl") {
            // Its owner reports what cannot be read.
            let seconds = Duration::from_node(ttl, &mut Context::without_references(""));
            if seconds.is_some_and(|ttl| ttl > Duration::from_secs(60)) {
                let problem = Problem::warning(&ttl.span, "clients keep the old answer this long")
                    .expected("at most `60s`")
                    .hint("every second of it is added to the time to recover");
                context.within("ttl", |c| c.report(problem));
            }
        }
        let optional = node.get("optional").map(|optional| {
            context.within("optional", |context| bool::from_node(optional, context))
        });
        Some(Self {
            kind: kind?,
            optional: optional.flatten().unwrap_or_default(),
            node: node.clone(),
        })
    }
}

impl Service {
    pub(super) fn read(
        node: &Node,
        context: &mut Context,
        scope: &Scope<'_>,
        places: &Places<'_>,
    ) -> Option<Self> {
        let mut reader = Reader::open(node, context)?;
        let optional = reader.or("optional", false);
        let regions = reader.required("regions");
        places.check_map(node, "regions", reader.context(), scope);
        reader.finish();
        Some(Self {
            optional,
            regions: regions?,
        })
    }
}
