//! The sandbox's processes: starting, finding, ending them.
//!
//! Invariant: whatever happens to the program that runs a sandbox, nothing that it started outlives it, unless it was
//! asked to leave it running. Three things see to that:
//! - the program is the reaper of its descendants, so that what detaches itself (PostgreSQL, started by `dr`) remains
//!   below it in the tree of processes;
//! - every process carries [`MARK`] in its environment, by which it is found even where the tree is broken;
//! - a *keeper* process waits for the program to end, however it ends (a panic, SIGKILL), and then ends the rest.

mod end;
mod keeper;
mod launch;
mod reap;
mod table;

pub use end::{end, end_all, remove_shared_memory};
pub use keeper::{Keeper, keep};
pub use launch::{Launcher, Output};
pub use reap::adopt_orphans;
pub use table::{Process, Table, is_alive, members};

/// The variable that marks a process of a sandbox; its value is the sandbox's directory.
pub const MARK: &str = "DR_SANDBOX";
