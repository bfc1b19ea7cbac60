//! Against a server that answers what it is told to.

use std::time::Duration;

use dr_provider::probe::Health;
use dr_provider::{ErrorKind, Probe};
use tokio::net::TcpListener;

use super::HttpProbe;
use crate::http::tests::serve;

fn probe(port: u16) -> HttpProbe {
    let url = format!("http://127.0.0.1:{port}/health?x=1");
    HttpProbe::new(url, Duration::from_secs(9)).unwrap()
}

#[tokio::test]
async fn healthy_is_2xx_and_nothing_else() {
    let long = "x".repeat(200);
    let long = format!("HTTP/1.1 500 X\r\ncontent-length: 200\r\n\r\n{long}");
    let shown = format!("500 Internal Server Error: {}…", "x".repeat(120));
    for (answer, expected) in [
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nall\r\nwell",
            Health::Healthy("200 OK: all well".into()),
        ),
        (
            "HTTP/1.1 204 X\r\n\r\n",
            Health::Healthy("204 No Content".into()),
        ),
        (
            "HTTP/1.1 302 X\r\nlocation: /\r\ncontent-length: 0\r\n\r\n",
            Health::Unhealthy("302 Found".into()),
        ),
        (long.as_str(), Health::Unhealthy(shown)),
    ] {
        let (port, request) = serve(answer).await;
        assert_eq!(probe(port).probe().await, expected);
        let request = request.await.unwrap();
        assert!(
            request.starts_with("GET /health?x=1 HTTP/1.1\r\n"),
            "{request}"
        );
        assert!(request.contains(&format!("host: 127.0.0.1:{port}\r\n")));
    }
}

#[tokio::test]
async fn a_client_asks_for_the_name_that_led_it_there() {
    let (port, request) = serve("HTTP/1.1 204 X\r\n\r\n").await;
    let probe = probe(port).named("orders.acme.example");
    let expected = Health::Healthy("204 No Content".into());
    assert_eq!(probe.probe().await, expected);
    let request = request.await.unwrap();
    let host = format!("host: orders.acme.example:{port}\r\n");
    assert!(request.contains(&host), "{request}");
}

#[tokio::test]
async fn no_answer_is_unknown() {
    let (port, _request) = serve("").await;
    assert!(matches!(probe(port).probe().await, Health::Unknown(_)));
    let unused = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = unused.local_addr().unwrap().port();
    drop(unused);
    assert!(matches!(probe(port).probe().await, Health::Unknown(_)));
}

#[tokio::test]
async fn silence_is_unknown_after_the_limit() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    let probe = HttpProbe::new(url, Duration::from_millis(50)).unwrap();
    let expected = Health::Unknown("no answer within 50ms".into());
    assert_eq!(probe.probe().await, expected);
}

#[test]
fn refuses_what_it_cannot_ask() {
    for (url, kind) in [
        ("https:///health", ErrorKind::Invalid),
        ("ftp://a/", ErrorKind::Invalid),
        ("a b", ErrorKind::Invalid),
        ("/health", ErrorKind::Invalid),
    ] {
        let error = HttpProbe::new(url, Duration::from_secs(1)).unwrap_err();
        assert_eq!(error.kind(), kind, "{url}");
    }
}
