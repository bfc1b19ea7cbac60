//! Who is primary, what is promised, how a region is left: the protocol of `dr` (`docs/protocol.md`).
//!
//! Everything here is decided by create-only writes to object stores. There is no other coordination service, no clock
//! comparison between machines and no mutable object. Each algorithm is a state machine without I/O, driven by thin async
//! functions against [`dr_provider::ObjectStore`] and by the model checker against a modelled store, so that what is
//! checked is what ships.
//!
//! - [`register`]: the epochs of a workload. [`Register::read`](register::Register::read) says who is primary,
//!   [`Register::create`](register::Register::create) is the single flight of every change.
//! - [`chain`]: the WAL in a store and its seal, which says what was promised.
//! - [`journal`]: what an execution intends and did; takeover.
//! - [`approval`]: who agreed to what an execution is about to do.
//! - [`evidence`]: what happened, for whoever asks later.
//! - [`identity`], [`of_region`], [`probe`]: whose a store is, that it is used for nothing before it has said so, and what it can do.
//! - [`kit`]: what a machine with nothing but the program needs.
//! - [`outage`]: that a primary does not answer, and since when. Decides nothing.

pub mod actor;
pub mod approval;
pub mod chain;
pub mod evidence;
pub mod identity;
pub mod journal;
pub mod kit;
#[cfg(test)]
mod model;
mod mutation;
pub mod of_region;
mod operation;
pub mod outage;
pub mod probe;
mod publish;
pub mod register;
#[cfg(test)]
mod testing;
mod versioned;

pub use actor::Actor;
pub use operation::Patience;
