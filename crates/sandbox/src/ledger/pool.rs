//! A few connections to the region's database.
//!
//! A connection serves one commit at a time and returns only if that commit came to a clear end; in any other case, a
//! vanished client among them, it is closed. So no connection is ever used in the middle of another's conversation.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_postgres::{AsyncMessage, Client, Config, NoTls, Statement};

/// How long logging in may take.
const CONNECT: Duration = Duration::from_millis(800);

const INSERT: &str = "INSERT INTO ledger (id, client, sequence) VALUES ($1, $2, $3)";

/// Connections that are ready for use.
#[derive(Debug)]
pub(super) struct Pool {
    config: Config,
    idle: Mutex<Vec<Connection>>,
}

/// One connection with its prepared statement.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) client: Client,
    pub(super) insert: Statement,
    /// Set when the server says something beside the answer.
    warned: Arc<AtomicBool>,
}

impl Connection {
    /// Tells whether the server warned since the last call.
    ///
    /// Messages arrive in order and a connection serves one commit at a time, so a warning about a commit has been
    /// noted when its answer is there.
    pub(super) fn take_warning(&self) -> bool {
        self.warned.swap(false, Ordering::AcqRel)
    }
}

impl Pool {
    pub(super) fn new(mut config: Config) -> Self {
        config.connect_timeout(CONNECT).application_name("ledger");
        Self {
            config,
            idle: Mutex::default(),
        }
    }

    /// Takes a connection that works as far as is known, or opens one.
    pub(super) async fn take(&self) -> Result<Connection, tokio_postgres::Error> {
        let idle = || {
            self.idle
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop()
        };
        while let Some(connection) = idle() {
            if !connection.client.is_closed() {
                return Ok(connection);
            }
        }
        self.open().await
    }

    /// Puts a connection back for the next commit.
    pub(super) fn put(&self, connection: Connection) {
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(connection);
    }

    async fn open(&self) -> Result<Connection, tokio_postgres::Error> {
        let (client, mut connection) = self.config.connect(NoTls).await?;
        let warned = Arc::new(AtomicBool::new(false));
        let warnings = Arc::clone(&warned);
        // Ends with the client or the server; the client's calls then fail.
        tokio::spawn(async move {
            while let Some(Ok(message)) =
                std::future::poll_fn(|context| connection.poll_message(context)).await
            {
                if let AsyncMessage::Notice(notice) = message
                    && notice.severity() == "WARNING"
                {
                    warnings.store(true, Ordering::Release);
                }
            }
        });
        let insert = client.prepare(INSERT).await?;
        Ok(Connection {
            client,
            insert,
            warned,
        })
    }
}
