//! Each fault on each operation: what kind of failure it is, and that repeating comes to an end.
//!
//! The expected kind follows from one question: can the change have been made? A refusal says no, a
//! connection that ends after the request was sent says nothing.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dr_provider::decorate::{Retry, RetryOptions, Timeout};
use dr_provider::error::chain;
use dr_provider::{Error, ErrorKind, ObjectStore, Result};
use dr_s3::S3Store;
use dr_s3_testing::{Account, Conditions, Fault, Operation as S3, Options, Rule, Server};
use rstest::rstest;
use support::{assert_holds, body, identity, key, keys, map, open, started, text};

/// More than one part.
const LONG: usize = (17 << 20) + 123;

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

async fn filled() -> (Server, Arc<S3Store>) {
    let (server, store) = started().await;
    store.create(&key("there"), body(1000)).await.unwrap();
    (server, store)
}

/// How long a call may take: a test must not hang, nor fail because the machine is busy. Only where
/// nobody answers is it worth keeping short.
fn limit(fault: &Fault) -> Duration {
    match fault {
        Fault::Hang | Fault::Delay(_) => Duration::from_secs(3),
        _ => Duration::from_secs(120),
    }
}

/// A store as the binary uses it, with other limits.
fn patient(store: Arc<S3Store>, limit: Duration) -> Retry {
    let options = RetryOptions {
        attempts: 4,
        first_wait: Duration::from_millis(5),
        longest_wait: Duration::from_millis(20),
    };
    let limited = Timeout::new(store, limit);
    Retry::new(Arc::new(limited), options)
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

/// Waits until what was given up has been taken away.
async fn no_parts(server: &Server) {
    let gone = async {
        while server.open_uploads("store") > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone)
        .await
        .unwrap();
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

/// Without its identity, or with another one, the store calls nothing missing.
#[tokio::test]
async fn missing_is_said_only_beside_the_identity() {
    let (server, store) = filled().await;
    assert_eq!(kind(store.get(&key("no")).await), ErrorKind::NotFound);
    assert_eq!(store.list("no", None, 5).await.unwrap(), []);
    let kept = server.object("store", &identity()).unwrap().body;
    for other in [None, Some(Bytes::from("another store's"))] {
        server.remove_object("store", &identity());
        if let Some(other) = other {
            let identity = key(dr_provider::store::IDENTITY_KEY);
            let there = store.create(&identity, other).await;
            there.unwrap();
        }
        assert_eq!(kind(store.get(&key("no")).await), ErrorKind::Unavailable);
        assert_eq!(kind(store.head(&key("no")).await), ErrorKind::Unavailable);
        let range = store.get_range(&key("no"), 0, 0).await;
        assert_eq!(kind(range), ErrorKind::Unavailable);
        let listed = store.list("no", None, 5).await;
        assert_eq!(kind(listed), ErrorKind::Unavailable);
        assert_eq!(store.get(&key("there")).await.unwrap(), body(1000));
    }
    server.remove_object("store", &identity());
    let identity = key(dr_provider::store::IDENTITY_KEY);
    store.create(&identity, kept).await.unwrap();
    assert_eq!(kind(store.get(&key("no")).await), ErrorKind::NotFound);
    // While the identity cannot be asked for, neither can anything be called missing.
    server.set_faults(vec![
        Rule::on(S3::GetObject, Fault::slow_down()).key("identity.json"),
    ]);
    assert_eq!(kind(store.get(&key("no")).await), ErrorKind::Unavailable);
}

/// Listings that lag behind hide what is new and are otherwise right.
#[tokio::test]
async fn a_stale_listing_hides_only_what_is_new() {
    let (server, store) = filled().await;
    server.set_stale("store", true);
    store.create(&key("their"), body(1)).await.unwrap();
    let names = |found: Vec<dr_provider::store::ObjectInfo>| {
        let names = found.into_iter().map(|info| info.key.to_string());
        names.collect::<Vec<_>>()
    };
    let listed = store.list("the", None, 9).await.unwrap();
    assert_eq!(names(listed), ["there"]);
    assert_eq!(store.get(&key("their")).await.unwrap(), body(1));
    server.set_stale("store", false);
    let listed = store.list("the", None, 9).await.unwrap();
    assert_eq!(names(listed), ["their", "there"]);
}

/// Servers that do not honour the condition are told apart by what they do, not by what they say.
#[rstest]
#[case(Conditions::Ignored, 16)]
#[case(Conditions::CheckedFirst, 2)]
#[tokio::test]
async fn a_server_without_conditions_lets_several_win(
    #[case] conditions: Conditions,
    #[case] least: usize,
) {
    let (server, store) = filled().await;
    server.set_conditions(conditions);
    let raced = key("raced");
    let creates = (0..16_u8).map(|racer| {
        let (store, key) = (Arc::clone(&store), raced.clone());
        async move { store.create(&key, Bytes::from(vec![racer])).await }
    });
    let won = futures::future::join_all(creates).await;
    assert!(won.iter().filter(|result| result.is_ok()).count() >= least);
}

/// Who writes needs no right to delete, and deletes nothing; who prunes has keys of its own.
#[tokio::test]
async fn deleting_takes_other_keys() {
    let server = Server::start(Options {
        accounts: vec![
            Account::new("writer", "w").denied("DeleteObject"),
            Account::new("pruner", "p").denied("PutObject"),
        ],
        ..Options::default()
    })
    .await
    .unwrap();
    let node = |prune: Option<(&str, &str)>| {
        let mut entries = vec![
            ("url", text("s3://store")),
            ("endpoint", text(&server.endpoint())),
            ("credentials", keys("writer", "w")),
        ];
        if let Some((id, secret)) = prune {
            entries.push(("prune_credentials", keys(id, secret)));
        }
        open(&map(&entries))
    };
    let writer = node(None);
    writer.initialise(Bytes::from("identity")).await.unwrap();
    writer.create(&key("a"), body(1)).await.unwrap();
    writer.create(&key("long"), body(LONG)).await.unwrap();
    let refused = writer.delete(&key("a")).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Denied);
    assert!(refused.hint().unwrap().contains("prune_credentials"));
    let wrong = node(Some(("writer", "w"))).delete(&key("a")).await;
    let wrong = wrong.unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::Denied);
    assert!(wrong.hint().unwrap().contains("s3:DeleteObject"), "{wrong}");
    assert_eq!(writer.get(&key("a")).await.unwrap(), body(1));
    node(Some(("pruner", "p"))).delete(&key("a")).await.unwrap();
    assert_eq!(kind(writer.get(&key("a")).await), ErrorKind::NotFound);
}

/// What is wrong with the keys, the bucket or the server is said, with what to do about it.
#[tokio::test]
async fn what_is_wrong_is_named() {
    let server = Server::start(Options {
        accounts: vec![
            Account::new("test", "secret"),
            Account::new("old", "secret").expired(),
            Account::new("reader", "secret").denied("PutObject"),
        ],
        ..Options::default()
    })
    .await
    .unwrap();
    let at = |endpoint: &str, url: &str, id: &str, secret: &str| {
        open(&map(&[
            ("url", text(url)),
            ("endpoint", text(endpoint)),
            ("credentials", keys(id, secret)),
        ]))
    };
    let endpoint = server.endpoint();
    // A port that nothing listens on any more.
    let gone = Server::start(Options::default()).await.unwrap();
    let nobody = gone.endpoint();
    drop(gone);
    let cases = [
        (
            at(&endpoint, "s3://store", "old", "secret"),
            ErrorKind::Denied,
            "ExpiredToken",
            "expired",
        ),
        (
            at(&endpoint, "s3://store", "who", "secret"),
            ErrorKind::Denied,
            "InvalidAccessKeyId",
            "access key",
        ),
        (
            at(&endpoint, "s3://store", "test", "wrong"),
            ErrorKind::Denied,
            "SignatureDoesNotMatch",
            "secret",
        ),
        (
            at(&endpoint, "s3://store", "reader", "secret"),
            ErrorKind::Denied,
            "AccessDenied",
            "s3:PutObject",
        ),
        (
            at(&endpoint, "s3://elsewhere", "test", "secret"),
            ErrorKind::Unavailable,
            "NoSuchBucket",
            "no such bucket",
        ),
        (
            at(&nobody, "s3://store", "test", "secret"),
            ErrorKind::Unavailable,
            &nobody,
            "can be reached",
        ),
    ];
    for (store, kind, said, hint) in cases {
        let error = store.create(&key("a"), body(1)).await.unwrap_err();
        let text = chain(&error);
        assert_eq!(error.kind(), kind, "{text}");
        assert!(text.contains(said), "{text}");
        assert!(text.contains("PutObject"), "{text}");
        assert!(error.hint().unwrap().contains(hint), "{:?}", error.hint());
        assert!(!text.contains("secret"), "{text}");
        // A read says the same, and never that the object is missing.
        if said != "AccessDenied" {
            let read = store.get(&key("a")).await.unwrap_err();
            assert_eq!(read.kind(), kind, "{}", chain(&read));
            let looked = store.head(&key("a")).await.unwrap_err();
            assert_eq!(looked.kind(), kind, "{}", chain(&looked));
            assert!(chain(&looked).contains(said), "{}", chain(&looked));
        }
    }
}

/// What is configured of an object's keeping goes with every request that makes one.
#[tokio::test]
async fn objects_are_kept_as_configured() {
    let (server, plain) = started().await;
    let store = open(&map(&[
        ("url", text("s3://store/some/prefix")),
        ("endpoint", text(&server.endpoint())),
        ("storage_class", text("STANDARD_IA")),
        ("encryption", map(&[("kms_key_id", text("alias/dr"))])),
        ("credentials", keys("test", "secret")),
    ]));
    store.create(&key("short"), body(5)).await.unwrap();
    store.create(&key("long"), body(LONG)).await.unwrap();
    let source = store.copy_source(&key("short")).unwrap();
    store.copy_from(&source, &key("copy")).await.unwrap();
    for name in ["short", "long", "copy"] {
        let kept = server
            .object("store", &format!("some/prefix/{name}"))
            .unwrap();
        assert_eq!(kept.storage_class.as_deref(), Some("STANDARD_IA"), "{name}");
        assert_eq!(kept.encryption.as_deref(), Some("aws:kms"), "{name}");
        assert_eq!(kept.encryption_key.as_deref(), Some("alias/dr"), "{name}");
        // Of the whole object, so that every reader of it compares it.
        assert!(kept.crc32c.is_some_and(|sum| !sum.contains('-')), "{name}");
    }
    plain.create(&key("plain"), body(5)).await.unwrap();
    let kept = server.object("store", "some/prefix/plain").unwrap();
    assert_eq!((kept.storage_class, kept.encryption), (None, None));
}

/// A copy between buckets moves no byte through the client; one between servers is refused.
#[tokio::test]
async fn copies_stay_on_the_server() {
    let server = Server::start(Options {
        buckets: vec!["east".to_owned(), "west".to_owned()],
        ..Options::default()
    })
    .await
    .unwrap();
    let at = |bucket: &str| support::store_at(&server.endpoint(), &format!("s3://{bucket}/dr"));
    let (east, west) = (at("east"), at("west"));
    for store in [&east, &west] {
        store.initialise(Bytes::from("identity")).await.unwrap();
    }
    east.create(&key("pack"), body(LONG)).await.unwrap();
    let source = east.copy_source(&key("pack")).unwrap();
    server.set_faults(vec![
        Rule::on(S3::GetObject, Fault::refuse(403, "AccessDenied")),
        Rule::on(S3::UploadPart, Fault::refuse(403, "AccessDenied")),
    ]);
    west.copy_from(&source, &key("pack")).await.unwrap();
    server.set_faults(Vec::new());
    assert_holds(&west, &key("pack"), &body(LONG)).await;
    let missing = east.copy_source(&key("no")).unwrap();
    let copied = west.copy_from(&missing, &key("no")).await;
    assert!(copied.is_err());
    assert_eq!(server.open_uploads("west"), 0);
    let (other, elsewhere) = started().await;
    let refused = elsewhere.copy_from(&source, &key("pack")).await;
    assert_eq!(kind(refused), ErrorKind::Unsupported);
    drop(other);
}

/// A place that holds something else is not made into a store, and a store not made twice.
#[tokio::test]
async fn only_an_empty_place_becomes_a_store() {
    let (server, store) = filled().await;
    let again = store.initialise(Bytes::from("identity")).await;
    assert_eq!(kind(again), ErrorKind::AlreadyExists);
    let outer = support::store_at(&server.endpoint(), "s3://store");
    let refused = outer.initialise(Bytes::from("identity")).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid);
    assert!(
        chain(&refused).contains("some/prefix/"),
        "{}",
        chain(&refused)
    );
    let beside = support::store_at(&server.endpoint(), "s3://store/other");
    beside.initialise(Bytes::from("identity")).await.unwrap();
}

/// What the configuration names is looked at when it is used, and errors name it.
#[tokio::test]
async fn a_bad_file_of_certificates_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ca.pem");
    let store = |path: &str| {
        open(&map(&[
            ("url", text("s3://store")),
            ("endpoint", text("https://127.0.0.1:1")),
            ("ca_file", text(path)),
            ("credentials", keys("test", "secret")),
        ]))
    };
    for content in [
        None,
        Some(""),
        Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
    ] {
        if let Some(content) = content {
            std::fs::write(&file, content).unwrap();
        }
        let path = file.display().to_string();
        let error = store(&path).get(&key("a")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{}", chain(&error));
        assert!(chain(&error).contains(&path), "{}", chain(&error));
    }
}

#[track_caller]
fn kind<T: std::fmt::Debug>(result: Result<T>) -> ErrorKind {
    Error::kind(&result.unwrap_err())
}
