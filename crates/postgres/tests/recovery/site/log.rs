//! The log of a site: archived by its primary, and pushed into the stores from there.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use dr_coordination::Patience;
use dr_coordination::chain::bounds;
use dr_model::{Lsn, TimelineId};

use super::{Site, region};
use crate::server::PATIENCE;

impl Site {
    pub(crate) fn archive(&self) -> PathBuf {
        self.directory.path().join("archive")
    }

    /// Returns the names of the archived segments in order.
    pub(crate) fn segments(&self) -> Vec<String> {
        let entries = fs::read_dir(self.archive()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| name.len() == 24).collect();
        names.sort();
        names
    }

    /// Pushes what is archived and has not been pushed into that region's store.
    pub(crate) async fn push(&self, name: &str) {
        for segment in self.segments() {
            let known = self
                .pushed
                .lock()
                .unwrap()
                .entry(region(name))
                .or_default()
                .contains(&segment);
            if !known {
                let path = self.archive().join(&segment);
                self.driver.push_wal(&region(name), &path).await.unwrap();
                self.pushed
                    .lock()
                    .unwrap()
                    .entry(region(name))
                    .or_default()
                    .insert(segment);
            }
        }
    }

    /// Pushes the history of a timeline once it is archived.
    pub(crate) async fn push_history(&self, name: &str, timeline: u32) {
        let path = self
            .archive()
            .join(TimelineId(timeline).history_file_name());
        let archived = async {
            while !path.exists() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, archived).await.unwrap();
        self.driver.push_wal(&region(name), &path).await.unwrap();
    }

    /// Ends the segment being written and waits until it is archived.
    pub(crate) async fn switch(&self) -> Lsn {
        let end = self.primary.lsn().await;
        let name = self
            .primary
            .sql("select pg_walfile_name(pg_switch_wal())")
            .await;
        let archived = async {
            while !self.archive().join(&name).exists() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, archived).await.is_err() {
            panic!("{name} is not archived: {}", self.primary.log());
        }
        end
    }

    /// Returns where the log that a store holds of timeline 1 ends.
    pub(crate) async fn stored_end(&self, name: &str) -> Lsn {
        let cluster = self.primary.system_identifier().await;
        let store = self.store(name);
        let found = bounds(&*store, cluster, TimelineId(1), Patience::default()).await;
        found.unwrap().unwrap().to
    }

    /// Returns the timelines of which a store holds any log.
    pub(crate) async fn timelines(&self, name: &str) -> Vec<u32> {
        let cluster = self.primary.system_identifier().await;
        let chains = dr_coordination::chain::chains(&*self.store(name), cluster).await;
        let mut timelines: Vec<u32> = chains
            .unwrap()
            .iter()
            .map(|chain| chain.timeline.0)
            .collect();
        timelines.dedup();
        timelines
    }
}
