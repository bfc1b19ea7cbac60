//! How this format uses encryption: which objects, with which salts, and what their absence means.

use dr_encryption::{KeyId, ObjectCipher, SALT_BYTES, Salt};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Error, Hash, Header, Repository, Result};

/// The feature that a reader of an encrypted backup must know.
pub(crate) const FEATURE: &str = "aes-256-gcm";

/// A salt in JSON: 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SaltText(pub(crate) Salt);

impl SaltText {
    pub(crate) fn fresh() -> Result<Self> {
        dr_encryption::fresh_salt().map(Self).ok_or(Error::Random)
    }
}

impl Serialize for SaltText {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        // Both are 32 bytes.
        Hash::from_bytes(self.0).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for SaltText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        Ok(Self(*Hash::deserialize(deserializer)?.as_bytes()))
    }
}

const _: () = assert!(SALT_BYTES == Hash::BYTES);

impl Repository {
    /// Returns what reads the objects of a backup: a function from salt and name to a cipher, or nothing if the backup is
    /// not encrypted. Fails if its key is not at hand.
    pub(crate) fn unlock(&self, object: &str, header: &Header) -> Result<Option<Unlocked>> {
        let Some(encryption) = &header.encryption else {
            return Ok(None);
        };
        let id = KeyId::named(&encryption.key);
        match self.keys().get(&id) {
            Some(key) => Ok(Some(Unlocked(key.clone()))),
            None => Err(Error::Locked {
                object: object.to_owned(),
                key: id,
                have: self.keys().ids().cloned().collect(),
            }),
        }
    }
}

/// The key of a backup.
#[derive(Clone, Debug)]
pub(crate) struct Unlocked(dr_encryption::Key);

impl Unlocked {
    pub(crate) fn cipher(&self, salt: &SaltText, name: &str) -> ObjectCipher {
        self.0.object(&salt.0, name)
    }
}
