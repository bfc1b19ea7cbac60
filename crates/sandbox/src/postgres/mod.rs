//! Real PostgreSQL clusters, one a region: made, started, cloned, and asked.
//!
//! What belongs to a region (address, port, access rules) stands outside the data directory, as on Debian, and the
//! `postgresql.conf` inside only includes `../postgresql.conf`. A base backup restored in another region's directory
//! therefore comes up with that region's settings.

mod cluster;
mod programs;
mod roles;
mod settings;

pub(crate) use cluster::describe;
pub use cluster::{Cluster, Standby};
pub use programs::find_programs;
