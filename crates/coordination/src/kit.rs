//! The recovery kit: all that a machine with nothing but the program needs to move a workload, in each store.
//!
//! One object holds the files of the configuration, where the stores are, which program wrote it, which secrets are needed,
//! and a page to print. The secrets themselves are never in it: a store that is stolen must not hand out the keys to
//! the others. Kits are written once and never changed; the newest counts.

use std::collections::BTreeMap;

use bytes::Bytes;
use dr_model::RegionName;
use dr_provider::store::{list_all, record};
use dr_provider::{Error, ErrorKind, Key, ObjectStore, Result};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::Actor;
use crate::operation::{Patience, key, read};
use crate::publish::publish;
use crate::versioned;

/// The version of the format that this code writes, and the only one that it reads.
pub const FORMAT_VERSION: u32 = 1;

/// Hexadecimal digits of the hash in a key.
const HASH_DIGITS: usize = 32;

/// A kit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kit {
    /// [`FORMAT_VERSION`].
    pub version: u32,
    /// When it was made.
    pub created_at: Timestamp,
    /// Who made it.
    pub created_by: Actor,
    /// What is in it.
    pub content: Content,
}

/// What is in a kit, and makes it another one if it changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// The name of the organization.
    pub organization: Option<String>,
    /// The program that it is to be used with.
    pub program: Program,
    /// The directory that the configuration was in: relative paths in it are relative to this.
    pub directory: String,
    /// The digest of the configuration, in hexadecimal digits.
    pub configuration: String,
    /// The files of the configuration by their paths in that directory.
    pub files: BTreeMap<String, String>,
    /// The secrets that these files refer to.
    pub secrets: Vec<SecretNote>,
    /// Where the stores are.
    pub stores: BTreeMap<RegionName, String>,
    /// The same for a person, to be printed.
    pub page: String,
}

/// The program that wrote a kit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Its version.
    pub version: String,
    /// The BLAKE3 hash of its file, in hexadecimal digits.
    pub blake3: String,
    /// The length of its file.
    pub size_bytes: u64,
}

impl Program {
    /// Takes the program of a version from its file.
    ///
    /// # Errors
    ///
    /// Those of reading.
    pub fn read(version: &str, file: impl std::io::Read) -> std::io::Result<Self> {
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(file)?;
        Ok(Self {
            version: version.to_owned(),
            blake3: hasher.finalize().to_hex().to_string(),
            size_bytes: hasher.count(),
        })
    }
}

/// A secret that is needed and not in the kit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SecretNote {
    /// What the files refer to it by, such as `${file:/etc/dr/tsig.key}`; of a key that backups are encrypted with, the path.
    pub reference: String,
    /// Where that stands.
    pub used_at: Vec<String>,
}

impl Content {
    /// Returns the BLAKE3 hash of the content, in hexadecimal digits.
    #[must_use]
    pub fn hash(&self) -> String {
        let text = serde_json::to_vec(self).expect("plain values always have a JSON form");
        blake3::hash(&text).to_hex().to_string()
    }
}

impl Kit {
    /// Returns its key.
    #[must_use]
    pub fn key(&self) -> Key {
        let at = self.created_at.strftime("%Y%m%dT%H%M%SZ");
        let hash = self.content.hash();
        key(format!("kit/{at}-{}", &hash[..HASH_DIGITS]))
    }

    /// Returns the bytes that are stored.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        record::encode(self)
    }

    /// Reads what is stored; the error says what is wrong.
    pub fn from_bytes(bytes: &[u8]) -> std::result::Result<Self, String> {
        Ok(versioned::decode(bytes, FORMAT_VERSION)?)
    }
}

/// Writes a kit.
///
/// # Errors
///
/// Those of the store.
pub async fn write(store: &dyn ObjectStore, kit: &Kit) -> Result<()> {
    let body = kit.to_bytes();
    publish(store, kit.key(), body, Patience::default())
        .await
        .map(drop)
}

/// Returns the newest kit in a store; `None` if there is none.
///
/// # Errors
///
/// Those of the store, and `Corrupt` if it cannot be read or is not what its key says.
pub async fn newest(store: &dyn ObjectStore) -> Result<Option<Kit>> {
    let listed = list_all(store, "kit/").await?;
    let Some(newest) = listed.last() else {
        return Ok(None);
    };
    let Some(bytes) = read(store, &newest.key, Patience::default()).await? else {
        return Ok(None);
    };
    let damaged = |why: String| {
        let subject = format!("{}/{}", store.location(), newest.key);
        Error::new(ErrorKind::Corrupt, "read the recovery kit", subject).because(why)
    };
    let kit = Kit::from_bytes(&bytes).map_err(damaged)?;
    if kit.key() != newest.key {
        return Err(damaged("its content is not what its name says".to_owned()));
    }
    Ok(Some(kit))
}

/// Removes all kits in a store but the newest `keep`; returns how many.
///
/// # Errors
///
/// Those of the store: a writer need not be able to delete.
pub async fn prune(store: &dyn ObjectStore, keep: usize) -> Result<usize> {
    let listed = list_all(store, "kit/").await?;
    let old = listed.len().saturating_sub(keep);
    for kit in &listed[..old] {
        store.delete(&kit.key).await?;
    }
    Ok(old)
}

#[cfg(test)]
mod tests {
    use dr_provider::store::MemoryStore;

    use super::*;
    use crate::testing::at;

    fn kit(second: i64, text: &str) -> Kit {
        Kit {
            version: FORMAT_VERSION,
            created_at: at(second),
            created_by: Actor::new("postgres", "db1.west", 7),
            content: Content {
                organization: Some("Acme".to_owned()),
                program: Program {
                    version: "0.1.0".to_owned(),
                    blake3: "ab".repeat(32),
                    size_bytes: 12,
                },
                directory: "/etc/dr".to_owned(),
                configuration: "cd".repeat(32),
                files: BTreeMap::from([("dr.yaml".to_owned(), text.to_owned())]),
                secrets: Vec::new(),
                stores: BTreeMap::new(),
                page: "a page".to_owned(),
            },
        }
    }

    #[tokio::test]
    async fn the_newest_is_found_and_has_to_be_what_its_name_says() {
        let store = MemoryStore::new("west");
        assert_eq!(newest(&store).await.unwrap(), None);
        write(&store, &kit(0, "one")).await.unwrap();
        write(&store, &kit(60, "two")).await.unwrap();
        write(&store, &kit(60, "two")).await.unwrap();
        assert_eq!(newest(&store).await.unwrap(), Some(kit(60, "two")));

        let body = kit(90, "three").to_bytes();
        store.create(&kit(90, "other").key(), body).await.unwrap();
        let error = newest(&store).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }

    #[tokio::test]
    async fn the_newest_few_are_kept() {
        let store = MemoryStore::new("west");
        for second in 0..5 {
            write(&store, &kit(second, "text")).await.unwrap();
        }
        assert_eq!(prune(&store, 3).await.unwrap(), 2);
        assert_eq!(prune(&store, 3).await.unwrap(), 0);
        let left = list_all(&store, "kit/").await.unwrap();
        let left: Vec<_> = left.into_iter().map(|info| info.key).collect();
        let kept = [2, 3, 4].map(|second| kit(second, "text").key());
        assert_eq!(left, kept);
    }

    #[test]
    fn when_and_by_whom_makes_no_other_kit() {
        assert_eq!(kit(0, "x").content.hash(), kit(9, "x").content.hash());
        assert_ne!(kit(0, "x").content.hash(), kit(0, "y").content.hash());
    }
}
