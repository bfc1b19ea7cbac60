//! The session that holds a backup open in the server (R1).
//!
//! `pg_backup_start` and `pg_backup_stop` belong to one session. When it ends, so does the backup, and what was read
//! until then is worth nothing: it is looked after while files are read.

use std::time::Duration;

use dr_model::{Lsn, RegionName, TimelineId};
use dr_pgwire::quote_literal;
use dr_provider::error::chain;
use dr_provider::{Error, ErrorKind, Result};
use tokio::sync::oneshot;

use crate::backup::take::{CHECKPOINT_LIMIT, OPERATION};
use crate::driver::PostgresDriver;
use crate::instance::{Instance, translate};

/// How often the session is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How long the server may take to write down the end of a backup.
const STOP_LIMIT: Duration = Duration::from_secs(5 * 60);

/// A backup held open.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) instance: Instance,
    pub(super) start: Lsn,
}

/// The end of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stopped {
    pub(super) stop: Lsn,
    /// What the restored directory needs as `backup_label`.
    pub(super) label_file: String,
    /// The timeline that it began on.
    pub(super) start_timeline: TimelineId,
}

impl Session {
    /// Begins a backup: returns once the server has made its checkpoint.
    pub(super) async fn begin(
        driver: &PostgresDriver,
        region: &RegionName,
        label: &str,
    ) -> Result<Self> {
        let mut instance = driver.connect_as(region, "dr backup").await?;
        // What the role or the database set must not end a session that is silent for long.
        let limits = "set statement_timeout = 0; set lock_timeout = 0; set idle_session_timeout = 0; \
                      set idle_in_transaction_session_timeout = 0";
        instance.query("begin a backup of", limits).await?;
        let sql = format!("select pg_backup_start({}, true)", quote_literal(label));
        let rows = instance
            .query_within("begin a backup of", &sql, CHECKPOINT_LIMIT)
            .await?;
        let start = rows.only().and_then(|row| row.get(0));
        let start = start.map_err(|error| translate(OPERATION, instance.subject(), error))?;
        Ok(Self { instance, start })
    }

    /// Looks after the session until `finished` is dropped; an error when it is lost.
    pub(super) async fn watch(&mut self, mut finished: oneshot::Receiver<()>) -> Result<()> {
        loop {
            tokio::select! {
                _dropped = &mut finished => return Ok(()),
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
            }
            self.instance
                .query("keep open the backup of", "select 1")
                .await
                .map_err(|error| self.lost(&error))?;
        }
    }

    /// Ends the backup. The log is waited for elsewhere, in the store.
    pub(super) async fn stop(mut self) -> Result<Stopped> {
        let sql = "select lsn, labelfile from pg_backup_stop(false)";
        let rows = match self
            .instance
            .query_within("end the backup of", sql, STOP_LIMIT)
            .await
        {
            Ok(rows) => rows,
            Err(error) => return Err(self.lost(&error)),
        };
        let read = || {
            let row = rows.only()?;
            Ok((row.get::<Lsn>("lsn")?, row.get::<String>("labelfile")?))
        };
        let (stop, label_file) =
            read().map_err(|error| translate(OPERATION, self.instance.subject(), error))?;
        let start_timeline = label_file
            .lines()
            .find_map(|line| line.strip_prefix("START TIMELINE: ")?.trim().parse().ok())
            .map(TimelineId)
            .ok_or_else(|| self.broken("the label that it gave names no timeline"))?;
        Ok(Stopped {
            stop,
            label_file,
            start_timeline,
        })
    }

    fn lost(&self, error: &Error) -> Error {
        Error::new(ErrorKind::Failed, OPERATION, self.instance.subject())
            .because(format!(
                "the session that held the backup open was lost: {}",
                chain(error)
            ))
            .with_hint("nothing was kept of this backup; the next run takes a new one")
    }

    fn broken(&self, what: &str) -> Error {
        Error::new(ErrorKind::Failed, OPERATION, self.instance.subject()).because(what.to_owned())
    }
}
