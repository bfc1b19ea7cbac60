//! DNS records switched by dynamic update (RFC 2136), signed with a shared key (TSIG, RFC 8945).
//!
//! Beside the record `orders.acme.example` stands a TXT record `_dr.orders.acme.example` that holds
//! the epoch which made it so: `dr epoch=3 region=us-west-2`. Both change in one update, whose
//! prerequisites are the whole previous content of both names' address and TXT records. So an
//! executor that paused, or a packet that arrives late, changes nothing once anybody else has:
//! epochs only grow, hence the previous text never returns (PROTOCOL 9). The address alone would be
//! open to ABA.
//!
//! An update whose answer was lost is followed by a look, and repeated only if the zone still
//! stands as before. Everything goes over TCP: nothing is truncated, and the network repeats
//! nothing.

mod client;
mod connection;
mod content;
mod marker;
mod options;
mod traffic;
mod update;
mod views;

pub use options::{Algorithm, Rfc2136Options, Tsig};
pub use traffic::Rfc2136;

#[cfg(test)]
mod tests;
