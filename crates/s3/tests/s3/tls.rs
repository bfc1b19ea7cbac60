//! Stores on a server that proves itself by a certificate of one's own.

use crate::support::{keys, map, open, text};
use bytes::Bytes;
use dr_provider::error::chain;
use dr_provider::{ErrorKind, Key, ObjectStore as _};
use dr_s3::S3Store;
use dr_s3_testing::{Certificate, Options, Server};

/// Valid for 127.0.0.1 and a hundred years. The key protects nothing.
fn data(name: &str) -> std::path::PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/s3/data", name]
        .iter()
        .collect()
}

fn store(server: &Server, trusted: &str) -> S3Store {
    open(&map(&[
        ("url", text("s3://store")),
        ("endpoint", text(&server.endpoint())),
        ("region", text("us-west-2")),
        ("ca_file", text(data(trusted).to_str().unwrap())),
        ("credentials", keys("test", "secret")),
    ]))
}

#[tokio::test]
async fn the_certificate_that_is_named_is_trusted_and_no_other() {
    let options = Options {
        certificate: Some(Certificate {
            chain: data("server.pem"),
            key: data("server.key"),
        }),
        ..Options::default()
    };
    let server = Server::start(options).await.unwrap();
    assert!(server.endpoint().starts_with("https://127.0.0.1:"));

    let trusting = store(&server, "server.pem");
    trusting
        .initialise(Bytes::from("identity\n"))
        .await
        .unwrap();
    let key = Key::new("a/b").unwrap();
    // Long enough for parts.
    let body = Bytes::from(vec![7; 20 << 20]);
    trusting.create(&key, body.clone()).await.unwrap();
    assert_eq!(trusting.get(&key).await.unwrap(), body);

    let refused = store(&server, "other.pem").get(&key).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Denied, "{}", chain(&refused));
    let said = chain(&refused);
    assert!(said.contains("invalid peer certificate"), "{said}");
    assert!(said.contains(&server.endpoint()), "{said}");
    assert!(refused.hint().unwrap().contains("`ca_file`"), "{refused}");
}
