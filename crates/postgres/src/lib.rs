//! The driver for self-managed PostgreSQL.
//!
//! Everything that `dr` knows of PostgreSQL is in this crate and in `dr-pgwire`: jobs and steps see a resource. What a
//! plan for a cluster is made of stands in `plan` as pure decisions, and in `actions` as one file for each thing done.

mod actions;
mod archive;
mod backup;
mod data_directory;
mod driver;
mod expire;
mod guard;
mod heartbeat;
mod instance;
mod lock;
mod loss;
mod manager;
mod observe;
mod options;
mod orphans;
pub mod page;
mod plan;
mod query;
mod receiver;
mod register;
mod restore;
mod slots;
mod standby;
mod synchronous;
mod verify;
mod wait;
pub mod wal;

pub use dr_repository::{EncryptionKey, Keys};
pub use driver::{Parts, PostgresDriver};
pub use guard::{GuardRequest, Guarded, WatchOutcome, become_server, watch};
pub use observe::{is_quarantined, would_accept_writes};
pub use options::{
    BackupOptions, BackupSource, GuardOptions, InstanceOptions, Options, SlotPolicy, StandbyPolicy,
    StoreLoss, VerifyOptions,
};
pub use slots::Slot;
pub use standby::{
    Divergence, Found, Kept, Method, StandbyPlan, StandbyReport, StandbyRequest, Unread,
};
pub use synchronous::{SyncChange, SyncWish};
