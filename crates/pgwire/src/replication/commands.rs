//! The walsender's commands that return a plain result.

use bytes::Bytes;
use dr_model::{Lsn, SystemIdentifier, TimelineId};

use crate::connection::Connection;
use crate::error::Error;
use crate::quote::quote_identifier;
use crate::rows::Row;

/// Which cluster a server belongs to, and how far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemInfo {
    /// The cluster's identity, shared by its standbys.
    pub system_identifier: SystemIdentifier,
    /// The timeline that the server is on.
    pub timeline: TimelineId,
    /// How far WAL is flushed on a primary, received and flushed or replayed on a standby.
    pub flush_lsn: Lsn,
    /// The database of the session; none for physical replication.
    pub database: Option<String>,
}

/// A replication slot that was just made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedSlot {
    /// The slot's name.
    pub name: String,
    /// What the server gives as consistent point; `0/0` for a physical slot.
    pub consistent_point: Lsn,
}

/// What a physical replication slot holds back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotState {
    /// The oldest WAL that the slot keeps; none before it was ever used without `reserve_wal`, or
    /// when the slot was invalidated.
    pub restart_lsn: Option<Lsn>,
    /// The timeline of `restart_lsn`.
    pub restart_timeline: Option<TimelineId>,
}

/// A timeline's history file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimelineHistory {
    /// The file's name, such as `00000002.history`.
    pub file_name: String,
    /// The file's content.
    pub content: Bytes,
}

/// The replication commands. All fail with [`Error::Server`] on a connection without `replication:
/// true`.
impl Connection {
    /// Asks the server which cluster it belongs to and how far it is (R10).
    ///
    /// # Errors
    ///
    /// As [`Connection::query`].
    pub async fn identify_system(&mut self) -> Result<SystemInfo, Error> {
        let rows = self.query("IDENTIFY_SYSTEM").await?;
        let row = rows.only()?;
        Ok(SystemInfo {
            system_identifier: row.get("systemid")?,
            timeline: row.get("timeline")?,
            flush_lsn: row.get("xlogpos")?,
            database: row.get("dbname")?,
        })
    }

    /// Returns a setting of the server as it prints it, such as `16MB` for `wal_segment_size`.
    ///
    /// Works on plain and on replication connections.
    ///
    /// # Errors
    ///
    /// As [`Connection::query`]; [`crate::sql_state::UNDEFINED_OBJECT`] without such a setting.
    pub async fn show(&mut self, name: &str) -> Result<String, Error> {
        // The replication grammar wants each part of a setting's name by itself.
        let name: Vec<String> = name.split('.').map(quote_identifier).collect();
        let rows = self.query(&format!("SHOW {}", name.join("."))).await?;
        rows.only()?.get(0)
    }

    /// Makes a permanent physical replication slot.
    ///
    /// With `reserve_wal` the slot keeps WAL from now on, not only from its first use (R19).
    ///
    /// # Errors
    ///
    /// As [`Connection::query`]; [`crate::sql_state::DUPLICATE_OBJECT`] if a slot of this name
    /// exists.
    pub async fn create_physical_slot(
        &mut self,
        name: &str,
        reserve_wal: bool,
    ) -> Result<CreatedSlot, Error> {
        let name = quote_identifier(name);
        // 15 brought a new form and still reads the old one, which all versions know.
        let reserve = if reserve_wal { " RESERVE_WAL" } else { "" };
        let command = format!("CREATE_REPLICATION_SLOT {name} PHYSICAL{reserve}");
        let rows = self.query(&command).await?;
        let row = rows.only()?;
        Ok(CreatedSlot {
            name: row.get("slot_name")?,
            consistent_point: row.get("consistent_point")?,
        })
    }

    /// Reads what a physical replication slot holds back, or `None` if there is no such slot
    /// (PostgreSQL 15).
    ///
    /// # Errors
    ///
    /// As [`Connection::query`]; [`Error::ServerVersion`] on an older server.
    pub async fn read_slot(&mut self, name: &str) -> Result<Option<SlotState>, Error> {
        self.session.need_version(15, "READ_REPLICATION_SLOT")?;
        let command = format!("READ_REPLICATION_SLOT {}", quote_identifier(name));
        let rows = self.query(&command).await?;
        let row = rows.only()?;
        if row.get::<Option<String>>("slot_type")?.is_none() {
            return Ok(None);
        }
        Ok(Some(SlotState {
            restart_lsn: row.get("restart_lsn")?,
            restart_timeline: row.get("restart_tli")?,
        }))
    }

    /// Drops a replication slot.
    ///
    /// # Errors
    ///
    /// As [`Connection::query`]; [`crate::sql_state::UNDEFINED_OBJECT`] if there is none,
    /// [`crate::sql_state::OBJECT_IN_USE`] while another session streams from it.
    pub async fn drop_slot(&mut self, name: &str) -> Result<(), Error> {
        self.query(&format!("DROP_REPLICATION_SLOT {}", quote_identifier(name)))
            .await?;
        Ok(())
    }

    /// Fetches the history file of a timeline; the first timeline has none.
    ///
    /// # Errors
    ///
    /// As [`Connection::query`]; [`crate::sql_state::UNDEFINED_FILE`] if the server does not have
    /// it.
    pub async fn timeline_history(
        &mut self,
        timeline: TimelineId,
    ) -> Result<TimelineHistory, Error> {
        let rows = self.query(&format!("TIMELINE_HISTORY {timeline}")).await?;
        let row: &Row = rows.only()?;
        Ok(TimelineHistory {
            file_name: row.get("filename")?,
            content: row.bytes("content")?.unwrap_or_default(),
        })
    }
}
