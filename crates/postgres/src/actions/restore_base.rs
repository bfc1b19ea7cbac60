//! Rebuilding the data directory from a recovery point, as a standby that replays from the store.
//!
//! A restore never overwrites: the directory has to be missing or empty. A restore that was cut off leaves a directory
//! without the mark that this action leaves last; the action then refuses, and says what to remove.

use std::path::PathBuf;

use dr_model::RegionName;
use dr_provider::Result;
use dr_provider::driver::{Applied, Fence, Verified};
use dr_provider::host::PathKind;
use serde_json::json;

use super::Log;
use crate::driver::PostgresDriver;

/// The mark of a complete restore, in the data directory.
const MARK: &str = "dr-restored.json";

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
        let report = self.restore_standby(region, log, label, &directory).await?;
        let mark = json!({ "label": label, "execution": fence.execution });
        host.write(&directory.join(MARK), mark.to_string().as_bytes())
            .await?;
        Ok(self.applied(
            format!(
                "rebuilt {} from {label}: {} MiB in {:.1} s",
                directory.display(),
                report.written_bytes >> 20,
                report.took.as_secs_f64()
            ),
            json!(report),
        ))
    }

    pub(super) async fn is_base_restored(
        &self,
        region: &RegionName,
        label: &str,
        fence: &Fence,
    ) -> Result<Verified> {
        let host = self.host(region)?;
        let directory = &self.instance_options(region)?.data_directory;
        let mark: PathBuf = directory.join(MARK);
        if host.kind(&mark).await? != PathKind::File {
            let seen = match host.kind(directory).await? {
                PathKind::Missing | PathKind::EmptyDirectory => {
                    "nothing has been restored".to_owned()
                }
                _ => format!(
                    "`{}` holds files, and no complete restore",
                    directory.display()
                ),
            };
            return Ok(Verified::NotDone { seen });
        }
        let text = host.read(&mark, 0, 4096).await?;
        let expected = json!({ "label": label, "execution": fence.execution });
        match serde_json::from_slice::<serde_json::Value>(&text) {
            Ok(found) if found == expected => Ok(Verified::Done(
                self.applied(format!("rebuilt from {label}"), found),
            )),
            _ => Ok(Verified::NotDone {
                seen: "the directory was restored for another execution".to_owned(),
            }),
        }
    }
}
