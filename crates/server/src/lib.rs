//! HTTP of the daemon: `/health`, `/live`, `/ready`, `/startup` and `/metrics`, and the control socket.
//!
//! What is served comes from a [`Source`], asked anew at each request; the server keeps nothing. It listens on loopback
//! unless told otherwise and changes nothing, whatever it is asked: what changes something goes over the
//! [control socket](control).

pub mod control;
mod health;
mod metrics;
mod serve;

pub use health::{Component, Health, Status};
pub use metrics::{Family, Kind, Sample, render};
pub use serve::{Bound, Error, Source, bind, serve};
