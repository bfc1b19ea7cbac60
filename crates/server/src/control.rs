//! The control socket: what changes something is asked of the daemon here, never over the network.
//!
//! HTTP on a unix socket in the daemon's state directory, which its owner and group may use (mode 0660). The daemon's lock
//! is held by whoever serves, so a socket that lies there before is nobody's.

mod client;

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::net::UnixListener;
use tokio::sync::watch;

pub use client::{ClientError, ask_to_leave, ask_who, push_wal, run_job};

/// The name of the socket in a state directory.
pub const SOCKET: &str = "control.sock";

/// Permissions of the socket: its owner and group.
const MODE: u32 = 0o660;

/// A run that is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunRequest {
    /// The schedule's name.
    pub name: String,
    /// `WORKLOAD/RESOURCE`, where several schedules have this name.
    pub resource: Option<String>,
}

/// What a run left behind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunAnswer {
    /// One line for people.
    pub summary: String,
    /// The same as data.
    pub detail: serde_json::Value,
    /// What somebody has to look at although the work was done.
    #[serde(default)]
    pub alarm: Option<String>,
}

/// A file of the log that is to be archived.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PushRequest {
    /// `WORKLOAD/RESOURCE`.
    pub resource: String,
    /// Where it is, absolute.
    pub path: PathBuf,
}

/// What was done with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushAnswer {
    /// One line for people.
    pub summary: String,
}

/// Who answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhoAnswer {
    /// The number of its process.
    pub process: u32,
    /// Where it answers HTTP.
    pub listen: SocketAddr,
}

/// Who leaves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaveAnswer {
    /// The number of its process.
    pub process: u32,
}

/// A request that was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What kind of failure it was, one word: `unavailable`.
    pub kind: String,
    /// What failed, and why.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// Who does what is asked for.
#[async_trait]
pub trait Control: Send + Sync {
    /// Runs a scheduled job once and returns when it is done.
    async fn run_job(&self, request: RunRequest) -> Result<RunAnswer, Refusal>;

    /// Archives a file of the log and returns when it is durable.
    async fn push_wal(&self, request: PushRequest) -> Result<PushAnswer, Refusal>;

    /// Says who it is; changes nothing.
    async fn who(&self) -> Result<WhoAnswer, Refusal>;

    /// Ends the daemon because another is ready to take its place: the log is followed to the last, and the lock let go of when
    /// it no longer is.
    async fn leave(&self) -> Result<LeaveAnswer, Refusal>;
}

/// The socket could not be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} the control socket `{path}`")]
pub struct ControlError {
    operation: &'static str,
    path: PathBuf,
    source: std::io::Error,
}

/// Binds the socket in `directory` and returns the future that serves until `stop` turns true. Must be called under the
/// daemon's lock.
///
/// # Errors
///
/// The directory cannot be written, or its path is too long for a socket (107 bytes on Linux, `unix(7)`).
pub fn serve_control(
    directory: &Path,
    control: Arc<dyn Control>,
    mut stop: watch::Receiver<bool>,
) -> Result<impl Future<Output = Result<(), ControlError>> + Send + use<>, ControlError> {
    let path = directory.join(SOCKET);
    let failed = |operation| {
        let path = path.clone();
        move |source| ControlError {
            operation,
            path,
            source,
        }
    };
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(failed("replace")(error));
        }
        _ => {}
    }
    let listener = UnixListener::bind(&path).map_err(failed("create"))?;
    let permissions = std::fs::Permissions::from_mode(MODE);
    std::fs::set_permissions(&path, permissions).map_err(failed("protect"))?;
    let router = Router::new()
        .route("/jobs/run", post(run))
        .route("/wal/push", post(push))
        .route("/who", post(who))
        .route("/leave", post(leave))
        .with_state(control);
    let stopped = async move {
        // A sender that is gone means that the daemon has ended: stop as well.
        let _gone = stop.wait_for(|stop| *stop).await;
    };
    let failed = failed("serve");
    Ok(async move {
        axum::serve(listener, router)
            .with_graceful_shutdown(stopped)
            .await
            .map_err(failed)
    })
}

async fn run(State(control): State<Arc<dyn Control>>, Json(request): Json<RunRequest>) -> Response {
    answer(control.run_job(request).await)
}

async fn push(
    State(control): State<Arc<dyn Control>>,
    Json(request): Json<PushRequest>,
) -> Response {
    answer(control.push_wal(request).await)
}

async fn who(State(control): State<Arc<dyn Control>>) -> Response {
    answer(control.who().await)
}

async fn leave(State(control): State<Arc<dyn Control>>) -> Response {
    answer(control.leave().await)
}

fn answer(result: Result<impl Serialize, Refusal>) -> Response {
    match result {
        Ok(answer) => Json(answer).into_response(),
        Err(refusal) => (StatusCode::CONFLICT, Json(refusal)).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    struct Echo;

    #[async_trait]
    impl Control for Echo {
        async fn run_job(&self, request: RunRequest) -> Result<RunAnswer, Refusal> {
            match request.name.as_str() {
                "nightly" => Ok(RunAnswer {
                    summary: "done".to_owned(),
                    detail: json!({ "resource": request.resource }),
                    alarm: None,
                }),
                _ => Err(Refusal {
                    kind: "not-found".to_owned(),
                    message: "there is no such schedule".to_owned(),
                    hint: None,
                }),
            }
        }

        async fn push_wal(&self, request: PushRequest) -> Result<PushAnswer, Refusal> {
            Ok(PushAnswer {
                summary: request.path.display().to_string(),
            })
        }

        async fn who(&self) -> Result<WhoAnswer, Refusal> {
            Ok(WhoAnswer {
                process: 7,
                listen: "127.0.0.1:8421".parse().unwrap(),
            })
        }

        async fn leave(&self) -> Result<LeaveAnswer, Refusal> {
            Ok(LeaveAnswer { process: 7 })
        }
    }

    fn request(name: &str) -> RunRequest {
        RunRequest {
            name: name.to_owned(),
            resource: Some("shop/database".to_owned()),
        }
    }

    #[tokio::test]
    async fn answers_on_a_socket_of_the_group() {
        let directory = tempfile::tempdir().unwrap();
        // What a daemon that was killed left there.
        std::fs::write(directory.path().join(SOCKET), "").unwrap();
        let (stop, stopped) = watch::channel(false);
        let serving = serve_control(directory.path(), Arc::new(Echo), stopped).unwrap();
        let server = tokio::spawn(serving);
        let mode = std::fs::metadata(directory.path().join(SOCKET))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, MODE);
        let answer = run_job(directory.path(), &request("nightly"))
            .await
            .unwrap();
        assert_eq!(answer.detail, json!({ "resource": "shop/database" }));
        let error = run_job(directory.path(), &request("x")).await.unwrap_err();
        assert!(
            matches!(&error, ClientError::Refused(refusal) if refusal.kind == "not-found"),
            "{error:?}"
        );
        stop.send(true).unwrap();
        server.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_socket_without_a_daemon_is_absent() {
        let directory = tempfile::tempdir().unwrap();
        for leftover in [false, true] {
            if leftover {
                drop(UnixListener::bind(directory.path().join(SOCKET)).unwrap());
            }
            let error = run_job(directory.path(), &request("nightly"))
                .await
                .unwrap_err();
            assert!(matches!(error, ClientError::Absent { .. }), "{error:?}");
        }
    }

    #[tokio::test]
    async fn a_path_that_is_too_long_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("d".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        let (_stop, stopped) = watch::channel(false);
        let error = serve_control(&deep, Arc::new(Echo), stopped).err().unwrap();
        assert!(
            error
                .to_string()
                .starts_with("cannot create the control socket")
        );
    }
}
