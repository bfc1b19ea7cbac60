//! What can go wrong between a client and a PostgreSQL server.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::ErrorFields;

/// A failure to connect to, or talk with, a PostgreSQL server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No connection could be made.
    #[error("could not connect to `{target}`")]
    Connect {
        /// The server's address.
        target: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// Connecting, TLS and login took longer than `connect_timeout`.
    #[error("`{target}` did not complete the login within {} s", timeout.as_secs_f64())]
    ConnectTimeout {
        /// The server's address.
        target: String,
        /// The time that was allowed.
        timeout: Duration,
    },
    /// The server does not offer TLS, and the configuration demands it.
    #[error("`{target}` does not offer TLS, which the configuration requires")]
    TlsRefused {
        /// The server's address.
        target: String,
    },
    /// The TLS handshake failed, the server's certificate was refused, or the host is no valid TLS
    /// name.
    #[error("TLS with `{target}` failed")]
    Tls {
        /// The server's address.
        target: String,
        /// What the TLS library said.
        source: io::Error,
    },
    /// The file of trusted authorities could not be used.
    #[error("could not read trusted certificates from `{}`", path.display())]
    CaFile {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The server asks for a password and none is configured.
    #[error("`{target}` asks for the password of `{user}`, and none is configured")]
    PasswordRequired {
        /// The server's address.
        target: String,
        /// The role that logs in.
        user: String,
    },
    /// The server asks for a way to log in that this client does not support, or would not use on
    /// this connection.
    #[error("`{target}` asks `{user}` to log in by {method}, which is not supported here")]
    AuthenticationMethod {
        /// The server's address.
        target: String,
        /// The role that logs in.
        user: String,
        /// The method.
        method: String,
    },
    /// The SCRAM exchange failed on our side: the server did not prove that it knows the password.
    #[error("SCRAM login of `{user}` at `{target}` failed")]
    Scram {
        /// The server's address.
        target: String,
        /// The role that logs in.
        user: String,
        /// What was wrong.
        source: io::Error,
    },
    /// The server answered with an error.
    #[error("{0}")]
    Server(Box<ServerMessage>),
    /// Reading or writing failed.
    #[error("connection to `{target}` failed")]
    Io {
        /// The server's address.
        target: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// The server closed the connection.
    #[error("`{target}` closed the connection")]
    Closed {
        /// The server's address.
        target: String,
    },
    /// The server sent something that the protocol does not allow at this point.
    #[error("`{target}` broke the protocol: {what}")]
    Protocol {
        /// The server's address.
        target: String,
        /// What was wrong.
        what: String,
    },
    /// An earlier call failed midway or was cancelled, so the state of the connection is unknown.
    #[error("connection to `{target}` is unusable since `{call}` failed or was cancelled midway")]
    Unusable {
        /// The server's address.
        target: String,
        /// The earlier call.
        call: &'static str,
    },
    /// A stream was read after its end, or a connection was asked back from a stream that has not
    /// ended.
    #[error("the stream from `{target}` is {state}")]
    StreamState {
        /// The server's address.
        target: String,
        /// The state that does not allow the call.
        state: &'static str,
    },
    /// The server is too old for what was asked.
    #[error("`{target}` runs PostgreSQL {found}; {what} needs {needed} or later")]
    ServerVersion {
        /// The server's address.
        target: String,
        /// What was asked.
        what: &'static str,
        /// The oldest major version that can.
        needed: u32,
        /// The version that runs.
        found: String,
    },
    /// A statement text holds a NUL character, which the protocol cannot carry.
    #[error("a text for the server holds a NUL character")]
    NulInText,
    /// The result has no such column, or not the row that was asked for.
    #[error("the result has no {0}")]
    Missing(String),
    /// A column holds something else than was expected.
    #[error("column `{column}` holds {value}, which is not {expected}")]
    Value {
        /// The column's name.
        column: String,
        /// What it holds: NULL or a quoted text.
        value: String,
        /// The type that was expected.
        expected: &'static str,
    },
}

impl Error {
    /// Returns the SQLSTATE, if the server answered with an error; see [`crate::sql_state`].
    #[must_use]
    pub fn sql_state(&self) -> Option<&str> {
        self.server().map(|message| message.code.as_str())
    }

    /// Returns what the server said, if it answered with an error.
    #[must_use]
    pub fn server(&self) -> Option<&ServerMessage> {
        match self {
            Self::Server(message) => Some(message),
            _ => None,
        }
    }
}

/// An error or notice as the server sent it.
///
/// PostgreSQL manual, "Error and Notice Message Fields".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerMessage {
    /// `ERROR`, `FATAL`, `PANIC`, `WARNING`, `NOTICE`, `DEBUG`, `INFO` or `LOG`; never translated.
    pub severity: String,
    /// The SQLSTATE.
    pub code: String,
    /// The message, in the server's language.
    pub message: String,
    /// More about the problem.
    pub detail: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
    /// Where in the statement, in characters from 1.
    pub position: Option<u32>,
    /// The call stack of server-side functions.
    pub context: Option<String>,
    /// The schema concerned.
    pub schema: Option<String>,
    /// The table concerned.
    pub table: Option<String>,
    /// The column concerned.
    pub column: Option<String>,
    /// The constraint concerned.
    pub constraint: Option<String>,
}

impl ServerMessage {
    /// Tells whether the server ends the session after this message.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        matches!(self.severity.as_str(), "FATAL" | "PANIC")
    }

    pub(crate) fn read(mut fields: ErrorFields<'_>) -> io::Result<Self> {
        let mut message = Self::default();
        while let Some(field) = fields.next()? {
            // A server that fails before it knows the encoding may send anything.
            let text = String::from_utf8_lossy(field.value_bytes()).into_owned();
            match field.type_() {
                // `S` may be translated; `V`, sent since 9.6 and after it, is not.
                b'S' if message.severity.is_empty() => message.severity = text,
                b'V' => message.severity = text,
                b'C' => message.code = text,
                b'M' => message.message = text,
                b'D' => message.detail = Some(text),
                b'H' => message.hint = Some(text),
                b'P' => message.position = text.parse().ok(),
                b'W' => message.context = Some(text),
                b's' => message.schema = Some(text),
                b't' => message.table = Some(text),
                b'c' => message.column = Some(text),
                b'n' => message.constraint = Some(text),
                _ => {}
            }
        }
        Ok(message)
    }
}

impl fmt::Display for ServerMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "server said {} {}: {}",
            self.severity, self.code, self.message
        )?;
        if let Some(detail) = &self.detail {
            write!(f, " ({detail})")?;
        }
        Ok(())
    }
}
