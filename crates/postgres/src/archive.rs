//! The log in a store as a WAL archive: what `archive_command` puts there and `restore_command` gets from there.
//!
//! The receiver is what ships the log; segments pushed by `archive_command` go into the same chains, where they find
//! what is there already. Fetching assembles segments from the chains. Exit codes follow from the results as PROTOCOL 6
//! says: only a proven absence may end a recovery.

mod compact;
mod fetch;
mod file;
mod follow;
mod gap;
mod held;
mod hole;
mod push;
mod put;
mod segment;
mod size;
mod spool;
mod superseded;

pub(crate) use compact::Compactors;
pub(crate) use gap::Lost;
pub(crate) use held::{Held, Reach};
