//! The configuration of `dr`: one directory of YAML, read into validated values.
//!
//! A configuration is used whole or not at all, but for runbooks, each of which stands for itself ([`Runbooks`]). What is wrong with
//! it is said all at once: each problem with file, line, column, what was expected and a hint. What belongs to a driver, a kind of traffic or a step stays a subtree
//! with its places, which its owner reads; the names of those kinds are handed in as [`Kinds`], so that a new driver
//! changes nothing here.

mod apart;
mod command;
mod config;
pub mod cron;
mod digest;
mod encryption;
mod kinds;
mod load;
mod overlap;
mod problems;
mod region;
mod runbook;
mod runbooks;
pub mod scaffold;
mod schedule;
mod scope;
mod shipped;
pub mod sql;
mod workload;
mod yaml;

pub use command::printed_command;
pub use config::Config;
pub use cron::Cron;
pub use encryption::Encryption;
pub use kinds::{Check, Kinds, StepKind};
pub use load::{Loaded, RELATIVE_TO, base, load};
pub use problems::Problems;
pub use region::{Daemon, Region, Ssh, StoreLocation};
pub use runbook::{Retry, Runbook, Step};
pub use runbooks::{NoRunbook, Runbooks, Unusable};
pub use schedule::{Place, Schedule, Trigger};
pub use shipped::is_used_unasked;
pub use workload::{
    Detection, HealthCheck, HealthCheckKind, Notify, Objectives, Readiness, Resource, Service,
    ServiceInstance, Traffic, Workload,
};
pub use yaml::parse;
