//! Removing what a backup has written that will never be one.
//!
//! Without a manifest nobody refers to any of it, and nobody else writes below its label. Once a manifest was sent it may be there, whatever
//! was answered: then nothing is removed.

use dr_provider::store::list_all;

use super::shared::Shared;

/// Removes packs and parts of the tree, as far as the store lets us; what stays is swept by the next pruning.
pub(super) async fn remove(shared: &Shared) {
    if shared.was_offered() {
        return;
    }
    let (repository, label) = (&shared.repository, &shared.label);
    let store = &**repository.store();
    let prefixes = [repository.pack_prefix(label), repository.part_prefix(label)];
    for prefix in prefixes {
        let Ok(listed) = list_all(store, &prefix).await else {
            return;
        };
        for object in listed {
            // A writer need not have the right to delete, and what does not answer now is no reason to fail otherwise.
            if store.delete(&object.key).await.is_err() {
                return;
            }
        }
    }
}
