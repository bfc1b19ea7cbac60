//! An S3 server for tests, benchmarks and the demo.
//!
//! Real servers differ where it hurts: in who wins a conditional write, in what a lost answer means,
//! in how they say no. This one does the right thing by default, atomically and in memory, and each
//! wrong thing on demand: a [`Rule`] makes the requests that match fail in a stated way, a seed
//! ([`Options::faults`]) some of all requests in every way, and [`Conditions`] says what becomes of `If-None-Match`. The protocol itself (XML, signatures, chunked
//! uploads) is the crate `s3s`; the objects are ours, because its own file system checks first and
//! writes then.
//!
//! Not part of `dr`: nothing that is shipped may depend on it.

mod access;
mod backend;
mod bucket;
mod disk;
mod fault;
mod faulty;
mod listing;
mod mix;
mod multipart;
mod request;
mod server;
mod tls;

pub use access::Account;
pub use bucket::{Conditions, Stored};
pub use fault::{Fault, Rule};
pub use request::Operation;
pub use server::{Options, Server};
pub use tls::Certificate;
