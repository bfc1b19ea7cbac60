//! Reading the parts of a workload: resources, services, traffic, checks, notices.

use std::collections::BTreeMap;
use std::time::Duration;

use dr_model::ResourceName;
use dr_model::document::{Context, FromNode, Node, Problem, Reader, Spanned, Value, one_of};

use super::places::Places;
use super::{HealthCheck, Notify, Resource, Service, ServiceInstance, Traffic};
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

/// Reads a program and its arguments: never a shell line.
fn command(node: &Node, context: &mut Context) -> Option<Vec<String>> {
    const EXPECTED: &str = "a program and its arguments, such as `[systemctl, start, ledger]`";
    if let Value::String(_) = node.value {
        let problem = Problem::error(&node.span, "found text")
            .expected(EXPECTED)
            .hint("no shell reads it: write each word as one element of the list");
        context.report(problem);
        return None;
    }
    let words = Vec::<String>::from_node(node, context)?;
    if words.is_empty() {
        context.report(Problem::error(&node.span, "the command is empty").expected(EXPECTED));
        return None;
    }
    Some(words)
}

impl FromNode for Notify {
    fn from_node(node: &Node, context: &mut Context) -> Option<Self> {
        let mut reader = Reader::open(node, context)?;
        let webhook = reader.required("webhook");
        reader.finish();
        webhook.map(Self::Webhook)
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
        Some(Self {
            kind: kind?,
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
        let regions = reader.required("regions");
        places.check_map(node, "regions", reader.context(), scope);
        reader.finish();
        Some(Self { regions: regions? })
    }
}

impl HealthCheck {
    pub(super) fn read(
        node: &Node,
        context: &mut Context,
        resources: Option<&Node>,
    ) -> Option<Self> {
        let mut reader = Reader::open(node, context)?;
        let url: Option<String> = reader.optional("http");
        let read = |n: &Node, c: &mut Context| sql(n, c, resources);
        let sql = reader.optional_with("sql", read);
        let written = (reader.node("http").is_some(), reader.node("sql").is_some());
        if written.0 == written.1 {
            let problem = Problem::error(reader.span(), "a check is one thing")
                .expected("either `http` or `sql`");
            reader.context().report(problem);
        }
        reader.finish();
        url.map(|url| Self::Http { url }).or(sql)
    }
}

fn sql(node: &Node, context: &mut Context, resources: Option<&Node>) -> Option<HealthCheck> {
    let mut reader = Reader::open(node, context)?;
    let resource = reader.required::<Spanned<ResourceName>>("resource");
    let query = reader.required("query");
    if let (Some(name), Some(resources)) = (&resource, resources)
        && resources.get(name.value.as_str()).is_none()
    {
        let known = resources.keys().unwrap_or_default();
        let problem = Problem::error(&name.span, "there is no such resource in this workload")
            .expected(one_of(&known))
            .suggest(name.value.as_str(), &known);
        reader.context().within("resource", |c| c.report(problem));
    }
    reader.finish();
    Some(HealthCheck::Sql {
        resource: resource?.value,
        query: query?,
    })
}
