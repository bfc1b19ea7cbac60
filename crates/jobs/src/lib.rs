//! Periodic protection work, endless streams, and the daemon that runs them.
//!
//! A *job* takes nothing beyond its policy, is idempotent and does not retry by itself; a *stream* is endless and
//! reports a frontier. Both know their resource only through its driver. The [`engine`] decides when and where they run:
//! places are roles, which follow the newest epoch, so a schedule stays true after a failover.

pub mod boot_recovery_point;
pub mod compact_wal;
pub mod copy_recovery_points;
pub mod engine;
pub mod expire_recovery_points;
pub mod job;
pub mod registry;
pub mod streams;
pub mod take_snapshot;
pub mod verify_recovery_point;

pub use boot_recovery_point::BootRecoveryPoint;
pub use compact_wal::CompactWal;
pub use copy_recovery_points::CopyRecoveryPoints;
pub use expire_recovery_points::{ExpireRecoveryPoints, retention};
pub use job::{Job, JobContext, Outcome};
pub use streams::ShipWal;
pub use take_snapshot::TakeSnapshot;
pub use verify_recovery_point::VerifyRecoveryPoint;
