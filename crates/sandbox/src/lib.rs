//! Two real regions on one machine, one of which is lost.
//!
//! A [`Sandbox`] is a directory with two regions in it. Each has a PostgreSQL cluster, a store, a daemon and a ledger
//! application of its own; a DNS server stands beside them. Everything is a real process speaking real protocols, and
//! `dr` is driven only through its commands. The program `dr-demo` tells a story with it, the tests ask questions.

pub mod config;
pub mod demo;
pub mod dns;
pub mod error;
mod http;
pub mod judge;
pub mod layout;
pub mod ledger;
pub mod machines;
pub mod network;
mod place;
pub mod postgres;
pub mod process;
pub mod region;
pub mod sandbox;
pub mod service;
pub mod user;
pub mod wait;

pub use error::{Error, Result};
pub use region::{LostStore, Region};
pub use sandbox::{Builder, HOME, RECOVERY, Sandbox, THIRD};
