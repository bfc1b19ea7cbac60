//! One HTTP request, for health checks.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::StatusCode;
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::postgres::describe;

const LIMIT: Duration = Duration::from_secs(2);

/// Asks for a path; answers its body if the status is a success, else what was seen instead.
pub(crate) async fn get(address: SocketAddr, path: &str) -> Result<String, String> {
    match ask(address, path).await? {
        (status, text) if status.is_success() => Ok(text),
        (status, text) => Err(format!("{status}: {text}")),
    }
}

/// Asks for a path; answers the body with whatever status.
pub(crate) async fn ask(address: SocketAddr, path: &str) -> Result<(StatusCode, String), String> {
    let exchange = async {
        let stream = TcpStream::connect(address)
            .await
            .map_err(|error| describe(&error))?;
        let (mut sender, connection) = handshake::<_, Empty<Bytes>>(TokioIo::new(stream))
            .await
            .map_err(|error| describe(&error))?;
        // Ends with the sender.
        tokio::spawn(async move {
            let _ended = connection.await;
        });
        let request = hyper::Request::get(path)
            .header("host", address.to_string())
            .body(Empty::new())
            .map_err(|error| describe(&error))?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| describe(&error))?;
        let status = response.status();
        let body = response
            .into_body()
            .collect()
            .await
            .map_err(|error| describe(&error))?;
        let text = String::from_utf8_lossy(&body.to_bytes()).into_owned();
        Ok((status, text))
    };
    tokio::time::timeout(LIMIT, exchange)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {} s", LIMIT.as_secs())))
}
