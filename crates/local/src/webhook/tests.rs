//! What is sent, and what an answer means.

use std::time::Duration;

use dr_provider::notifier::Message;
use dr_provider::{ErrorKind, Notifier, Result, Secret};
use rstest::rstest;
use serde_json::{Value, json};

use super::Webhook;
use crate::http::tests::serve;

async fn post(answer: &str) -> (Result<()>, String) {
    let (port, request) = serve(answer).await;
    let url = Secret::new(format!("http://127.0.0.1:{port}/hook/token"));
    let webhook = Webhook::new(&url, Duration::from_secs(9)).unwrap();
    let message = Message {
        subject: "orders moved".into(),
        idempotency_key: "20261121T093005Z-us-west-2-7f3a/notify".into(),
        body: json!({"epoch": 2}),
    };
    let sent = webhook.notify(&message).await;
    (sent, request.await.unwrap())
}

#[tokio::test]
async fn posts_the_message_with_its_key() {
    let (sent, request) = post("HTTP/1.1 202 X\r\ncontent-length: 0\r\n\r\n").await;
    sent.unwrap();
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /hook/token HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("idempotency-key: 20261121T093005Z-us-west-2-7f3a/notify"));
    assert!(head.contains("content-type: application/json"));
    let body: Value = serde_json::from_str(body).unwrap();
    assert_eq!(body["subject"], "orders moved");
    assert_eq!(body["body"]["epoch"], 2);
}

#[rstest]
#[case("HTTP/1.1 403 X\r\ncontent-length: 0\r\n\r\n", ErrorKind::Denied)]
#[case("HTTP/1.1 404 X\r\ncontent-length: 0\r\n\r\n", ErrorKind::Failed)]
#[case("HTTP/1.1 501 X\r\ncontent-length: 0\r\n\r\n", ErrorKind::Failed)]
#[case("HTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n", ErrorKind::Unknown)]
#[case("", ErrorKind::Unknown)]
#[tokio::test]
async fn an_answer_is_judged(#[case] answer: &str, #[case] kind: ErrorKind) {
    let error = post(answer).await.0.unwrap_err();
    assert_eq!(error.kind(), kind);
    let text = dr_provider::error::chain(&error);
    assert!(!text.contains("token"), "{text}");
    assert_eq!(
        error.hint().is_some(),
        kind == ErrorKind::Failed,
        "{error:?}"
    );
}

#[tokio::test]
async fn a_busy_server_says_when_to_come_back() {
    let answer = "HTTP/1.1 429 X\r\nretry-after: 7\r\ncontent-length: 4\r\n\r\nbusy";
    let error = post(answer).await.0.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
}
