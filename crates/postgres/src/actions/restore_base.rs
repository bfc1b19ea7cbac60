//! Rebuilding the data directory from a recovery point, as a standby that replays from the store.
//!
//! A restore never overwrites: the directory has to be missing or empty, or to hold what the same execution has begun to write there. A
//! recovery point that turns out damaged is passed over for the next older one that comes to the same end, which loses nothing more.
//!
//! Idempotent because a directory with the note of this execution is left as it is, and what it has begun is written over.

use std::path::Path;

use dr_model::RegionName;
use dr_provider::driver::{Applied, Fence, Verified};
use dr_provider::host::PathKind;
use dr_provider::{ErrorKind, Host, Result};
use serde_json::{Value, json};

use super::Log;
use crate::driver::PostgresDriver;
use crate::restore::{CONTROL_FILE, MARK};

/// What says in a data directory for which execution it was restored, and from which recovery point.
const NOTE: &str = "dr-restored.json";

impl PostgresDriver {
    pub(super) async fn restore_base(
        &self,
        region: &RegionName,
        log: Log,
        label: &str,
        fence: &Fence,
    ) -> Result<Applied> {
        let host = self.admitted(region, fence).await?;
        let directory = self.instance_options(region)?.data_directory.clone();
        // Cut off in the last moment, all of it is there.
        if let Some(found) = note(&**host, &directory, fence).await?
            && self.is_whole(&directory)?
        {
            return Ok(self.rebuilt(&found));
        }
        let execution = (NOTE, &fence.execution);
        let report = self
            .restore_standby(region, log, label, &directory, execution)
            .await?;
        let mut summary = format!(
            "rebuilt {} from {}: {} MiB in {:.1} s",
            directory.display(),
            report.plan.recovery_point.label,
            report.written_bytes >> 20,
            report.took.as_secs_f64()
        );
        if !report.plan.passed_over.is_empty() {
            summary = format!(
                "{summary}; passed over {}",
                report.plan.passed_over.join("; ")
            );
        }
        Ok(self.applied(summary, json!(report)))
    }

    pub(super) async fn is_base_restored(
        &self,
        region: &RegionName,
        fence: &Fence,
    ) -> Result<Verified> {
        let host = self.host(region)?;
        let directory = &self.instance_options(region)?.data_directory;
        if let Some(found) = note(&**host, directory, fence).await? {
            let path = |name| directory.join(name);
            let whole = host.kind(&path(CONTROL_FILE)).await? == PathKind::File
                && host.kind(&path(MARK)).await? == PathKind::Missing;
            return Ok(match whole {
                true => Verified::Done(self.rebuilt(&found)),
                false => Verified::NotDone {
                    seen: "the restore was cut off".to_owned(),
                },
            });
        }
        let seen = match host.kind(directory).await? {
            PathKind::Missing | PathKind::EmptyDirectory => "nothing has been restored".to_owned(),
            _ => format!(
                "`{}` holds files, and no complete restore for this execution",
                directory.display()
            ),
        };
        Ok(Verified::NotDone { seen })
    }

    /// Says what was rebuilt, as the note in the directory says it.
    fn rebuilt(&self, found: &Value) -> Applied {
        let label = found["label"].as_str().unwrap_or("a recovery point");
        let mut summary = format!("rebuilt from {label}");
        let passed_over = found["passed_over"].as_array().into_iter().flatten();
        let passed_over: Vec<&str> = passed_over.filter_map(Value::as_str).collect();
        if !passed_over.is_empty() {
            summary = format!("{summary}; passed over {}", passed_over.join("; "));
        }
        self.applied(summary, found.clone())
    }
}

/// Reads the note in a directory, if it is this execution's. Which recovery point was taken is for the note to say.
async fn note(host: &dyn Host, directory: &Path, fence: &Fence) -> Result<Option<Value>> {
    let text = match host.read(&directory.join(NOTE), 0, 1 << 16).await {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let found = serde_json::from_slice::<Value>(&text).unwrap_or_default();
    Ok((found["execution"] == json!(fence.execution)).then_some(found))
}
