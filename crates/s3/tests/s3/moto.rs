//! The conformance suite of stores, against moto: an S3 that shares no line with ours.
//!
//! Moto stands in $DR_MOTO_SERVER, or where `scripts/packages test` puts it. Without it the tests say
//! that they were skipped.

#![allow(clippy::print_stderr, reason = "what is not tested is said aloud")]

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use crate::support::{assert_holds, body, key, patient, store_at};

/// How long a call may take: nothing here is meant to be slow.
const LIMIT: Duration = Duration::from_secs(120);
use bytes::Bytes;
use dr_provider::conformance::object_store::{self, Subject};
use dr_provider::error::chain;
use dr_provider::{ErrorKind, ObjectStore as _};

/// A running moto, killed when it is dropped.
struct Moto {
    address: SocketAddr,
    process: Child,
}

impl Drop for Moto {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

fn program() -> Option<PathBuf> {
    if let Some(program) = std::env::var_os("DR_MOTO_SERVER") {
        return Some(program.into());
    }
    let brought =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools/moto/bin/moto_server");
    brought.is_file().then_some(brought)
}

impl Moto {
    /// Starts one with the bucket `store`; `None` if there is none on this machine.
    async fn start() -> Option<Self> {
        let Some(program) = program() else {
            eprintln!("SKIPPED: no `moto_server`: run scripts/packages test or set DR_MOTO_SERVER");
            return None;
        };
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let process = Command::new(program)
            .args(["-H", "127.0.0.1", "-p", &address.port().to_string()])
            .env("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let moto = Self { address, process };
        let ready = async {
            while moto.ask("PUT /store").is_none() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), ready)
            .await
            .unwrap();
        Some(moto)
    }

    /// Sends a request without a body; moto asks nobody for a signature.
    fn ask(&self, request: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.address).ok()?;
        write!(
            stream,
            "{request} HTTP/1.1\r\nhost: {}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            self.address
        )
        .ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.starts_with("HTTP/1.1 200").then_some(answer)
    }

    fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }
}

async fn subject() -> Option<Subject> {
    let moto = Moto::start().await?;
    let store = store_at(&moto.endpoint(), "s3://store/some/prefix");
    store.initialise(Bytes::from("identity\n")).await.unwrap();
    Some(Subject::new(Arc::new(store), move || drop(moto)))
}

macro_rules! conformance {
    ($($name:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            if let Some(subject) = subject().await {
                object_store::$name(subject).await;
            }
        }
    )*};
}

// The suite, each of it where there is a moto.
conformance! {
    an_existing_object_is_never_changed
    an_object_is_readable_at_once
    big_and_empty_objects_keep
    no_reader_sees_part_of_an_object
    one_of_sixteen_creates_wins
    a_deleted_object_is_gone
    a_range_ends_with_the_object
    without_identity_nothing_is_not_found
    a_listing_is_in_byte_order
    a_listing_of_many_keys_pages
    a_prefix_need_not_end_at_a_slash
}

/// Objects in parts, and copies: created once, whole.
///
/// Through the retries that every store has in the binary: moto calls the root of its answer to
/// CompleteMultipartUpload `CompleteMultipartUploadResponse`, S3 `CompleteMultipartUploadResult`, so the SDK cannot read
/// it and the store says, rightly, that the outcome is unknown. Repeating finds the object there, the same.
#[tokio::test]
async fn parts_and_copies() {
    let Some(moto) = Moto::start().await else {
        return;
    };
    let at = |url: &str| Arc::new(store_at(&moto.endpoint(), url));
    let (plain, store) = (at("s3://store/a"), patient(at("s3://store/a"), LIMIT));
    plain.initialise(Bytes::from("identity")).await.unwrap();
    let long = body((33 << 20) + 123);
    store.create(&key("long"), long.clone()).await.unwrap();
    let again = store.create(&key("long"), long.clone()).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::AlreadyExists, "{}", chain(&again));
    let source = store.copy_source(&key("long")).unwrap();
    let (plain, other) = (at("s3://store/b"), patient(at("s3://store/b"), LIMIT));
    plain.initialise(Bytes::from("identity")).await.unwrap();
    other.copy_from(&source, &key("copy")).await.unwrap();
    assert_holds(&other, &key("copy"), &long).await;
    let again = other.copy_from(&source, &key("copy")).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::AlreadyExists, "{}", chain(&again));
}
