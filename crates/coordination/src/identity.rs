//! What a store is: the object that is written first and without which nothing else may be read as missing (PROTOCOL 4).

use bytes::Bytes;
use dr_model::RegionName;
use dr_provider::store::IDENTITY_KEY;
use dr_provider::{Error, ErrorKind, ObjectStore, Result};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::operation::{Patience, key, read};
use crate::versioned::{self, Unreadable};

/// The version of the store's layout that this code writes, and the only one that it reads.
pub const FORMAT_VERSION: u32 = 1;

/// The identity of a store, written once when it is initialised.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// [`FORMAT_VERSION`] of the store's layout.
    pub format: u32,
    /// 128 random bits in hexadecimal digits: tells a store from another that was put in its place.
    pub store: String,
    /// The region that it belongs to.
    pub region: RegionName,
    /// When it was initialised.
    pub created_at: Timestamp,
}

impl Identity {
    /// Makes an identity from 128 bits of `entropy`.
    #[must_use]
    pub fn new(region: RegionName, entropy: u128, at: Timestamp) -> Self {
        Self {
            format: FORMAT_VERSION,
            store: format!("{entropy:032x}"),
            region,
            created_at: at,
        }
    }

    /// Returns the bytes of the identity object, for a store implementation's own `initialise`.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let mut text =
            serde_json::to_vec_pretty(self).expect("plain values always have a JSON form");
        text.push(b'\n');
        text.into()
    }
}

/// Reads a store's identity and checks that it is the store of `region` in a layout that is known.
///
/// # Errors
///
/// `Unavailable` or `NotFound` if the store has no identity, depending on the implementation; `Corrupt` if it cannot be
/// read; `Unsupported` if its layout is not known; `Invalid` if it belongs to another region.
pub async fn read_identity(store: &dyn ObjectStore, region: &RegionName) -> Result<Identity> {
    read_identity_within(store, region, Patience::default()).await
}

/// As [`read_identity`], with no more patience than given.
pub(crate) async fn read_identity_within(
    store: &dyn ObjectStore,
    region: &RegionName,
    patience: Patience,
) -> Result<Identity> {
    let error = |kind| Error::new(kind, "use store", store.location());
    let identity = key(IDENTITY_KEY.to_owned());
    let bytes = read(store, &identity, patience).await?;
    let Some(bytes) = bytes else {
        return Err(error(ErrorKind::NotFound)
            .because("it was never initialised")
            .with_hint("a new store is initialised by the daemon of its region"));
    };
    let identity: Identity =
        versioned::decode(&bytes, FORMAT_VERSION).map_err(|unreadable| match unreadable {
            Unreadable::Version(version) => error(ErrorKind::Unsupported).because(format!(
                "its layout is version {version}, and only {FORMAT_VERSION} is known"
            )),
            Unreadable::Damaged(why) => error(ErrorKind::Corrupt)
                .because(format!("`{IDENTITY_KEY}` is damaged: {why}"))
                .with_hint(format!(
                    "put it right: its `region` is `{region}`, and its `store` is remembered in the state directory of the region's daemon"
                )),
        })?;
    if &identity.region != region {
        let why = format!(
            "it is the store of region `{}`, not of `{region}`",
            identity.region
        );
        let hint = format!(
            "see what is mounted there, and whether `regions.{region}.store` names the right place"
        );
        return Err(error(ErrorKind::Invalid).because(why).with_hint(hint));
    }
    Ok(identity)
}

#[cfg(test)]
mod tests {
    use dr_provider::store::MemoryStore;

    use super::*;
    use crate::testing::at;

    async fn with(text: impl Into<Bytes>) -> Result<Identity> {
        let store = MemoryStore::new("west");
        let key = key(IDENTITY_KEY.to_owned());
        store.create(&key, text.into()).await.unwrap();
        read_identity(&store, &"west".parse().unwrap()).await
    }

    #[tokio::test]
    async fn an_identity_is_checked() {
        let west = Identity::new("west".parse().unwrap(), 5, at(0));
        assert_eq!(with(west.to_bytes()).await.unwrap(), west);
        let east = Identity::new("east".parse().unwrap(), 5, at(0));
        let kind = |result: Result<Identity>| result.unwrap_err().kind();
        assert_eq!(kind(with(east.to_bytes()).await), ErrorKind::Invalid);
        assert_eq!(kind(with("{").await), ErrorKind::Corrupt);
        let newer = r#"{"format": 2, "more": true}"#;
        assert_eq!(kind(with(newer).await), ErrorKind::Unsupported);
        let empty = MemoryStore::new("west");
        let none = read_identity(&empty, &"west".parse().unwrap()).await;
        assert_eq!(kind(none), ErrorKind::NotFound);
    }
}
