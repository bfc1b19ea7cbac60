//! Reading single values.
//!
//! A text that holds references is shown in messages as it was written, never as it was resolved: what it resolves to
//! may be a secret.

use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;

use super::reader::one_of;
use super::{Context, Node, Problem, Spanned, Value};
use crate::{
    ApproverKey, ApproverName, Lsn, RegionName, ResourceId, ResourceName, RunbookName,
    ScheduleName, ServiceName, WorkloadName,
};

/// A value that can be read from a document.
pub trait FromNode: Sized {
    /// Reads the value. `None` means that at least one problem was reported.
    fn from_node(node: &Node, context: &mut Context) -> Option<Self>;
}

impl FromNode for Node {
    fn from_node(node: &Node, _context: &mut Context) -> Option<Self> {
        Some(node.clone())
    }
}

impl<T: FromNode> FromNode for Spanned<T> {
    fn from_node(node: &Node, context: &mut Context) -> Option<Self> {
        let value = T::from_node(node, context)?;
        Some(Self::new(node.span.clone(), value))
    }
}

impl FromNode for String {
    fn from_node(node: &Node, context: &mut Context) -> Option<Self> {
        text(node, context, "text")
    }
}

impl FromNode for bool {
    fn from_node(node: &Node, context: &mut Context) -> Option<Self> {
        match &node.value {
            Value::Bool(value) => Some(*value),
            Value::String(text) if text.contains("${") => {
                parsed(node, context, "`true` or `false`")
            }
            _ => {
                context.wrong_type(node, "`true` or `false`");
                None
            }
        }
    }
}

impl FromNode for f64 {
    fn from_node(node: &Node, context: &mut Context) -> Option<Self> {
        match &node.value {
            Value::Float(value) => Some(*value),
            #[expect(clippy::cast_precision_loss, reason = "settings are far below 2^53")]
            Value::Integer(value) => Some(*value as f64),
            Value::String(text) if text.contains("${") => parsed(node, context, "a number"),
            _ => {
                context.wrong_type(node, "a number");
                None
            }
        }
    }
}

macro_rules! whole_numbers {
    ($($type:ty),*) => {$(
        impl FromNode for $type {
            fn from_node(node: &Node, context: &mut Context) -> Option<Self> {
                let expected = format!("a whole number from {} to {}", <$type>::MIN, <$type>::MAX);
                match &node.value {
                    Value::Integer(value) => match <$type>::try_from(*value) {
                        Ok(value) => Some(value),
                        Err(_) => {
                            context.wrong_type(node, &expected);
                            None
                        }
                    },
                    Value::String(text) if text.contains("${") => parsed(node, context, &expected),
                    _ => {
                        context.wrong_type(node, &expected);
                        None
                    }
                }
            }
        }
    )*};
}
whole_numbers!(u16, u32, u64, i64);

macro_rules! from_text {
    ($($type:ty: $expected:literal),* $(,)?) => {$(
        impl FromNode for $type {
            fn from_node(node: &Node, context: &mut Context) -> Option<Self> {
                parsed(node, context, $expected)
            }
        }
    )*};
}
from_text!(
    RegionName: "the name of a region, such as `us-east-1`",
    WorkloadName: "the name of a workload, such as `orders`",
    ResourceName: "the name of a resource, such as `database`",
    ServiceName: "the name of a service, such as `ledger`",
    ScheduleName: "the name of a schedule, such as `daily-snapshot`",
    RunbookName: "the name of a runbook, such as `failover-region`",
    ApproverName: "the name of a person, such as `ada`",
    ApproverKey: "what `dr approval keygen` printed, `ed25519:` and 64 hexadecimal digits",
    ResourceId: "the full name of a resource, such as `orders/database`",
    Lsn: "a WAL position, such as `16/B374D848`",
);

/// A relative path is taken from the configuration directory.
impl FromNode for PathBuf {
    fn from_node(node: &Node, context: &mut Context) -> Option<Self> {
        let text = text(node, context, "a path")?;
        if text.is_empty() {
            context.report(Problem::error(&node.span, "the path is empty"));
            return None;
        }
        Some(context.base().join(text))
    }
}

/// Reads text, resolving its references; a number gets the hint to quote it.
pub(super) fn text(node: &Node, context: &mut Context, expected: &str) -> Option<String> {
    match &node.value {
        Value::String(text) => context.resolve(node, text),
        Value::Integer(_) | Value::Float(_) | Value::Bool(_) => {
            let problem = Problem::error(&node.span, format!("found {}", node.value.describe()))
                .expected(expected)
                .hint("put it in quotes");
            context.report(problem);
            None
        }
        _ => {
            context.wrong_type(node, expected);
            None
        }
    }
}

/// Reads text that parses as `T`; `expected` says what it should look like.
pub fn parsed<T>(node: &Node, context: &mut Context, expected: &str) -> Option<T>
where
    T: FromStr,
    T::Err: Display,
{
    let text = text(node, context, expected)?;
    match text.parse() {
        Ok(value) => Some(value),
        Err(error) => {
            report_unparsed(node, context, expected, &error);
            None
        }
    }
}

/// Reports that a text is not what was expected, without showing what its references resolve to.
pub(super) fn report_unparsed(
    node: &Node,
    context: &mut Context,
    expected: &str,
    error: &dyn Display,
) {
    context.report(Problem::error(&node.span, node.explain(error)).expected(expected));
}

impl Node {
    /// Says why this text cannot be used: `error`, or less if it may hold what a reference resolves to.
    #[must_use]
    pub fn explain(&self, error: &dyn Display) -> String {
        match self.as_text() {
            Some(written) if written.contains("${") => {
                format!("the value that `{written}` stands for cannot be used")
            }
            _ => error.to_string(),
        }
    }
}

/// Makes a function that reads one of the given words.
pub fn choice<T: Clone>(words: &[(&'static str, T)]) -> impl Fn(&Node, &mut Context) -> Option<T> {
    let words = words.to_vec();
    move |node, context| {
        let names: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        let expected = one_of(&names);
        let text = text(node, context, &expected)?;
        let found = words.iter().find(|(word, _)| *word == text);
        if found.is_none() {
            let written = node.as_text().unwrap_or_default();
            let problem = Problem::error(&node.span, format!("`{written}` is not known here"))
                .expected(expected)
                .suggest(&text, &names);
            context.report(problem);
        }
        found.map(|(_, value)| value.clone())
    }
}
