//! Removing what a backup has written that will never be one.
//!
//! Without a manifest nobody refers to any of it, and nobody else writes below its label. Once a manifest was sent it may be there, whatever
//! was answered: then nothing is removed.

use std::time::Duration;

use dr_provider::store::list_all;
use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::shared::Shared;
use crate::prune::DELETES_IN_FLIGHT;
use crate::{Result, store};

/// How long that may take: whoever wants to know why the backup failed waits for it.
const LIMIT: Duration = Duration::from_secs(60);

/// Removes packs and parts of the tree, as far as the store lets us and in time; what stays is swept by the next pruning.
pub(super) async fn remove(shared: &Shared) {
    if shared.was_offered() {
        return;
    }
    // A writer need not have the right to delete, and what does not answer now is no reason to fail otherwise.
    let _stays = tokio::time::timeout(LIMIT, remove_all(shared)).await;
}

async fn remove_all(shared: &Shared) -> Result<()> {
    let (repository, label) = (&shared.repository, &shared.label);
    for prefix in [repository.pack_prefix(label), repository.part_prefix(label)] {
        let listed = list_all(&**repository.store(), &prefix).await;
        let listed = listed.map_err(store::failed(format!("list `{prefix}`")))?;
        stream::iter(listed)
            .map(async |object| repository.remove(&object.key).await)
            .buffer_unordered(DELETES_IN_FLIGHT)
            .try_collect::<()>()
            .await?;
    }
    Ok(())
}
