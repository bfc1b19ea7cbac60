//! The object store on S3 and on servers that speak its protocol.
//!
//! # An object appears whole, once, and durable
//!
//! Every write carries `If-None-Match: *`: a body up to 16 MiB in one `PutObject`, a longer one in
//! parts, of which nothing is visible before `CompleteMultipartUpload`, which carries the condition.
//! S3 answers when the object is durable, and 412 only when another one is. Servers that ignore the
//! condition are found by the probe when the store is initialised (PROTOCOL 4).
//!
//! # What an answer means
//!
//! One request is one call: nothing is repeated in here except what S3 itself asks to repeat (409,
//! which says that nothing was done). So the outcome of each request is known exactly once, by
//! `answer`: refused and not done, done, or *unknown*, when the connection ended between the two.
//! Repeating is the business of `dr_provider::decorate::Retry`.
//!
//! # Missing
//!
//! 404 on an object counts only while the identity object can be read through the same client, and is
//! the one that was seen first; else the bucket, the prefix or the server is not the one that was
//! meant, and the answer is *unavailable*.

mod answer;
mod call;
mod client;
mod copy;
mod credentials;
mod identity;
mod list;
mod options;
mod read;
mod store;
mod upload;

pub use options::{Encryption, Keys, S3Options, StorageClass};
pub use store::S3Store;
