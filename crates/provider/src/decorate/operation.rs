//! The operations of a store, as values.

use std::fmt;

/// One of the operations of [`ObjectStore`](crate::ObjectStore).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// `create`.
    Create,
    /// `get`.
    Get,
    /// `get_range`.
    GetRange,
    /// `head`.
    Head,
    /// `list`.
    List,
    /// `delete`.
    Delete,
    /// `copy_from`.
    CopyFrom,
}

impl Operation {
    /// Tells whether it changes the store, so that its outcome can be unknown.
    #[must_use]
    pub fn is_change(self) -> bool {
        matches!(self, Self::Create | Self::Delete | Self::CopyFrom)
    }

    /// Returns the verb phrase used in errors.
    #[must_use]
    pub fn phrase(self) -> &'static str {
        match self {
            Self::Create => "create object",
            Self::Get | Self::GetRange => "read object",
            Self::Head => "look at object",
            Self::List => "list objects",
            Self::Delete => "delete object",
            Self::CopyFrom => "copy object to",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.phrase())
    }
}
