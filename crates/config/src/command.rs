//! A program and its arguments, as a configuration and a runbook write them: never a shell line.

use dr_model::document::{Context, FromNode, Node, Problem, Value, list};

const EXPECTED: &str = "a program and its arguments, such as `[systemctl, start, ledger]`";

/// Reads a program and its arguments.
pub(crate) fn command(node: &Node, context: &mut Context) -> Option<Vec<String>> {
    words(node, context, String::from_node)
}

/// Reads a program and its arguments that a plan prints word for word: references, and with them secrets, have no place in them.
pub fn printed_command(node: &Node, context: &mut Context) -> Option<Vec<String>> {
    words(node, context, plain)
}

fn words(
    node: &Node,
    context: &mut Context,
    word: fn(&Node, &mut Context) -> Option<String>,
) -> Option<Vec<String>> {
    if let Value::String(_) = node.value {
        let problem = Problem::error(&node.span, "found text")
            .expected(EXPECTED)
            .hint("no shell reads it: write each word as one element of the list");
        context.report(problem);
        return None;
    }
    let words = list(word)(node, context)?;
    if words.is_empty() {
        context.report(Problem::error(&node.span, "the command is empty").expected(EXPECTED));
        return None;
    }
    Some(words)
}

fn plain(node: &Node, context: &mut Context) -> Option<String> {
    if node.as_text().is_some_and(|text| text.contains("${")) {
        let problem = Problem::error(&node.span, "a reference cannot be used here")
            .hint("a plan is written down: let the program read its secrets by itself");
        context.report(problem);
        return None;
    }
    String::from_node(node, context)
}
