//! Starting the rebuilt instance, as a standby that nobody leads yet.
//!
//! Idempotent because a server that answers is left alone.

use std::time::Duration;

use dr_model::RegionName;
use dr_provider::driver::{Applied, Fence, Verified};
use dr_provider::host::Command;
use dr_provider::{ErrorKind, Result};
use serde_json::json;

use super::processes;
use crate::driver::PostgresDriver;
use crate::instance::Position;
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

const OPERATION: &str = "start the restored server of";

impl PostgresDriver {
    pub(super) async fn start_restored(
        &self,
        region: &RegionName,
        fence: &Fence,
    ) -> Result<Applied> {
        self.admitted(region, fence).await?;
        let position = self.start_server(region, OPERATION).await?;
        Ok(self.applied(
            format!(
                "the restored server in {region} answers, replayed to {}",
                position.position
            ),
            json!({ "timeline": position.timeline, "position": position.position }),
        ))
    }

    /// Starts the server of a region unless it runs, and waits until it answers.
    pub(crate) async fn start_server(
        &self,
        region: &RegionName,
        operation: &str,
    ) -> Result<Position> {
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
                return Err(self.failed(operation, format!("`{}`: {said}", command.argv.join(" "))));
            }
        }
        let deadline = Deadline::new(self.clock(), CONSISTENT_LIMIT);
        let appearing = Deadline::new(self.clock(), APPEAR_LIMIT);
        let mut appeared = false;
        loop {
            match self.connect(region).await {
                Ok(mut connection) => return connection.position().await,
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
                let log = directory.join(START_LOG);
                return Err(self.failed(operation, why).with_hint(format!(
                    "its last words are in `{}` or its own log",
                    log.display()
                )));
            }
        }
    }

    pub(super) async fn is_restored_started(&self, region: &RegionName) -> Result<Verified> {
        match self.connect(region).await {
            Ok(mut connection) => {
                let position = connection.position().await?;
                Ok(Verified::Done(self.applied(
                    format!("the server in {region} answers at {}", position.position),
                    json!({ "timeline": position.timeline, "position": position.position }),
                )))
            }
            Err(error) if error.kind() == ErrorKind::Unavailable => Ok(Verified::NotDone {
                seen: "no server answers".to_owned(),
            }),
            Err(error) => Err(error),
        }
    }
}
