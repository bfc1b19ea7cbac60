//! The server as a process of its own.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

/// A running server, killed when it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn start(arguments: &[&str]) -> (Running, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_dr-s3-server"))
        .args(["--bucket", "store"])
        .args(arguments)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let address = line.trim().strip_prefix("http://").unwrap().to_owned();
    (Running(child), address)
}

#[test]
fn it_says_where_it_listens_and_lets_no_stranger_in() {
    let (_server, address) = start(&[]);
    let mut stream = TcpStream::connect(&address).unwrap();
    write!(
        stream,
        "GET /store/a HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    assert!(answer.contains("<Code>AccessDenied</Code>"), "{answer}");
}

#[test]
fn an_address_in_use_is_said() {
    let (_server, address) = start(&[]);
    let again = Command::new(env!("CARGO_BIN_EXE_dr-s3-server"))
        .args(["--bucket", "store", "--listen", &address])
        .output()
        .unwrap();
    assert!(!again.status.success());
    let said = String::from_utf8(again.stderr).unwrap();
    assert!(said.contains(&address), "{said}");
}
