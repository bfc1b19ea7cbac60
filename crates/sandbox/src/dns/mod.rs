//! The sandbox's authoritative DNS server, which speaks the real protocol over UDP and TCP.
//!
//! It is a program of its own beside the regions, as a DNS provider is, so that losing a region leaves it running.
//! Updates (RFC 2136) must be signed (TSIG, RFC 8945); prerequisites and changes are one atomic step, because a
//! failover's DNS switch is a compare-and-swap. The zone is kept here rather than in one of hickory-server's own
//! stores: only its SQLite store takes updates, and it checks prerequisites outside the lock under which it changes.

mod handler;
mod query;
mod server;
mod sign;
mod zone;

pub use query::{Answer, lookup};
pub use server::serve;
pub use zone::Zone;
