//! What every test here does: start a sandbox, wait for conditions, run `dr`, judge by the ledger, end it all.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use dr_model::{Clock, Lsn};
use dr_provider::conformance::{Missing, skipped};
use dr_sandbox::demo::Failover;
use dr_sandbox::judge::{Verdict, judge};
use dr_sandbox::ledger::{Load, Record};
use dr_sandbox::postgres::Cluster;
use dr_sandbox::process::{Output, Table, members};
use dr_sandbox::{Builder, RECOVERY, Sandbox, wait};
use serde_json::Value;

/// How long anything may take. Generous: the machine may be busy compiling.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Set in a copy of this program that has namespaces of its own, which end with it.
const APART: &str = "DR_TEST_OWN_NAMESPACES";

/// Tells whether this program has a namespace of its own of the kind that `unshare` knows by this option. If not, runs the
/// named test once more where it has; says so if that is not allowed here.
pub(crate) fn apart(test: &str, namespace: &str) -> bool {
    if std::env::var_os(APART).is_some() {
        return true;
    }
    let may = Command::new("unshare").args([namespace, "true"]).output();
    if may.is_ok_and(|output| output.status.success()) {
        let mut again = Command::new("unshare");
        again.arg(namespace).arg(std::env::current_exe().unwrap());
        again.args(["--exact", test, "--nocapture"]);
        run(again.env(APART, "yes"));
    } else {
        let why = format!("`unshare {namespace}` is not allowed here");
        skipped(Missing::Right, &why);
    }
    false
}

/// Runs a command, which has to succeed.
pub(crate) fn run(command: &mut Command) {
    let status = command.status().unwrap();
    assert!(status.success(), "{command:?}: {status}");
}

/// Starts a sandbox.
pub(crate) async fn start(builder: Builder) -> Sandbox {
    builder.start().await.unwrap()
}

/// Ends a sandbox and sees to it that nothing is left of it. A test that fails before leaves the directory to look at.
pub(crate) fn end(sandbox: Sandbox) {
    let directory = sandbox.layout().directory.clone();
    drop(sandbox);
    assert_eq!(members(&Table::read(), &directory), vec![]);
    std::fs::remove_dir_all(directory).unwrap();
}

/// Waits for a condition; `look` answers what it saw instead.
pub(crate) async fn until<T>(what: &str, look: impl AsyncFnMut() -> Result<T, String>) -> T {
    wait::until(what, LIMIT, look).await.unwrap()
}

/// Waits until `more` further commits are acknowledged.
pub(crate) async fn acknowledge(load: &Load, more: u64) {
    let wanted = load.acknowledged() + more;
    until("more commits", async || {
        let count = load.acknowledged();
        let text = format!("{count} of {wanted}");
        if count >= wanted { Ok(()) } else { Err(text) }
    })
    .await;
}

/// Waits until a commit that began after `moment` is acknowledged.
pub(crate) async fn acknowledge_after(load: &Load, moment: u64) {
    until("a commit acknowledged in the new region", async || {
        let newest = load.last_acknowledged_us();
        let text = format!("the newest began at {newest} µs");
        if newest > moment { Ok(()) } else { Err(text) }
    })
    .await;
}

/// Waits until the store of `region` holds a whole backup; returns the labels.
pub(crate) async fn backup(sandbox: &Sandbox, region: &str) -> Vec<String> {
    until(&format!("a backup in {region}"), async || {
        let labels = sandbox.region(region).unwrap().backups();
        if labels.is_empty() {
            Err("none so far".to_owned())
        } else {
            Ok(labels)
        }
    })
    .await
}

/// The time of the sandbox's clock, which the record of the load is on.
pub(crate) fn now_us(sandbox: &Sandbox) -> u64 {
    u64::try_from(sandbox.clock().elapsed().as_micros()).unwrap()
}

/// Returns the control of a region's cluster.
pub(crate) fn cluster(sandbox: &Sandbox, region: &str) -> Cluster {
    sandbox.region(region).unwrap().postgres().unwrap()
}

/// Asks a region's cluster one question, as the superuser.
pub(crate) async fn ask(sandbox: &Sandbox, region: &str, query: &str) -> Result<String, String> {
    let client = cluster(sandbox, region)
        .connect("postgres")
        .await
        .map_err(|error| error.to_string())?;
    let row = client
        .query_one(&format!("select ({query})::text"), &[])
        .await
        .map_err(|error| error.to_string())?;
    let text: Option<String> = row.get(0);
    text.ok_or_else(|| format!("`{query}` is null"))
}

/// The same for a position in the log.
pub(crate) async fn ask_lsn(sandbox: &Sandbox, region: &str, query: &str) -> Result<Lsn, String> {
    let text = ask(sandbox, region, query).await?;
    text.parse().map_err(|_| format!("`{query}` is {text}"))
}

/// Runs a `dr` command.
pub(crate) async fn dr(sandbox: &Sandbox, words: &[&str]) -> Output {
    sandbox.dr(words).await.unwrap()
}

/// Runs a `dr` command at a terminal where `typed` is typed; returns its exit status and all that was to be read there.
pub(crate) async fn at_terminal(
    sandbox: &Sandbox,
    words: &[&str],
    typed: &str,
) -> (Option<i32>, String) {
    let mut command = sandbox.dr_at_terminal(words);
    command.stdout(std::process::Stdio::piped());
    let typed = format!("{typed}\n");
    let run = tokio::task::spawn_blocking(move || {
        use std::io::Write;
        let mut child = command.spawn().unwrap();
        let mut keys = child.stdin.take().unwrap();
        keys.write_all(typed.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        drop(keys);
        output
    });
    let output = run.await.unwrap();
    let read = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.code(), read)
}

/// Runs a `dr` command that prints JSON, whatever its status.
pub(crate) async fn dr_json(sandbox: &Sandbox, words: &[&str]) -> Value {
    let output = dr(sandbox, words).await;
    serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// Runs a `dr` command that has to end with `code` and to say every one of `words`, and a hint if it fails.
pub(crate) async fn refused(sandbox: &Sandbox, command: &[&str], code: i32, words: &[&str]) {
    let output = dr(sandbox, command).await;
    says(&output, code, words);
}

/// Checks how a command has ended, and what it said.
pub(crate) fn says(output: &Output, code: i32, words: &[&str]) {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    for word in words {
        assert!(
            output.stderr.contains(word),
            "{word:?} is missing in {}",
            output.stderr
        );
    }
}

/// Fails over to the recovery region and returns what was reported; it has to be `completed`.
pub(crate) async fn fail_over(sandbox: &Sandbox, more: &[&str]) -> Failover {
    let words = [&["failover", "--to", RECOVERY, "--yes", "--json"], more].concat();
    let output = dr(sandbox, &words).await;
    assert_eq!(output.status.code(), Some(0), "{}", output.stderr);
    let failover: Failover = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(failover.state, "completed", "{}", output.stderr);
    failover
}

/// Returns what `dr status --json` says of the database in a region.
pub(crate) async fn database_in(sandbox: &Sandbox, region: &str) -> Value {
    let status = dr_json(sandbox, &["status", "--json"]).await;
    let regions = &status["workloads"][0]["resources"][0]["regions"];
    let mut regions = regions.as_array().unwrap().iter();
    regions.find(|r| r["region"] == region).unwrap().clone()
}

/// Returns what the daemon of a region says of one of its tasks.
pub(crate) async fn task(sandbox: &Sandbox, region: &str, name: &str) -> Result<Value, String> {
    let health = sandbox
        .region(region)
        .unwrap()
        .ask_daemon("/health")
        .await?;
    let health: Value = serde_json::from_str(&health).map_err(|error| error.to_string())?;
    match &health["checks"][name] {
        Value::Null => Err(format!("there is no `{name}` in {health}")),
        found => Ok(found.clone()),
    }
}

/// Returns the metrics of a region's daemon.
pub(crate) async fn metrics(sandbox: &Sandbox, region: &str) -> String {
    let region = sandbox.region(region).unwrap();
    region.ask_daemon("/metrics").await.unwrap()
}

/// Waits until a region's store holds the log up to `lsn`.
pub(crate) async fn stored(sandbox: &Sandbox, region: &str, lsn: Lsn) {
    until(&format!("the log up to {lsn} in {region}"), async || {
        let seen = database_in(sandbox, region).await;
        let end = seen["log"]["end"]
            .as_str()
            .and_then(|end| end.parse::<Lsn>().ok());
        match end {
            Some(end) if end >= lsn => Ok(()),
            _ => Err(format!("{seen}")),
        }
    })
    .await;
}

/// Compares a record with the ledger in a region: there must be no hole, and nothing that was refused.
pub(crate) async fn judged(sandbox: &Sandbox, region: &str, record: &Record) -> Verdict {
    let found: BTreeSet<i64> = cluster(sandbox, region)
        .ledger()
        .await
        .unwrap()
        .into_iter()
        .collect();
    let verdict = judge(&record.commits, &found);
    assert_eq!(verdict.holes, vec![]);
    assert_eq!(verdict.refused_found, Vec::<i64>::new());
    assert!(verdict.recovered > 0, "{verdict:?}");
    verdict
}

/// Tells how many of the lost commits were acknowledged before `moment`.
pub(crate) fn lost_before(verdict: &Verdict, moment: u64) -> usize {
    let lost = verdict.lost.iter();
    lost.filter(|commit| commit.ended_us <= moment).count()
}

/// Tells whether a region has the primary, as the server itself says.
pub(crate) async fn is_primary(sandbox: &Sandbox, region: &str) -> bool {
    ask(sandbox, region, "select not pg_is_in_recovery()")
        .await
        .as_deref()
        == Ok("true")
}
