//! Objects of JSON that say which version of their format they are written in.
//!
//! The version is looked at before anything else: a newer one may have other fields, and is refused for what it is. All of them are
//! records with a line that holds their hash, but for those that were written before there was one, and the identity of a store.

use std::fmt;

use dr_provider::store::record;
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Why an object cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// It is of a version that this code does not know.
    Version(u32),
    /// It is not what was written; what is wrong.
    Damaged(String),
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => write!(f, "format version {version} is not known"),
            Self::Damaged(why) => f.write_str(why),
        }
    }
}

impl From<Unreadable> for String {
    fn from(unreadable: Unreadable) -> Self {
        unreadable.to_string()
    }
}

/// Reads an object of the version `known`.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8], known: u32) -> Result<T, Unreadable> {
    #[derive(Deserialize)]
    struct Version {
        // The identity of a store says what its layout is.
        #[serde(alias = "format")]
        version: u32,
    }
    let damaged = |error: serde_json::Error| Unreadable::Damaged(error.to_string());
    let text = record::verified(bytes).map_err(Unreadable::Damaged)?;
    let found: Version = serde_json::from_slice(text).map_err(damaged)?;
    if found.version != known {
        return Err(Unreadable::Version(found.version));
    }
    serde_json::from_slice(text).map_err(damaged)
}

#[cfg(test)]
mod tests {
    use serde::Serialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Object {
        version: u32,
        count: u64,
    }

    #[test]
    fn a_version_is_looked_at_first_and_a_hash_has_to_match() {
        let object = Object {
            version: 1,
            count: 7,
        };
        let bytes = record::encode(&object);
        assert_eq!(decode(&bytes, 1), Ok(object));
        let old = b"{ \"version\": 1, \"count\": 7 }";
        assert_eq!(decode::<Object>(old, 1).unwrap().count, 7);
        let newer = b"{ \"version\": 2, \"number\": 7 }";
        let refused = decode::<Object>(newer, 1).unwrap_err();
        assert_eq!(refused, Unreadable::Version(2));
        assert_eq!(refused.to_string(), "format version 2 is not known");
        let mut flipped = bytes.to_vec();
        let digit = flipped.iter().position(|byte| *byte == b'7').unwrap();
        flipped[digit] = b'6';
        let refused = decode::<Object>(&flipped, 1).unwrap_err();
        assert_eq!(refused.to_string(), "its hash does not match");
    }
}
