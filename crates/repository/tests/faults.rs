//! A store that fails at any one call: the work fails loudly, leaves nothing half-visible, and succeeds when repeated.

mod support;

use std::sync::Arc;

use dr_provider::decorate::{Fault, Faulty, Operation, Rule};
use dr_provider::store::{MemoryStore, list_all};
use dr_provider::{ErrorKind, ObjectStore};
use dr_repository::{CopyOptions, Metadata, Repository, copy};
use rstest::rstest;
use support::{assert_usable, label, noise, on, options, restore_options, source, write};

/// A store and a handle that makes its `n`-th call fail.
fn faulty(inner: &Arc<dyn ObjectStore>) -> (Arc<Faulty>, Repository) {
    let faulty = Arc::new(Faulty::scripted(Arc::clone(inner), Vec::new()));
    let store: Arc<dyn ObjectStore> = faulty.clone();
    (faulty, on(&store))
}

fn nth(n: u32, fault: Fault) -> Vec<Rule> {
    vec![Rule::all("*", fault).skip(n).times(1)]
}

fn memory() -> Arc<dyn ObjectStore> {
    Arc::new(MemoryStore::new("a"))
}

/// No call has more than this many before it.
const MOST_CALLS: u32 = 60;

#[rstest]
#[case::unavailable(Fault::Before(ErrorKind::Unavailable))]
#[case::full(Fault::Before(ErrorKind::Full))]
#[case::lost_request(Fault::Before(ErrorKind::Unknown))]
#[case::lost_answer(Fault::After)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backup(#[case] fault: Fault) {
    for n in 0..MOST_CALLS {
        let inner = memory();
        let (faults, repository) = faulty(&inner);
        faults.set_rules(nth(n, fault));
        let result = write(&repository, label(1)).await;
        faults.set_rules(Vec::new());
        let listed = repository.list().await.unwrap().backups;
        match &result {
            // The fault was not reached: every call has been tried.
            Ok(_) => {
                assert!(n >= 5, "{n}");
                assert_usable(&repository, &label(1)).await;
                return;
            }
            Err(error) if error.kind() == ErrorKind::Unknown && !listed.is_empty() => {
                // The answer to the commit was lost; what is visible is complete.
                assert_usable(&repository, &label(1)).await;
            }
            Err(_) => assert!(listed.is_empty()),
        }
        write(&repository, label(2)).await.unwrap();
        assert_usable(&repository, &label(2)).await;
    }
    panic!("a backup makes more than {MOST_CALLS} calls");
}

/// The room that a backup took which is none after all is for others.
#[rstest]
#[case::when_it_is_finished(false)]
#[case::when_it_is_given_up(true)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_that_fails_leaves_nothing_in_a_full_store(#[case] is_given_up: bool) {
    let inner = memory();
    let (faults, repository) = faulty(&inner);
    write(&repository, label(1)).await.unwrap();
    let before = list_all(&*inner, "").await.unwrap();
    let full = Fault::Before(ErrorKind::Full);
    faults.set_rules(vec![Rule::on(Operation::Create, "*", full).skip(2)]);
    let metadata = Metadata {
        mode: 0o600,
        mtime: 1_700_000_001,
    };
    let mut writer = repository.begin(label(2), options());
    writer.begin_file("much", metadata).unwrap();
    let mut number = 0;
    // Until it is noticed, which is some packs later.
    let failed = loop {
        let content = noise(number, 1 << 20);
        if let Err(error) = writer.write(content.into()).await {
            break error;
        }
        number += 1;
    };
    assert_eq!(failed.kind(), ErrorKind::Full);
    if is_given_up {
        writer.abandon().await;
    } else {
        writer.finish(source()).await.unwrap_err();
    }
    assert_eq!(list_all(&*inner, "").await.unwrap(), before);
    assert_usable(&repository, &label(1)).await;
}

/// Whoever may not delete leaves it to the pruning.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_that_is_given_up_without_the_right_to_delete_fails_no_further() {
    let inner = memory();
    let (faults, repository) = faulty(&inner);
    let denied = Fault::Before(ErrorKind::Denied);
    faults.set_rules(vec![Rule::on(Operation::Delete, "*", denied)]);
    let mut writer = repository.begin(label(1), options());
    let metadata = Metadata {
        mode: 0o600,
        mtime: 1_700_000_001,
    };
    writer.begin_file("much", metadata).unwrap();
    writer.write(noise(1, 8 << 20).into()).await.unwrap();
    writer.abandon().await;
    assert!(!list_all(&*inner, "").await.unwrap().is_empty());
    assert!(repository.list().await.unwrap().backups.is_empty());
}

#[rstest]
#[case::source_unavailable(true, Fault::Before(ErrorKind::Unavailable))]
#[case::target_full(false, Fault::Before(ErrorKind::Full))]
#[case::target_lost_request(false, Fault::Before(ErrorKind::Unknown))]
#[case::target_lost_answer(false, Fault::After)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copying(#[case] at_source: bool, #[case] fault: Fault) {
    let source = memory();
    write(&on(&source), label(1)).await.unwrap();
    for n in 0..MOST_CALLS {
        let target = memory();
        let (source_faults, from) = faulty(&source);
        let (target_faults, to) = faulty(&target);
        let faults = if at_source {
            &source_faults
        } else {
            &target_faults
        };
        faults.set_rules(nth(n, fault));
        let first = copy(&from, &to, &label(1), CopyOptions::default()).await;
        faults.set_rules(Vec::new());
        if !to.list().await.unwrap().backups.is_empty() {
            assert_usable(&to, &label(1)).await;
        }
        copy(&from, &to, &label(1), CopyOptions::default())
            .await
            .unwrap();
        assert_usable(&to, &label(1)).await;
        if first.is_ok() {
            assert!(n >= 5, "{n}");
            return;
        }
    }
    panic!("copying makes more than {MOST_CALLS} calls");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restoring() {
    let inner = memory();
    let (faults, repository) = faulty(&inner);
    write(&repository, label(1)).await.unwrap();
    for n in 0..MOST_CALLS {
        let directory = tempfile::tempdir().unwrap();
        faults.set_rules(nth(n, Fault::Before(ErrorKind::Unavailable)));
        let restored = async {
            let backup = repository.open(&label(1)).await?;
            backup
                .restore_into(directory.path(), restore_options())
                .await
        };
        let restored = restored.await;
        faults.set_rules(Vec::new());
        match restored {
            Ok(_) => {
                assert!(n >= 5, "{n}");
                support::assert_restored(directory.path());
                return;
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unavailable);
                assert!(!directory.path().join(support::LAST).exists());
            }
        }
    }
    panic!("restoring makes more than {MOST_CALLS} calls");
}

#[tokio::test]
async fn a_store_that_cannot_be_listed_is_not_an_empty_one() {
    let inner = memory();
    let (faults, repository) = faulty(&inner);
    write(&repository, label(1)).await.unwrap();
    for operation in [Operation::List, Operation::GetRange] {
        faults.set_rules(vec![Rule::on(
            operation,
            "*",
            Fault::Before(ErrorKind::Unavailable),
        )]);
        let error = repository.list().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }
}
