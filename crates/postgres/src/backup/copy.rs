//! Pulling another region's backups (R38).

use std::collections::BTreeSet;

use dr_model::{RegionName, Retention};
use dr_provider::Result;
use dr_provider::driver::CopyReport;
use dr_provider::error::chain;
use dr_repository::{CopyOptions, Label, Repository};

use super::base::{Base, Bases};
use crate::driver::PostgresDriver;
use crate::restore::leased;

impl PostgresDriver {
    /// Copies what `to` lacks and could bring back: a backup without its log in the same store is not a recovery point.
    pub(super) async fn copy_backups(
        &self,
        from: &RegionName,
        to: &RegionName,
        retention: Option<&Retention>,
    ) -> Result<CopyReport> {
        let operation = "copy the recovery points of";
        let record = self.read_register(operation).await?;
        let cluster = self.log_of(&record, operation)?.system_identifier;
        let (source, target) = (self.store(from)?, self.store(to)?);
        let theirs = self.bases(source, cluster).await?;
        let Bases {
            usable: ours,
            unusable: damaged,
            ..
        } = self.bases(target, cluster).await?;
        let (source, repository) = (
            self.repository(source, cluster)?,
            self.repository(target, cluster)?,
        );

        let unwanted = self
            .unwanted(&repository, &theirs.usable, &ours, retention)
            .await?;
        let mut report = CopyReport::default();
        for (place, (label, error)) in theirs
            .unusable
            .iter()
            .map(|unusable| (from, unusable))
            .chain(damaged.iter().map(|unusable| (to, unusable)))
        {
            report
                .unusable
                .push(format!("{label} in {place}: {}", chain(error)));
        }
        for base in theirs.usable {
            if damaged.iter().any(|(label, _)| *label == base.label) {
                continue;
            }
            if ours.iter().any(|ours| ours.label == base.label) {
                report.present.push(base.label.to_string());
            } else if unwanted.contains(&base.label) {
                report.expired.push(base.label.to_string());
            } else if let Some(missing) = self.missing_log(target, &base.source).await? {
                report.unusable.push(format!("{}: {missing}", base.label));
            } else {
                let options = CopyOptions::default();
                let work = async {
                    let copied = dr_repository::copy(&source, &repository, &base.label, options);
                    copied.await.map_err(Into::into)
                };
                // Until its manifest stands nothing here says that it needs its packs and its log.
                let stats = leased(&repository, &base.label, self.clock(), work).await?;
                report.copied.push(base.label.to_string());
                report.copied_bytes += stats.copied_bytes;
            }
        }
        Ok(report)
    }

    /// Returns what is not copied: what was given up at the target, and what would expire there at once.
    async fn unwanted(
        &self,
        target: &Repository,
        theirs: &[Base],
        ours: &[Base],
        retention: Option<&Retention>,
    ) -> Result<BTreeSet<Label>> {
        let mut unwanted: BTreeSet<Label> = target.given_up().await?.into_iter().collect();
        let Some(retention) = retention else {
            return Ok(unwanted);
        };
        let newer = |base: &&Base| ours.iter().all(|known| known.label != base.label);
        let all: Vec<&Base> = ours.iter().chain(theirs.iter().filter(newer)).collect();
        let times: Vec<_> = all.iter().map(|base| base.source.started_at).collect();
        let newest = all.iter().max_by_key(|base| base.source.started_at);
        let newest = newest.map(|base| base.label.clone());
        let reasons = retention.decide(&times, self.clock().now());
        let gone = all
            .iter()
            .zip(reasons)
            .filter(|(base, reasons)| reasons.is_empty() && newest.as_ref() != Some(&base.label));
        unwanted.extend(gone.map(|(base, _)| base.label.clone()));
        Ok(unwanted)
    }
}
