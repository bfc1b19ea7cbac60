//! A primary that does not answer is an outage with a proposal, told once and never acted upon; while nothing else answers
//! either, nothing can be told and nothing is proposed.

use std::sync::{Arc, Mutex};

use dr_model::Clock;
use dr_sandbox::layout::WORKLOAD;
use dr_sandbox::process::{Process, Table, members};
use dr_sandbox::region::signal;
use dr_sandbox::{HOME, LostStore, RECOVERY, Sandbox};
use rustix::process::Signal;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::executions::{epochs, executions};
use crate::support::{
    acknowledge, acknowledge_after, dr, dr_json, end, metrics, start, task, until,
};

/// What a webhook was sent: the bodies, in order.
type Received = Arc<Mutex<Vec<Value>>>;

/// Listens for messages; returns where, and what comes.
async fn webhook() -> (String, Received) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let received = Received::default();
    let all = Arc::clone(&received);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            let body = loop {
                let mut buffer = [0; 4096];
                let count = stream.read(&mut buffer).await.unwrap();
                request.extend_from_slice(&buffer[..count]);
                let head = request.windows(4).position(|end| end == b"\r\n\r\n");
                let body = head.and_then(|end| serde_json::from_slice(&request[end + 4..]).ok());
                if count == 0 || body.is_some() {
                    break body;
                }
            };
            all.lock().unwrap().extend(body);
            let answer = b"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(answer).await.unwrap();
        }
    });
    (url, received)
}

/// Starts a sandbox whose daemons look twice a second, and tell a webhook if there is one.
async fn watched(webhook: Option<&str>) -> Sandbox {
    let sandbox = start(Sandbox::builder().daemons(false)).await;
    let file = sandbox.layout().directory.join("dr.yaml");
    let mut text = std::fs::read_to_string(&file).unwrap();
    // The workload is the last thing in the file.
    text.push_str("    detection: { every: 500ms, down_after: 3 }\n");
    if let Some(url) = webhook {
        text.push_str(&format!("    notify:\n      - webhook: \"{url}\"\n"));
    }
    sandbox.launcher().write_file(&file, &text).unwrap();
    for region in [HOME, RECOVERY] {
        sandbox
            .region(region)
            .unwrap()
            .start_daemon()
            .await
            .unwrap();
    }
    // The ledger is empty, which a check objects to: the primary is there, and nobody can tell whether it is well.
    primary_is(&sandbox, "unknown", "answers, but").await;
    sandbox
}

/// Waits until the daemon of the recovery region says this of the primary.
async fn primary_is(sandbox: &Sandbox, status: &str, words: &str) -> String {
    until(
        &format!("a primary of which is said: {words}"),
        async || {
            let seen = task(sandbox, RECOVERY, &format!("primary of {WORKLOAD}")).await?;
            let detail = seen["detail"].as_str().unwrap().to_owned();
            if seen["status"] == status && detail.contains(words) {
                Ok(detail)
            } else {
                Err(seen.to_string())
            }
        },
    )
    .await
}

/// Returns the outage that goes on, as `dr status` shows it.
async fn outage(sandbox: &Sandbox) -> Value {
    let status = dr_json(sandbox, &["status", "--json"]).await;
    status["workloads"][0]["outage"].clone()
}

/// Returns what the store of the recovery region holds of outages.
fn recorded(sandbox: &Sandbox) -> Vec<String> {
    let store = sandbox.region(RECOVERY).unwrap().place().store();
    let epoch = store.join("outage").join(WORKLOAD).join("00000001");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&epoch).into_iter().flatten().flatten() {
        for mark in std::fs::read_dir(entry.path()).unwrap().flatten() {
            found.push(mark.file_name().to_string_lossy().into_owned());
        }
    }
    found.sort();
    found
}

/// Returns how often the daemon of the recovery region has looked at the primary.
async fn rounds(sandbox: &Sandbox) -> u64 {
    let said = metrics(sandbox, RECOVERY).await;
    let name = "dr_primary_looks_total{";
    let line = said.lines().find(|line| line.starts_with(name)).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

fn name_server(sandbox: &Sandbox) -> Vec<Process> {
    let serves = |process: &Process| {
        let line = std::fs::read(format!("/proc/{}/cmdline", process.pid)).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|word| word == b"dns")
    };
    let all = members(&Table::read(), &sandbox.layout().directory);
    let found: Vec<_> = all.into_iter().filter(serves).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_primary_is_proposed_to_be_left_and_the_time_counts_from_there() {
    let (url, received) = webhook().await;
    let sandbox = watched(Some(&url)).await;
    let load = sandbox.load(Default::default()).unwrap();
    acknowledge(&load, 100).await;
    primary_is(&sandbox, "healthy", "answers").await;
    let up = format!("dr_primary_up{{workload=\"{WORKLOAD}\",region=\"{RECOVERY}\"}}");
    let said = metrics(&sandbox, RECOVERY).await;
    assert!(said.contains(&format!("{up} 1\n")), "{said}");
    assert_eq!(outage(&sandbox).await, Value::Null);

    let home = sandbox.region(HOME).unwrap();
    let lost_at = home.lose(LostStore::Renamed).unwrap();
    let found = until("an outage that was told", async || {
        let found = outage(&sandbox).await;
        if found["told"] == true {
            Ok(found)
        } else {
            Err(found.to_string())
        }
    })
    .await;
    assert_eq!(found["seen_from"], RECOVERY);
    let command = format!("dr failover --to {RECOVERY} {WORKLOAD}");
    assert_eq!(found["proposal"]["command"], command, "{found}");
    primary_is(&sandbox, "unhealthy", &command).await;
    let said = metrics(&sandbox, RECOVERY).await;
    assert!(said.contains(&format!("{up} 0\n")), "{said}");
    let status = dr(&sandbox, &["status"]).await;
    assert_eq!(status.status.code(), Some(10), "{status:?}");
    assert!(status.stdout.contains(&command), "{}", status.stdout);

    // Told once, also by a daemon that has been started anew, and nothing was done.
    let recovery = sandbox.region(RECOVERY).unwrap();
    recovery.signal_daemon(Signal::KILL);
    until("the end of the daemon", async || {
        let alive = recovery
            .daemon()
            .into_iter()
            .any(|process| !process.is_zombie());
        if alive {
            Err("it runs".to_owned())
        } else {
            Ok(())
        }
    })
    .await;
    recovery.start_daemon().await.unwrap();
    primary_is(&sandbox, "unhealthy", &command).await;
    assert_eq!(recorded(&sandbox), ["began", "told"]);
    let told = received.lock().unwrap().clone();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0]["body"]["proposal"], found["proposal"]);
    assert_eq!((epochs(&sandbox).len(), executions(&sandbox).len()), (1, 0));

    let words = ["failover", "--to", RECOVERY, "--json"];
    let plan = dr_json(&sandbox, &[&words[..], &["--plan"]].concat()).await;
    assert_eq!(plan["hash"], found["proposal"]["plan"], "{plan}");
    let report = dr_json(&sandbox, &[&words[..], &["--yes"]].concat()).await;
    assert_eq!(report["state"], "completed", "{report}");
    assert_eq!(report["rta_excludes"], "", "{report}");
    let part = |name: &str| {
        report[name]
            .as_f64()
            .unwrap_or_else(|| panic!("{name}: {report}"))
    };
    let parts = ["detection_seconds", "decision_seconds", "execution_seconds"].map(part);
    assert!(parts.iter().all(|part| *part > 0.0), "{parts:?}");
    // From the last answer until it was sure lie at least three rounds.
    assert!(parts[0] >= 1.0, "{parts:?}");
    let whole = part("rta_seconds");
    assert!((parts.iter().sum::<f64>() - whole).abs() < 1e-6, "{report}");

    acknowledge_after(&load, lost_at).await;
    load.stop().await.unwrap();
    primary_is(&sandbox, "healthy", "it is here").await;
    assert_eq!(outage(&sandbox).await, Value::Null);
    end(sandbox);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_cut_off_itself_proposes_nothing() {
    let sandbox = watched(None).await;
    let server = name_server(&sandbox);
    signal(&server, Signal::STOP);
    let home = sandbox.region(HOME).unwrap();
    home.lose(LostStore::Renamed).unwrap();
    let said = primary_is(&sandbox, "unknown", "our own network may be broken").await;
    let up = "dr_primary_up{";
    let metrics = metrics(&sandbox, RECOVERY).await;
    assert!(!metrics.contains(up), "{metrics}");
    // Many more rounds than it takes to be sure, and still nothing can be told.
    let before = rounds(&sandbox).await;
    until("more rounds of looks", async || {
        let now = rounds(&sandbox).await;
        if now > before + 4 {
            Ok(())
        } else {
            Err(format!("{now} after {before}"))
        }
    })
    .await;
    assert_eq!(
        primary_is(&sandbox, "unknown", "our own network may be broken").await,
        said
    );
    assert_eq!(recorded(&sandbox), Vec::<String>::new());

    // Once something beside it answers, it is the primary that does not.
    signal(&server, Signal::CONT);
    primary_is(&sandbox, "unhealthy", "does not answer").await;
    assert_eq!(outage(&sandbox).await["primary"], HOME);
    assert_eq!(epochs(&sandbox), ["00000001"]);
    end(sandbox);
}

/// A daemon that was away when it happened has never seen an answer; the last heartbeat says since when at the earliest.
#[tokio::test(flavor = "multi_thread")]
async fn an_outage_that_began_while_nobody_looked_counts_from_the_last_heartbeat() {
    let sandbox = watched(None).await;
    let load = sandbox.load(Default::default()).unwrap();
    acknowledge(&load, 100).await;
    let recovery = sandbox.region(RECOVERY).unwrap();
    recovery.signal_daemon(Signal::KILL);
    until("the end of the daemon", async || {
        let left = recovery.daemon();
        let alive = left.iter().any(|process| !process.is_zombie());
        if alive {
            Err("it runs".to_owned())
        } else {
            Ok(())
        }
    })
    .await;
    let before = sandbox.clock().now();
    acknowledge(&load, 100).await;
    let home = sandbox.region(HOME).unwrap();
    home.lose(LostStore::Renamed).unwrap();
    recovery.start_daemon().await.unwrap();
    let found = until("an outage", async || {
        let found = outage(&sandbox).await;
        match found.is_null() {
            true => Err("none so far".to_owned()),
            false => Ok(found),
        }
    })
    .await;
    assert_eq!(found["last_sign"], "heartbeat", "{found}");
    let at = |name: &str| -> jiff::Timestamp { found[name].as_str().unwrap().parse().unwrap() };
    // The standby has heartbeats of after the daemon had gone; a second is more than their interval.
    assert!(
        at("last_answered_at") > before - jiff::SignedDuration::from_secs(1),
        "{found}"
    );
    assert!(at("last_answered_at") <= at("first_missed_at"), "{found}");
    let words = ["failover", "--to", RECOVERY, "--json", "--yes"];
    let report = dr_json(&sandbox, &words).await;
    assert_eq!(report["state"], "completed", "{report}");
    assert_eq!(report["rta_excludes"], "", "{report}");
    assert!(
        report["detection_seconds"].as_f64().unwrap() > 0.0,
        "{report}"
    );
    load.stop().await.unwrap();
    end(sandbox);
}

/// Who was told that a primary does not answer is told when it answers again.
#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_an_outage_is_told() {
    let (url, received) = webhook().await;
    let sandbox = watched(Some(&url)).await;
    let home = sandbox.region(HOME).unwrap();
    let server = home.processes();
    dr_sandbox::region::signal(&server, Signal::STOP);
    until("an outage that was told", async || {
        match outage(&sandbox).await {
            found if found["told"] == true => Ok(()),
            found => Err(found.to_string()),
        }
    })
    .await;
    dr_sandbox::region::signal(&server, Signal::CONT);
    let told = until("a second message", async || {
        let told = received.lock().unwrap().clone();
        match (told.len(), recorded(&sandbox)) {
            (2, marks) if marks == ["began", "end-told", "ended", "told"] => Ok(told),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert_eq!(
        told[1]["body"]["first_missed_at"],
        told[0]["body"]["first_missed_at"]
    );
    assert!(told[1]["body"]["ended_at"].is_string(), "{told:?}");
    assert_eq!(outage(&sandbox).await, Value::Null);
    end(sandbox);
}
