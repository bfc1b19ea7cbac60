//! What one part of a configuration must know of the others.

use std::collections::{BTreeMap, BTreeSet};

use dr_model::document::{Context, FromNode, Node, Problem, Reader, Span, Spanned, Value, one_of};
use dr_model::{RegionName, ResourceId};

use crate::Kinds;

/// The names that stand in `dr.yaml`, taken before anything is validated: a region whose own entry has a problem still
/// exists, so that one mistake is reported once.
pub(crate) struct Scope<'a> {
    pub(crate) kinds: &'a Kinds,
    regions: Option<BTreeSet<String>>,
    resources: BTreeMap<String, BTreeSet<String>>,
}

fn keys(node: Option<&Node>) -> Option<BTreeSet<String>> {
    Some(node?.keys()?.into_iter().map(ToOwned::to_owned).collect())
}

impl<'a> Scope<'a> {
    /// Takes the names out of `dr.yaml`; `None` if that file could not be read.
    pub(crate) fn new(root: Option<&Node>, kinds: &'a Kinds) -> Self {
        let mut resources = BTreeMap::new();
        let workloads = root.and_then(|r| r.get("workloads"));
        if let Some(Value::Map(entries)) = workloads.map(|w| &w.value) {
            for (name, workload) in entries {
                let names = keys(workload.get("resources")).unwrap_or_default();
                resources.insert(name.value.clone(), names);
            }
        }
        let regions = keys(root.and_then(|r| r.get("regions")));
        Self {
            kinds,
            regions,
            resources,
        }
    }

    /// Tells whether there is a region of that name; true if nobody can know.
    pub(crate) fn has_region(&self, name: &str) -> bool {
        self.regions
            .as_ref()
            .is_none_or(|regions| regions.contains(name))
    }

    /// Reports unless `name` is a region. In the message it stands as `written`.
    pub(crate) fn check_region(
        &self,
        span: &Span,
        name: &str,
        written: &str,
        context: &mut Context,
    ) {
        let Some(regions) = self.regions.as_ref().filter(|r| !r.contains(name)) else {
            return;
        };
        let known: Vec<_> = regions.iter().collect();
        let problem = Problem::error(span, format!("there is no region `{written}`"))
            .expected(one_of(&known))
            .suggest(name, &known);
        context.report(problem);
    }

    /// Reads the name of a region that exists.
    pub(crate) fn region(&self, node: &Node, context: &mut Context) -> Option<Spanned<RegionName>> {
        let name = Spanned::<RegionName>::from_node(node, context)?;
        let written = node.as_text().unwrap_or_default();
        self.check_region(&name.span, name.value.as_str(), written, context);
        Some(name)
    }

    /// Reads the full name of a resource that exists.
    pub(crate) fn resource(&self, node: &Node, context: &mut Context) -> Option<ResourceId> {
        let id = ResourceId::from_node(node, context)?;
        let what = match self.resources.get(id.workload.as_str()) {
            Some(names) if names.contains(id.resource.as_str()) => return Some(id),
            // A workload without readable resources has been reported where it stands.
            Some(names) if names.is_empty() => return Some(id),
            Some(_) => "resource",
            None => "workload",
        };
        let written = node.as_text().unwrap_or_default();
        let all = |(w, names): (&String, &BTreeSet<String>)| {
            names.iter().map(|r| format!("{w}/{r}")).collect::<Vec<_>>()
        };
        let full: Vec<_> = self.resources.iter().flat_map(all).collect();
        let problem = Problem::error(&node.span, format!("`{written}` names no {what}"))
            .expected(one_of(&full))
            .suggest(&id.to_string(), &full);
        context.report(problem);
        None
    }
}

/// Reads `version`, which must be 1.
pub(crate) fn version(reader: &mut Reader<'_, '_>) -> Option<()> {
    reader.required_with("version", |node, context| {
        if node.value == Value::Integer(1) {
            return Some(());
        }
        let found = node.value.describe();
        let problem = Problem::error(&node.span, format!("found {found}"))
            .expected("`1`, the only version of this format");
        context.report(problem);
        None
    })
}

/// Reads a word that is among `known`; `what` names its kind in the message.
pub(crate) fn known_word<'k>(
    node: &Node,
    context: &mut Context,
    what: &str,
    known: impl IntoIterator<Item = &'k &'static str>,
) -> Option<Spanned<String>> {
    let word = Spanned::<String>::from_node(node, context)?;
    let known: Vec<_> = known.into_iter().copied().collect();
    if known.contains(&word.value.as_str()) {
        return Some(word);
    }
    let written = node.as_text().unwrap_or_default();
    let problem = Problem::error(&node.span, format!("there is no {what} `{written}`"))
        .expected(one_of(&known))
        .suggest(&word.value, &known);
    context.report(problem);
    None
}
