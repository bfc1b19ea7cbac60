//! PostgreSQL's write-ahead log as bytes: pages, records, segments, timelines. No I/O.
//!
//! The receiver learns from here where records end and when transactions committed, `dr wal push` whether a file is the
//! segment that its name says, and promotion where the last complete record of a tail ends (PROTOCOL 6, step 5). What
//! counts as valid is what PostgreSQL's own reader (`xlogreader.c`, versions 15 to 18) accepts, no more and no less.

mod decoder;
mod ending;
mod history;
mod minimal;
mod page;
mod record;
mod segment;

pub use decoder::{Decoder, Expected, Stop, StopReason};
pub use ending::Ending;
pub use history::{Ancestor, HistoryError, TimelineHistory};
pub use minimal::{MinimalSearch, MinimalTime};
pub use page::{PAGE_BYTES, major_version};
pub use record::{CreatedTablespace, Record, Relation, RestorePoint, TransactionEnd};
pub use segment::{SEGMENT_HEADER_BYTES, SegmentError, SegmentInfo, check_segment, segment_size};
