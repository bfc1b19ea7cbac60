//! A last look at the packs of older backups before a manifest that names them is written (R37).

use std::collections::BTreeMap;

use dr_provider::ErrorKind;
use dr_provider::store::list_all;

use crate::manifest::Pack;
use crate::{Error, Label, Repository, Result, store};

/// Fails unless every pack of an older backup is still there and none of these backups, nor this one, is being given up.
///
/// A pack goes only after its backup has been marked for a grace time, so that what is not marked now stays until the
/// manifest is read.
pub(crate) async fn check(repository: &Repository, own: &Label, packs: &[Pack]) -> Result<()> {
    let mut older: BTreeMap<&Label, Vec<&Pack>> = BTreeMap::new();
    for pack in packs.iter().filter(|pack| pack.label != *own) {
        older.entry(&pack.label).or_default().push(pack);
    }
    let store = &**repository.store();
    for label in older.keys().copied().chain([own]) {
        let key = repository.tombstone_key(label);
        match store.head(&key).await {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Ok(_) => {
                return Err(Error::GivenUp {
                    label: label.clone(),
                    location: store.location().to_owned(),
                });
            }
            Err(error) => return Err(store::failed(format!("look for `{key}`"))(error)),
        }
    }
    for (label, packs) in older {
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
            if bytes != Some(pack.info.bytes) {
                let what = match bytes {
                    Some(_) => "it has another length than when this backup began to refer to it",
                    None => "it does not exist any more, and this backup refers to it",
                };
                return Err(Error::damaged(store::name(store, &key), what));
            }
        }
    }
    Ok(())
}
