//! All runbooks: those that can be used, and the files that cannot.
//!
//! A file that cannot be used takes nothing else with it: on the day of an outage a slip of the pen in the script of a drill is no
//! reason not to fail over. What it might have been is never replaced in silence: while a file is unusable, the runbook that it
//! holds is refused, and so is a built-in one if it cannot be told which runbook the file holds.

use std::collections::{BTreeMap, BTreeSet};

use dr_model::RunbookName;

use crate::{Problems, Runbook};

/// The runbooks of a configuration.
#[derive(Clone, Debug, Default)]
pub struct Runbooks {
    usable: BTreeMap<RunbookName, Runbook>,
    unusable: Vec<Unusable>,
}

/// A file of `runbooks/` that cannot be used.
#[derive(Clone, Debug)]
pub struct Unusable {
    /// Its name, such as `runbooks/drill.yaml`.
    pub file: String,
    /// The runbook that it holds; `None` if that cannot be read.
    pub name: Option<RunbookName>,
    /// Why it cannot be used.
    pub problems: Problems,
}

/// Why there is no runbook of a name.
#[derive(Debug)]
pub enum NoRunbook<'a> {
    /// Nothing has the name.
    Unknown,
    /// These files have it, or may have it.
    Unusable(Vec<&'a Unusable>),
}

impl Runbooks {
    pub(crate) fn new(usable: BTreeMap<RunbookName, Runbook>, unusable: Vec<Unusable>) -> Self {
        Self { usable, unusable }
    }

    /// Returns the runbook of a name.
    pub fn get(&self, name: &RunbookName) -> Result<&Runbook, NoRunbook<'_>> {
        let found = self.usable.get(name);
        let is_of_a_file = found.is_some_and(|runbook| !runbook.built_in);
        let in_the_way = |file: &&Unusable| match &file.name {
            Some(other) => other == name,
            None => !is_of_a_file,
        };
        let unusable: Vec<_> = self.unusable.iter().filter(in_the_way).collect();
        match found {
            _ if !unusable.is_empty() => Err(NoRunbook::Unusable(unusable)),
            Some(runbook) => Ok(runbook),
            None => Err(NoRunbook::Unknown),
        }
    }

    /// Returns those that can be used, by their names.
    pub fn usable(&self) -> impl Iterator<Item = &Runbook> {
        let usable = self.usable.keys();
        usable.filter_map(|name| self.get(name).ok())
    }

    /// Returns the files that cannot be used.
    #[must_use]
    pub fn unusable(&self) -> &[Unusable] {
        &self.unusable
    }

    /// Returns all names that are known, those of unusable files included.
    pub fn names(&self) -> impl Iterator<Item = &RunbookName> {
        let broken = self.unusable.iter().filter_map(|file| file.name.as_ref());
        let names: BTreeSet<_> = self.usable.keys().chain(broken).collect();
        names.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn name(text: &str) -> RunbookName {
        text.parse().unwrap()
    }

    fn runbook(text: &str, built_in: bool) -> (RunbookName, Runbook) {
        let runbook = Runbook {
            name: name(text),
            summary: String::new(),
            steps: Vec::new(),
            built_in,
        };
        (name(text), runbook)
    }

    fn broken(text: Option<&str>) -> Unusable {
        Unusable {
            file: "runbooks/broken.yaml".into(),
            name: text.map(name),
            problems: Problems(Vec::new()),
        }
    }

    /// `own` is of a file, `shipped` is built in, and `lost` is nowhere.
    #[rstest]
    #[case::nothing_broken(None, [true, true, false], false)]
    #[case::another(Some(Some("drill")), [true, true, false], false)]
    #[case::of_the_same_name(Some(Some("own")), [false, true, false], false)]
    #[case::in_place_of_a_built_in_one(Some(Some("shipped")), [true, false, false], false)]
    #[case::of_an_unknown_name(Some(None), [true, false, false], true)]
    fn a_broken_file_stands_in_the_way_of_what_it_may_hold(
        #[case] file: Option<Option<&str>>,
        #[case] usable: [bool; 3],
        #[case] hides_what_is_nowhere: bool,
    ) {
        let known = BTreeMap::from([runbook("own", false), runbook("shipped", true)]);
        let runbooks = Runbooks::new(known, file.map(broken).into_iter().collect());
        let found = ["own", "shipped", "lost"].map(|text| runbooks.get(&name(text)).is_ok());
        assert_eq!(found, usable);
        let listed = runbooks.usable().count();
        assert_eq!(listed, usable.iter().filter(|usable| **usable).count());
        let lost = name("lost");
        let is_hidden = matches!(runbooks.get(&lost), Err(NoRunbook::Unusable(_)));
        assert_eq!(is_hidden, hides_what_is_nowhere);
    }
}
