//! How long a cluster's segments are, as the log in a store says itself (R34).

use std::sync::Arc;

use dr_coordination::chain::{self, ChainReader, Section};
use dr_model::{Lsn, SegmentSize, SystemIdentifier, TimelineId};
use dr_provider::{ObjectStore, Result};
use dr_repository::Keys;

use crate::register::patience;
use crate::wal::{SEGMENT_HEADER_BYTES, segment_size};

/// Reads the segment size from the head of the segment that begins at `start`; `None` if the log there is not held, or is
/// no such head.
pub(super) async fn size_at(
    (store, keys): (&Arc<dyn ObjectStore>, &Keys),
    cluster: SystemIdentifier,
    timeline: TimelineId,
    start: Lsn,
) -> Result<Option<SegmentSize>> {
    let end = start.advance(SEGMENT_HEADER_BYTES as u64);
    let store = Arc::clone(store);
    match ChainReader::open(
        store,
        Section::new(cluster, timeline, start, end),
        patience(),
    )
    .await
    {
        Ok(reader) => {
            let head = reader.with_keys(keys).read_to_end().await?;
            Ok(segment_size(&head, cluster))
        }
        Err(chain::Error::Hole { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
