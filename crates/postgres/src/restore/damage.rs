//! Recovery points that turn out damaged when they are restored.
//!
//! A look at names and lengths, which is all that a plan has time for, does not see a byte that has changed. Whoever restores finds it, and an
//! execution has nobody to ask: it writes down what it found, as a proof that failed, and goes on with another recovery point that comes to the
//! same end.

use std::collections::BTreeMap;
use std::sync::Arc;

use dr_model::RegionName;
use dr_provider::error::chain;
use dr_provider::{Error, ErrorKind, ObjectStore};
use dr_repository::Label;

use crate::backup::{Base, Bases};
use crate::driver::PostgresDriver;

/// Why a restore came to nothing.
#[derive(Debug)]
pub(crate) enum Unrestored {
    /// The recovery point is not whole: another one may be.
    Damaged {
        /// Which.
        base: Box<Base>,
        /// What is wrong with it.
        error: Error,
    },
    /// Something else stood in the way, which another recovery point would meet as well.
    Hindered(Error),
}

impl Unrestored {
    /// Tells what came of reading `base`.
    pub(super) fn of(base: &Base, error: Error) -> Self {
        match error.kind() {
            ErrorKind::Corrupt | ErrorKind::NotFound => Self::Damaged {
                base: Box::new(base.clone()),
                error,
            },
            _ => Self::Hindered(error),
        }
    }
}

impl From<Error> for Unrestored {
    fn from(error: Error) -> Self {
        Self::Hindered(error)
    }
}

impl From<Unrestored> for Error {
    fn from(unrestored: Unrestored) -> Self {
        match unrestored {
            Unrestored::Damaged { error, .. } | Unrestored::Hindered(error) => error,
        }
    }
}

/// The recovery points that this restore has found damaged, with the reason: known here whether or not the store took the proof.
#[derive(Debug, Default)]
pub(crate) struct Damaged(BTreeMap<Label, String>);

impl Damaged {
    /// Tells whether none was found.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Tells whether it was found damaged already.
    pub(crate) fn holds(&self, label: &Label) -> bool {
        self.0.contains_key(label)
    }

    /// Takes down that one is damaged, here alone.
    pub(super) fn add(&mut self, label: &Label, why: String) {
        self.0.insert(label.clone(), why);
    }

    /// Lets it speak against the recovery points that it is about.
    pub(super) fn mark(&self, bases: &mut Bases) {
        for base in &mut bases.usable {
            if let Some(why) = self.0.get(&base.label) {
                base.failure = Some(why.clone());
            }
        }
    }

    /// Says of each what is wrong with it, newest first.
    pub(crate) fn said(&self) -> Vec<String> {
        let newest_first = self.0.iter().rev();
        newest_first
            .map(|(label, why)| format!("{label}: {why}"))
            .collect()
    }
}

impl PostgresDriver {
    /// Takes down that a recovery point in the store of `region` cannot be restored: here, and in the store as a look at it that failed.
    pub(crate) async fn note_damage(
        &self,
        (region, store): (&RegionName, &Arc<dyn ObjectStore>),
        damaged: &mut Damaged,
        base: &Base,
        error: &Error,
    ) {
        let (label, why) = (&base.label, chain(error));
        tracing::warn!(%label, "the recovery point cannot be restored, another one is tried: {why}");
        if let Err(error) = self.record_damage(region, store, base, &why).await {
            let why = chain(&error);
            tracing::warn!(%label, "it cannot be said in the store that this recovery point is damaged: {why}");
        }
        damaged.add(label, why);
    }
}
