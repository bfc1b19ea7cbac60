//! A runbook of one's own: it waits, runs a program where the service runs, and tells a listener, once each and with the keys by which
//! the other side can tell.

use dr_sandbox::{HOME, LostStore, RECOVERY, Sandbox};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::executions::moved_once;
use crate::support::{acknowledge, acknowledge_after, backup, dr, end, judged, start};

/// A message as it arrived: the head of the request in lower case, and its body.
struct Request {
    head: String,
    body: Value,
}

/// Listens for messages; returns where, and what comes.
async fn listen() -> (String, mpsc::UnboundedReceiver<Request>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let (arrived, received) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut bytes = Vec::new();
            loop {
                let mut buffer = [0; 4096];
                let count = stream.read(&mut buffer).await.unwrap();
                bytes.extend_from_slice(&buffer[..count]);
                let text = String::from_utf8_lossy(&bytes).into_owned();
                let parts = text.split_once("\r\n\r\n");
                let read = parts.and_then(|(head, body)| {
                    let body = serde_json::from_str(body).ok()?;
                    let head = head.to_lowercase();
                    Some(Request { head, body })
                });
                if let Some(request) = read {
                    arrived.send(request).ok();
                    break;
                }
                assert!(count > 0, "a message was cut off: {text}");
            }
            let answer = b"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(answer).await.unwrap();
        }
    });
    (url, received)
}

/// Has a runbook of one's own take the place of the one that is built in, and messages sent to `url`.
fn configure(sandbox: &Sandbox, url: &str) {
    let (layout, launcher) = (sandbox.layout(), sandbox.launcher());
    let runbook = include_str!("../../../../runbooks/failover-region.yaml");
    let verify = "  - { id: verify, uses: check-health }\n";
    let script = format!("env > {}", layout.directory.join("warmed").display());
    let own = format!(
        "{verify}  - {{ id: settle, uses: wait, with: {{ for: 700ms }} }}\n  \
         - {{ id: warm, uses: run-command, with: {{ on: app, run: [sh, -c, \"{script}\"] }} }}\n"
    );
    let changed = runbook.replace(verify, &own);
    assert_ne!(changed, runbook);
    let file = layout.directory.join("runbooks/failover-region.yaml");
    launcher.write_file(&file, &changed).unwrap();
    let file = layout.directory.join("dr.yaml");
    let mut text = std::fs::read_to_string(&file).unwrap();
    // The workload is the last thing in the file.
    text.push_str(&format!("    notify:\n      - webhook: \"{url}\"\n"));
    launcher.write_file(&file, &text).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runbook_waits_runs_a_program_and_tells() {
    let sandbox = start(Sandbox::builder()).await;
    let (url, mut received) = listen().await;
    configure(&sandbox, &url);
    let load = sandbox.load(Default::default()).unwrap();
    backup(&sandbox, RECOVERY).await;
    acknowledge(&load, 100).await;
    let home = sandbox.region(HOME).unwrap();
    let lost_at = home.lose(LostStore::Renamed).unwrap();
    let words = ["failover", "--to", RECOVERY, "--yes", "--json"];
    let output = dr(&sandbox, &words).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let report: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(report["state"], "completed", "{output:?}");
    let id = report["execution"].as_str().unwrap();

    let steps = report["steps"].as_array().unwrap();
    let step = |id: &str| steps.iter().find(|step| step["id"] == id).unwrap();
    assert!(step("settle")["took_seconds"].as_f64() >= Some(0.7));
    assert_eq!(step("warm")["summary"], "ran `sh` on local");
    let written = sandbox.layout().directory.join("warmed");
    let environment = std::fs::read_to_string(written).unwrap();
    for line in [
        format!("DR_IDEMPOTENCY_KEY={id}/warm"),
        format!("DR_EXECUTION={id}"),
        "DR_WORKLOAD=ledger".to_owned(),
        format!("DR_FROM={HOME}"),
        format!("DR_TO={RECOVERY}"),
        "DR_EPOCH=2".to_owned(),
    ] {
        let found = environment.lines().any(|found| found == line);
        assert!(found, "{line} is missing in {environment}");
    }

    let key = format!("{id}/notify");
    let told = received.try_recv().unwrap();
    assert!(told.head.starts_with("post /hook "), "{}", told.head);
    let header = format!("idempotency-key: {}", key.to_lowercase());
    assert!(told.head.lines().any(|l| l == header), "{}", told.head);
    let subject = format!("ledger moved from {HOME} to {RECOVERY}");
    assert_eq!(told.body["subject"], subject);
    assert_eq!(told.body["idempotency_key"], key);
    let body = &told.body["body"];
    let place = json!([
        body["execution"],
        body["workload"],
        body["from"],
        body["to"],
        body["epoch"],
        body["fence"]
    ]);
    let expected = json!([id, "ledger", HOME, RECOVERY, 2, report["fence"]]);
    assert_eq!(place, expected, "{body}");
    assert!(received.try_recv().is_err(), "it was told once");

    moved_once(&sandbox).await;
    acknowledge_after(&load, lost_at).await;
    let record = load.stop().await.unwrap();
    judged(&sandbox, RECOVERY, &record).await;
    end(sandbox);
}
