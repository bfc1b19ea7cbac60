//! What is configured: keys and their rights, how objects are kept, copies, and what is said when something is wrong.

use bytes::Bytes;
use dr_provider::error::chain;
use dr_provider::{ErrorKind, ObjectStore as _};
use dr_s3_testing::{Account, Fault, Operation as S3, Options, Rule, Server};

use crate::support::{
    LONG, assert_holds, body, filled, key, keys, kind, map, open, started, store_at, text,
};

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
    let at = |bucket: &str| store_at(&server.endpoint(), &format!("s3://{bucket}/dr"));
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
    let outer = store_at(&server.endpoint(), "s3://store");
    let refused = outer.initialise(Bytes::from("identity")).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid);
    assert!(
        chain(&refused).contains("some/prefix/"),
        "{}",
        chain(&refused)
    );
    let beside = store_at(&server.endpoint(), "s3://store/other");
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
