//! One connection of a client to the application, over HTTP.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::Outcome;
use super::app::{Reply, Request};
use crate::postgres::describe;

/// An open connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) address: SocketAddr,
    sender: SendRequest<Full<Bytes>>,
}

impl Connection {
    /// Connects; a failure means that nothing was asked of anybody.
    pub(super) async fn open(address: SocketAddr) -> Result<Self, String> {
        let stream = TcpStream::connect(address)
            .await
            .map_err(|error| describe(&error))?;
        stream.set_nodelay(true).map_err(|error| describe(&error))?;
        let (sender, connection) = handshake(TokioIo::new(stream))
            .await
            .map_err(|error| describe(&error))?;
        // Ends with the sender or the peer; the sender's calls then fail.
        tokio::spawn(async move {
            let _ended = connection.await;
        });
        Ok(Self { address, sender })
    }

    /// Tells whether the peer has closed the connection, as far as is known.
    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Asks for a commit and waits for its outcome; whatever is not an answer leaves it indeterminate.
    pub(super) async fn commit(&mut self, wanted: Request) -> (Outcome, Option<String>) {
        let unknown = |reason: String| (Outcome::Indeterminate, Some(reason));
        let body = match serde_json::to_vec(&wanted) {
            Ok(body) => Full::new(Bytes::from(body)),
            Err(error) => return (Outcome::Refused, Some(error.to_string())),
        };
        let request = hyper::Request::post("/commit")
            .header("host", self.address.to_string())
            .header("content-type", "application/json")
            .body(body);
        let request = match request {
            Ok(request) => request,
            Err(error) => return (Outcome::Refused, Some(error.to_string())),
        };
        if let Err(error) = self.sender.ready().await {
            return (Outcome::Refused, Some(describe(&error)));
        }
        let response = match self.sender.send_request(request).await {
            Ok(response) => response,
            // Cancelled: it never left this process.
            Err(error) if error.is_canceled() => {
                return (Outcome::Refused, Some(describe(&error)));
            }
            Err(error) => return unknown(describe(&error)),
        };
        let body = match response.into_body().collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => return unknown(describe(&error)),
        };
        match serde_json::from_slice::<Reply>(&body) {
            Ok(reply) => (reply.outcome, reply.reason),
            Err(error) => unknown(error.to_string()),
        }
    }
}
