//! `BASE_BACKUP`: a copy of a running cluster as a stream of tar archives.
//!
//! Source: PostgreSQL manual, "Streaming Replication Protocol", as of PostgreSQL 15: one copy
//! stream that carries all archives and the manifest, each message marked with its kind. Older
//! servers have another protocol and are refused.

use bytes::{Buf, Bytes};
use dr_model::{Lsn, TimelineId};
use postgres_protocol::message::backend::{DataRowBody, Message};

use crate::connection::Connection;
use crate::error::Error;
use crate::frame::take_text;
use crate::quote::quote_replication_literal;
use crate::rows::{Rows, RowsBuilder};
use crate::sql_state;

/// How a base backup is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseBackupOptions {
    /// The label that stands in `backup_label`.
    pub label: String,
    /// How the checkpoint that begins the backup is made.
    pub checkpoint: Checkpoint,
    /// Includes the WAL from start to stop, so that the backup can start by itself.
    pub wal: bool,
    /// Waits at the end until the server's `archive_command` has taken the WAL up to the stop
    /// position.
    pub wait_for_archive: bool,
    /// Lets the server check page checksums while it reads. A mismatch is a warning, and at the end
    /// the backup is said to be damaged.
    pub verify_checksums: bool,
    /// Asks for a `backup_manifest`.
    pub manifest: bool,
    /// Asks for the size of each tablespace at the start, which costs a walk through the data
    /// directory.
    pub sizes: bool,
    /// The highest rate in KiB per second (32 to 1048576), to spare the server.
    pub max_rate_kibibytes: Option<u32>,
}

impl BaseBackupOptions {
    /// A fast checkpoint, checksums verified, with a manifest and without WAL.
    #[must_use]
    pub fn new(label: impl Into<String>) -> Self {
        Self {
            label: label.into(),
            checkpoint: Checkpoint::Fast,
            wal: false,
            wait_for_archive: false,
            verify_checksums: true,
            manifest: true,
            sizes: false,
            max_rate_kibibytes: None,
        }
    }

    fn command(&self) -> String {
        let checkpoint = match self.checkpoint {
            Checkpoint::Fast => "fast",
            Checkpoint::Spread => "spread",
        };
        let mut command = format!(
            "BASE_BACKUP (LABEL {}, CHECKPOINT '{checkpoint}', WAL {}, WAIT {}, \
             VERIFY_CHECKSUMS {}, MANIFEST '{}', PROGRESS {}, TABLESPACE_MAP true",
            quote_replication_literal(&self.label),
            self.wal,
            self.wait_for_archive,
            self.verify_checksums,
            if self.manifest { "yes" } else { "no" },
            self.sizes,
        );
        if let Some(rate) = self.max_rate_kibibytes {
            command.push_str(&format!(", MAX_RATE {rate}"));
        }
        command.push(')');
        command
    }
}

/// How the checkpoint at the start of a backup is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checkpoint {
    /// At once, with full disk load.
    Fast,
    /// Over the server's `checkpoint_completion_target`.
    Spread,
}

/// A position in the cluster's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackupPosition {
    /// The WAL position.
    pub lsn: Lsn,
    /// The timeline that it is on.
    pub timeline: TimelineId,
}

/// A directory that a backup consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tablespace {
    /// The tablespace's id and where it is linked to; none for the data directory.
    pub link: Option<(u32, String)>,
    /// Its estimated size in KiB, if sizes were asked for.
    pub size_kibibytes: Option<u64>,
}

/// What a base backup brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BaseBackupEvent {
    /// A new tar archive begins; the one before is complete.
    ArchiveStart {
        /// The file name that the server suggests: `base.tar`, or a tablespace's id with `.tar`.
        name: String,
        /// The tablespace's directory; none for the data directory.
        location: Option<String>,
    },
    /// The manifest begins; the last archive is complete.
    ManifestStart,
    /// The next bytes of the archive or manifest.
    Data(Bytes),
    /// How many bytes the server has read in all; also sent when nothing else is, as a sign of
    /// life.
    Progress(u64),
    /// The backup is complete, and the connection can be taken back. It can be restored with the
    /// WAL up to here.
    End {
        /// Where the backup ends.
        position: BackupPosition,
        /// Whether pages did not match their checksums; [`BaseBackupStream::notices`] name them.
        damaged: bool,
    },
}

impl Connection {
    /// Starts a base backup; returns when the checkpoint is made.
    ///
    /// # Errors
    ///
    /// As [`Connection::query`], and the connection is gone; [`Error::ServerVersion`] before
    /// PostgreSQL 15.
    pub async fn base_backup(
        mut self,
        options: &BaseBackupOptions,
    ) -> Result<BaseBackupStream, Error> {
        self.session.need_version(15, "BASE_BACKUP in one stream")?;
        self.send_query(&options.command(), "BASE_BACKUP").await?;
        let start = position(&self.read_result().await?)?;
        let rows = self.read_result().await?;
        let tablespaces: Result<Vec<_>, Error> = rows
            .iter()
            .map(|row| {
                let location: Option<String> = row.get("spclocation")?;
                let link = match location {
                    Some(location) => Some((row.get("spcoid")?, location)),
                    None => None,
                };
                Ok(Tablespace {
                    link,
                    size_kibibytes: row.get("size")?,
                })
            })
            .collect();
        match self.receive().await? {
            Message::CopyOutResponse(_) => {}
            Message::ErrorResponse(body) => return Err(self.server_error(&body)),
            _ => return Err(self.unexpected("no backup data")),
        }
        self.reader.expect_bulk();
        let state = State::Copying;
        Ok(BaseBackupStream {
            connection: self,
            start,
            tablespaces: tablespaces?,
            state,
        })
    }

    /// Reads one of the results before the data.
    async fn read_result(&mut self) -> Result<Rows, Error> {
        let mut rows = RowsBuilder::default();
        loop {
            match self.receive().await? {
                Message::RowDescription(body) => {
                    rows.describe(&body).map_err(|error| self.io_error(error))?;
                }
                Message::DataRow(body) => {
                    rows.push(&body).map_err(|error| self.io_error(error))?;
                }
                Message::CommandComplete(_) => return Ok(rows.finish("")),
                Message::ErrorResponse(body) => return Err(self.server_error(&body)),
                _ => return Err(self.unexpected("a message out of place before a backup")),
            }
        }
    }
}

/// A running base backup. Dropping it ends the backup in the server.
#[derive(Debug)]
pub struct BaseBackupStream {
    connection: Connection,
    start: BackupPosition,
    tablespaces: Vec<Tablespace>,
    state: State,
}

/// Where the stream is. All progress is here or in the reader's buffer, which makes `next`
/// cancellation-safe.
#[derive(Debug)]
enum State {
    Copying,
    /// The data is complete; the result with the stop position is being read.
    Ending {
        rows: RowsBuilder,
        stop: Option<BackupPosition>,
        damaged: bool,
    },
    Ended,
    Broken,
}

impl BaseBackupStream {
    /// Returns where the backup starts: WAL from here on is needed to restore it.
    #[must_use]
    pub fn start(&self) -> BackupPosition {
        self.start
    }

    /// Returns the directories that the backup consists of.
    #[must_use]
    pub fn tablespaces(&self) -> &[Tablespace] {
        &self.tablespaces
    }

    /// Waits for the next event. Cancellation-safe: a dropped future loses nothing.
    ///
    /// # Errors
    ///
    /// Any error ends the backup, which is then incomplete; [`Error::StreamState`] after its end.
    pub async fn next(&mut self) -> Result<BaseBackupEvent, Error> {
        let result = match self.state {
            State::Copying => self.next_copying().await,
            State::Ending { .. } => self.read_end().await,
            State::Ended | State::Broken => {
                let target = self.connection.session.config.target();
                return Err(Error::StreamState {
                    target,
                    state: "over",
                });
            }
        };
        if result.is_err() {
            self.state = State::Broken;
        }
        result
    }

    /// Gives the connection back after [`BaseBackupEvent::End`].
    ///
    /// # Errors
    ///
    /// [`Error::StreamState`] before that.
    pub fn into_connection(self) -> Result<Connection, Error> {
        let target = self.connection.session.config.target();
        match self.state {
            State::Ended => Ok(self.connection),
            State::Copying | State::Ending { .. } => Err(Error::StreamState {
                target,
                state: "still running",
            }),
            State::Broken => Err(Error::StreamState {
                target,
                state: "broken",
            }),
        }
    }

    /// Returns what the server said beside the data, such as warnings about checksums.
    #[must_use]
    pub fn notices(&self) -> &[crate::ServerMessage] {
        self.connection.notices()
    }

    async fn next_copying(&mut self) -> Result<BaseBackupEvent, Error> {
        match self.connection.receive().await? {
            Message::CopyData(body) => parse(body.into_bytes()).ok_or_else(|| {
                self.connection
                    .unexpected("a malformed message in a backup")
            }),
            Message::CopyDone => {
                self.state = State::Ending {
                    rows: RowsBuilder::default(),
                    stop: None,
                    damaged: false,
                };
                self.read_end().await
            }
            Message::ErrorResponse(body) => Err(self.connection.server_error(&body)),
            _ => Err(self
                .connection
                .unexpected("a message out of place in a backup")),
        }
    }

    async fn read_end(&mut self) -> Result<BaseBackupEvent, Error> {
        let connection = &mut self.connection;
        let State::Ending {
            rows,
            stop,
            damaged,
        } = &mut self.state
        else {
            return Err(connection.unexpected("no end to read"));
        };
        loop {
            match connection.receive().await? {
                Message::RowDescription(body) => {
                    rows.describe(&body)
                        .map_err(|error| connection.io_error(error))?;
                }
                Message::DataRow(body) => {
                    *stop = Some(read_stop(rows, &body, connection)?);
                }
                Message::CommandComplete(_) => {}
                Message::ErrorResponse(body) => {
                    let error = connection.server_error(&body);
                    // Damaged pages are an error for the server only after everything was sent and
                    // the backup has ended.
                    if stop.is_none() || error.sql_state() != Some(sql_state::DATA_CORRUPTED) {
                        return Err(error);
                    }
                    *damaged = true;
                }
                Message::ReadyForQuery(body) => {
                    connection.session.finish(body.status());
                    let (stop, damaged) = (stop.take(), *damaged);
                    let position = stop.ok_or_else(|| connection.unexpected("no stop position"))?;
                    self.state = State::Ended;
                    return Ok(BaseBackupEvent::End { position, damaged });
                }
                _ => return Err(connection.unexpected("a message out of place after a backup")),
            }
        }
    }
}

fn read_stop(
    rows: &mut RowsBuilder,
    body: &DataRowBody,
    connection: &Connection,
) -> Result<BackupPosition, Error> {
    rows.push(body)
        .map_err(|error| connection.io_error(error))?;
    position(&std::mem::take(rows).finish(""))
}

fn position(rows: &Rows) -> Result<BackupPosition, Error> {
    let row = rows.only()?;
    Ok(BackupPosition {
        lsn: row.get("recptr")?,
        timeline: row.get("tli")?,
    })
}

/// Reads the body of a `CopyData` message; `None` if it is malformed.
fn parse(mut body: Bytes) -> Option<BaseBackupEvent> {
    match body.try_get_u8().ok()? {
        b'd' => Some(BaseBackupEvent::Data(body)),
        b'n' => {
            let name = take_text(&mut body)?;
            let location = Some(take_text(&mut body)?).filter(|location| !location.is_empty());
            Some(BaseBackupEvent::ArchiveStart { name, location })
        }
        b'm' => Some(BaseBackupEvent::ManifestStart),
        b'p' => Some(BaseBackupEvent::Progress(body.try_get_u64().ok()?)),
        _ => None,
    }
}
