//! How chunks and pieces use encryption (`docs/formats/encryption.md`): what their headers say of it, and the keys of one attempt.
//!
//! The payload is sealed and its log hashed with keys of the attempt's own. The header stays readable, since following a chain,
//! sealing and removing need no key; an authentication code behind it tells who has the key whether it was changed.

use std::fmt;

use dr_encryption::{Key, KeyId, Keys, ObjectCipher, SALT_BYTES, Salt, fresh_salt};
use dr_model::Lsn;
use dr_provider::Key as StoreKey;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{ChainId, Error};

/// Why an object cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// It is not what was written, and this is wrong with it.
    #[error("{0}")]
    Damaged(String),
    /// It is encrypted with the key of this name, which is not at hand. Nothing is known to be wrong with it.
    #[error("it is encrypted with key {0}, which is not among those that are configured")]
    Locked(String),
}

impl From<String> for Flaw {
    fn from(why: String) -> Self {
        Self::Damaged(why)
    }
}

impl Flaw {
    /// Makes the error about the piece at `key`.
    pub(super) fn of_piece(self, key: &StoreKey, location: &str) -> Error {
        let (key, location, why) = (key.to_string(), location.to_owned(), self.to_string());
        match self {
            Self::Damaged(_) => Error::CorruptPiece { key, location, why },
            Self::Locked(_) => Error::Locked { key, location, why },
        }
    }

    /// Makes the error about the link of a chain at `at`.
    pub(super) fn of_link(self, chain: ChainId, at: Lsn, location: &str) -> Error {
        let (location, why) = (location.to_owned(), self.to_string());
        match self {
            Self::Damaged(_) => Error::Corrupt {
                chain,
                at,
                location,
                why,
            },
            Self::Locked(_) => Error::Locked {
                key: chain.link_key(at).to_string(),
                location,
                why,
            },
        }
    }
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
    pub(super) fn open(&self, keys: &Keys, name: &str) -> Result<ObjectCipher, Flaw> {
        let key = keys.get(&KeyId::named(&self.key));
        let key = key.ok_or_else(|| Flaw::Locked(self.key.clone()))?;
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
