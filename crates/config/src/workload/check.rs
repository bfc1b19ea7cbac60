//! What tells whether a workload works.

use std::path::PathBuf;
use std::time::Duration;

use dr_model::document::{Context, FromNode, Node, Problem, Reader, Span, Spanned, one_of};
use dr_model::{ResourceName, ServiceName};

use crate::command::printed_command;

/// How long a command may take unless it says otherwise.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);

/// Tells whether a workload works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// What is looked at.
    pub kind: HealthCheckKind,
    /// Whether a move goes on where it does not pass.
    pub optional: bool,
}

/// What a health check looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HealthCheckKind {
    /// An address that must answer with a status of 200 to 299; `{answer}` in it is the answer of the region checked.
    Http {
        /// The address.
        url: String,
        /// Who has to have signed the certificate of an `https` address; the authorities of the machine if nobody is named.
        ca_file: Option<PathBuf>,
    },
    /// A query that must return one row whose first column is true.
    Sql {
        /// The resource, of the same workload.
        resource: ResourceName,
        /// The query.
        query: String,
    },
    /// A program that must exit with 0.
    Command {
        /// The program and its arguments; `{answer}` in them is the answer of the region checked.
        run: Vec<String>,
        /// The service, of the same workload, on whose machine in the region checked it runs; where `dr` runs if there is none.
        on: Option<ServiceName>,
        /// How long it may take.
        timeout: Duration,
    },
}

/// What a check may name of the workload that it belongs to.
#[derive(Clone, Copy)]
pub(super) struct Names<'a> {
    pub(super) resources: Option<&'a Node>,
    pub(super) services: Option<&'a Node>,
}

impl HealthCheck {
    pub(super) fn read(node: &Node, context: &mut Context, names: Names<'_>) -> Option<Self> {
        let mut reader = Reader::open(node, context)?;
        let optional = reader.or("optional", false);
        let url: Option<String> = reader.optional("http");
        let ca_file = reader.optional("ca_file");
        if let (Some(file), None) = (reader.node("ca_file"), reader.node("http")) {
            let problem = Problem::error(&file.span, "nothing shows a certificate here")
                .hint("it says who has to have signed that of an `http` check");
            reader.context().within("ca_file", |c| c.report(problem));
        }
        let read = |n: &Node, c: &mut Context| sql(n, c, names.resources);
        let sql = reader.optional_with("sql", read);
        let read = |n: &Node, c: &mut Context| command(n, c, names.services);
        let command = reader.optional_with("command", read);
        let kinds = ["http", "sql", "command"];
        let written = kinds.iter().filter(|kind| reader.node(kind).is_some());
        if written.count() != 1 {
            let problem = Problem::error(reader.span(), "a check is one thing")
                .expected(format!("either {}", one_of(&kinds)));
            reader.context().report(problem);
        }
        reader.finish();
        let http = url.map(|url| HealthCheckKind::Http { url, ca_file });
        let kind = http.or(sql).or(command)?;
        Some(Self { kind, optional })
    }
}

/// Warns where no check has to pass.
pub(super) fn one_is_needed(
    node: Option<&Node>,
    checks: Option<&[HealthCheck]>,
    context: &mut Context,
) {
    let (Some(node), Some(checks)) = (node, checks) else {
        return;
    };
    if !checks.is_empty() && checks.iter().all(|check| check.optional) {
        let what = "every check is optional: clients are led to a region whatever is seen there";
        let problem =
            Problem::warning(&node.span, what).hint("leave `optional` out of one of them");
        context.within("checks", |context| context.report(problem));
    }
}

fn sql(node: &Node, context: &mut Context, resources: Option<&Node>) -> Option<HealthCheckKind> {
    let mut reader = Reader::open(node, context)?;
    let resource = reader.required::<Spanned<ResourceName>>("resource");
    let query = reader.required("query");
    if let (Some(name), Some(resources)) = (&resource, resources) {
        let what = "there is no such resource in this workload";
        let context = reader.context();
        context.within("resource", |context| {
            among(name.value.as_str(), &name.span, resources, what, context);
        });
    }
    reader.finish();
    Some(HealthCheckKind::Sql {
        resource: resource?.value,
        query: query?,
    })
}

fn command(node: &Node, context: &mut Context, services: Option<&Node>) -> Option<HealthCheckKind> {
    let mut reader = Reader::open(node, context)?;
    let run = reader.required_with("run", printed_command);
    let on: Option<Spanned<ServiceName>> = reader.optional("on");
    let timeout = reader.optional_with("timeout", above_zero);
    if let Some(name) = &on {
        let context = reader.context();
        context.within("on", |context| match services {
            Some(services) => {
                let what = "there is no such service in this workload";
                among(name.value.as_str(), &name.span, services, what, context);
            }
            None => {
                let problem = Problem::error(&name.span, "this workload has no services")
                    .hint("leave it out, and the command runs where `dr` does");
                context.report(problem);
            }
        });
    }
    reader.finish();
    Some(HealthCheckKind::Command {
        run: run?,
        on: on.map(|name| name.value),
        timeout: timeout.unwrap_or(COMMAND_TIMEOUT),
    })
}

/// Reports unless `word` is a key of `known`.
fn among(word: &str, span: &Span, known: &Node, what: &str, context: &mut Context) {
    if known.get(word).is_some() {
        return;
    }
    let known = known.keys().unwrap_or_default();
    let problem = Problem::error(span, what)
        .expected(one_of(&known))
        .suggest(word, &known);
    context.report(problem);
}

fn above_zero(node: &Node, context: &mut Context) -> Option<Duration> {
    let read = Duration::from_node(node, context)?;
    if read.is_zero() {
        let problem = Problem::error(&node.span, "nothing can be seen within no time");
        context.report(problem.expected("a duration above zero"));
        return None;
    }
    Some(read)
}
