//! What is known about a session beside its bytes: who the server is, and whether the connection
//! can be used.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use postgres_protocol::message::backend::{ErrorResponseBody, Message};

use crate::config::Config;
use crate::error::{Error, ServerMessage};
use crate::frame::Frame;
use crate::transport::Reader;
use crate::version::ServerVersion;

/// The most notices that are kept of one call; a function can raise them in a loop.
const NOTICE_LIMIT: usize = 256;

/// Whether a session is in a transaction block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionStatus {
    /// Not in a block.
    Idle,
    /// In a block.
    Open,
    /// In a block that failed: only a rollback is accepted.
    Failed,
}

#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) config: Arc<Config>,
    pub(crate) parameters: BTreeMap<String, String>,
    /// The backend's process id and the key to cancel its queries.
    pub(crate) backend: Option<(i32, i32)>,
    pub(crate) notices: Vec<ServerMessage>,
    pub(crate) transaction: TransactionStatus,
    /// The call that has begun and not ended; left behind by one that failed midway or was
    /// cancelled.
    call: Option<&'static str>,
}

impl Session {
    /// Starts a session, which is busy with its login.
    pub(crate) fn new(config: Arc<Config>) -> Self {
        Self {
            config,
            parameters: BTreeMap::new(),
            backend: None,
            notices: Vec::new(),
            transaction: TransactionStatus::Idle,
            call: Some("login"),
        }
    }

    /// Begins a call, if the one before ended properly.
    pub(crate) fn begin(&mut self, call: &'static str) -> Result<(), Error> {
        if let Some(call) = self.call {
            return Err(Error::Unusable {
                target: self.config.target(),
                call,
            });
        }
        self.call = Some(call);
        self.notices.clear();
        Ok(())
    }

    /// Ends a call: the server is ready for the next.
    pub(crate) fn finish(&mut self, status: u8) {
        self.call = None;
        self.transaction = match status {
            b'T' => TransactionStatus::Open,
            b'E' => TransactionStatus::Failed,
            _ => TransactionStatus::Idle,
        };
    }

    /// Tells whether the next call can begin.
    pub(crate) fn is_usable(&self) -> bool {
        self.call.is_none()
    }

    pub(crate) fn server_version(&self) -> Option<ServerVersion> {
        self.parameters
            .get("server_version")
            .and_then(|text| ServerVersion::parse(text))
    }

    /// Fails unless the server is of this major version or later.
    pub(crate) fn need_version(&self, needed: u32, what: &'static str) -> Result<(), Error> {
        match self.server_version() {
            Some(version) if version.major() < needed => {
                let target = self.config.target();
                Err(Error::ServerVersion {
                    target,
                    what,
                    needed,
                    found: version.to_string(),
                })
            }
            // A server that hides its version is given the chance to refuse by itself.
            _ => Ok(()),
        }
    }

    /// Receives the next frame that is not about the session itself. Cancellation-safe.
    pub(crate) async fn receive_frame(&mut self, reader: &mut Reader) -> Result<Frame, Error> {
        loop {
            let frame = reader.next().await.map_err(|error| self.io_error(error))?;
            match frame {
                None => {
                    return Err(Error::Closed {
                        target: self.config.target(),
                    });
                }
                Some(Frame::Message(Message::ParameterStatus(body))) => {
                    let name = body.name().map_err(|error| self.io_error(error))?;
                    let value = body.value().map_err(|error| self.io_error(error))?;
                    self.parameters.insert(name.to_owned(), value.to_owned());
                }
                Some(Frame::Message(Message::NoticeResponse(body))) => {
                    let notice = ServerMessage::read(body.fields());
                    let notice = notice.map_err(|error| self.io_error(error))?;
                    if self.notices.len() < NOTICE_LIMIT {
                        self.notices.push(notice);
                    }
                }
                // Nobody here listens to channels.
                Some(Frame::Message(Message::NotificationResponse(_))) => {}
                Some(frame) => return Ok(frame),
            }
        }
    }

    /// Receives the next message that is not about the session itself. Cancellation-safe.
    pub(crate) async fn receive(&mut self, reader: &mut Reader) -> Result<Message, Error> {
        match self.receive_frame(reader).await? {
            Frame::Message(message) => Ok(message),
            Frame::CopyBoth => Err(self.unexpected("WAL streaming that was not asked for")),
        }
    }

    pub(crate) fn server_error(&self, body: &ErrorResponseBody) -> Error {
        match ServerMessage::read(body.fields()) {
            Ok(message) => Error::Server(Box::new(message)),
            Err(error) => self.io_error(error),
        }
    }

    pub(crate) fn io_error(&self, source: io::Error) -> Error {
        let target = self.config.target();
        match source.kind() {
            // What `postgres-protocol` says of malformed messages.
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => Error::Protocol {
                target,
                what: source.to_string(),
            },
            _ => Error::Io { target, source },
        }
    }

    pub(crate) fn unexpected(&self, what: &str) -> Error {
        Error::Protocol {
            target: self.config.target(),
            what: what.to_owned(),
        }
    }
}
