//! The list of all jobs and streams, by their one name.

use std::sync::Arc;

use crate::{
    BootRecoveryPoint, CompactWal, CopyRecoveryPoints, ExpireRecoveryPoints, Job, ShipWal,
    TakeSnapshot, VerifyRecoveryPoint,
};

/// Returns the job of that name; `None` if there is none, or if it is a stream.
#[must_use]
pub fn job(name: &str) -> Option<Arc<dyn Job>> {
    let all: [Arc<dyn Job>; 6] = [
        Arc::new(TakeSnapshot),
        Arc::new(CopyRecoveryPoints),
        Arc::new(CompactWal::default()),
        Arc::new(VerifyRecoveryPoint::default()),
        Arc::new(BootRecoveryPoint),
        Arc::new(ExpireRecoveryPoints::default()),
    ];
    all.into_iter().find(|job| job.name() == name)
}

/// The names of all jobs and streams, sorted: what a schedule may name.
pub const NAMES: [&str; 7] = [
    "boot-recovery-point",
    "compact-wal",
    CopyRecoveryPoints::NAME,
    ExpireRecoveryPoints::NAME,
    ShipWal::NAME,
    TakeSnapshot::NAME,
    "verify-recovery-point",
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn every_job_has_a_file_a_name_and_an_entry() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let rust_files = |directory: &Path| -> BTreeSet<String> {
            let entries = fs::read_dir(directory)
                .unwrap()
                .map(|entry| entry.unwrap().path());
            entries
                .filter(|path| path.extension().is_some_and(|e| e == "rs"))
                .map(|path| {
                    path.file_stem()
                        .unwrap()
                        .to_str()
                        .unwrap()
                        .replace('_', "-")
                })
                .collect()
        };
        let not_jobs = ["engine", "job", "lib", "registry", "streams"];
        let mut found = rust_files(&source);
        found.retain(|name| !not_jobs.contains(&name.as_str()));
        found.extend(rust_files(&source.join("streams")));
        assert_eq!(found, NAMES.iter().map(|&name| name.to_owned()).collect());
        for name in NAMES {
            assert!(job(name).is_some_and(|job| job.name() == name) || name == ShipWal::NAME);
        }
    }
}
