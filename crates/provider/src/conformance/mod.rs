//! What every implementation of a seam must pass, as tests that it runs itself.
//!
//! A suite is a set of functions on the trait and a macro that makes one test of each.

pub mod host;
pub mod object_store;
mod program;
mod skipped;

pub use program::find_program;
pub use skipped::{Missing, skipped};
