//! A logged-in session and the simple query protocol.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use postgres_protocol::message::backend::{ErrorResponseBody, Message};
use postgres_protocol::message::frontend;

use crate::auth::{self, Channel};
use crate::cancel::CancelHandle;
use crate::config::Config;
use crate::error::{Error, ServerMessage};
use crate::rows::{Rows, RowsBuilder};
use crate::session::{Session, TransactionStatus};
use crate::transport::{Reader, Transport, Writer};
use crate::version::ServerVersion;

/// How long a connection that can't be written to is read for the server's last words, which are
/// there already.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);

/// A session with a PostgreSQL server.
///
/// Every call may be put under a timeout or in a `select!`. A call whose future is dropped before
/// it ends leaves the connection unusable (the answer would still arrive, and be taken for that of
/// the next call): later calls return [`Error::Unusable`]. The statement may go on in the server;
/// [`CancelHandle`] ends it.
pub struct Connection {
    pub(crate) reader: Reader,
    pub(crate) writer: Writer,
    pub(crate) session: Session,
}

impl Connection {
    /// Connects and logs in, within `connect_timeout`.
    ///
    /// # Errors
    ///
    /// Every variant up to [`Error::Protocol`]; a refused login is [`Error::Server`].
    pub async fn connect(config: &Config) -> Result<Self, Error> {
        let timeout = config.connect_timeout;
        match tokio::time::timeout(timeout, Self::connect_without_timeout(config)).await {
            Ok(connected) => connected,
            Err(_) => Err(Error::ConnectTimeout {
                target: config.target(),
                timeout,
            }),
        }
    }

    async fn connect_without_timeout(config: &Config) -> Result<Self, Error> {
        let mut transport = Transport::open(config).await?;
        let channel = Channel {
            confidential: transport.confidential,
            binding: transport.channel_binding.take(),
        };
        let (reader, writer) = transport.split();
        let session = Session::new(Arc::new(config.clone()));
        let mut connection = Self {
            reader,
            writer,
            session,
        };
        auth::log_in(&mut connection, config, channel).await?;
        Ok(connection)
    }

    /// Runs one or several statements and returns the result of the last.
    ///
    /// Several statements in one text are one transaction, unless they say otherwise.
    ///
    /// # Errors
    ///
    /// [`Error::Server`] leaves the connection usable unless it is fatal; others do not.
    pub async fn query(&mut self, sql: &str) -> Result<Rows, Error> {
        Ok(self.query_each(sql).await?.pop().unwrap_or_default())
    }

    /// Runs one or several statements and returns a result for each.
    ///
    /// # Errors
    ///
    /// As [`Connection::query`].
    pub async fn query_each(&mut self, sql: &str) -> Result<Vec<Rows>, Error> {
        self.send_query(sql, "query").await?;
        self.collect().await
    }

    /// Runs one or several statements and returns how many rows the last one returned or changed.
    ///
    /// # Errors
    ///
    /// As [`Connection::query`].
    pub async fn execute(&mut self, sql: &str) -> Result<u64, Error> {
        Ok(self.query(sql).await?.affected())
    }

    /// Returns what the server said beside the result of the last call, at most the first 256.
    ///
    /// A `COMMIT` that was cancelled while it waited for a synchronous standby succeeds with a
    /// warning that stands here.
    #[must_use]
    pub fn notices(&self) -> &[ServerMessage] {
        &self.session.notices
    }

    /// Returns a parameter that the server reports by itself, such as `server_version` or
    /// `in_hot_standby`.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.session.parameters.get(name).map(String::as_str)
    }

    /// Returns the server's version, if it reports one.
    #[must_use]
    pub fn server_version(&self) -> Option<ServerVersion> {
        self.session.server_version()
    }

    /// Returns the process id of the backend, as in `pg_stat_activity`.
    #[must_use]
    pub fn backend_pid(&self) -> Option<i32> {
        self.session.backend.map(|(process_id, _)| process_id)
    }

    /// Returns whether the session is in a transaction block.
    #[must_use]
    pub fn transaction_status(&self) -> TransactionStatus {
        self.session.transaction
    }

    /// Tells whether the next call can begin: none has failed midway or was cancelled.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.session.is_usable()
    }

    /// Returns a handle that cancels what this session is doing, from another task.
    #[must_use]
    pub fn cancel_handle(&self) -> CancelHandle {
        CancelHandle::new(Arc::clone(&self.session.config), self.session.backend)
    }

    /// Says goodbye and closes the connection. Dropping it closes it as well, without the goodbye.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], after which the connection is closed all the same.
    pub async fn close(mut self) -> Result<(), Error> {
        frontend::terminate(self.writer.queue());
        self.flush().await?;
        self.writer
            .shutdown()
            .await
            .map_err(|error| self.io_error(error))
    }

    /// Begins a call and sends its statement.
    pub(crate) async fn send_query(&mut self, sql: &str, call: &'static str) -> Result<(), Error> {
        // Before anything is queued: a text that cannot be sent must not break the connection.
        if sql.contains('\0') {
            return Err(Error::NulInText);
        }
        self.session.begin(call)?;
        let queue = self.writer.queue();
        frontend::query(sql, queue).map_err(|error| self.io_error(error))?;
        self.flush().await
    }

    /// Reads results until the server is ready again.
    pub(crate) async fn collect(&mut self) -> Result<Vec<Rows>, Error> {
        let mut finished = Vec::new();
        let mut open = RowsBuilder::default();
        let mut failure = None;
        loop {
            let message = match self.receive().await {
                Ok(message) => message,
                // After a fatal error the server closes the connection; the error says more than
                // that.
                Err(error) => return Err(failure.unwrap_or(error)),
            };
            match message {
                Message::RowDescription(body) => {
                    open.describe(&body).map_err(|error| self.io_error(error))?;
                }
                Message::DataRow(body) => {
                    open.push(&body).map_err(|error| self.io_error(error))?;
                }
                Message::CommandComplete(body) => {
                    let tag = body.tag().map_err(|error| self.io_error(error))?;
                    finished.push(std::mem::take(&mut open).finish(tag));
                }
                Message::EmptyQueryResponse => {}
                Message::ErrorResponse(body) => {
                    failure.get_or_insert(self.server_error(&body));
                }
                Message::CopyInResponse(_) => {
                    failure = Some(self.unexpected("a copy from the client in a plain query"));
                    frontend::copy_fail("not supported", self.writer.queue())
                        .map_err(|error| self.io_error(error))?;
                    self.flush().await?;
                }
                Message::CopyOutResponse(_) => {
                    failure = Some(self.unexpected("a copy to the client in a plain query"));
                }
                Message::CopyData(_) | Message::CopyDone => {}
                Message::ReadyForQuery(body) => {
                    self.session.finish(body.status());
                    return match failure {
                        Some(error) => Err(error),
                        None => Ok(finished),
                    };
                }
                _ => return Err(self.unexpected("a message out of place in a query")),
            }
        }
    }

    pub(crate) async fn flush(&mut self) -> Result<(), Error> {
        match self.writer.flush().await {
            Ok(()) => Ok(()),
            Err(error) => match tokio::time::timeout(FAREWELL_TIMEOUT, self.farewell()).await {
                Ok(Some(farewell)) => Err(farewell),
                Ok(None) | Err(_) => Err(self.io_error(error)),
            },
        }
    }

    /// Returns why the server ended the session, if it said so before it closed the connection that
    /// we now fail to write to.
    async fn farewell(&mut self) -> Option<Error> {
        loop {
            match self.receive().await {
                Ok(Message::ErrorResponse(body)) => return Some(self.server_error(&body)),
                Ok(_) => {}
                Err(_) => return None,
            }
        }
    }

    pub(crate) async fn receive(&mut self) -> Result<Message, Error> {
        self.session.receive(&mut self.reader).await
    }

    pub(crate) fn server_error(&self, body: &ErrorResponseBody) -> Error {
        self.session.server_error(body)
    }

    pub(crate) fn io_error(&self, source: std::io::Error) -> Error {
        self.session.io_error(source)
    }

    pub(crate) fn unexpected(&self, what: &str) -> Error {
        self.session.unexpected(what)
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("target", &self.session.config.target())
            .field("backend_pid", &self.backend_pid())
            .field("usable", &self.is_usable())
            .finish_non_exhaustive()
    }
}
