//! The client's resolver: keeps an answer for its TTL and not a moment longer, or for ever, as some do.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use dr_model::{Clock, SystemClock};
use tokio::sync::Mutex;

use crate::Result;
use crate::dns::lookup;

/// Resolves one name, for all workers.
#[derive(Debug)]
pub(super) struct Resolver {
    server: SocketAddr,
    name: String,
    clock: SystemClock,
    stale: bool,
    kept: Mutex<Option<(IpAddr, Duration)>>,
}

impl Resolver {
    pub(super) fn new(server: SocketAddr, name: &str, clock: SystemClock, stale: bool) -> Self {
        Self {
            server,
            name: name.to_owned(),
            clock,
            stale,
            kept: Mutex::default(),
        }
    }

    /// Returns the name's address. While one worker asks the server, the others wait for its answer.
    pub(super) async fn address(&self) -> Result<IpAddr> {
        let mut kept = self.kept.lock().await;
        if let Some((address, until)) = *kept
            && (self.stale || self.clock.elapsed() < until)
        {
            return Ok(address);
        }
        // The TTL counts from the question: the server may have changed its mind before the answer arrived.
        let asked = self.clock.elapsed();
        let answer = lookup(self.server, &self.name).await?;
        *kept = Some((answer.address, asked + answer.ttl));
        Ok(answer.address)
    }
}
