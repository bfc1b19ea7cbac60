//! Each fault on each operation: what kind of failure it is, and that repeating comes to an end.
//!
//! The expected kind follows from one question: can the change have been made? A refusal says no, a
//! connection that ends after the request was sent says nothing.

use std::time::Duration;

use dr_provider::decorate::Timeout;
use dr_provider::error::chain;
use dr_provider::{ErrorKind, ObjectStore, Result};
use dr_s3_testing::{Fault, Operation as S3, Rule};
use rstest::rstest;

use crate::support::{LONG, assert_holds, body, filled, key, kind, no_parts, patient};

/// What is asked of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask {
    Create,
    CreateLong,
    Get,
    GetRange,
    Head,
    List,
    Delete,
    Copy,
}

impl Ask {
    const ALL: [Self; 8] = [
        Self::Create,
        Self::CreateLong,
        Self::Get,
        Self::GetRange,
        Self::Head,
        Self::List,
        Self::Delete,
        Self::Copy,
    ];

    /// The request that carries the operation out; the last one of several.
    fn request(self) -> S3 {
        match self {
            Self::Create => S3::PutObject,
            Self::CreateLong | Self::Copy => S3::CompleteMultipartUpload,
            Self::Get | Self::GetRange => S3::GetObject,
            Self::Head => S3::HeadObject,
            Self::List => S3::ListObjects,
            Self::Delete => S3::DeleteObject,
        }
    }

    fn is_change(self) -> bool {
        matches!(
            self,
            Self::Create | Self::CreateLong | Self::Delete | Self::Copy
        )
    }

    /// Asks; `name` tells objects of different tests apart.
    async fn of(self, store: &dyn ObjectStore, name: &str) -> Result<()> {
        let there = key("there");
        match self {
            Self::Create => store.create(&key(name), body(100)).await,
            Self::CreateLong => store.create(&key(name), body(LONG)).await,
            Self::Get => store
                .get(&there)
                .await
                .map(|found| assert_eq!(found, body(1000))),
            Self::GetRange => {
                let found = store.get_range(&there, 10, 500).await?;
                assert_eq!(found, body(1000).slice(10..510));
                Ok(())
            }
            Self::Head => store.head(&there).await.map(drop),
            Self::List => {
                let found = store.list("ther", None, 10).await?;
                assert_eq!(found.len(), 1);
                Ok(())
            }
            Self::Delete => store.delete(&key("gone")).await,
            Self::Copy => {
                let source = store.copy_source(&there).unwrap();
                store.copy_from(&source, &key(name)).await
            }
        }
    }
}

/// How long a call may take: a test must not hang, nor fail because the machine is busy. Only where
/// nobody answers is it worth keeping short.
fn limit(fault: &Fault) -> Duration {
    match fault {
        Fault::Hang | Fault::Delay(_) => Duration::from_secs(3),
        _ => Duration::from_secs(120),
    }
}

/// What the fault makes of an operation that is not repeated.
fn expected(ask: Ask, fault: &Fault) -> ErrorKind {
    let unclear = if ask.is_change() {
        ErrorKind::Unknown
    } else {
        ErrorKind::Unavailable
    };
    match fault {
        Fault::Refuse { status: 503, .. } => ErrorKind::Unavailable,
        Fault::Refuse { status: 507, .. } => ErrorKind::Full,
        Fault::Refuse { status: 501, .. } => ErrorKind::Unsupported,
        // An answer to HEAD has no body to say why in, and the identity can be read.
        Fault::Refuse { status: 400, .. } if ask == Ask::Head => ErrorKind::Failed,
        Fault::Refuse {
            status: 400 | 403, ..
        } => ErrorKind::Denied,
        _ => unclear,
    }
}

#[rstest]
#[case::slow_down(Fault::slow_down())]
#[case::internal(Fault::refuse(500, "InternalError"))]
#[case::gateway(Fault::refuse(502, "BadGateway"))]
#[case::unavailable(Fault::refuse(503, "ServiceUnavailable"))]
#[case::full(Fault::refuse(507, "InsufficientStorage"))]
#[case::not_implemented(Fault::refuse(501, "NotImplemented"))]
#[case::denied(Fault::refuse(403, "AccessDenied"))]
#[case::expired(Fault::refuse(400, "ExpiredToken"))]
#[case::skewed(Fault::refuse(403, "RequestTimeTooSkewed"))]
#[case::reset_before(Fault::ResetBefore)]
#[case::reset_after(Fault::ResetAfter)]
#[case::hang(Fault::Hang)]
#[tokio::test]
async fn every_operation_says_what_is_known(#[case] fault: Fault) {
    let (server, store) = filled().await;
    let limited = Timeout::new(store, limit(&fault));
    for ask in Ask::ALL {
        server.set_faults(vec![Rule::on(ask.request(), fault.clone()).times(1)]);
        let error = ask.of(&limited, &format!("{ask:?}")).await.unwrap_err();
        let text = chain(&error);
        assert_eq!(error.kind(), expected(ask, &fault), "{ask:?}: {text}");
        assert!(text.contains("s3://store/some/prefix/"), "{text}");
        if let Fault::Refuse { code, .. } = &fault
            && ask != Ask::Head
        {
            assert!(text.contains(code), "{text}");
            assert!(text.contains("R3FUS3D"), "the request is not named: {text}");
        }
        if fault == Fault::slow_down() {
            assert_eq!(error.retry_after(), Some(Duration::from_secs(1)), "{text}");
        }
    }
    server.set_faults(Vec::new());
    no_parts(&server).await;
}

/// Whatever goes wrong once or twice, the operation succeeds in the end, and what it was to make is
/// there once.
#[rstest]
#[case::internal(Fault::refuse(500, "InternalError"))]
#[case::unavailable(Fault::refuse(503, "ServiceUnavailable"))]
#[case::reset_before(Fault::ResetBefore)]
#[case::reset_after(Fault::ResetAfter)]
#[case::hang(Fault::Hang)]
#[case::slow(Fault::Delay(Duration::from_secs(6)))]
#[tokio::test]
async fn repeating_converges(#[case] fault: Fault) {
    let (server, store) = filled().await;
    server.set_versioned("store", true);
    let store = patient(store, limit(&fault));
    for ask in Ask::ALL {
        // What is long may take longer than the short limit by itself.
        if ask == Ask::CreateLong && limit(&fault) < Duration::from_secs(60) {
            continue;
        }
        server.set_faults(vec![Rule::on(ask.request(), fault.clone()).times(2)]);
        let name = format!("{ask:?}");
        ask.of(&store, &name).await.unwrap();
        server.set_faults(Vec::new());
        let made = match ask {
            Ask::Create => body(100),
            Ask::CreateLong => body(LONG),
            Ask::Copy => body(1000),
            _ => continue,
        };
        assert_holds(&store, &key(&name), &made).await;
        assert_eq!(server.versions("store", &format!("some/prefix/{name}")), 1);
    }
}

/// An answer whose body is cut or changed on its way is never taken for the object.
#[tokio::test]
async fn a_damaged_answer_is_not_the_object() {
    let (server, store) = filled().await;
    let there = key("there");
    server.set_faults(vec![Rule::on(S3::GetObject, Fault::Truncate).times(2)]);
    assert_eq!(kind(store.get(&there).await), ErrorKind::Unavailable);
    let range = store.get_range(&there, 0, 1000).await;
    assert_eq!(kind(range), ErrorKind::Unavailable);
    server.set_faults(vec![Rule::on(S3::GetObject, Fault::Corrupt).times(1)]);
    let error = store.get(&there).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(chain(&error).contains("CRC-32C"), "{}", chain(&error));
    assert_eq!(store.get(&there).await.unwrap(), body(1000));
    // A list that breaks off is no shorter list.
    server.set_faults(vec![Rule::on(S3::ListObjects, Fault::Truncate).times(1)]);
    let listed = store.list("", None, 10).await;
    assert_eq!(kind(listed), ErrorKind::Unavailable);
    // Nor is one whose answer to a write cannot be read a failed write.
    server.set_faults(vec![
        Rule::on(S3::CompleteMultipartUpload, Fault::Truncate).times(1),
    ]);
    let written = store.create(&key("long"), body(LONG)).await;
    assert_eq!(kind(written), ErrorKind::Unknown);
    assert_holds(&*store, &key("long"), &body(LONG)).await;
}

/// 409 is S3's word for *ask again*: nothing was done.
#[tokio::test]
async fn a_conflict_is_asked_again() {
    let (server, store) = filled().await;
    let conflict = || Fault::refuse(409, "ConditionalRequestConflict");
    server.set_faults(vec![Rule::on(S3::PutObject, conflict()).times(3)]);
    store.create(&key("a"), body(10)).await.unwrap();
    server.set_faults(vec![Rule::on(S3::PutObject, conflict())]);
    let endless = store.create(&key("b"), body(10)).await;
    assert_eq!(kind(endless), ErrorKind::Unavailable);
    server.set_faults(vec![
        Rule::on(S3::CompleteMultipartUpload, conflict()).times(1),
    ]);
    let long = store.create(&key("long"), body(LONG)).await;
    assert_eq!(kind(long), ErrorKind::Unavailable);
    assert_eq!(server.open_uploads("store"), 0);
    patient(store, limit(&conflict()))
        .create(&key("long"), body(LONG))
        .await
        .unwrap();
}
