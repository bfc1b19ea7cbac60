//! Physical replication: the walsender's commands and the stream of WAL.
//!
//! Source: PostgreSQL manual, "Streaming Replication Protocol". The connection must have been made
//! with `replication: true`.

mod commands;
mod message;
mod stream;
#[cfg(test)]
mod tests;

pub use commands::{CreatedSlot, SlotState, SystemInfo, TimelineHistory};
pub use message::{ReplicationEvent, StandbyStatus};
pub use stream::{ReplicationReader, ReplicationStream, StatusWriter};
