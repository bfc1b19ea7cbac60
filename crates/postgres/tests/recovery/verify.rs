//! Proving recovery points: by reading them back, and by booting them.

use std::fs;
use std::path::PathBuf;

use dr_model::Lsn;
use dr_postgres::{BackupOptions, VerifyOptions};
use dr_provider::driver::{
    Proof, Proofs, Verify, VerifyHow, VerifyMeans, VerifyRecord, VerifyRequest,
};
use dr_provider::error::chain;
use dr_provider::{Error, ErrorKind};
use tokio::process::Command;

use crate::restore::{protected, walk};
use crate::site::{EAST, Site, WEST, region};

async fn verify(site: &Site, how: VerifyHow) -> Result<VerifyRecord, Error> {
    let request = VerifyRequest {
        region: region(WEST),
        recovery_point: None,
        how,
    };
    Verify::verify(&site.driver, &request).await
}

async fn hash(site: &Site) -> VerifyRecord {
    verify(site, VerifyHow::Hash { again: false })
        .await
        .unwrap()
}

fn boot(scratch: &str) -> VerifyHow {
    VerifyHow::Boot {
        scratch: Some(PathBuf::from(scratch)),
    }
}

async fn proofs(site: &Site, label: &str) -> Proofs {
    let all = Verify::proofs(&site.driver, &site.store(WEST))
        .await
        .unwrap();
    all.get(label).cloned().unwrap_or_default()
}

/// Turns a bit of a file below the western store whose path contains `what`.
fn damage(site: &Site, what: &str) {
    let place = site.place(WEST);
    let found = walk(&place).into_iter().find(|path| path.contains(what));
    let path = found.unwrap();
    let mut content = fs::read(&path).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 1;
    fs::write(&path, content).unwrap();
}

#[tokio::test]
async fn a_recovery_point_is_booted_and_leaves_nothing_but_the_proof() {
    let (mut site, point) = protected(1).await;
    site.primary.sql("create extension amcheck").await;
    site.commit(7).await;
    site.switch().await;
    site.push(WEST).await;
    let entries = Site::ledger(&site.primary).await.len();
    site.verify_by(VerifyOptions {
        checks: vec![format!("select count(*) = {entries} from ledger")],
        ..VerifyOptions::default()
    });
    let scratch = site.place("scratch").display().to_string();

    let booted = verify(&site, boot(&scratch)).await.unwrap();
    assert_eq!(booted.failure, None);
    assert!(booted.reached.unwrap() > point.stop);
    let said = booted.checks.join("\n");
    assert!(
        said.contains("pg_amcheck found nothing in postgres"),
        "{said}"
    );
    assert!(said.contains("from ledger` holds"), "{said}");
    let left: Vec<_> = fs::read_dir(&scratch)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["dr-scratch"]);
    assert_eq!(proofs(&site, &point.label).await.proof(), Proof::Booted);
    let west = site.store(WEST);
    let records = Verify::proof_records(&site.driver, &west, &point.label).await;
    assert_eq!(records.unwrap(), [booted]);
    // It archived nothing: what the store holds of the log is what was there before.
    assert_eq!(site.timelines(WEST).await, [1]);

    // A check that does not hold is a failure, and says which.
    site.verify_by(VerifyOptions {
        checks: vec!["select count(*) = -1 from ledger".to_owned()],
        ..VerifyOptions::default()
    });
    let failed = verify(&site, boot(&scratch)).await.unwrap();
    let failure = failed.failure.unwrap();
    assert!(
        failure.contains("= -1 from ledger`: it answers `f`"),
        "{failure}"
    );
    assert!(proofs(&site, &point.label).await.failed());
}

#[tokio::test]
async fn what_damage_does_is_recorded_and_named() {
    let (site, point) = protected(1).await;
    let scratch = site.place("scratch").display().to_string();
    assert_eq!(hash(&site).await.failure, None);
    assert_eq!(proofs(&site, &point.label).await.proof(), Proof::Hashed);
    damage(&site, "/packs/");
    // Read not long ago, it is not read again unless somebody wants it.
    assert_eq!(hash(&site).await.read_bytes, 0);
    let again = verify(&site, VerifyHow::Hash { again: true })
        .await
        .unwrap();
    let booted = verify(&site, boot(&scratch)).await.unwrap();
    for record in [again, booted] {
        let failure = record.failure.unwrap();
        assert!(failure.contains("/packs/000000"), "{failure}");
    }
    assert_eq!(fs::read_dir(&scratch).unwrap().count(), 1);
    let known = proofs(&site, &point.label).await;
    assert!(known.failed());
    assert_eq!(known.proof(), Proof::Committed);
    // A store that does not answer says nothing about a recovery point.
    let marks = known.marks.len();
    let identity = site.place("gone");
    fs::rename(site.place(WEST), &identity).unwrap();
    let error = verify(&site, VerifyHow::Hash { again: true })
        .await
        .unwrap_err();
    fs::rename(&identity, site.place(WEST)).unwrap();
    assert_ne!(error.kind(), ErrorKind::Corrupt, "{}", chain(&error));
    assert_eq!(proofs(&site, &point.label).await.marks.len(), marks);
}

#[tokio::test]
async fn what_a_recovery_point_shares_is_read_once() {
    let mut site = Site::start(1).await;
    site.back_up_by(BackupOptions::default());
    site.commit(200).await;
    let full = site.back_up().await;
    site.commit(20).await;
    let second = site.back_up().await;
    assert!(second.taken.parent.is_some(), "{:?}", second.taken);
    let due = |site: &Site| {
        let driver = site.driver.clone();
        async move { Verify::verify_due(&driver, &region(EAST)).await.unwrap() }
    };
    let records = due(&site).await;
    let labels: Vec<&str> = records.iter().map(|record| record.label.as_str()).collect();
    assert_eq!(labels, [&second.label, &full.label]);
    // The younger one comes first and reads all that it needs of the older one, which then has that much less to read.
    let shared = records[0].read.get(&full.label).unwrap();
    assert!(!shared.is_empty());
    let packs: Vec<u32> = records
        .iter()
        .filter_map(|record| record.read.get(&full.label))
        .flatten()
        .flat_map(|(first, last)| *first..=*last)
        .collect();
    let mut once = packs.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), packs.len(), "{records:?}");
    assert_eq!(due(&site).await, []);
    // A sample of a recovery point of few packs is one of them at least, and proves nothing of the rest.
    let request = VerifyRequest {
        region: region(EAST),
        recovery_point: Some(full.label.clone()),
        how: VerifyHow::Sample { share: 0.000_001 },
    };
    let sample = Verify::verify(&site.driver, &request).await.unwrap();
    assert_eq!((sample.means, sample.read.len()), (VerifyMeans::Sample, 1));
}

#[tokio::test]
async fn a_server_that_an_earlier_run_left_is_stopped() {
    let (site, _) = protected(1).await;
    let scratch = site.place("scratch");
    let boots = verify(&site, boot(&scratch.display().to_string()));
    // Called off in the middle: whatever was there is gone when the call has ended.
    let started = async {
        let pid = scratch.join("data/postmaster.pid");
        while !pid.exists() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        record = boots => panic!("{record:?}"),
        () = started => {}
    }
    let record = verify(&site, boot(&scratch.display().to_string()))
        .await
        .unwrap();
    assert_eq!(record.failure, None);
    assert!(record.reached.unwrap() > Lsn::INVALID);
    let servers = Command::new("pgrep")
        .args(["-f", &scratch.display().to_string()])
        .output()
        .await
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&servers.stdout), "");
}
