//! Where and why reading ends.

use dr_model::{Lsn, SystemIdentifier, TimelineId};

/// Why no further record can be read, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("WAL ends at {at}: {reason}")]
pub struct Stop {
    /// Start of the record, or of the page, that is not valid.
    pub at: Lsn,
    /// What is wrong with it.
    pub reason: StopReason,
}

/// What ends a stream of records.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StopReason {
    /// Zeros where a record would begin: the ordinary end of WAL.
    #[error("nothing has been written there yet")]
    Unwritten,
    /// A record's length is less than that of its header.
    #[error("a record of {0} bytes is too short to be one")]
    RecordLength(u32),
    /// No such resource manager exists.
    #[error("no resource manager has the number {0}")]
    ResourceManager(u8),
    /// The record does not follow the one before it: a left-over of a recycled segment.
    #[error("the record says that it follows the one at {said}")]
    PreviousRecord {
        /// The position in the record.
        said: Lsn,
    },
    /// The record's checksum is wrong.
    #[error("the record's checksum is wrong")]
    Checksum,
    /// The page's magic is that of no supported version, or not that of the pages before.
    #[error("the page's magic is {0:04X}, which no supported version of PostgreSQL writes here")]
    PageMagic(u16),
    /// The page header has flags that do not exist, or is short at the start of a segment.
    #[error("the page header has impossible flags")]
    PageFlags,
    /// The page belongs elsewhere: a left-over of a recycled segment.
    #[error("the page says that it belongs at {said}")]
    PageAddress {
        /// The position in the page.
        said: Lsn,
    },
    /// The page is of a timeline older than the page before, or not of this timeline's ancestry.
    #[error("the page is of timeline {0}")]
    PageTimeline(TimelineId),
    /// The segment is of another cluster.
    #[error("the segment is of cluster {0}")]
    SystemIdentifier(SystemIdentifier),
    /// The segment says that segments or pages have another size.
    #[error(
        "the segment is of a cluster with segments of {segment_bytes} bytes and pages of {page_bytes}"
    )]
    Geometry {
        /// The segment size in the header.
        segment_bytes: u32,
        /// The page size in the header.
        page_bytes: u32,
    },
    /// The page does not begin with the rest of the record before, or with rest where no record is open.
    #[error("the page does not continue where the one before ends")]
    Continuation,
}
