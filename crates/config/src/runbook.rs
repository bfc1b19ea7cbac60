//! Runbooks: scripts of steps.

mod order;

use std::time::Duration;

use dr_model::document::{Context, FromNode, Node, Problem, Reader, Span, Spanned, Value, list};
use dr_model::{RunbookName, StepId};

use crate::scope::{Scope, known_word, version};

/// A script of steps.
#[derive(Clone, Debug)]
pub struct Runbook {
    /// Its name.
    pub name: RunbookName,
    /// What it does, in one line.
    pub summary: String,
    /// Its steps, in the order written; their needs have no circle.
    pub steps: Vec<Step>,
    /// Whether it is a part of the program, because no file takes its place.
    pub built_in: bool,
}

/// One step of a runbook.
#[derive(Clone, Debug)]
pub struct Step {
    /// Where it stands.
    pub span: Span,
    /// Its id, unique in the runbook.
    pub id: StepId,
    /// What it does: a kind that is known.
    pub uses: String,
    /// Its parameters: a map, empty if none were written.
    pub with: Node,
    /// The steps that must be over first: those written, or else the one above.
    pub needs: Vec<StepId>,
    /// The word that must hold for it to be taken; `None` means always.
    pub condition: Option<String>,
    /// How often it is tried again.
    pub retry: Retry,
    /// How long one attempt may take; `None` leaves it to the kind of step.
    pub timeout: Option<Duration>,
    /// The kind of step that is taken instead when this one is definitely not done.
    pub fallback: Option<String>,
    /// Whether the steps that need it run although it failed. The execution then completes with exceptions.
    pub continue_on_error: bool,
}

/// How often a step is tried again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retry {
    /// How many attempts follow the first.
    pub attempts: u32,
    /// How long to wait before each.
    pub wait: Duration,
}

impl FromNode for Retry {
    fn from_node(node: &Node, context: &mut Context) -> Option<Self> {
        let mut reader = Reader::open(node, context)?;
        let attempts = reader.required("attempts");
        let wait = reader.or_default("wait");
        reader.finish();
        Some(Self {
            attempts: attempts?,
            wait,
        })
    }
}

/// Returns the name that a file gives its runbook, whatever else is wrong with it.
pub(crate) fn name(node: &Node) -> Option<RunbookName> {
    node.get("name")?.as_text()?.parse().ok()
}

/// Reads one file of `runbooks/`.
pub(crate) fn read(
    node: &Node,
    context: &mut Context,
    scope: &Scope<'_>,
) -> Option<Spanned<Runbook>> {
    let mut reader = Reader::open(node, context)?;
    version(&mut reader);
    let name: Option<Spanned<RunbookName>> = reader.required("name");
    let summary = reader.required("summary");
    let step = |n: &Node, c: &mut Context| RawStep::read(n, c, scope);
    let before = reader.context().errors();
    let raw = reader.required_with("steps", list(step));
    if let (Some([]), Some(name)) = (raw.as_deref(), &name) {
        let problem = Problem::error(&name.span, "there is no step")
            .hint("name what is to be done in `steps`: `docs/steps.md` has all steps");
        reader.context().within("steps", |c| c.report(problem));
    }
    let readable = reader.context().errors() == before;
    if let (Some(raw), true) = (&raw, readable) {
        reader
            .context()
            .within("steps", |c| order::check(raw, c, scope.kinds));
    }
    reader.finish();
    let name = name?;
    let mut above = None;
    let mut steps = Vec::new();
    for step in raw? {
        let id = step.id.value.clone();
        steps.push(step.finish(above.as_ref()));
        above = Some(id);
    }
    let runbook = Runbook {
        name: name.value,
        summary: summary?,
        steps,
        built_in: false,
    };
    Some(Spanned::new(name.span, runbook))
}

/// A step before what it needs is known to exist.
struct RawStep {
    span: Span,
    id: Spanned<StepId>,
    uses: Spanned<String>,
    with: Node,
    needs: Option<Vec<Spanned<StepId>>>,
    condition: Option<Spanned<String>>,
    retry: Retry,
    timeout: Option<Duration>,
    fallback: Option<Spanned<String>>,
    continue_on_error: bool,
}

fn step_id(node: &Node, context: &mut Context) -> Option<Spanned<StepId>> {
    let text = Spanned::<String>::from_node(node, context)?;
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if text.value.is_empty() || text.value.len() > 63 || !text.value.chars().all(allowed) {
        let written = node.as_text().unwrap_or_default();
        let problem = Problem::error(&node.span, format!("`{written}` is not the id of a step"))
            .expected("1 to 63 lower-case letters, digits and hyphens");
        context.report(problem);
        return None;
    }
    Some(Spanned::new(text.span, StepId(text.value)))
}

impl RawStep {
    fn read(node: &Node, context: &mut Context, scope: &Scope<'_>) -> Option<Self> {
        let kinds = scope.kinds;
        let kind = |n: &Node, c: &mut Context| known_word(n, c, "step", kinds.steps.keys());
        let mut reader = Reader::open(node, context)?;
        let id = reader.required_with("id", step_id);
        let uses = reader.required_with("uses", kind);
        let empty = Node::new(node.span.clone(), Value::Map(Vec::new()));
        let with = reader.optional::<Node>("with").unwrap_or(empty);
        if let Some(kind) = uses
            .as_ref()
            .and_then(|u| kinds.steps.get(u.value.as_str()))
        {
            reader.context().within("with", |c| (kind.check)(&with, c));
        }
        let needs = reader.optional_with("needs", list(step_id));
        let word = |n: &Node, c: &mut Context| known_word(n, c, "condition", &kinds.conditions);
        let condition = reader.optional_with("if", word);
        let retry = reader.or_default("retry");
        let timeout = reader.optional("timeout");
        let fallback = reader.optional_with("fallback", kind);
        let continue_on_error = reader.or_default("continue_on_error");
        reader.finish();
        Some(Self {
            span: node.span.clone(),
            id: id?,
            uses: uses?,
            with,
            needs,
            condition,
            retry,
            timeout,
            fallback,
            continue_on_error,
        })
    }

    fn finish(self, above: Option<&StepId>) -> Step {
        let needs = match self.needs {
            Some(needs) => needs.into_iter().map(|n| n.value).collect(),
            None => above.cloned().into_iter().collect(),
        };
        Step {
            span: self.span,
            id: self.id.value,
            uses: self.uses.value,
            with: self.with,
            needs,
            condition: self.condition.map(|c| c.value),
            retry: self.retry,
            timeout: self.timeout,
            fallback: self.fallback.map(|f| f.value),
            continue_on_error: self.continue_on_error,
        }
    }
}
