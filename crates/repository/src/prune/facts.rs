//! What pruning must know of a repository.

use std::collections::{BTreeMap, BTreeSet};

use dr_provider::Key;
use dr_provider::store::{list_all, record};
use jiff::Timestamp;
use serde::de::DeserializeOwned;

use super::mark::{Lease, Tombstone};
use crate::{Error, Label, Repository, Result, store};

/// See the module.
#[derive(Debug, Default)]
pub struct PruneFacts {
    /// The backups that have a manifest, with the packs that it names, by label and number.
    pub(super) backups: BTreeMap<Label, Vec<(Label, u32)>>,
    /// Those whose manifest cannot be read: nobody knows what they name.
    pub(super) unreadable: Vec<Label>,
    pub(super) tombstones: BTreeMap<Label, Timestamp>,
    pub(super) holds: BTreeSet<Label>,
    /// Until when a backup is being read.
    pub(super) leases: BTreeMap<Label, Timestamp>,
    /// What says so, each with its end.
    pub(super) lease_keys: Vec<(Key, Timestamp)>,
    /// Packs and parts of trees, with the number if it is a pack.
    pub(super) objects: BTreeMap<Label, Vec<(Key, Option<u32>)>>,
}

impl PruneFacts {
    /// Returns the backups that somebody reads, or brings here, at this time.
    #[must_use]
    pub fn leased(&self, now: Timestamp) -> BTreeSet<Label> {
        let leased = self.leases.iter().filter(|(_, until)| **until > now);
        leased.map(|(label, _)| label.clone()).collect()
    }

    /// Returns the labels that have a tombstone, whatever is left of them.
    pub fn marked(&self) -> impl Iterator<Item = &Label> {
        self.tombstones.keys()
    }
}

impl Repository {
    /// Looks at everything. Tombstones come first: what is read after them is at least as new.
    pub async fn prune_facts(&self) -> Result<PruneFacts> {
        let mut facts = PruneFacts::default();
        for (label, key) in self.marks("tomb").await? {
            let tombstone: Tombstone = self.read_mark(&key).await?;
            facts.tombstones.insert(label, tombstone.marked_at);
        }
        for (label, key) in self.marks("lease").await? {
            let lease: Lease = self.read_mark(&key).await?;
            let until = facts.leases.entry(label).or_insert(lease.until);
            *until = lease.until.max(*until);
            facts.lease_keys.push((key, lease.until));
        }
        let prefix = self.prefix();
        let listed = list_all(&**self.store(), &prefix).await;
        let listed = listed.map_err(store::failed(format!("list `{prefix}`")))?;
        let mut manifests = Vec::new();
        for object in listed {
            let rest = &object.key.as_str()[prefix.len()..];
            let Some((label, name)) = rest.split_once('/') else {
                continue;
            };
            let Ok(label) = label.parse::<Label>() else {
                continue;
            };
            if name == "manifest" {
                manifests.push(label);
                continue;
            }
            let pack = name.strip_prefix("packs/").map(str::parse::<u32>);
            if matches!(pack, Some(Err(_))) {
                continue;
            }
            let pack = pack.and_then(std::result::Result::ok);
            let objects = facts.objects.entry(label).or_default();
            objects.push((object.key, pack));
        }
        for label in manifests {
            match self.open(&label).await {
                Ok(backup) => {
                    let packs = backup.packs().iter();
                    let packs = packs.map(|pack| (pack.label.clone(), pack.number));
                    facts.backups.insert(label, packs.collect());
                }
                Err(Error::Missing { .. }) => {}
                Err(Error::Damaged { .. } | Error::Unsupported { .. }) => {
                    facts.unreadable.push(label);
                }
                Err(error) => return Err(error),
            }
        }
        // Last: a hold that stands when the deleting begins counts.
        for (label, _) in self.marks("hold").await? {
            facts.holds.insert(label);
        }
        Ok(facts)
    }

    /// Lists small objects about backups.
    pub(crate) async fn marks(&self, kind: &str) -> Result<Vec<(Label, Key)>> {
        let prefix = self.mark_prefix(kind);
        let listed = list_all(&**self.store(), &prefix).await;
        let listed = listed.map_err(store::failed(format!("list `{prefix}`")))?;
        let marks = listed.into_iter().filter_map(|object| {
            let rest = &object.key.as_str()[prefix.len()..];
            let label = rest.split('/').next().unwrap_or(rest).parse().ok()?;
            Some((label, object.key))
        });
        Ok(marks.collect())
    }

    pub(super) async fn read_mark<T: DeserializeOwned>(&self, key: &Key) -> Result<T> {
        let bytes = self.store().get(key).await;
        let bytes = bytes.map_err(store::failed(format!("read `{key}`")))?;
        record::decode(&bytes).map_err(|error| {
            let what = format!("it cannot be read: {error}");
            Error::damaged(store::name(&**self.store(), key), what)
        })
    }
}
