//! Recovery points of a site.

use std::time::Duration;

use dr_provider::driver::{Backup as _, RecoveryPoint};

use super::{EAST, Site, WEST, region};

impl Site {
    /// Backs up the primary while entries are committed and the log is pushed into both stores.
    pub(crate) async fn back_up(&self) -> RecoveryPoint {
        let east = region(EAST);
        let mut take = Box::pin(self.driver.take(&east));
        loop {
            let meanwhile = async {
                self.commit(20).await;
                self.push(EAST).await;
                self.push(WEST).await;
            };
            let mut meanwhile = Box::pin(meanwhile);
            tokio::select! {
                biased;
                report = &mut take => {
                    // What was begun is ended: a commit that is let go of may still come.
                    meanwhile.await;
                    return report.unwrap().recovery_point;
                }
                () = &mut meanwhile => {}
            }
        }
    }

    /// Backs up while nothing is committed.
    pub(crate) async fn back_up_quietly(&self) -> RecoveryPoint {
        let east = region(EAST);
        let push = async {
            loop {
                self.primary.sql("select pg_switch_wal()").await;
                self.push(EAST).await;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::select! {
            report = self.driver.take(&east) => report.unwrap().recovery_point,
            () = push => unreachable!(),
        }
    }

    async fn reader_of(&self, label: &str) -> dr_repository::BackupReader {
        let cluster = self.primary.system_identifier().await;
        let repository =
            dr_repository::Repository::new(self.store(EAST), format!("postgres/{cluster}"));
        repository
            .unwrap()
            .open(&label.parse().unwrap())
            .await
            .unwrap()
    }

    /// Returns what the driver wrote of a backup.
    pub(crate) async fn source_of(&self, label: &str) -> serde_json::Value {
        self.reader_of(label).await.header().source.clone()
    }

    /// Tells which of `paths` a backup holds.
    pub(crate) async fn holds(&self, label: &str, paths: &[&str]) -> Vec<bool> {
        let reader = self.reader_of(label).await;
        let mut held = Vec::new();
        for path in paths {
            held.push(reader.file(path).await.unwrap().is_some());
        }
        held
    }
}
