//! Timeline history files: how PostgreSQL learns where a timeline forked. Create-only like everything else.
//!
//! A history is stored with a last line that holds the hash of what is before it, as a comment, which PostgreSQL passes over: a digit
//! that flips would move a fork. Histories that were stored before there was such a line have none.

use bytes::Bytes;
use dr_model::{SystemIdentifier, TimelineId};
use dr_provider::ObjectStore;
use dr_provider::store::record::{with_hash, without_hash};

use super::{ChainId, Error};
use crate::operation::{Patience, read};
use crate::publish::{Published, publish};

/// How the line of the hash begins.
const LINE: &str = "# blake3 ";

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
    let stored = match content.last() {
        Some(b'\n') => with_hash(content.to_vec(), LINE),
        // PostgreSQL ends every line.
        _ => content.clone(),
    };
    match publish(store, key, stored, Patience::default()).await {
        Ok(Published::Ours) => Ok(()),
        Ok(Published::Theirs(there)) if without_hash(&there, LINE) == Ok(&content[..]) => Ok(()),
        Ok(Published::Theirs(_)) => Err(Error::HistoryDiffers {
            subject,
            location: store.location().to_owned(),
        }),
        Err(error) => Err(Error::store(subject, error)),
    }
}

/// Reads the history file of a timeline; `None` if it is proven that there is none.
///
/// # Errors
///
/// [`Error::CorruptPiece`] if it is not what was written.
pub async fn read_history(
    store: &dyn ObjectStore,
    system_identifier: SystemIdentifier,
    timeline: TimelineId,
) -> Result<Option<Bytes>, Error> {
    let key = ChainId::history_key(system_identifier, timeline);
    let found = read(store, &key, Patience::default()).await;
    let Some(stored) = found.map_err(|error| {
        let subject = format!("cluster {system_identifier}, timeline {timeline}");
        Error::store(subject, error)
    })?
    else {
        return Ok(None);
    };
    match without_hash(&stored, LINE) {
        Ok(content) => Ok(Some(stored.slice(..content.len()))),
        Err(why) => Err(Error::CorruptPiece {
            key: key.to_string(),
            location: store.location().to_owned(),
            why,
        }),
    }
}

#[cfg(test)]
mod tests {
    use dr_provider::store::MemoryStore;

    use super::*;

    const CLUSTER: SystemIdentifier = SystemIdentifier(7);
    const TWO: TimelineId = TimelineId(2);
    const TEXT: &str = "1\t0/3000000\tno recovery target specified\n";

    async fn stored(bytes: Bytes) -> Result<Option<Bytes>, Error> {
        let store = MemoryStore::new("west");
        let key = ChainId::history_key(CLUSTER, TWO);
        store.create(&key, bytes).await.unwrap();
        read_history(&store, CLUSTER, TWO).await
    }

    #[tokio::test]
    async fn a_flipped_digit_is_noticed() {
        let store = MemoryStore::new("west");
        write_history(&store, CLUSTER, TWO, TEXT.into())
            .await
            .unwrap();
        write_history(&store, CLUSTER, TWO, TEXT.into())
            .await
            .unwrap();
        assert_eq!(
            read_history(&store, CLUSTER, TWO).await.unwrap(),
            Some(TEXT.into())
        );
        let key = ChainId::history_key(CLUSTER, TWO);
        let mut bytes = store.get(&key).await.unwrap().to_vec();
        bytes[4] ^= 1;
        let error = stored(bytes.into()).await.unwrap_err();
        assert_eq!(error.kind(), dr_provider::ErrorKind::Corrupt);
        assert!(error.to_string().contains(key.as_str()), "{error}");
    }

    #[tokio::test]
    async fn one_that_was_stored_without_a_hash_is_read_and_is_the_same() {
        assert_eq!(stored(TEXT.into()).await.unwrap(), Some(TEXT.into()));
        let store = MemoryStore::new("west");
        let key = ChainId::history_key(CLUSTER, TWO);
        store.create(&key, TEXT.into()).await.unwrap();
        write_history(&store, CLUSTER, TWO, TEXT.into())
            .await
            .unwrap();
        let other = write_history(&store, CLUSTER, TWO, "1\t0/4000000\tx\n".into()).await;
        assert!(matches!(other, Err(Error::HistoryDiffers { .. })));
    }
}
