//! What may stand in the configuration, and what is said of the rest.

use crate::support::{keys, map, text};
use dr_model::document::{Context, FromNode as _, Node};
use dr_s3::{Encryption, S3Options, StorageClass};

fn read(node: &Node) -> Result<S3Options, Vec<String>> {
    let mut context = Context::without_references("/etc/dr");
    let options = S3Options::from_node(node, &mut context);
    let problems = context.into_problems();
    let lines = problems
        .iter()
        .map(|problem| format!("{}: {}", problem.path, problem.what));
    let lines: Vec<String> = lines.collect();
    options.filter(|_| lines.is_empty()).ok_or(lines)
}

#[test]
fn a_location_alone_is_enough() {
    let options = read(&text("s3://acme-dr-use1")).unwrap();
    assert_eq!((&*options.bucket, &*options.prefix), ("acme-dr-use1", ""));
    assert!(!options.path_style);
    let options = read(&text("s3://acme.dr/stores/use1/")).unwrap();
    assert_eq!(
        (&*options.bucket, &*options.prefix),
        ("acme.dr", "stores/use1/")
    );
}

#[test]
fn everything_that_can_be_said() {
    let options = read(&map(&[
        ("url", text("s3://acme-dr/use1")),
        ("endpoint", text("https://s3.acme.example:9000/")),
        ("region", text("eu-central-1")),
        ("ca_file", text("certs/ca.pem")),
        ("storage_class", text("GLACIER_IR")),
        ("encryption", map(&[("kms_key_id", text("alias/dr"))])),
        ("credentials", keys("id", "${file:secret}")),
        ("prune_credentials", keys("pruner", "${file:other}")),
    ]))
    .unwrap();
    assert_eq!(
        options.endpoint.as_deref(),
        Some("https://s3.acme.example:9000")
    );
    assert!(
        options.path_style,
        "the usual way with a server of one's own"
    );
    assert_eq!(
        options.ca_file.unwrap().to_str(),
        Some("/etc/dr/certs/ca.pem")
    );
    assert_eq!(options.storage_class, Some(StorageClass::GlacierIr));
    assert_eq!(StorageClass::GlacierIr.as_str(), "GLACIER_IR");
    assert_eq!(
        options.encryption,
        Some(Encryption::Kms(Some("alias/dr".to_owned())))
    );
    let kept = options.credentials.unwrap();
    assert_eq!(kept.secret_access_key.text(), "${file:secret}");
    assert!(options.prune_credentials.is_some());
}

#[test]
fn all_problems_are_told_at_once() {
    let mut sorted = read(&map(&[
        ("url", text("s3://Acme")),
        ("endpoint", text("s3.acme.example")),
        ("storage_class", text("GLACIER")),
        ("encryption", text("rot13")),
        ("credentials", map(&[("access_key_id", text("id"))])),
        ("prune", keys("a", "b")),
    ]))
    .unwrap_err();
    sorted.sort();
    assert_eq!(
        sorted,
        [
            ": unknown key `prune`",
            "credentials: `secret_access_key` is missing",
            "encryption: `rot13` is not known here",
            "endpoint: `s3.acme.example` is not a server",
            "storage_class: `GLACIER` is not known here",
            "url: `s3://Acme`: not the name of a bucket",
        ]
    );
    for (url, what) in [
        ("s3:/acme", "not a location on S3"),
        ("s3://acme-dr/a//b", "not a prefix"),
        ("s3://acme-dr/../b", "not a prefix"),
        ("s3://ab", "not the name of a bucket"),
        ("s3://-acme", "not the name of a bucket"),
    ] {
        assert_eq!(
            read(&text(url)).unwrap_err(),
            [format!(": `{url}`: {what}")]
        );
    }
    let plain = read(&map(&[
        ("url", text("s3://acme-dr")),
        ("endpoint", text("http://10.0.0.1")),
        ("ca_file", text("ca.pem")),
    ]));
    assert_eq!(
        plain.unwrap_err(),
        [": certificates are of no use without TLS"]
    );
}
