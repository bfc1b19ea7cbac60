//! Proving recovery points: by reading them back, and by booting them.

use std::fs;
use std::path::PathBuf;

use dr_model::Lsn;
use dr_postgres::{BackupOptions, VerifyOptions};
use dr_provider::driver::{
    Backup, Proof, Proofs, Restore, RestoreRequest, RestoreTarget, Verify, VerifyHow, VerifyMeans,
    VerifyRecord, VerifyRequest,
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

/// A recovery point is proven by being started (R33).
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

    // Nothing is booted where a server works, nor is the directory made.
    let taken = site.primary.data.join("scratch");
    let error = verify(&site, boot(&taken.display().to_string())).await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Conflict);
    assert!(!taken.exists());

    // What the primary takes for wrong as well says nothing of the recovery point.
    site.verify_by(VerifyOptions {
        checks: vec!["select nonsense".to_owned()],
        ..VerifyOptions::default()
    });
    let error = verify(&site, boot(&scratch)).await.unwrap_err();
    assert!(chain(&error).contains("in database `postgres`"), "{error}");
    assert!(error.hint().unwrap().contains("checks"), "{error}");
    assert!(!proofs(&site, &point.label).await.failed());
    let rehearsed = site.driver.rehearse_checks(&region(EAST)).await;
    let answers: Vec<_> = rehearsed.iter().map(|check| &check.answer).collect();
    assert!(matches!(answers.as_slice(), [Err(_)]), "{answers:?}");
    site.verify_by(VerifyOptions {
        checks: vec!["select count(*) > 0 from ledger".to_owned()],
        ..VerifyOptions::default()
    });
    let rehearsed = site.driver.rehearse_checks(&region(EAST)).await;
    assert_eq!(rehearsed[0].answer.as_ref().unwrap().as_deref(), Some("t"));
    assert_eq!(rehearsed[0].database, "postgres");
    // What only the copy lacks does: it is missing there.
    site.primary
        .sql("create table later as select 1 as one")
        .await;
    site.verify_by(VerifyOptions {
        checks: vec!["select count(*) = 1 from later".to_owned()],
        ..VerifyOptions::default()
    });
    let failed = verify(&site, boot(&scratch)).await.unwrap();
    let failure = failed.failure.unwrap();
    assert!(failure.contains("42P01"), "{failure}");

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
    // Once its bytes were found right since, reading them again would show nothing.
    let due = async || {
        let west = region(WEST);
        let records = Verify::verify_due(&site.driver, &west)
            .await
            .unwrap()
            .records;
        let read = records.iter().map(|record| record.failure.is_none());
        read.collect::<Vec<bool>>()
    };
    assert_eq!(due().await, [true]);
    assert_eq!(due().await, Vec::<bool>::new());
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
        async move {
            let due = Verify::verify_due(&driver, &region(EAST)).await.unwrap();
            due.records
        }
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

#[tokio::test]
async fn nothing_is_built_on_damage_and_nothing_else_is_restored_from_it() {
    let mut site = Site::start(1).await;
    site.back_up_by(BackupOptions::default());
    site.commit(200).await;
    let full = site.back_up().await;
    site.commit(20).await;
    let second = site.back_up().await;
    assert_eq!(second.taken.parent.as_ref(), Some(&full.label));
    let look = async |label: &str, again| {
        let request = VerifyRequest {
            region: region(EAST),
            recovery_point: Some(label.to_owned()),
            how: VerifyHow::Hash { again },
        };
        Verify::verify(&site.driver, &request).await.unwrap()
    };
    let points = async || {
        let points = Backup::list(&site.driver, &site.store(EAST)).await.unwrap();
        points.complete
    };
    assert_eq!(look(&second.label, false).await.failure, None);
    assert!(points().await.iter().all(|point| point.failure.is_none()));

    // A byte of every pack of the older one: what the younger one refers to is among them.
    let packs = format!("{}/packs/", full.label);
    let packs = walk(&site.place(EAST))
        .into_iter()
        .filter(|path| path.contains(&packs));
    let whole: Vec<(String, Vec<u8>)> = packs
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    for (path, content) in &whole {
        let mut content = content.clone();
        let middle = content.len() / 2;
        content[middle] ^= 1;
        fs::write(path, content).unwrap();
    }
    let failed = look(&full.label, true).await;
    assert!(
        failed.failure.unwrap().contains("/packs/0"),
        "the pack is named"
    );
    let named: u32 = failed.damaged[&full.label]
        .iter()
        .map(|(first, last)| last - first + 1)
        .sum();
    assert_eq!(named as usize, whole.len());

    // The proof of the younger one is as it was, and what it refers to is known to be damaged.
    assert!(
        !Verify::proofs(&site.driver, &site.store(EAST))
            .await
            .unwrap()[&second.label]
            .failed()
    );
    let known = points().await;
    assert!(
        known[0]
            .failure
            .as_ref()
            .unwrap()
            .contains("refers to pack"),
        "{known:?}"
    );
    assert!(
        known[1].failure.as_ref().unwrap().contains("failed: "),
        "{known:?}"
    );

    let request = RestoreRequest::new(region(EAST), RestoreTarget::Latest, site.place("none"));
    // Nothing is written of what is known not to be whole, unless somebody names it.
    let error = Restore::plan(&site.driver, &request).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.hint().unwrap().contains(&second.label), "{error:?}");
    let named = RestoreRequest {
        recovery_point: Some(second.label.clone()),
        ..request.clone()
    };
    let plan = Restore::plan(&site.driver, &named).await.unwrap();
    assert_eq!(plan.recovery_point.label, second.label);
    assert!(
        plan.notes
            .iter()
            .any(|note| note.contains("may not be whole")),
        "{plan:?}"
    );

    site.commit(20).await;
    let third = site.back_up().await;
    assert_eq!(third.taken.parent, None);
    let remark = &third.taken.remarks[0];
    assert!(
        remark.contains(&second.label) && remark.contains("refers to pack"),
        "{remark}"
    );
    site.commit(20).await;
    let fourth = site.back_up().await;
    assert_eq!(
        fourth.taken.parent,
        Some(third.label.clone()),
        "{:?}",
        fourth.taken
    );

    // Newer ones are damaged now, and an older one takes their place.
    for (path, content) in &whole {
        fs::write(path, content).unwrap();
    }
    let packs = format!("{}/packs/", third.label);
    for path in walk(&site.place(EAST))
        .into_iter()
        .filter(|path| path.contains(&packs))
    {
        fs::write(path, "nothing of what it was").unwrap();
    }
    assert!(look(&third.label, true).await.failure.is_some());
    // What was found damaged is read whether or not it was read lately, and a look that passes clears it: the other one, whose
    // packs have just been read with it, too.
    let cleared = look(&full.label, false).await;
    assert_eq!(cleared.failure, None);
    assert!(!cleared.read[&full.label].is_empty(), "{cleared:?}");
    let failed: Vec<bool> = points()
        .await
        .iter()
        .map(|point| point.failure.is_some())
        .collect();
    assert_eq!(failed, [true, true, false, false]);
    let plan = Restore::plan(&site.driver, &request).await.unwrap();
    assert_eq!(plan.recovery_point.label, second.label);
    assert_eq!(plan.passed_over.len(), 2, "{plan:?}");
    // Labels of one second are in no order.
    let named = |label: &str| plan.passed_over.iter().any(|why| why.starts_with(label));
    assert!(named(&fourth.label) && named(&third.label), "{plan:?}");
    // What is due is what failed: a new daemon knows it from the store.
    let due = async || {
        let east = region(EAST);
        Verify::verify_due(&site.driver, &east)
            .await
            .unwrap()
            .records
    };
    let labels = [&fourth.label, &third.label];
    let found = due().await;
    assert_eq!(
        found.iter().map(|one| &one.label).collect::<Vec<_>>(),
        labels
    );
    // What was read of one that failed and is right is not read again.
    assert!(found[0].read.contains_key(&fourth.label), "{:?}", found[0]);
    assert!(found[0].read_bytes > 0);
    let again = due().await;
    assert_eq!(
        again.iter().map(|one| &one.label).collect::<Vec<_>>(),
        labels
    );
    for one in &again {
        assert!(one.failure.is_some() && one.read.is_empty(), "{one:?}");
    }
}

/// The setting with which one is made may be that of a session.
#[tokio::test]
async fn a_tablespace_in_place_is_booted() {
    let (site, _) = protected(1).await;
    let mut connection = site.primary.connect().await;
    for sql in [
        "set allow_in_place_tablespaces = on",
        "create tablespace inner_one location ''",
        "create table inside tablespace inner_one as select g from generate_series(1, 100) g",
    ] {
        connection.query(sql).await.unwrap();
    }
    site.back_up().await;
    site.driver
        .copy(&region(EAST), &region(WEST), None)
        .await
        .unwrap();
    let scratch = site.place("scratch").display().to_string();
    let booted = verify(&site, boot(&scratch)).await.unwrap();
    assert_eq!(booted.failure, None);
}
