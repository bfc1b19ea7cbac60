//! Whether packs are there, by listing them: before a manifest that names them is written, and before a restore writes anything.

use std::collections::BTreeMap;

use dr_provider::ErrorKind;
use dr_provider::store::list_all;
use futures::TryStreamExt as _;

use crate::manifest::{Entry, Extent, Pack};
use crate::{BackupReader, Error, Label, Repository, Result, store, verify};

/// Returns the length of each pack, or `None` if it does not exist.
pub(crate) async fn lengths<'a>(
    repository: &Repository,
    packs: impl IntoIterator<Item = &'a Pack>,
) -> Result<Vec<(&'a Pack, Option<u64>)>> {
    let mut by_label: BTreeMap<&Label, Vec<&Pack>> = BTreeMap::new();
    for pack in packs {
        by_label.entry(&pack.label).or_default().push(pack);
    }
    let store = &**repository.store();
    let mut lengths = Vec::new();
    for (label, packs) in by_label {
        let prefix = repository.pack_prefix(label);
        let listed = list_all(store, &prefix).await;
        let listed = listed.map_err(store::failed(format!("list `{prefix}`")))?;
        let listed: BTreeMap<_, _> = listed
            .into_iter()
            .map(|object| (object.key, object.size_bytes))
            .collect();
        for pack in packs {
            let key = repository.pack_key(label, pack.number);
            // A listing is only a hint (R39).
            let bytes = match listed.get(&key) {
                Some(bytes) => Some(*bytes),
                None => match store.head(&key).await {
                    Ok(object) => Some(object.size_bytes),
                    Err(error) if error.kind() == ErrorKind::NotFound => None,
                    Err(error) => return Err(store::failed(format!("look for `{key}`"))(error)),
                },
            };
            lengths.push((pack, bytes));
        }
    }
    Ok(lengths)
}

impl BackupReader {
    /// Fails with the packs that do not exist or end before what the manifest says is in them. Reads none.
    pub async fn check_presence(&self) -> Result<()> {
        let mut packs = Vec::new();
        let mut first = None;
        for (pack, bytes) in lengths(&self.repository, self.packs()).await? {
            let what = match bytes {
                Some(bytes) if bytes >= pack.info.bytes => continue,
                Some(bytes) => format!("it has {bytes} bytes instead of {}", pack.info.bytes),
                None => verify::missing(None),
            };
            let key = self.repository.pack_key(&pack.label, pack.number);
            let object = store::name(&**self.repository.store(), &key);
            first.get_or_insert_with(|| Error::damaged(object, what));
            packs.push((pack.label.clone(), pack.number));
        }
        match first {
            None => Ok(()),
            Some(first) => Err(Error::DamagedPacks {
                packs,
                first: Box::new(first),
            }),
        }
    }

    /// Returns how many bytes its files take below each of these directories of the tree, and, under the empty name, elsewhere.
    /// Holes take none.
    pub async fn bytes_below(&self, directories: &[String]) -> Result<BTreeMap<String, u64>> {
        let mut bytes: BTreeMap<String, u64> = BTreeMap::new();
        let mut parts = std::pin::pin!(self.tree());
        while let Some(entries) = parts.try_next().await? {
            for entry in entries.iter() {
                let Entry::File(file) = entry else { continue };
                let below = directories.iter().find(|directory| {
                    let rest = file.path.strip_prefix(directory.as_str());
                    rest.is_some_and(|rest| rest.starts_with('/'))
                });
                let stored = file.extents.iter().map(|extent| match extent {
                    Extent::Stored { bytes, .. } => u64::from(*bytes),
                    Extent::Zeros { .. } => 0,
                });
                let sum = bytes.entry(below.cloned().unwrap_or_default()).or_default();
                *sum += stored.sum::<u64>();
            }
        }
        Ok(bytes)
    }
}
