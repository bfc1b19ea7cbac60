//! How often it is looked whether a workload could be moved.

use std::time::Duration;

use dr_model::document::{Context, FromNode, Node, Problem, Reader, Span};

/// How often the failover plan of a workload is made and tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// The longest time between two looks.
    pub every: Duration,
}

impl Default for Readiness {
    fn default() -> Self {
        Self {
            every: Duration::from_secs(5 * 60),
        }
    }
}

impl FromNode for Readiness {
    fn from_node(node: &Node, context: &mut Context) -> Option<Self> {
        let mut reader = Reader::open(node, context)?;
        let every = reader.or("every", Self::default().every);
        let span = span(&mut reader, "every");
        at_least(every, Duration::from_secs(1), span, reader.context());
        reader.finish();
        Some(Self { every })
    }
}

fn span<'n>(reader: &mut Reader<'n, '_>, key: &'static str) -> &'n Span {
    reader
        .node(key)
        .map_or_else(|| reader.span(), |node| &node.span)
}

/// Reports an interval that is too short: each look costs requests to stores and servers.
fn at_least(written: Duration, least: Duration, span: &Span, context: &mut Context) {
    if written < least {
        let problem = Problem::error(span, format!("found {written:?}"))
            .expected(format!("a duration of at least {least:?}"));
        context.report(problem);
    }
}
