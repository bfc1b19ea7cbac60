//! Where problems are collected while a document is read.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Node, Problem, Severity};

/// Replaces the `${…}` references in a text by what they stand for.
///
/// An error says which reference failed and why; it MUST NOT hold any value.
pub trait Resolver: Send + Sync {
    /// Returns the text with each reference replaced.
    fn resolve(&self, text: &str) -> Result<String, String>;
}

impl<F> Resolver for F
where
    F: Fn(&str) -> Result<String, String> + Send + Sync,
{
    fn resolve(&self, text: &str) -> Result<String, String> {
        self(text)
    }
}

/// Collects the problems of a document, and knows where in it the reading stands.
pub struct Context {
    problems: Vec<Problem>,
    path: Vec<String>,
    base: PathBuf,
    resolver: Arc<dyn Resolver>,
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("path", &self.path())
            .field("problems", &self.problems)
            .finish_non_exhaustive()
    }
}

impl Context {
    /// Starts reading. Relative paths in the document are relative to `base`.
    #[must_use]
    pub fn new(base: impl Into<PathBuf>, resolver: Arc<dyn Resolver>) -> Self {
        Self {
            problems: Vec::new(),
            path: Vec::new(),
            base: base.into(),
            resolver,
        }
    }

    /// Starts reading a document in which no reference can be resolved.
    #[must_use]
    pub fn without_references(base: impl Into<PathBuf>) -> Self {
        Self::new(
            base,
            Arc::new(|_: &str| Err("references cannot be used here".to_owned())),
        )
    }

    /// Adds a problem. It gets the path where the reading stands, unless it has one.
    pub fn report(&mut self, mut problem: Problem) {
        if problem.path.is_empty() {
            problem.path = self.path();
        }
        self.problems.push(problem);
    }

    /// Reports that a node is not what was `expected`.
    pub fn wrong_type(&mut self, node: &Node, expected: &str) {
        let found = node.value.describe();
        self.report(Problem::error(&node.span, format!("found {found}")).expected(expected));
    }

    /// Reads with one more segment in the path: a key, or an index such as `[0]`.
    pub fn within<T>(&mut self, segment: &str, read: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(segment.to_owned());
        let value = read(self);
        self.path.pop();
        value
    }

    /// Returns the way to where the reading stands, such as `workloads.orders.traffic[0]`.
    #[must_use]
    pub fn path(&self) -> String {
        let mut path = String::new();
        for segment in &self.path {
            if !path.is_empty() && !segment.starts_with('[') {
                path.push('.');
            }
            path.push_str(segment);
        }
        path
    }

    /// Returns the directory that relative paths are relative to.
    #[must_use]
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// Resolves the references in `text`, which stands at `node`; reports and returns `None` if that fails.
    pub fn resolve(&mut self, node: &Node, text: &str) -> Option<String> {
        if !text.contains("${") {
            return Some(text.to_owned());
        }
        match self.resolver.resolve(text) {
            Ok(resolved) => Some(resolved),
            Err(why) => {
                self.report(Problem::error(&node.span, why));
                None
            }
        }
    }

    /// Returns how many errors were reported so far; warnings do not count.
    #[must_use]
    pub fn errors(&self) -> usize {
        let error = |p: &&Problem| p.severity == Severity::Error;
        self.problems.iter().filter(error).count()
    }

    /// Ends the reading and returns the problems in the order in which they stand in the files.
    #[must_use]
    pub fn into_problems(mut self) -> Vec<Problem> {
        self.problems.sort_by(|a, b| a.span.cmp(&b.span));
        self.problems
    }
}
