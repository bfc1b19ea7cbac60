//! The daemon: what runs when, and where.
//!
//! One daemon a region. It follows each workload's register, and from the newest record it derives its own role; every
//! task waits until its place is here, works, and stops working when the role changes. A task that fails is tried
//! again, with growing pauses, and says so on the [`board`]; none can stop another (R40).

pub mod board;
mod daemon;
mod heartbeat;
mod register_watch;
mod roster;
mod schedule;
mod scheduled_job;
mod ship;
mod supervise;

pub use board::{Board, Condition};
pub use daemon::{Daemon, Ended, Ends, WorkloadSite};
pub use register_watch::View;
pub use roster::Roster;
pub use scheduled_job::ScheduledJob;
