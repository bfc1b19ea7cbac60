//! The story of `dr-demo`: protect, lose, recover, prove.
//!
//! The story drives the shipped commands as child processes and takes no short cut through libraries: what it shows is
//! what an operator would see.

mod chart;
mod cli;
mod failover;
mod page;
mod screen;
mod story;
mod summary;

pub use cli::{Options, Rung, Standby, main};
pub use failover::{Failover, Loss, Step};
pub use summary::Summary;
