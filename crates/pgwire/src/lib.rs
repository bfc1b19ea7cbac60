//! A small PostgreSQL client: plain SQL, physical replication and base backups over one connection
//! type.
//!
//! It exists because the replication protocol needs a client that can read in a `select!` without
//! losing bytes and answer while its consumer is blocked (R21), and because the same connection,
//! login and TLS code then serves plain SQL as well. SQL goes through the simple query protocol:
//! values are text, there are no prepared statements.
//!
//! Invariants:
//! - No call loses or reorders bytes when its future is dropped. A call that cannot be continued
//!   leaves the connection unusable, and the next call says so; the `next` of a stream can simply
//!   be called again.
//! - A password never appears in `Debug` output or in an error.
//! - No process-wide state: no default TLS provider is installed, no environment variable or
//!   password file is read.

mod auth;
mod backup;
mod cancel;
mod config;
mod connection;
mod error;
mod frame;
mod quote;
mod replication;
mod rows;
mod session;
pub mod sql_state;
mod tls;
mod transport;
mod version;

pub use backup::{
    BackupPosition, BaseBackupEvent, BaseBackupOptions, BaseBackupStream, Checkpoint, Tablespace,
};
pub use cancel::CancelHandle;
pub use config::{Config, Host, Secret, TlsMode};
pub use connection::Connection;
pub use error::{Error, ServerMessage};
pub use quote::{quote_identifier, quote_literal};
pub use replication::{
    CreatedSlot, ReplicationEvent, ReplicationReader, ReplicationStream, SlotState, StandbyStatus,
    StatusWriter, SystemInfo, TimelineHistory,
};
pub use rows::{Column, FromText, Row, Rows};
pub use session::TransactionStatus;
pub use version::ServerVersion;
