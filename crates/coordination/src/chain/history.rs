//! Timeline history files: how PostgreSQL learns where a timeline forked. Create-only like everything else.

use bytes::Bytes;
use dr_model::{SystemIdentifier, TimelineId};
use dr_provider::ObjectStore;

use super::{ChainId, Error};
use crate::operation::{Patience, read};
use crate::publish::{Published, publish};

/// Stores the history file of a timeline; storing the same again succeeds.
///
/// # Errors
///
/// [`Error::HistoryDiffers`] if another one is there: two promotions have used one timeline.
pub async fn write_history(
    store: &dyn ObjectStore,
    system_identifier: SystemIdentifier,
    timeline: TimelineId,
    content: Bytes,
) -> Result<(), Error> {
    let key = ChainId::history_key(system_identifier, timeline);
    let subject = format!("cluster {system_identifier}, timeline {timeline}");
    match publish(store, key, content, Patience::default()).await {
        Ok(Published::Ours) => Ok(()),
        Ok(Published::Theirs(_)) => Err(Error::HistoryDiffers {
            subject,
            location: store.location().to_owned(),
        }),
        Err(error) => Err(Error::store(subject, error)),
    }
}

/// Reads the history file of a timeline; `None` if it is proven that there is none.
pub async fn read_history(
    store: &dyn ObjectStore,
    system_identifier: SystemIdentifier,
    timeline: TimelineId,
) -> Result<Option<Bytes>, Error> {
    let key = ChainId::history_key(system_identifier, timeline);
    read(store, &key, Patience::default())
        .await
        .map_err(|error| {
            Error::store(
                format!("cluster {system_identifier}, timeline {timeline}"),
                error,
            )
        })
}
