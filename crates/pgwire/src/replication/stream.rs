//! The stream of WAL and the way back for status updates.
//!
//! The reader and the writer are separate halves, because feedback must go out while whoever
//! consumes the WAL is blocked: otherwise the server closes the connection after
//! `wal_sender_timeout`, and the receiver reconnects forever (R21).

use std::fmt;
use std::sync::Arc;

use dr_model::{Lsn, TimelineId};
use postgres_protocol::message::backend::{DataRowBody, Message};
use tokio::sync::Mutex;

use super::message::{self, ReplicationEvent, StandbyStatus};
use crate::connection::Connection;
use crate::error::Error;
use crate::frame::Frame;
use crate::quote::quote_identifier;
use crate::rows::RowsBuilder;
use crate::session::Session;
use crate::transport::{Reader, Writer};

impl Connection {
    /// Starts streaming WAL of `timeline` from `start` (physical replication).
    ///
    /// `start` should be the start of a segment (R20). If the timeline ends exactly at `start`, the
    /// first event is [`ReplicationEvent::End`].
    ///
    /// # Errors
    ///
    /// As [`Connection::query`], and the connection is gone: [`crate::sql_state::OBJECT_IN_USE`]
    /// while another session streams from the slot, [`crate::sql_state::UNDEFINED_OBJECT`] if there
    /// is no such slot. That the WAL was removed already ([`crate::sql_state::UNDEFINED_FILE`]), or
    /// that `start` is beyond the server's end, is found out by the first
    /// [`ReplicationReader::next`] only: the server agrees to stream before it looks.
    pub async fn start_physical_replication(
        mut self,
        slot: Option<&str>,
        start: Lsn,
        timeline: TimelineId,
    ) -> Result<ReplicationStream, Error> {
        let slot = slot
            .map(|name| format!("SLOT {} ", quote_identifier(name)))
            .unwrap_or_default();
        let command = format!("START_REPLICATION {slot}PHYSICAL {start} TIMELINE {timeline}");
        self.send_query(&command, "START_REPLICATION").await?;
        let state = match self.session.receive_frame(&mut self.reader).await? {
            Frame::CopyBoth => State::Streaming,
            // Nothing of this timeline is left to send: no copy, the result comes at once.
            Frame::Message(Message::RowDescription(body)) => {
                let mut columns = RowsBuilder::default();
                columns
                    .describe(&body)
                    .map_err(|error| self.io_error(error))?;
                State::Ending {
                    columns,
                    next_timeline: None,
                }
            }
            Frame::Message(Message::ErrorResponse(body)) => return Err(self.server_error(&body)),
            Frame::Message(_) => return Err(self.unexpected("no start of streaming")),
        };
        self.reader.expect_bulk();
        self.writer.begin_copy(matches!(state, State::Streaming));
        let writer = Arc::new(Mutex::new(self.writer));
        let reader = ReplicationReader {
            reader: self.reader,
            writer: Arc::clone(&writer),
            session: self.session,
            state,
        };
        let target = reader.session.config.target();
        Ok(ReplicationStream {
            reader,
            writer: StatusWriter { writer, target },
        })
    }
}

/// A running stream of WAL.
#[derive(Debug)]
pub struct ReplicationStream {
    reader: ReplicationReader,
    writer: StatusWriter,
}

impl ReplicationStream {
    /// Returns the next event; see [`ReplicationReader::next`].
    ///
    /// # Errors
    ///
    /// As [`ReplicationReader::next`].
    pub async fn next(&mut self) -> Result<ReplicationEvent, Error> {
        self.reader.next().await
    }

    /// Tells the server how far we are; see [`StatusWriter::send`].
    ///
    /// # Errors
    ///
    /// As [`StatusWriter::send`].
    pub async fn send_status(&self, status: &StandbyStatus) -> Result<(), Error> {
        self.writer.send(status).await
    }

    /// Separates the two directions, so that they can live in different tasks.
    #[must_use]
    pub fn split(self) -> (ReplicationReader, StatusWriter) {
        (self.reader, self.writer)
    }

    /// Gives the connection back after [`ReplicationEvent::End`].
    ///
    /// # Errors
    ///
    /// [`Error::StreamState`] before that.
    pub fn into_connection(self) -> Result<Connection, Error> {
        self.reader.into_connection(self.writer)
    }
}

/// The reading half of a stream of WAL.
pub struct ReplicationReader {
    reader: Reader,
    /// For the `CopyDone` that answers the server's.
    writer: Arc<Mutex<Writer>>,
    session: Session,
    state: State,
}

/// Where the stream is. All progress is here or in the reader's buffer, which makes `next`
/// cancellation-safe.
enum State {
    Streaming,
    /// The copy is over; the result that names the next timeline is being read.
    Ending {
        columns: RowsBuilder,
        next_timeline: Option<(TimelineId, Lsn)>,
    },
    /// The session can run commands again.
    Ended,
    /// The session is over.
    Closed,
}

impl ReplicationReader {
    /// Waits for the next event.
    ///
    /// Cancellation-safe: a dropped future loses nothing, so this can stand in a `select!` loop.
    ///
    /// # Errors
    ///
    /// [`Error::Server`], [`Error::Io`], [`Error::Closed`] or [`Error::Protocol`] end the stream;
    /// [`Error::StreamState`] after its end.
    pub async fn next(&mut self) -> Result<ReplicationEvent, Error> {
        let result = match self.state {
            State::Streaming => self.next_streaming().await,
            State::Ending { .. } => self.read_end().await,
            State::Ended | State::Closed => {
                let target = self.session.config.target();
                return Err(Error::StreamState {
                    target,
                    state: "over",
                });
            }
        };
        if result.is_err() {
            self.state = State::Closed;
        }
        result
    }

    async fn next_streaming(&mut self) -> Result<ReplicationEvent, Error> {
        match self.session.receive(&mut self.reader).await? {
            Message::CopyData(body) => message::parse(body.into_bytes()).ok_or_else(|| {
                self.session
                    .unexpected("a malformed message in the WAL stream")
            }),
            Message::CopyDone => {
                self.state = State::Ending {
                    columns: RowsBuilder::default(),
                    next_timeline: None,
                };
                self.read_end().await
            }
            // A walsender that shuts down says `COPY 0` without a `CopyDone` and exits.
            Message::CommandComplete(_) => {
                self.state = State::Closed;
                Ok(ReplicationEvent::ServerStopped)
            }
            Message::ErrorResponse(body) => Err(self.session.server_error(&body)),
            _ => Err(self
                .session
                .unexpected("a message out of place in the WAL stream")),
        }
    }

    /// Ends the copy from our side and reads which timeline comes next.
    async fn read_end(&mut self) -> Result<ReplicationEvent, Error> {
        let State::Ending {
            columns,
            next_timeline,
        } = &mut self.state
        else {
            return Err(self.session.unexpected("no end to read"));
        };
        {
            let mut writer = self.writer.lock().await;
            writer.queue_copy_done();
            writer
                .flush()
                .await
                .map_err(|error| self.session.io_error(error))?;
        }
        let session = &mut self.session;
        loop {
            match session.receive(&mut self.reader).await? {
                Message::RowDescription(body) => {
                    columns
                        .describe(&body)
                        .map_err(|error| session.io_error(error))?;
                }
                Message::DataRow(body) => {
                    *next_timeline = Some(parse_next_timeline(
                        std::mem::take(columns),
                        &body,
                        session,
                    )?);
                }
                Message::CommandComplete(_) => {}
                Message::ErrorResponse(body) => return Err(session.server_error(&body)),
                Message::ReadyForQuery(body) => {
                    session.finish(body.status());
                    let next_timeline = next_timeline.take();
                    self.state = State::Ended;
                    return Ok(ReplicationEvent::End { next_timeline });
                }
                _ => return Err(session.unexpected("a message out of place after the WAL stream")),
            }
        }
    }

    /// Gives the connection back after [`ReplicationEvent::End`]; `writer` is the half that was
    /// split off.
    ///
    /// # Errors
    ///
    /// [`Error::StreamState`] before that, or if `writer` has clones or belongs to another stream.
    pub fn into_connection(self, writer: StatusWriter) -> Result<Connection, Error> {
        let state = |state| Error::StreamState {
            target: self.session.config.target(),
            state,
        };
        match self.state {
            State::Ended => {}
            State::Streaming | State::Ending { .. } => return Err(state("still running")),
            State::Closed => return Err(state("broken")),
        }
        drop(writer);
        match Arc::try_unwrap(self.writer) {
            Ok(writer) => Ok(Connection {
                reader: self.reader,
                writer: writer.into_inner(),
                session: self.session,
            }),
            Err(_) => Err(Error::StreamState {
                target: self.session.config.target(),
                state: "still held by another status writer",
            }),
        }
    }
}

impl fmt::Debug for ReplicationReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplicationReader")
            .field("target", &self.session.config.target())
            .finish_non_exhaustive()
    }
}

/// The writing half of a stream of WAL.
#[derive(Clone)]
pub struct StatusWriter {
    writer: Arc<Mutex<Writer>>,
    target: String,
}

impl StatusWriter {
    /// Tells the server how far we are. Does nothing once the stream is over.
    ///
    /// Cancellation-safe: a status goes out whole or not at all. One that was cut off goes out with
    /// the next call; at most one waits, however long the server does not read.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]; why the server ended the session is for the reader to find out.
    pub async fn send(&self, status: &StandbyStatus) -> Result<(), Error> {
        let mut writer = self.writer.lock().await;
        self.flush(&mut writer).await?;
        // After `CopyDone` a status would be taken for a command.
        if writer.is_copying() {
            writer.queue_copy_data(&status.encode());
            self.flush(&mut writer).await?;
        }
        Ok(())
    }

    /// Ends the stream from our side; the reader then returns what was under way and
    /// [`ReplicationEvent::End`].
    ///
    /// # Errors
    ///
    /// As [`StatusWriter::send`].
    pub async fn finish(&self) -> Result<(), Error> {
        let mut writer = self.writer.lock().await;
        writer.queue_copy_done();
        self.flush(&mut writer).await
    }

    async fn flush(&self, writer: &mut Writer) -> Result<(), Error> {
        let flushed = writer.flush().await;
        flushed.map_err(|source| Error::Io {
            target: self.target.clone(),
            source,
        })
    }
}

impl fmt::Debug for StatusWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StatusWriter")
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

/// Reads the row that ends the stream of a historic timeline.
fn parse_next_timeline(
    mut columns: RowsBuilder,
    body: &DataRowBody,
    session: &Session,
) -> Result<(TimelineId, Lsn), Error> {
    columns
        .push(body)
        .map_err(|error| session.io_error(error))?;
    let rows = columns.finish("");
    let row = rows.only()?;
    Ok((row.get("next_tli")?, row.get("next_tli_startpos")?))
}
