//! The register of a workload: dense epoch records that say who is primary (PROTOCOL 2).
//!
//! Record *n* says in which region's store record *n+1* will be. A change of primary is won by creating the next record;
//! whoever loses gets the winner's. What is there is proven by reading it; that there is *nothing newer* is proven only by
//! the store that the newest record names. If that store does not answer, the result is an error and never a guess.
//!
//! Format: `docs/formats/register.md`.

mod audit;
mod claims;
mod client;
mod copies;
mod error;
mod rebuild;
mod record;
mod walk;
mod walked;

#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use claims::check as check_claims;
pub use client::{CopyView, Opened, Register, next_timeline};
pub use error::Error;
pub use record::{ClusterClaim, EpochRecord, FORMAT_VERSION, Guard, SyncLost};
pub(crate) use walk::{Ask, Walk, WalkEnd};
