//! The keys of objects.

use std::fmt;

/// The key of an object: parts of `A–Z a–z 0–9 . _ -` joined by `/`, no part empty, `.` or `..`, at most 512 bytes.
///
/// The alphabet is what a file system, S3 and a shell all take as it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

/// The text cannot be a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an object key: parts of letters, digits, `.`, `_` and `-`, joined by `/`")]
pub struct InvalidKey(String);

impl Key {
    /// Checks and takes a key.
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidKey> {
        let text = text.into();
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let part_valid = |part: &str| {
            !part.is_empty() && part != "." && part != ".." && part.chars().all(allowed)
        };
        if text.len() <= 512 && text.split('/').all(part_valid) {
            Ok(Self(text))
        } else {
            Err(InvalidKey(text))
        }
    }

    /// Returns the key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the part after the last `/`.
    #[must_use]
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_could_leave_the_store() {
        for text in [
            "", "/a", "a/", "a//b", "../a", "a/../b", "a/./b", "a b", "a\0b", "é",
        ] {
            assert!(Key::new(text).is_err(), "{text:?}");
        }
        assert!(Key::new("register/orders/00000001").is_ok());
    }
}
