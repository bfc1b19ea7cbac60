//! Values that are never shown.

use std::fmt;

use crate::Result;

/// A secret value: `Debug` and `Display` show `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes a value into keeping.
    #[must_use]
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// Returns the value, for the one place that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Resolves references such as `${env:NAME}` and `${file:/path}` in a text.
pub trait SecretSource: Send + Sync + fmt::Debug {
    /// Returns the text with each reference replaced; fails with `NotFound` or `Denied`, naming the reference.
    fn resolve(&self, text: &str) -> Result<Secret>;
}
