//! How chunks and pieces use encryption (`docs/formats/encryption.md`): what their headers say of it, and the keys of one attempt.
//!
//! The payload is sealed and its log hashed with keys of the attempt's own. The header stays readable, since following a chain,
//! sealing and removing need no key; an authentication code behind it tells who has the key whether it was changed.

use std::fmt;

use dr_encryption::{Key, KeyId, Keys, ObjectCipher, SALT_BYTES, Salt, fresh_salt};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What is said first of an object whose key is not at hand.
const LOCKED: &str = "it is encrypted with key ";

/// Tells whether what keeps an object from being read is that its key is not at hand, so that nothing is wrong with it.
pub(super) fn is_locked(why: &str) -> bool {
    why.starts_with(LOCKED)
}

/// What a header says of the encryption behind it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Encryption {
    /// The name of the key.
    pub key: String,
    /// What makes the object's keys its own.
    pub salt: SaltText,
}

impl Encryption {
    /// Returns what opens the object at the key `name` of its store; the error says which key is missing.
    pub(super) fn open(&self, keys: &Keys, name: &str) -> Result<ObjectCipher, String> {
        let key = keys.get(&KeyId::named(&self.key)).ok_or_else(|| {
            format!(
                "{LOCKED}{}, which is not among those that are configured",
                self.key
            )
        })?;
        Ok(key.object(&self.salt.0, name))
    }
}

/// A salt, in JSON 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SaltText(Salt);

impl fmt::Display for SaltText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        blake3::Hash::from_bytes(self.0).to_hex().fmt(f)
    }
}

impl fmt::Debug for SaltText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for SaltText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SaltText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let salt = blake3::Hash::from_hex(&text).map_err(D::Error::custom)?;
        Ok(Self(*salt.as_bytes()))
    }
}

/// What one attempt to write an object is encrypted with.
#[derive(Clone, Debug)]
pub struct Cipher {
    key: Key,
    salt: Salt,
}

/// The system has no randomness to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no random numbers to encrypt with")]
pub struct NoRandomness;

impl Cipher {
    /// Draws a salt for the key that is written with; `None` if nothing is encrypted.
    pub fn draw(keys: &Keys) -> Result<Option<Self>, NoRandomness> {
        let Some(key) = keys.writing() else {
            return Ok(None);
        };
        let salt = fresh_salt().ok_or(NoRandomness)?;
        Ok(Some(Self::with_salt(key.clone(), salt)))
    }

    /// Takes a salt, which must not have been used before.
    #[must_use]
    pub fn with_salt(key: Key, salt: [u8; SALT_BYTES]) -> Self {
        Self { key, salt }
    }

    /// Returns what the header says.
    pub(super) fn stated(&self) -> Encryption {
        Encryption {
            key: self.key.id().to_string(),
            salt: SaltText(self.salt),
        }
    }

    /// Returns what seals the object at the key `name` of its store.
    pub(super) fn object(&self, name: &str) -> ObjectCipher {
        self.key.object(&self.salt, name)
    }
}
