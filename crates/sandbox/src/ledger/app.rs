//! The application: an HTTP service that inserts into its region's database.
//!
//! `POST /commit` answers 200 `acknowledged`, 503 `refused` (nothing was written) or 500 `indeterminate` (it may have
//! been). `GET /health` answers 200 if the database accepts writes. It must never call a commit acknowledged, or
//! refused, without knowing so: it is the witness in a trial about data loss.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio_postgres::Config;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_util::sync::CancellationToken;

use super::Outcome;
use super::pool::{Connection, Pool};
use crate::postgres::describe;
use crate::{Error, Result};

/// What a client wants written.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Request {
    pub(super) id: i64,
    pub(super) client: i32,
    pub(super) sequence: i64,
}

/// What became of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Reply {
    pub(super) outcome: Outcome,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
}

/// The application of one region.
#[derive(Debug)]
pub struct App {
    pool: Pool,
}

impl App {
    /// Makes the application on the database that `config` leads to.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            pool: Pool::new(config),
        }
    }

    async fn commit(&self, request: Request) -> (Outcome, Option<String>) {
        let connection = match self.pool.take().await {
            Ok(connection) => connection,
            Err(error) => return (Outcome::Refused, Some(describe(&error))),
        };
        let Request {
            id,
            client,
            sequence,
        } = request;
        let values: [&(dyn ToSql + Sync); 3] = [&id, &client, &sequence];
        let (outcome, reason) = match connection.client.execute(&connection.insert, &values).await {
            Ok(_) if connection.take_warning() => {
                let reason =
                    "committed here with a warning: the wait for the other region was cut short";
                (Outcome::Indeterminate, Some(reason.to_owned()))
            }
            Ok(_) => (Outcome::Acknowledged, None),
            Err(error) => (of_failure(&error), Some(describe(&error))),
        };
        if outcome != Outcome::Indeterminate {
            self.pool.put(connection);
        }
        (outcome, reason)
    }

    async fn health(&self) -> Result<(), String> {
        let connection = self.pool.take().await.map_err(|error| describe(&error))?;
        let Connection { client, .. } = &connection;
        let query = "SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::bool";
        let row = client
            .query_one(query, &[])
            .await
            .map_err(|error| describe(&error))?;
        let read_only: bool = row.get(0);
        self.pool.put(connection);
        if read_only {
            Err("the database is read-only".to_owned())
        } else {
            Ok(())
        }
    }
}

/// Tells whether a failed insertion is known to have written nothing.
///
/// An error that the server reports undoes the statement, except when the server is going down: then it may have
/// written the commit and been stopped while waiting for the other region. Without an answer nothing is known.
fn of_failure(error: &tokio_postgres::Error) -> Outcome {
    let going_down = [
        SqlState::ADMIN_SHUTDOWN,
        SqlState::CRASH_SHUTDOWN,
        SqlState::DATABASE_DROPPED,
        SqlState::IDLE_SESSION_TIMEOUT,
    ];
    match error.code() {
        Some(code) if going_down.contains(code) => Outcome::Indeterminate,
        // The id is there already, which is no answer about who put it there.
        Some(code) if *code == SqlState::UNIQUE_VIOLATION => Outcome::Indeterminate,
        Some(_) => Outcome::Refused,
        None => Outcome::Indeterminate,
    }
}

/// Serves the application on `listen` until cancelled.
pub async fn serve(listen: SocketAddr, app: App, cancel: CancellationToken) -> Result<()> {
    let failed = |source| Error::Listen {
        address: listen.to_string(),
        source,
    };
    let listener = TcpListener::bind(listen).await.map_err(failed)?;
    let router = axum::Router::new()
        .route("/commit", post(commit))
        .route("/health", get(health))
        .route("/live", get(|| async { "live" }))
        .with_state(Arc::new(app));
    axum::serve(listener, router)
        .with_graceful_shutdown(cancel.cancelled_owned())
        .await
        .map_err(failed)
}

async fn commit(
    State(app): State<Arc<App>>,
    Json(request): Json<Request>,
) -> (StatusCode, Json<Reply>) {
    let (outcome, reason) = app.commit(request).await;
    let status = match outcome {
        Outcome::Acknowledged => StatusCode::OK,
        Outcome::Refused => StatusCode::SERVICE_UNAVAILABLE,
        Outcome::Indeterminate => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (status, Json(Reply { outcome, reason }))
}

async fn health(State(app): State<Arc<App>>) -> (StatusCode, Json<serde_json::Value>) {
    match app.health().await {
        Ok(()) => (StatusCode::OK, Json(serde_json::json!({ "status": "ok" }))),
        Err(reason) => {
            let body = serde_json::json!({ "status": "unavailable", "reason": reason });
            (StatusCode::SERVICE_UNAVAILABLE, Json(body))
        }
    }
}
