//! A last look at the packs of older backups before a manifest that names them is written (R37).

use std::collections::{BTreeMap, BTreeSet};

use dr_provider::ErrorKind;

use crate::manifest::Pack;
use crate::{Error, Label, Repository, Result, presence, store};

/// Fails unless every pack of an older backup is still there and will be until the manifest that is about to be written is
/// read by whoever deletes: a pack goes only if no manifest names it but those of backups that have been marked for a grace
/// time. So the backup itself must not be marked, and each pack must be of one, or named by one, that is not.
pub(crate) async fn check(repository: &Repository, own: &Label, packs: &[Pack]) -> Result<()> {
    let mut older: BTreeMap<&Label, Vec<&Pack>> = BTreeMap::new();
    for pack in packs.iter().filter(|pack| pack.label != *own) {
        older.entry(&pack.label).or_default().push(pack);
    }
    let store = &**repository.store();
    let given_up = |label: &Label| Error::GivenUp {
        label: label.clone(),
        location: store.location().to_owned(),
    };
    let mut doubtful = BTreeSet::new();
    for label in older.keys().copied().chain([own]) {
        let key = repository.tombstone_key(label);
        match store.head(&key).await {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Ok(_) if label == own => return Err(given_up(own)),
            Ok(_) => doubtful.extend(packs_of(&older, label)),
            Err(error) => return Err(store::failed(format!("look for `{key}`"))(error)),
        }
    }
    if !doubtful.is_empty() {
        // Newest first: the one that this one was made on, usually.
        for header in repository.list().await?.backups {
            let backup = repository.open(&header.label).await?;
            for pack in backup.packs() {
                doubtful.remove(&(pack.label.clone(), pack.number));
            }
            if doubtful.is_empty() {
                break;
            }
        }
    }
    if let Some((label, _)) = doubtful.first() {
        return Err(given_up(label));
    }
    for (pack, bytes) in presence::lengths(repository, older.into_values().flatten()).await? {
        if bytes != Some(pack.info.bytes) {
            let what = match bytes {
                Some(_) => "it has another length than when this backup began to refer to it",
                None => "it does not exist any more, and this backup refers to it",
            };
            let key = repository.pack_key(&pack.label, pack.number);
            return Err(Error::damaged(store::name(store, &key), what));
        }
    }
    Ok(())
}

fn packs_of(
    older: &BTreeMap<&Label, Vec<&Pack>>,
    label: &Label,
) -> impl Iterator<Item = (Label, u32)> {
    let packs = older.get(label).cloned().unwrap_or_default();
    packs
        .into_iter()
        .map(|pack| (pack.label.clone(), pack.number))
}
