//! Restoring beside the data directory, and proving what was restored by starting it.
//!
//! The primary goes on meanwhile: the restored server has a socket of its own and no other way to be reached, archives nothing and
//! stays in recovery, paused where the restore ends. What is looked at is what `verify` looks at: heartbeat, tables, the checks of
//! the configuration. Then it is stopped, its files are made durable, and a note says for which execution it is.
//!
//! Idempotent because a directory with the note of this execution is left as it is, and any other is made anew.

use std::path::{Path, PathBuf};
use std::time::Duration;

use dr_model::RegionName;
use dr_provider::driver::{Applied, Fence, RestoreTarget, Verified};
use dr_provider::host::Command;
use dr_provider::{ErrorKind, Result};
use serde_json::{Value, json};

use crate::driver::PostgresDriver;

/// The note in a directory that is ready to take the place of the data directory.
pub(crate) const NOTE: &str = "dr-prepared.json";

/// How long making all files durable may take.
const SYNC_LIMIT: Duration = Duration::from_secs(3600);

const OPERATION: &str = "restore beside";

impl PostgresDriver {
    /// Returns the directory in which a restore is prepared, beside the data directory.
    pub(crate) fn beside(&self, region: &RegionName) -> Result<PathBuf> {
        let directory = &self.instance_options(region)?.data_directory;
        let name = directory.file_name().unwrap_or_default().to_string_lossy();
        Ok(directory.with_file_name(format!("{name}.restored")))
    }

    pub(super) async fn restore_beside(
        &self,
        region: &RegionName,
        target: &RestoreTarget,
        fence: &Fence,
    ) -> Result<Applied> {
        let place = self.beside(region)?;
        let prepared = self.prepare(region, target, &place).await?;
        let host = self.host(region)?;
        let data = prepared.data;
        let initdb = self.parts().binaries.join("initdb").display().to_string();
        let shown = data.display().to_string();
        let sync = Command::new([initdb.as_str(), "--sync-only", "--pgdata", &shown]);
        let synced = host.run(&sync, SYNC_LIMIT).await?;
        if synced.status != Some(0) {
            let said = String::from_utf8_lossy(&synced.stderr).trim().to_owned();
            return Err(self.failed(OPERATION, format!("`{shown}` is not durable: {said}")));
        }
        let evidence = json!({
            "execution": fence.execution, "target": target, "reached": prepared.reached,
            "heartbeat_at": prepared.heartbeat_at, "checks": prepared.checks,
            "recovery_point": prepared.label, "passed_over": prepared.passed_over,
        });
        host.write(&data.join(NOTE), evidence.to_string().as_bytes())
            .await?;
        Ok(self.prepared(region, &place, evidence))
    }

    pub(super) async fn is_restored_beside(
        &self,
        region: &RegionName,
        target: &RestoreTarget,
        fence: &Fence,
    ) -> Result<Verified> {
        let place = self.beside(region)?;
        let note = place.join("data").join(NOTE);
        let found = match self.host(region)?.read(&note, 0, 1 << 16).await {
            Ok(text) => serde_json::from_slice::<Value>(&text).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::NotFound => Value::Null,
            Err(error) => return Err(error),
        };
        if found["execution"] == json!(fence.execution) && found["target"] == json!(target) {
            return Ok(Verified::Done(self.prepared(region, &place, found)));
        }
        Ok(Verified::NotDone {
            seen: "nothing is ready for this execution".to_owned(),
        })
    }

    fn prepared(&self, region: &RegionName, beside: &Path, evidence: Value) -> Applied {
        let reached = evidence["reached"]
            .as_str()
            .unwrap_or("an unknown position");
        let checks = evidence["checks"].as_array().map_or(0, Vec::len);
        let mut summary = format!(
            "{} as it was stands in `{}` in {region}: it came up at {reached}, and {checks} looks were had at it",
            self.resource(),
            beside.display()
        );
        let passed_over = evidence["passed_over"].as_array().into_iter().flatten();
        let passed_over: Vec<&str> = passed_over.filter_map(Value::as_str).collect();
        if !passed_over.is_empty() {
            summary = format!("{summary}; passed over {}", passed_over.join("; "));
        }
        self.applied(summary, evidence)
    }
}
