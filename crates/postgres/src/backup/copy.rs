//! Pulling another region's backups (R38).

use dr_model::RegionName;
use dr_provider::Result;
use dr_provider::driver::CopyReport;
use dr_provider::error::chain;
use dr_repository::CopyOptions;

use super::base::Bases;
use crate::driver::PostgresDriver;

impl PostgresDriver {
    /// Copies what `to` lacks and could bring back: a backup without its log in the same store is not a recovery point.
    pub(super) async fn copy_backups(
        &self,
        from: &RegionName,
        to: &RegionName,
    ) -> Result<CopyReport> {
        let operation = "copy the recovery points of";
        let record = self.read_register(operation).await?;
        let cluster = self.log_of(&record, operation)?.system_identifier;
        let (source, target) = (self.store(from)?, self.store(to)?);
        let theirs = self.bases(source, cluster).await?;
        let Bases {
            usable: ours,
            unusable: damaged,
        } = self.bases(target, cluster).await?;
        let (source, repository) = (
            self.repository(source, cluster)?,
            self.repository(target, cluster)?,
        );

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
            } else if let Some(missing) = self.missing_log(target, &base.source).await? {
                report.unusable.push(format!("{}: {missing}", base.label));
            } else {
                let options = CopyOptions::default();
                let stats = dr_repository::copy(&source, &repository, &base.label, options).await?;
                report.copied.push(base.label.to_string());
                report.copied_bytes += stats.copied_bytes;
            }
        }
        Ok(report)
    }
}
