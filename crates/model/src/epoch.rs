//! The number that says who is primary.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The number of a record in a workload's register: dense, starting at 1, won by one create-only write.
///
/// Every effect carries the epoch that it acts for; a host or record that has seen a higher one refuses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The first epoch of every workload.
    pub const FIRST: Self = Self(1);

    /// Returns the epoch that ends this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// Returns eight decimal digits, which sort as the numbers do; used in object keys.
    #[must_use]
    pub fn to_key(self) -> String {
        format!("{:08}", self.0)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
