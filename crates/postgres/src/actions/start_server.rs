//! Starting a server: the one action of all that bring a server up.
//!
//! What is left of a server that was killed, processes or the shared memory that they hold, keeps another from starting in its
//! directory. It is waited for, and what did not start because of it is started again. A server that ends for a reason of its own is
//! not: its last words are said, and where its log is.

use std::path::{Path, PathBuf};
use std::time::Duration;

use dr_model::RegionName;
use dr_provider::host::{Command, PathKind};
use dr_provider::{Error, ErrorKind, Host, Result};

use super::processes;
use crate::data_directory::Postmaster;
use crate::driver::PostgresDriver;
use crate::instance::Position;
use crate::orphans::Running;
use crate::wait::Deadline;

/// How long the start command itself may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// How long the server may go without becoming consistent. Until then it replays what was written while the base backup
/// ran, and answers no connection; the runbook's own timeout is usually shorter.
const CONSISTENT_LIMIT: Duration = Duration::from_secs(3600);

/// How long the server may take to appear as a process after its start command has returned.
const APPEAR_LIMIT: Duration = Duration::from_secs(10);

/// Where a server started by `pg_ctl` writes until it has read its configuration, in the data directory.
const START_LOG: &str = "dr-start.log";

/// How long what is left of a server that was killed may keep another from starting.
const LEFTOVERS_LIMIT: Duration = Duration::from_secs(60);

/// The pause before it is started again.
const AGAIN: Duration = Duration::from_millis(500);

/// The file in which a server says where it logs, in its data directory.
const CURRENT_LOGS: &str = "current_logfiles";

/// Bytes of that file that are read.
const SMALL: u64 = 4096;

/// How long reading the end of a log may take.
const TAIL_LIMIT: Duration = Duration::from_millis(1500);

/// What came of one start.
enum Start {
    /// The server answers.
    Answers(Position),
    /// It does not run: it has ended again, or never began.
    Ended(Error),
}

impl PostgresDriver {
    /// Starts the server of a region unless it runs, and waits until it answers.
    pub(crate) async fn start_server(
        &self,
        region: &RegionName,
        operation: &str,
    ) -> Result<Position> {
        let host = self.host(region)?;
        let directory = &self.instance_options(region)?.data_directory;
        let leftovers = Deadline::new(self.clock(), LEFTOVERS_LIMIT);
        loop {
            let running = self.running_without_orphans(&**host, directory, LEFTOVERS_LIMIT);
            if let Running::Orphans(left) = running.await? {
                let why = format!(
                    "processes {} are left in `{}` of a server whose first process has ended",
                    left.join(", "),
                    directory.display()
                );
                return Err(self
                    .failed(operation, why)
                    .with_hint("end them with `kill`, and go on"));
            }
            let before = Postmaster::number(&**host, directory).await?;
            let error = match self.start_once(region, operation).await? {
                Start::Answers(position) => return Ok(position),
                Start::Ended(error) => error,
            };
            // A server that got beyond what another one left has put its own number there.
            let after = Postmaster::number(&**host, directory).await?;
            if before.is_none() || after != before || !leftovers.pause_for(AGAIN).await {
                return Err(error);
            }
            tracing::warn!(error = dr_provider::error::chain(&error), "started again");
        }
    }

    /// Starts the server of a region unless it runs, and waits until it answers or has ended.
    async fn start_once(&self, region: &RegionName, operation: &str) -> Result<Start> {
        let instance = self.instance_options(region)?;
        let host = self.host(region)?;
        let directory = &instance.data_directory;
        if processes(&**host, directory).await?.is_empty() {
            let mut command = match &instance.start {
                Some(argv) => Command::new(argv.iter().cloned()),
                None => Command::new([
                    self.parts().binaries.join("pg_ctl").display().to_string(),
                    "start".to_owned(),
                    "--pgdata".to_owned(),
                    directory.display().to_string(),
                    "--log".to_owned(),
                    directory.join(START_LOG).display().to_string(),
                    "--no-wait".to_owned(),
                ]),
            };
            let variables = self.parts().environment.iter();
            let exposed = variables.map(|(name, value)| (name.clone(), value.expose().to_owned()));
            command.environment.extend(exposed);
            let output = host.run(&command, COMMAND_LIMIT).await?;
            if output.status != Some(0) {
                let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                let why = format!("`{}`: {said}", command.argv.join(" "));
                return Ok(Start::Ended(self.failed(operation, why)));
            }
        }
        let deadline = Deadline::new(self.clock(), CONSISTENT_LIMIT);
        let appearing = Deadline::new(self.clock(), APPEAR_LIMIT);
        let mut appeared = false;
        loop {
            match self.connect(region).await {
                Ok(mut connection) => return Ok(Start::Answers(connection.position().await?)),
                Err(error) if error.kind() != ErrorKind::Unavailable => return Err(error),
                Err(_) => {}
            }
            // The start command may return before the server has entered its directory.
            if !processes(&**host, directory).await?.is_empty() {
                appeared = true;
                if !deadline.pause().await {
                    return Err(self.failed(operation, "it did not become consistent"));
                }
            } else if appeared || !appearing.pause().await {
                let why = if appeared {
                    "it ended again"
                } else {
                    "no process of it appeared"
                };
                return Ok(Start::Ended(self.why_ended(region, operation, why).await?));
            }
        }
    }

    /// Says why a server did not come up, with its last words, and where its log is.
    async fn why_ended(&self, region: &RegionName, operation: &str, why: &str) -> Result<Error> {
        let instance = self.instance_options(region)?;
        let host = self.host(region)?;
        let directory = &instance.data_directory;
        let logs = logs(&**host, directory, instance.start.is_none()).await?;
        let mut words = None;
        for log in &logs {
            words = last_words(&**host, log).await?.or(words);
        }
        let why = match words {
            Some(words) => format!("{why}: {words}"),
            None => why.to_owned(),
        };
        let shown: Vec<_> = logs
            .iter()
            .map(|log| format!("`{}`", log.display()))
            .collect();
        let hint = match (shown.as_slice(), &instance.start) {
            ([], Some(start)) => format!(
                "its data directory names no log: see where `{}` lets it write",
                start.join(" ")
            ),
            ([], None) => format!("no log of it is in `{}`", directory.display()),
            _ => format!("its log is in {}", shown.join(" and ")),
        };
        Ok(self.failed(operation, why).with_hint(hint))
    }
}

/// Returns the logs of a server that are there, oldest first: where the start writes if it is `ours`, and where the server says that it
/// does.
async fn logs(host: &dyn Host, directory: &Path, ours: bool) -> Result<Vec<PathBuf>> {
    let mut known: Vec<PathBuf> = ours
        .then(|| directory.join(START_LOG))
        .into_iter()
        .collect();
    match host.read(&directory.join(CURRENT_LOGS), 0, SMALL).await {
        // A line for each format, `stderr log/postgresql.log`; the place counts from the data directory unless it is absolute.
        Ok(content) => {
            let text = String::from_utf8_lossy(&content);
            let places = text.lines().filter_map(|line| line.split_once(' '));
            known.extend(places.map(|(_, place)| directory.join(place)));
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut found = Vec::new();
    for log in known {
        if host.kind(&log).await? == PathKind::File {
            found.push(log);
        }
    }
    Ok(found)
}

/// Returns the last line of a log that says why a server ended.
async fn last_words(host: &dyn Host, log: &Path) -> Result<Option<String>> {
    let shown = log.display().to_string();
    let tail = Command::new(["tail", "--lines=40", "--", &shown]);
    let output = host.run(&tail, TAIL_LIMIT).await?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines().rev();
    let grave = lines.find(|line| line.contains("FATAL:") || line.contains("PANIC:"));
    Ok(grave.map(|line| line.trim().to_owned()))
}
