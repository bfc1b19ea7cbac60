//! The one place that names implementations: every choice between them is made here, once, by the
//! configuration.
//!
//! A [`Setup`] is a loaded configuration and who acts on it. What a command needs is made from it
//! when it is needed, and not before: `dr wal fetch` must work on a machine that cannot read the
//! key for DNS updates.

pub(crate) mod actor;
mod binaries;
pub(crate) mod checks;
mod command_check;
pub(crate) mod environment;
mod keys;
mod kinds;
#[cfg(feature = "s3")]
mod s3;
mod setup;
mod site;
mod stores;
mod traffic;
mod webhook;

pub(crate) use setup::{Setup, unknown};
