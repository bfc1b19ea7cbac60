//! Wrong rules, to show that the model check notices them.
//!
//! A state machine asks `Mutation::break_by` at the places that matter. Outside this crate's tests the answer is always no.

/// One wrong rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Mutation {
    /// A writer acknowledges a chunk although an earlier one is not stored yet.
    AcknowledgeNonContiguous,
    /// A writer goes on after meeting a seal.
    IgnoreSeal,
    /// A writer takes a 412 for success without reading what is there.
    TrustTakenKey,
    /// A writer that adopts another's chunk does not cut its own to begin there.
    AdoptWithoutCutting,
    /// A sealer takes a 412 for success.
    SealTrustsTakenKey,
    /// A writer goes by what it knew of the tail however long ago.
    UseOldKnowledge,
}

/// The wrong rule that is in force; never any in what ships.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Rules {
    #[cfg(test)]
    pub(crate) broken: Option<Mutation>,
}

impl Rules {
    /// Tells whether `mutation` is in force.
    #[cfg(test)]
    pub(crate) fn break_by(self, mutation: Mutation) -> bool {
        self.broken == Some(mutation)
    }

    /// Tells whether `mutation` is in force: never.
    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "has the form that tests need")]
    pub(crate) fn break_by(self, _: Mutation) -> bool {
        false
    }
}
