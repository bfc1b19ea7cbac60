//! Stores on a server of our own.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dr_model::SystemClock;
use dr_model::document::{Context, FromNode as _, Node, Span, Spanned, Value};
use dr_provider::decorate::{Retry, RetryOptions, Timeout};
use dr_provider::store::IDENTITY_KEY;
use dr_provider::{Error, ErrorKind, Key, ObjectStore, Result, Secret, SecretSource};
use dr_s3::{S3Options, S3Store};
use dr_s3_testing::{Options, Server};

/// More than one part.
pub(crate) const LONG: usize = (17 << 20) + 123;

/// Takes every text for the secret itself.
#[derive(Debug)]
struct Plain;

impl SecretSource for Plain {
    fn resolve(&self, text: &str) -> Result<Secret> {
        Ok(Secret::new(text))
    }
}

fn at<T>(value: T) -> Spanned<T> {
    Spanned::new(Span::new("test", 1, 1), value)
}

/// Makes the node of a text.
pub(crate) fn text(text: &str) -> Node {
    at(Value::String(text.to_owned()))
}

/// Makes the node of a map.
pub(crate) fn map(entries: &[(&str, Node)]) -> Node {
    let entries = entries.iter().cloned();
    at(Value::Map(
        entries
            .map(|(key, node)| (at(key.to_owned()), node))
            .collect(),
    ))
}

/// Makes the node of a pair of keys.
pub(crate) fn keys(id: &str, secret: &str) -> Node {
    map(&[
        ("access_key_id", text(id)),
        ("secret_access_key", text(secret)),
    ])
}

/// Opens the store that a node describes.
pub(crate) fn open(node: &Node) -> S3Store {
    let mut context = Context::without_references("/");
    let options = S3Options::from_node(node, &mut context);
    let options = options.unwrap_or_else(|| panic!("{:?}", context.into_problems()));
    let secrets: Arc<dyn SecretSource> = Arc::new(Plain);
    let clock: Arc<dyn dr_model::Clock> = Arc::new(SystemClock::new());
    S3Store::open(options, &secrets, &clock)
}

/// Opens a store with the usual keys for everything.
pub(crate) fn store_at(endpoint: &str, url: &str) -> S3Store {
    open(&map(&[
        ("url", text(url)),
        ("endpoint", text(endpoint)),
        ("region", text("us-west-2")),
        ("credentials", keys("test", "secret")),
        ("prune_credentials", keys("test", "secret")),
    ]))
}

/// Starts a server with one store, at `s3://store/some/prefix`, that has an identity.
pub(crate) async fn started() -> (Server, Arc<S3Store>) {
    let server = Server::start(Options::default()).await.unwrap();
    let store = store_at(&server.endpoint(), "s3://store/some/prefix");
    store.initialise(Bytes::from("identity\n")).await.unwrap();
    (server, Arc::new(store))
}

/// The key of the identity object in the bucket.
pub(crate) fn identity() -> String {
    format!("some/prefix/{IDENTITY_KEY}")
}

/// Makes a key.
pub(crate) fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

/// Makes a body of so many bytes that is like no other.
pub(crate) fn body(length: usize) -> Bytes {
    (0..length).map(|at| (at * 31 % 251) as u8).collect()
}

/// Compares without printing megabytes.
pub(crate) async fn assert_holds(store: &dyn ObjectStore, key: &Key, body: &Bytes) {
    assert!(store.get(key).await.unwrap() == *body, "{key}");
}

/// The same, with an object of 1,000 bytes at `there`.
pub(crate) async fn filled() -> (Server, Arc<S3Store>) {
    let (server, store) = started().await;
    store.create(&key("there"), body(1000)).await.unwrap();
    (server, store)
}

/// A store as the binary uses it, with other limits.
pub(crate) fn patient(store: Arc<S3Store>, limit: Duration) -> Retry {
    let options = RetryOptions {
        attempts: 4,
        first_wait: Duration::from_millis(5),
        longest_wait: Duration::from_millis(20),
    };
    let limited = Timeout::new(store, limit);
    Retry::new(Arc::new(limited), options)
}

/// Waits until what was given up has been taken away.
pub(crate) async fn no_parts(server: &Server) {
    let gone = async {
        while server.open_uploads("store") > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone)
        .await
        .unwrap();
}

/// The kind of the error that there has to be.
#[track_caller]
pub(crate) fn kind<T: std::fmt::Debug>(result: Result<T>) -> ErrorKind {
    Error::kind(&result.unwrap_err())
}
