//! The other end of the control socket.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::{
    LeaveAnswer, PushAnswer, PushRequest, Refusal, RunAnswer, RunRequest, SOCKET, WhoAnswer,
};

/// The daemon did not do it.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No daemon listens.
    #[error("no daemon listens on `{path}`")]
    Absent {
        /// The socket.
        path: PathBuf,
    },
    /// The socket cannot be used.
    #[error("cannot ask the daemon on `{path}`")]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The daemon said no, or that it failed.
    #[error("{}", .0.message)]
    Refused(Refusal),
}

/// Asks the daemon whose state is in `directory` to run a scheduled job, and waits until it is done: a run has no time
/// limit here. Giving up the wait does not stop the run.
///
/// # Errors
///
/// [`ClientError`]; after [`ClientError::Io`] it is unknown whether the job runs.
pub async fn run_job(directory: &Path, request: &RunRequest) -> Result<RunAnswer, ClientError> {
    let body = serde_json::to_vec(request).expect("a request always has a JSON form");
    post(&directory.join(SOCKET), "/jobs/run", body).await
}

/// Asks the daemon whose state is in `directory` to archive a file of the log, and waits until it is durable.
///
/// # Errors
///
/// [`ClientError`]; pushing again is always safe.
pub async fn push_wal(directory: &Path, request: &PushRequest) -> Result<PushAnswer, ClientError> {
    let body = serde_json::to_vec(request).expect("a request always has a JSON form");
    post(&directory.join(SOCKET), "/wal/push", body).await
}

/// Asks the daemon whose state is in `directory` who it is and where it listens.
///
/// # Errors
///
/// [`ClientError`]; one that is older than the question answers [`ClientError::Io`].
pub async fn ask_who(directory: &Path) -> Result<WhoAnswer, ClientError> {
    post(&directory.join(SOCKET), "/who", Vec::new()).await
}

/// Asks the daemon whose state is in `directory` to leave, because another is ready to take its place. It has left when its lock is
/// free.
///
/// # Errors
///
/// [`ClientError`].
pub async fn ask_to_leave(directory: &Path) -> Result<LeaveAnswer, ClientError> {
    post(&directory.join(SOCKET), "/leave", Vec::new()).await
}

async fn post<T: DeserializeOwned>(
    path: &Path,
    target: &str,
    body: Vec<u8>,
) -> Result<T, ClientError> {
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| ClientError::Io {
        path: path.to_owned(),
        source,
    };
    let stream = match UnixStream::connect(path).await {
        Ok(stream) => stream,
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::NotFound | ErrorKind::ConnectionRefused
            ) =>
        {
            return Err(ClientError::Absent {
                path: path.to_owned(),
            });
        }
        Err(error) => return Err(failed(error.into())),
    };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| failed(error.into()))?;
    let request = Request::post(target)
        .header(header::HOST, "localhost")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(body))
        .expect("the target is a constant and the headers are plain");
    let exchange = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let bytes = response.into_body().collect().await?.to_bytes();
        Ok::<_, hyper::Error>((status, bytes))
    };
    // The connection moves the bytes; it ends when the daemon closes its side.
    let mut connection = std::pin::pin!(connection);
    let mut exchange = std::pin::pin!(exchange);
    let answer = tokio::select! {
        answer = &mut exchange => answer,
        ended = &mut connection => {
            ended.map_err(|error| failed(error.into()))?;
            exchange.await
        }
    };
    let (status, bytes) = answer.map_err(|error| failed(error.into()))?;
    if status == StatusCode::OK {
        return serde_json::from_slice(&bytes).map_err(|error| failed(error.into()));
    }
    match serde_json::from_slice(&bytes) {
        Ok(refusal) => Err(ClientError::Refused(refusal)),
        Err(_) => {
            let text = String::from_utf8_lossy(&bytes);
            Err(failed(format!("it answered {status}: {text}").into()))
        }
    }
}
