//! Uploads in parts: one that fails or is given up leaves nothing, and none replaces an object.

use std::time::Duration;

use dr_provider::decorate::Timeout;
use dr_provider::error::chain;
use dr_provider::{ErrorKind, ObjectStore as _};
use dr_s3_testing::{Fault, Operation as S3, Rule};
use rstest::rstest;

use crate::support::{LONG, assert_holds, body, filled, key, kind, no_parts};

/// An upload in parts that fails at any request leaves no object and no parts.
#[rstest]
#[case(S3::CreateMultipartUpload)]
#[case(S3::UploadPart)]
#[tokio::test]
async fn a_failed_upload_leaves_nothing(
    #[case] request: S3,
    #[values(
        Fault::refuse(500, "InternalError"),
        Fault::ResetAfter,
        Fault::slow_down()
    )]
    fault: Fault,
) {
    let (server, store) = filled().await;
    server.set_faults(vec![Rule::on(request, fault).times(1)]);
    let error = store.create(&key("long"), body(LONG)).await.unwrap_err();
    // Nothing is visible before it is completed: this is certain, and may be repeated.
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", chain(&error));
    assert_eq!(kind(store.get(&key("long")).await), ErrorKind::NotFound);
    let begun_unseen = usize::from(request == S3::CreateMultipartUpload);
    assert!(server.open_uploads("store") <= begun_unseen);
    store.create(&key("long"), body(LONG)).await.unwrap();
    assert_holds(&*store, &key("long"), &body(LONG)).await;
}

/// Who gives up waiting leaves no parts behind either.
#[tokio::test]
async fn an_abandoned_upload_is_aborted() {
    let (server, store) = filled().await;
    server.set_faults(vec![Rule::on(S3::UploadPart, Fault::Hang)]);
    let limited = Timeout::new(store, Duration::from_millis(300));
    let error = limited.create(&key("long"), body(LONG)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unknown);
    no_parts(&server).await;
}

/// A second long object under a key is refused like a short one, and its parts are removed.
#[tokio::test]
async fn a_long_object_is_never_replaced() {
    let (server, store) = filled().await;
    store.create(&key("long"), body(LONG)).await.unwrap();
    for again in [body(LONG), body(LONG + 1), body(3)] {
        let again = store.create(&key("long"), again).await;
        assert_eq!(kind(again), ErrorKind::AlreadyExists);
    }
    let source = store.copy_source(&key("there")).unwrap();
    let copied = store.copy_from(&source, &key("long")).await;
    assert_eq!(kind(copied), ErrorKind::AlreadyExists);
    assert_holds(&*store, &key("long"), &body(LONG)).await;
    assert_eq!(server.open_uploads("store"), 0);
}
