//! Tombstones, holds and leases: small objects that say what may become of a backup.

use std::collections::BTreeMap;

use bytes::Bytes;
use dr_provider::store::record;
use dr_provider::{ErrorKind, Key};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::PruneOptions;
use crate::{Error, Label, Repository, Result, store};

/// A tombstone.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Tombstone {
    pub(super) marked_at: Timestamp,
}

/// Why a backup is kept whatever else expires.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Who wants it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
}

/// Somebody is reading a backup.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Lease {
    pub(super) until: Timestamp,
}

impl Repository {
    pub(super) async fn mark(&self, label: &Label, now: Timestamp) -> Result<()> {
        let body = record::encode(&Tombstone { marked_at: now });
        self.put(&self.tombstone_key(label), body).await
    }

    /// Keeps a backup until [`release`](Self::release). One that was given up is taken back by the next run, as long as the
    /// grace time has not passed. Fails if it is not there, or if it may be being deleted.
    pub async fn hold(&self, label: &Label, hold: &Hold) -> Result<()> {
        // Nothing stays behind of a hold on what is not there.
        self.stands(label).await?;
        self.put(&self.hold_key(label), record::encode(hold))
            .await?;
        // Looked at after the hold stands: who marks it later sees the hold before anything is deleted.
        let tombstone = self.tombstone_key(label);
        if self.exists(&tombstone).await? {
            let Tombstone { marked_at } = self.read_mark(&tombstone).await?;
            let stood = hold.since.duration_since(marked_at).unsigned_abs();
            if hold.since > marked_at && stood >= PruneOptions::default().grace {
                return Err(Error::GivenUp {
                    label: label.clone(),
                    location: self.store().location().to_owned(),
                });
            }
        }
        self.stands(label).await
    }

    /// Fails if a backup has no manifest.
    async fn stands(&self, label: &Label) -> Result<()> {
        if self.exists(&self.manifest_key(label)).await? {
            Ok(())
        } else {
            Err(Error::Missing {
                label: label.clone(),
                location: self.store().location().to_owned(),
            })
        }
    }

    /// Returns what is held, and why.
    pub async fn holds(&self) -> Result<BTreeMap<Label, Hold>> {
        let mut holds = BTreeMap::new();
        for (label, key) in self.marks("hold").await? {
            holds.insert(label, self.read_mark(&key).await?);
        }
        Ok(holds)
    }

    /// Takes a hold back; needs the right to delete.
    pub async fn release(&self, label: &Label) -> Result<()> {
        let key = self.hold_key(label);
        let deleted = self.store().delete(&key).await;
        deleted.map_err(store::failed(format!("delete `{key}`")))
    }

    /// Says that a backup is being read until some time, under a `name` that nobody else uses: until then it is not deleted,
    /// if it is not being deleted already. May be called again, with another name, to go on.
    pub async fn lease(&self, label: &Label, name: &str, until: Timestamp) -> Result<()> {
        let key = Key::new(format!("{}{name}", self.lease_prefix(label)));
        let key = key.map_err(|_| Error::Source(name.to_owned()))?;
        self.put(&key, record::encode(&Lease { until })).await
    }

    /// Creates an object; one that stands there already will do.
    async fn put(&self, key: &Key, body: Bytes) -> Result<()> {
        match self.store().create(key, body).await {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                Err(store::failed(format!("write `{key}`"))(error))
            }
            _ => Ok(()),
        }
    }

    async fn exists(&self, key: &Key) -> Result<bool> {
        match self.store().head(key).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(store::failed(format!("look for `{key}`"))(error)),
        }
    }
}
