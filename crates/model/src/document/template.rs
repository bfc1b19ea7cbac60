//! Text that is resolved only when it is used: secrets.

use std::fmt;

use super::{Context, FromNode, Node, Problem, Span, Value};

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

/// What a reference may begin with.
const SCHEMES: [&str; 2] = ["env", "file"];

/// Returns the first `${…}` in a text that can never stand for anything: what is wrong with it is not a secret. What it
/// stands for may be there later, and is not looked for here.
fn unknown_reference(text: &str) -> Option<&str> {
    let mut from = 0;
    while let Some(at) = text[from..].find("${").map(|at| from + at) {
        let name = at + 2;
        if text[..at].ends_with('$') {
            from = name;
            continue;
        }
        let Some(length) = text[name..].find('}') else {
            return Some(&text[at..name]);
        };
        let known = text[name..name + length]
            .split_once(':')
            .is_some_and(|(scheme, rest)| SCHEMES.contains(&scheme) && !rest.is_empty());
        if !known {
            return Some(&text[at..=name + length]);
        }
        from = name + length + 1;
    }
    None
}

impl FromNode for Template {
    fn from_node(node: &Node, context: &mut Context) -> Option<Self> {
        match &node.value {
            Value::String(text) => match unknown_reference(text) {
                None => Some(Self {
                    span: node.span.clone(),
                    text: text.clone(),
                }),
                Some(reference) => {
                    let problem = Problem::error(&node.span, format!("`{reference}` is no reference"))
                        .expected("`${env:NAME}`, `${env:NAME:-default}` or `${file:/path}`; `$${` stands for `${` itself");
                    let scheme = reference.trim_start_matches("${");
                    let scheme = scheme.split(':').next().unwrap_or_default();
                    context.report(problem.suggest(scheme, SCHEMES));
                    None
                }
            },
            Value::List(_) | Value::Map(_) | Value::Null => {
                context.wrong_type(node, "text, such as `${file:/etc/dr/password}`");
                None
            }
            // The value may be a secret that looks like a number: it is not shown.
            Value::Bool(_) | Value::Integer(_) | Value::Float(_) => {
                let problem = Problem::error(&node.span, "found something that is not text")
                    .expected("text, such as `${file:/etc/dr/password}`")
                    .hint("put it in quotes, or better in a file");
                context.report(problem);
                None
            }
        }
    }
}
