//! Streams: endless, supervised work that reports a frontier.

mod ship_wal;

pub use ship_wal::ShipWal;
