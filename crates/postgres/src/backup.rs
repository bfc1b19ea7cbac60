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
use dr_provider::driver::{Backup, BackupReport, CopyReport, RecoveryPoint, RecoveryPoints};
use dr_provider::error::chain;
use dr_provider::{Error, ErrorKind, ObjectStore, Result};
use dr_repository::Label;
use futures::{StreamExt as _, TryStreamExt as _, stream};

use crate::driver::PostgresDriver;

pub(crate) use base::{Base, Bases, Source, TABLESPACES};

/// Headers read at a time.
const HEADERS_IN_FLIGHT: usize = 8;

#[async_trait]
impl Backup for PostgresDriver {
    async fn take(&self, region: &RegionName) -> Result<BackupReport> {
        self.take_backup(region).await
    }

    async fn list(&self, store: &Arc<dyn ObjectStore>) -> Result<RecoveryPoints> {
        let mut points = RecoveryPoints::default();
        for cluster in self.clusters_of(store).await? {
            let Bases {
                usable, unusable, ..
            } = self.bases(store, cluster).await?;
            points
                .complete
                .extend(usable.iter().map(Base::recovery_point));
            let locked = usable.iter();
            let locked =
                locked.filter_map(|base| Some((base.label.to_string(), base.locked.clone()?)));
            points.no_key.extend(locked);
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

    async fn given_up(&self, store: &Arc<dyn ObjectStore>) -> Result<Vec<RecoveryPoint>> {
        let mut points = Vec::new();
        for cluster in self.clusters_of(store).await? {
            let repository = self.repository(store, cluster)?;
            let labels = repository.given_up().await?;
            let read = |label: Label| {
                let repository = &repository;
                async move {
                    let header = repository.header(&label).await.map_err(Error::from);
                    match header.and_then(|header| Base::of(header, cluster)) {
                        Ok(base) => Ok(Some(base.recovery_point())),
                        Err(error) => match error.kind() {
                            ErrorKind::NotFound | ErrorKind::Corrupt | ErrorKind::Unsupported => {
                                Ok(None)
                            }
                            _ => Err(error),
                        },
                    }
                }
            };
            let read: Vec<Option<RecoveryPoint>> = stream::iter(labels)
                .map(read)
                .buffered(HEADERS_IN_FLIGHT)
                .try_collect()
                .await?;
            points.extend(read.into_iter().flatten());
        }
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
