//! The page of a small, made-up failover.

use super::*;
use crate::judge::judge;
use crate::ledger::{Commit, Outcome, outage};

fn record() -> Record {
    let commit = |id: i64, region: &str, at_us: u64, outcome| Commit {
        id,
        region: Some(region.parse().unwrap()),
        started_us: at_us - 1_000,
        ended_us: at_us,
        outcome,
        reason: None,
    };
    let mut commits: Vec<Commit> = (0..100)
        .map(|n| {
            commit(
                n,
                "us-east-1",
                5_000_000 + n.unsigned_abs() * 50_000,
                Outcome::Acknowledged,
            )
        })
        .collect();
    commits.push(commit(100, "us-east-1", 10_100_000, Outcome::Indeterminate));
    commits.extend((101..140).map(|n| {
        commit(
            n,
            "us-west-2",
            12_000_000 + n.unsigned_abs() * 50_000,
            Outcome::Acknowledged,
        )
    }));
    Record {
        commits,
        origin: "2026-11-21T09:30:00Z".parse().unwrap(),
    }
}

fn failover() -> Failover {
    serde_json::from_value(serde_json::json!({
        "execution": "20261121T093010Z-us-west-2-7f3a", "state": "completed", "workload": "ledger",
        "from": "us-east-1", "to": "us-west-2", "epoch": 2, "rung": "promote", "fence": "stopped",
        "sealed": { "timeline": 1, "lsn": "0/4000148" },
        "loss": {
            "estimate": { "delay_seconds": 0.2, "missing_bytes": 100, "commits": 3,
                          "last_contact": "2026-11-21T09:30:09.9Z" },
            "bound": { "kind": "seconds", "since": "2026-11-21T09:30:09.8Z", "seconds": 1.5 }
        },
        "started_at": "2026-11-21T09:30:10.2Z", "finished_at": "2026-11-21T09:30:12.2Z",
        "rta_seconds": 2.0, "rpa_seconds": null, "rpa_interval_seconds": 0.25,
        "resources": { "database": { "heartbeat": "2026-11-21T09:30:09.7Z" } },
        "steps": [
            { "id": "seal", "uses": "seal-wal", "state": "done", "started_at": "2026-11-21T09:30:10.4Z",
              "took_seconds": 0.2, "summary": "sealed at <0/4000148>" },
            { "id": "switch", "uses": "switch-traffic", "state": "done",
              "started_at": "2026-11-21T09:30:11.4Z", "took_seconds": 0.1, "summary": null },
            { "id": "rearm", "uses": "rearm-protection", "state": "skipped", "started_at": null,
              "took_seconds": null, "summary": "not reached" }
        ]
    }))
    .unwrap()
}

#[test]
fn the_page_is_whole_and_needs_nothing_from_elsewhere() {
    let (record, failover) = (record(), failover());
    let found = (0..98).chain(101..140).collect();
    let verdict = judge(&record.commits, &found);
    let lost_at_us = 10_000_000;
    let outage = outage(&record.commits, lost_at_us);
    let here = std::path::Path::new("/s");
    let report = here.join("report.html");
    let lost_at = "2026-11-21T09:30:10Z".parse().unwrap();
    let summary = Summary::new(&verdict, outage, &failover, lost_at, &report, here);
    assert_eq!(summary.rpa_seconds, Some(0.3));
    let faults = super::super::summary::faults(&verdict, outage, &failover, &record, false);
    assert_eq!(faults, Vec::<String>::new());
    let page = Page {
        summary: &summary,
        failover: &failover,
        record: &record,
        verdict: &verdict,
        outage,
        lost_at_us,
        faults: &faults,
    };
    let text = page.render();
    for wanted in [
        "the workload back after 7.1 s",
        "137 were found",
        "2 were lost, the newest ones",
        "region lost",
        "DNS switched",
        "first commit after",
        "sealed at &lt;0/4000148&gt;",
        "detection and decision were not exercised",
        "class=\"lost\"",
    ] {
        assert!(text.contains(wanted), "`{wanted}` is missing in {text}");
    }
    for foreign in ["http://", "https://", "<script", "url("] {
        assert!(!text.contains(foreign), "`{foreign}` is in the page");
    }
    assert!(!text.contains("NaN"));
}

#[test]
fn each_fault_is_found() {
    let (record, mut failover) = (record(), failover());
    let faults = |found: Vec<i64>, failover: &Failover, sync| {
        let verdict = judge(&record.commits, &found.into_iter().collect());
        let outage = outage(&record.commits, 10_000_000);
        super::super::summary::faults(&verdict, outage, failover, &record, sync)
    };
    let suffix: Vec<i64> = (0..98).chain(101..140).collect();
    assert_eq!(
        faults(suffix.clone(), &failover, true).len(),
        1,
        "lost in synchronous mode"
    );
    let hole: Vec<i64> = (0..97).chain(98..100).chain(101..140).collect();
    assert!(faults(hole, &failover, false)[0].contains("holes"));
    let unannounced: Vec<i64> = (0..90).chain(101..140).collect();
    assert!(faults(unannounced, &failover, false)[0].contains("outside"));
    failover.state = "stuck".to_owned();
    assert!(faults(suffix, &failover, false)[0].contains("stuck"));
}
