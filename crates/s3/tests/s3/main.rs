//! The store on S3, against a server of our own and against moto.
//!
//! One program, because each that is linked with the SDK takes its time.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod configured;
mod conformance;
mod faults;
mod moto;
mod options;
mod semantics;
mod support;
mod tls;
mod uploads;
