//! Base backups: taking, listing and copying them.
//!
//! The files are read here, where this is the server's machine, or sent by the server's own `BASE_BACKUP`, and go into the
//! repository of the primary's region. Its manifest is written only once the same store holds the log that makes it consistent, so that what is
//! listed can be restored (R2).

mod base;
mod configuration;
mod copy;
mod covered;
mod damage;
mod local;
mod receive;
mod remote;
mod server;
mod summary;
mod take;
mod tar;

use std::sync::Arc;

use async_trait::async_trait;
use dr_model::{RegionName, Retention};
use dr_provider::driver::{Backup, BackupReport, CopyReport, RecoveryPoints};
use dr_provider::error::chain;
use dr_provider::{ObjectStore, Result};

use crate::driver::PostgresDriver;

pub(crate) use base::{Base, Bases, Source, TABLESPACES};

#[async_trait]
impl Backup for PostgresDriver {
    async fn take(&self, region: &RegionName) -> Result<BackupReport> {
        self.take_backup(region).await
    }

    async fn list(&self, store: &Arc<dyn ObjectStore>) -> Result<RecoveryPoints> {
        let clusters = match self.known_cluster().await {
            Some(cluster) => vec![cluster],
            None => self.clusters_in(store).await?,
        };
        let mut points = RecoveryPoints::default();
        for cluster in clusters {
            let Bases {
                usable,
                unusable,
                given_up,
                ..
            } = self.bases(store, cluster).await?;
            let repository = self.repository(store, cluster)?;
            for label in given_up {
                // One that cannot be read is going to be deleted all the same.
                if let Ok(header) = repository.header(&label).await
                    && let Ok(base) = Base::of(header, cluster)
                {
                    points.given_up.push(base.recovery_point());
                }
            }
            points
                .complete
                .extend(usable.iter().map(Base::recovery_point));
            let said = unusable
                .iter()
                .map(|(label, error)| format!("{label}: {}", chain(error)));
            points.damaged.extend(said);
        }
        points
            .complete
            .sort_by(|a, b| (b.stopped_at, &b.label).cmp(&(a.stopped_at, &a.label)));
        Ok(points)
    }

    async fn copy(
        &self,
        from: &RegionName,
        to: &RegionName,
        retention: Option<&Retention>,
    ) -> Result<CopyReport> {
        self.copy_backups(from, to, retention).await
    }
}
