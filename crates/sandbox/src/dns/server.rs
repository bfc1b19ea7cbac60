//! The server: one zone on one address, by UDP and by TCP.

use std::net::SocketAddr;
use std::time::Duration;

use hickory_server::Server;
use tokio::net::{TcpListener, UdpSocket};
use tokio_util::sync::CancellationToken;

use super::handler::Handler;
use super::sign::signer;
use super::zone::Zone;
use crate::{Error, Result};

/// How long a TCP client may be silent.
const SILENCE: Duration = Duration::from_secs(10);
/// How many answers may wait for a slow TCP client.
const WAITING_ANSWERS: usize = 64;

/// Serves `zone` on `listen` until cancelled. Updates must be signed with the key `key_name`, whose secret is
/// `key` in base64.
pub async fn serve(
    listen: SocketAddr,
    zone: Zone,
    key_name: &str,
    key: &str,
    cancel: CancellationToken,
) -> Result<()> {
    let failed = |source| Error::Listen {
        address: listen.to_string(),
        source,
    };
    let mut server = Server::new(Handler::new(zone, signer(key_name, key)?));
    server.register_socket(UdpSocket::bind(listen).await.map_err(failed)?);
    let listener = TcpListener::bind(listen).await.map_err(failed)?;
    server.register_listener(listener, SILENCE, WAITING_ANSWERS);
    let failed = |error: hickory_server::net::NetError| Error::Dns {
        operation: "serve",
        detail: error.to_string(),
    };
    tokio::select! {
        ended = server.block_until_done() => return ended.map_err(failed),
        () = cancel.cancelled() => {}
    }
    server.shutdown_gracefully().await.map_err(failed)
}
