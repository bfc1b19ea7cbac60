//! The regions of a workload, and that each of its parts has an answer for each of them.

use dr_model::RegionName;
use dr_model::document::{Context, Node, Problem, Spanned, Value};

use crate::scope::Scope;

/// The regions of a workload, as far as they could be read.
pub(super) struct Places<'a> {
    home: Option<&'a Spanned<RegionName>>,
    recovery: Option<&'a [Spanned<RegionName>]>,
}

impl<'a> Places<'a> {
    pub(super) fn new(
        home: Option<&'a Spanned<RegionName>>,
        recovery: Option<&'a [Spanned<RegionName>]>,
    ) -> Self {
        Self { home, recovery }
    }

    pub(super) fn check(&self, context: &mut Context) {
        let recovery = self.recovery.unwrap_or_default();
        for (index, region) in recovery.iter().enumerate() {
            let name = &region.value;
            if self.home.is_some_and(|home| home.value == *name) {
                let problem = Problem::error(&region.span, format!("`{name}` is the home"))
                    .expected("regions other than the home");
                context.within("recovery", |c| c.report(problem));
            }
            if recovery[..index].iter().any(|r| r.value == *name) {
                let problem = Problem::error(&region.span, format!("`{name}` stands here twice"));
                context.within("recovery", |c| c.report(problem));
            }
        }
        if let (Some(home), Some([])) = (self.home, self.recovery) {
            let problem = Problem::warning(&home.span, "there is no region to recover in")
                .hint("name at least one other region in `recovery`");
            context.report(problem);
        }
    }

    /// Returns each of the workload's regions once, as far as they exist.
    fn names(&self, scope: &Scope<'_>) -> Vec<&str> {
        let mut names = Vec::new();
        for region in self
            .home
            .into_iter()
            .chain(self.recovery.unwrap_or_default())
        {
            let name = region.value.as_str();
            if scope.has_region(name) && !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    /// Checks the map `key` of `node`, whose keys are regions: each must exist, and each of the workload's regions
    /// must be there. That all kinds lay their regions out so is part of the format, not of any driver.
    pub(super) fn check_map(
        &self,
        node: &Node,
        key: &str,
        context: &mut Context,
        scope: &Scope<'_>,
    ) {
        let Some(regions) = node.get(key) else { return };
        let Value::Map(entries) = &regions.value else {
            return;
        };
        context.within(key, |context| {
            for (region, _) in entries {
                scope.check_region(&region.span, &region.value, &region.value, context);
            }
            for name in self.names(scope) {
                if regions.get(name).is_none() {
                    let what = format!("`{name}` is missing, a region of this workload");
                    context.report(Problem::error(&regions.span, what));
                }
            }
        });
    }

    /// Checks `sync`, the regions whose stores a commit waits for: recovery regions only.
    pub(super) fn check_sync(&self, node: &Node, context: &mut Context) {
        let sync = node.get("sync").map(|n| &n.value);
        let (Some(Value::List(entries)), Some(recovery)) = (sync, self.recovery) else {
            return;
        };
        for entry in entries {
            let Some(name) = entry.as_text() else {
                continue;
            };
            if recovery.iter().any(|r| r.value.as_str() == name) {
                continue;
            }
            let problem = Problem::error(&entry.span, format!("`{name}` is no recovery region"))
                .expected("regions in `recovery`: the primary's own store goes with the primary");
            context.within("sync", |c| c.report(problem));
        }
    }
}
