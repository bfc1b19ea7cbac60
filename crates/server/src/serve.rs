//! Listening and answering.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::{Family, Health, Status, metrics};

/// Where the answers come from.
pub trait Source: Send + Sync {
    /// Returns how the daemon is now.
    fn health(&self) -> Health;

    /// Returns the metrics as they are now.
    fn metrics(&self) -> Vec<Family>;
}

/// The server could not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address could not be listened on.
    #[error("cannot listen on `{address}`")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// The server stopped by itself.
    #[error("the HTTP server on `{address}` failed")]
    Serve {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

/// An address that is listened on and not answered yet.
#[derive(Debug)]
pub struct Bound {
    listener: TcpListener,
    address: SocketAddr,
}

/// Listens on `address`. Whoever connects waits for [`serve`].
pub async fn bind(address: SocketAddr) -> Result<Bound, Error> {
    let failed = |source| Error::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok(Bound { listener, address })
}

/// Returns the address bound and the future that serves until `stop` turns true.
pub fn serve(
    bound: Bound,
    source: Arc<dyn Source>,
    mut stop: watch::Receiver<bool>,
) -> (
    SocketAddr,
    impl Future<Output = Result<(), Error>> + Send + use<>,
) {
    let Bound { listener, address } = bound;
    let router = Router::new()
        .route("/health", get(health))
        .route("/live", get(live))
        .route("/ready", get(ready))
        .route("/startup", get(startup))
        .route("/metrics", get(openmetrics))
        .with_state(source);
    let stopped = async move {
        // A sender that is gone means that the daemon has ended: stop as well.
        let _gone = stop.wait_for(|stop| *stop).await;
    };
    let serving = async move {
        axum::serve(listener, router)
            .with_graceful_shutdown(stopped)
            .await
            .map_err(|source| Error::Serve { address, source })
    };
    (address, serving)
}

/// Only an unhealthy component makes the status code an error: unknown is said in the body.
async fn health(State(source): State<Arc<dyn Source>>) -> Response {
    let health = source.health();
    let code = match health.status {
        Status::Healthy | Status::Unknown => StatusCode::OK,
        Status::Unhealthy => StatusCode::SERVICE_UNAVAILABLE,
    };
    (code, Json(health)).into_response()
}

async fn live() -> &'static str {
    "live\n"
}

/// Ready means that everything has been started and nothing is known to be broken or unknown.
async fn ready(State(source): State<Arc<dyn Source>>) -> Response {
    let health = source.health();
    yes_or_no(health.started && health.status == Status::Healthy, "ready")
}

async fn startup(State(source): State<Arc<dyn Source>>) -> Response {
    yes_or_no(source.health().started, "started")
}

fn yes_or_no(yes: bool, word: &str) -> Response {
    if yes {
        format!("{word}\n").into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("not {word}\n")).into_response()
    }
}

async fn openmetrics(State(source): State<Arc<dyn Source>>) -> Response {
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    (
        [(header::CONTENT_TYPE, content_type)],
        metrics::render(&source.metrics()),
    )
        .into_response()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;
    use crate::Component;

    struct Fixed(Status);

    impl Source for Fixed {
        fn health(&self) -> Health {
            let check = Component {
                status: self.0,
                detail: "as the test says".to_owned(),
            };
            let checks = BTreeMap::from([("store".to_owned(), check)]);
            Health::new("1.2.3", "us-east-1".to_owned(), 1.5, true, checks)
        }

        fn metrics(&self) -> Vec<Family> {
            Vec::new()
        }
    }

    async fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn unknown_is_not_ready_and_unhealthy_is_an_error() {
        for (status, health_code, ready_code) in [
            (Status::Healthy, "200", "200"),
            (Status::Unknown, "200", "503"),
            (Status::Unhealthy, "503", "503"),
        ] {
            let (stop, stopped) = watch::channel(false);
            let address = "127.0.0.1:0".parse().unwrap();
            let bound = bind(address).await.unwrap();
            let (bound, serving) = serve(bound, Arc::new(Fixed(status)), stopped);
            let server = tokio::spawn(serving);
            assert!(
                get(bound, "/health")
                    .await
                    .starts_with(&format!("HTTP/1.1 {health_code}"))
            );
            assert!(
                get(bound, "/ready")
                    .await
                    .starts_with(&format!("HTTP/1.1 {ready_code}"))
            );
            assert!(get(bound, "/live").await.starts_with("HTTP/1.1 200"));
            assert!(get(bound, "/metrics").await.ends_with("# EOF\n"));
            stop.send(true).unwrap();
            server.await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn a_taken_port_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap();
        let error = bind(address).await.unwrap_err();
        assert_eq!(error.to_string(), format!("cannot listen on `{address}`"));
    }
}
