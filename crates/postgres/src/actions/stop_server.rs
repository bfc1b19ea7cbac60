//! Stopping a server in an orderly way where something may start it again the moment that it has ended, as an init system or the runtime of
//! its container does.

use std::time::Duration;

use dr_model::RegionName;
use dr_provider::{Host, Result};

use super::processes;
use crate::data_directory::Postmaster;
use crate::driver::PostgresDriver;
use crate::wait::Deadline;

/// How long `pg_ctl` waits at a time: it would wait for a server that was started meanwhile as for the one that it told to stop.
const TURN: Duration = Duration::from_secs(2);

/// How long a turn may take with all that is around it.
const TURN_LIMIT: Duration = Duration::from_secs(10);

/// What came of stopping a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// No process of it is left.
    Ended,
    /// Another one runs in its place. PostgreSQL starts none in a directory while a process of the one before is left, so that this one has
    /// ended as well.
    Replaced,
    /// It still runs.
    Runs {
        processes: Vec<String>,
        /// What `pg_ctl` said last.
        said: String,
    },
}

/// How a server is told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// In good order: whoever streams from it is given all of its log first.
    Fast,
    /// At once: what it has not written yet it replays at its next start.
    Immediate,
}

impl Stop {
    /// Tells whether the server that was there has ended.
    pub(super) fn is_over(&self) -> bool {
        matches!(self, Self::Ended | Self::Replaced)
    }
}

impl PostgresDriver {
    /// Stops the server by `pg_ctl`.
    pub(super) async fn stop_server(
        &self,
        region: &RegionName,
        host: &dyn Host,
        mode: Mode,
        limit: Duration,
    ) -> Result<Stop> {
        let directory = &self.instance_options(region)?.data_directory;
        let timeout = format!("--timeout={}", TURN.as_secs());
        let mode = match mode {
            Mode::Fast => "--mode=fast",
            Mode::Immediate => "--mode=immediate",
        };
        let command = self.pg_ctl(directory, &["stop", mode, "--wait", &timeout]);
        let deadline = Deadline::new(self.clock(), limit);
        let first = Postmaster::number(host, directory).await?;
        let mut said = String::new();
        loop {
            let processes = processes(host, directory).await?;
            if processes.is_empty() {
                return Ok(Stop::Ended);
            }
            let now = Postmaster::number(host, directory).await?;
            if first.is_some() && now.is_some() && now != first {
                return Ok(Stop::Replaced);
            }
            if !deadline.pause().await {
                return Ok(Stop::Runs { processes, said });
            }
            let stopped = host.run(&command, TURN_LIMIT).await?;
            if stopped.status != Some(0) {
                said = String::from_utf8_lossy(&stopped.stderr).trim().to_owned();
            }
        }
    }
}
