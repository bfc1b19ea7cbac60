//! Whether a failover would come to its end is known before the day: assessed by the daemon, said by metrics, and stale once
//! what it rests on has changed.

use dr_sandbox::layout::WORKLOAD;
use dr_sandbox::{HOME, RECOVERY, Sandbox};
use serde_json::Value;

use crate::executions::epochs;
use crate::support::{dr, dr_json, end, metrics, start, task, until};

/// Has the daemon of the recovery region assess the workload now.
async fn assess(sandbox: &Sandbox) -> Value {
    let words = ["job", "run", "check-readiness", "--region", RECOVERY];
    let answer = dr_json(sandbox, &[&words[..], &["--json"]].concat()).await;
    answer["detail"][0]["readiness"].clone()
}

/// A secret as good as this one: of the same length, in canonical base64, and unknown to the name server.
fn a_key_other_than(secret: &str) -> String {
    let first = if secret.starts_with('A') { "B" } else { "A" };
    format!("{first}{}", &secret[1..])
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_stop_a_failover_is_found_by_the_daemon() {
    let sandbox = start(Sandbox::builder()).await;
    let line = format!("readiness {WORKLOAD}");
    until("a workload that is ready", async || {
        let seen = task(&sandbox, RECOVERY, &line).await?;
        match (seen["status"].as_str(), seen["detail"].as_str()) {
            (Some("healthy"), Some(detail)) if detail.contains("would go by promote") => Ok(()),
            _ => Err(seen.to_string()),
        }
    })
    .await;
    // The daemon there has looked once before the epoch was opened, and looks again because it was.
    until("the assessment of the primary's region", async || {
        let elsewhere = task(&sandbox, HOME, &line).await?;
        match elsewhere["detail"].as_str() {
            Some("the primary is here") => Ok(()),
            _ => Err(elsewhere.to_string()),
        }
    })
    .await;
    let labels = format!("{{workload=\"{WORKLOAD}\",region=\"{RECOVERY}\"}}");
    let said = metrics(&sandbox, RECOVERY).await;
    assert!(
        said.contains(&format!("dr_readiness{labels} 1\n")),
        "{said}"
    );
    let score = format!("dr_readiness_score{labels} 100\n");
    assert!(said.contains(&score), "{said}");
    let at_home = metrics(&sandbox, HOME).await;
    assert!(!at_home.contains("dr_readiness{"), "{at_home}");

    // A key that the name server does not take, or that is none, would stop the move half-way.
    let key = sandbox.layout().key_file();
    let good = std::fs::read_to_string(&key).unwrap();
    for other in [a_key_other_than(&good), "no key".to_owned()] {
        sandbox.launcher().write_file(&key, &other).unwrap();
        let found = assess(&sandbox).await;
        assert_eq!(found["verdict"], "breach", "{found}");
        assert!(found["score"].as_u64().unwrap() < 100, "{found}");
        let checks = found["checks"].as_array().unwrap().iter();
        let failed = checks.filter(|check| check["found"] == "failed");
        let names: Vec<_> = failed
            .map(|check| check["name"].as_str().unwrap())
            .collect();
        // It is tried once, beside the plan, which is there all the same.
        assert_eq!(names.len(), 1, "{found}");
        assert!(names[0].starts_with("rfc2136"), "{found}");
        assert_eq!(found["rung"], "promote", "{found}");
        let said = metrics(&sandbox, RECOVERY).await;
        assert!(
            said.contains(&format!("dr_readiness{labels} 0\n")),
            "{said}"
        );
        let status = dr(&sandbox, &["status"]).await;
        assert_eq!(status.status.code(), Some(10), "{status:?}");
    }
    sandbox.launcher().write_file(&key, &good).unwrap();
    assert_eq!(assess(&sandbox).await["score"], 100);

    // The daemon goes on with the configuration that it was started with, and says so.
    let file = sandbox.layout().directory.join("dr.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    let changed = text.replace("rto: 5m", "rto: 6m");
    assert_ne!(text, changed);
    sandbox.launcher().write_file(&file, &changed).unwrap();
    assess(&sandbox).await;
    let seen = task(&sandbox, RECOVERY, &line).await.unwrap();
    assert_eq!(seen["status"], "unknown", "{seen}");
    let detail = seen["detail"].as_str().unwrap();
    assert!(
        detail.contains("the files of the configuration have changed"),
        "{detail}"
    );
    let said = metrics(&sandbox, RECOVERY).await;
    assert!(
        said.contains(&format!("dr_readiness_stale{labels} 1\n")),
        "{said}"
    );

    assert_eq!(epochs(&sandbox), ["00000001"]);
    end(sandbox);
}
