//! Backups that read the data directory themselves, on the machine of its server.
//!
//! The fast way: files are read in parallel, pages that did not change since an older backup are not stored again, and
//! with the server's help not even read.

mod changes;
mod control;
mod copy;
mod file;
pub(super) mod name;
mod parent;
mod reach;
mod session;
mod take;
mod unbroken;
mod walk;

pub(super) use reach::reachable;
pub(super) use take::{add_file, take};
