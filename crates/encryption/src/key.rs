//! Secrets, and the files that they are in.

use std::fmt;
use std::sync::Arc;

use crate::object::{Bytes32, ObjectCipher, Salt};

/// What a key file begins with.
const MAGIC: &str = "dr-key1";

/// Names a key without telling it: the first 8 bytes of a hash of the secret, as 16 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(String);

impl KeyId {
    /// Takes the name of a key that somebody wrote down.
    #[must_use]
    pub fn named(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// Returns the name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A secret of 32 bytes.
#[derive(Clone)]
pub struct Key {
    id: KeyId,
    secret: Bytes32,
}

/// The text is not a key file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is not a key: one line, `{MAGIC}` and 64 hexadecimal digits")]
pub struct KeyError;

impl Key {
    /// Reads the content of a key file: one line, `dr-key1` and 64 hexadecimal digits; lines that begin with `#` are passed
    /// over.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let mut lines = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        let (Some(line), None) = (lines.next(), lines.next()) else {
            return Err(KeyError);
        };
        let digits = line.strip_prefix(MAGIC).map(str::trim);
        let secret = digits
            .and_then(|digits| blake3::Hash::from_hex(digits).ok())
            .ok_or(KeyError)?;
        Ok(Self::new(*secret.as_bytes()))
    }

    fn new(secret: Bytes32) -> Self {
        let id = blake3::derive_key("dr 2026 name of a key", &secret);
        let id = blake3::Hash::from_bytes(id).to_hex()[..16].to_owned();
        Self {
            id: KeyId(id),
            secret,
        }
    }

    /// Returns its name.
    #[must_use]
    pub fn id(&self) -> &KeyId {
        &self.id
    }

    /// Returns what seals and opens one object: `name` is its key in the store.
    #[must_use]
    pub fn object(&self, salt: &Salt, name: &str) -> ObjectCipher {
        ObjectCipher::new(&self.secret, salt, name)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// The keys at hand: the first is for writing, all are for reading. Without any, nothing is encrypted. Cloning is cheap.
#[derive(Clone, Debug, Default)]
pub struct Keys(Arc<[Key]>);

impl Keys {
    /// Takes keys, the one to write with first.
    #[must_use]
    pub fn new(keys: Vec<Key>) -> Self {
        Self(keys.into())
    }

    /// Returns the key to write with.
    #[must_use]
    pub fn writing(&self) -> Option<&Key> {
        self.0.first()
    }

    /// Returns the key of that name.
    #[must_use]
    pub fn get(&self, id: &KeyId) -> Option<&Key> {
        self.0.iter().find(|key| key.id == *id)
    }

    /// Returns the names of all keys.
    pub fn ids(&self) -> impl Iterator<Item = &KeyId> {
        self.0.iter().map(Key::id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_a_name_that_does_not_tell_it() {
        let digits = "1f".repeat(32);
        let key = Key::parse(&format!("dr-key1 {digits}")).unwrap();
        assert!(!format!("{key:?}").contains(&digits));
        assert!(!digits.contains(key.id().as_str()));
        let other = Key::parse(&format!("dr-key1 {}", "2f".repeat(32))).unwrap();
        assert_ne!(other.id(), key.id());
        let keys = Keys::new(vec![key.clone(), other.clone()]);
        assert_eq!(keys.writing().unwrap().id(), key.id());
        assert_eq!(keys.get(other.id()).unwrap().id(), other.id());
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let digits = "0".repeat(64);
        for text in [
            String::new(),
            digits.clone(),
            format!("dr-key2 {digits}"),
            format!("dr-key1 {}", &digits[1..]),
            format!("dr-key1 {digits}\ndr-key1 {digits}\n"),
        ] {
            assert_eq!(Key::parse(&text).err(), Some(KeyError), "{text}");
        }
        assert!(Key::parse(&format!("# mine\n\n dr-key1 {digits} \n")).is_ok());
    }
}
