//! The model check of PROTOCOL 11, on the state machines that ship.
//!
//! A world of three regions: `e` with the old primary, `w` and `x` with a store each. Receivers write the log of epoch 1
//! into the stores with the shipped [`Writer`](crate::chain); executors move the primary with the shipped register walk,
//! [`Publish`](crate::publish) and sealer. What is modelled is only what lies outside this crate: the stores, the hosts,
//! the name service, and the order of steps in an execution.
//!
//! Everything may be arbitrarily late: an operation lands at any time after it was asked for, its answer arrives at any
//! time after that, so a pause of any process at any place is included. A bounded number of faults is added: an answer is
//! lost while the operation lands, lands later or never; an operation lands twice and the second answer is reported; a
//! receiver dies with operations under way and starts again. Time passes in halves of the grace time, and once a store's chain
//! is held by pieces for longer than that, its links below a floor are removed: keys become free again under whoever sleeps.
//!
//! Small worlds are checked completely, breadth first, by `stateright`; a large one by random walks with fixed seeds. A
//! model that notices nothing would pass as well, so each of a set of wrong rules is put in and must be noticed.

mod actors;
mod executor;
mod invariants;
mod receiver;
mod tests;
mod world;
