//! Text that is resolved only when it is used: secrets.

use std::fmt;

use super::{Context, FromNode, Node, Span, Value};

/// A text whose `${…}` references stay unresolved until the moment of use, and which is never shown.
///
/// So a secret is not held in memory before it is needed, a rotated one is picked up, and a command that does not need
/// it runs where it cannot be read. `Debug` shows `***`, because somebody may have written the secret itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Template {
    span: Span,
    text: String,
}

impl Template {
    /// Returns the text as written, for the one place that resolves it.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns where it stands, for messages.
    #[must_use]
    pub fn span(&self) -> &Span {
        &self.span
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "*** ({})", self.span)
    }
}

impl FromNode for Template {
    fn from_node(node: &Node, context: &mut Context) -> Option<Self> {
        match &node.value {
            Value::String(text) => Some(Self {
                span: node.span.clone(),
                text: text.clone(),
            }),
            Value::List(_) | Value::Map(_) | Value::Null => {
                context.wrong_type(node, "text, such as `${file:/etc/dr/password}`");
                None
            }
            // The value may be a secret that looks like a number: it is not shown.
            Value::Bool(_) | Value::Integer(_) | Value::Float(_) => {
                let problem = super::Problem::error(&node.span, "found something that is not text")
                    .expected("text, such as `${file:/etc/dr/password}`")
                    .hint("put it in quotes, or better in a file");
                context.report(problem);
                None
            }
        }
    }
}
