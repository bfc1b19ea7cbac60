//! Addresses and ports on loopback.
//!
//! Every sandbox takes two addresses of its own out of 127.0.0.0/8 (all of which is the machine itself on Linux), one a
//! region. The application listens on the same port of both, so that a DNS record with nothing but an address leads to
//! it, and two sandboxes side by side do not meet.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

use rand::RngExt;

use crate::{Error, Result};

/// Picks the addresses of the regions, in order.
#[must_use]
pub fn addresses(count: u8) -> Vec<IpAddr> {
    let mut random = rand::rng();
    let (second, third) = (random.random_range(16..=250), random.random_range(1..=250));
    (1..=count)
        .map(|last| IpAddr::V4(Ipv4Addr::new(127, second, third, last)))
        .collect()
}

/// Finds a port that is free on every one of the addresses, for TCP and UDP.
///
/// Between this and its use another program may take it; then the server that meant to use it says so.
pub fn free_port(addresses: &[IpAddr]) -> Result<u16> {
    let listen = |address: SocketAddr| {
        let held = TcpListener::bind(address)?;
        let port = held.local_addr()?.port();
        let datagrams = UdpSocket::bind((address.ip(), port))?;
        Ok::<_, std::io::Error>((port, held, datagrams))
    };
    let first = addresses
        .first()
        .copied()
        .unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let mut attempts = 0;
    loop {
        attempts += 1;
        let found = listen(SocketAddr::new(first, 0)).and_then(|held| {
            let others: Result<Vec<_>, _> = addresses
                .iter()
                .skip(1)
                .map(|address| listen(SocketAddr::new(*address, held.0)))
                .collect();
            others.map(|_| held.0)
        });
        match found {
            Ok(port) => return Ok(port),
            Err(source) if attempts == 64 => {
                return Err(Error::Listen {
                    address: format!("{first}:0"),
                    source,
                });
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_free_on_all_addresses() {
        let addresses = addresses(2);
        let port = free_port(&addresses).unwrap();
        let _both: Vec<_> = addresses
            .iter()
            .map(|address| TcpListener::bind((*address, port)).unwrap())
            .collect();
    }
}
