//! What the daemons say of themselves.
//!
//! They listen on loopback unless told otherwise, so that of another machine usually cannot be
//! asked from here; another region's may answer on the same address. What an answer is worth, its
//! region tells. One that cannot be asked is known by the log that it writes into its store, and is unknown if it writes none, or
//! if the lock in its state directory shows that it was killed on this machine.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use dr_model::RegionName;
use dr_provider::ResourceDriver;
use dr_provider::driver::LogFacts;
use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::view::DaemonView;
use crate::commands::daemon::died_here;
use crate::wiring::Setup;

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(2);

/// How long ago the store of a daemon that cannot be asked may have taken log last, for the daemon to count as alive.
const ALIVE: SignedDuration = SignedDuration::from_secs(30);

/// No answer is read beyond this.
const MAX_BYTES: u64 = 1 << 20;

/// Asks every daemon that is configured.
pub(crate) async fn daemons(setup: &Setup) -> Vec<DaemonView> {
    let configured = setup
        .config
        .regions
        .iter()
        .filter_map(|(name, region)| Some((name, region.daemon.as_ref()?)));
    let asked = configured.map(|(name, daemon)| async move {
        let mut view = ask(name, daemon.listen).await;
        if view.status.is_none() {
            view.died = died_here(&daemon.state_directory);
        }
        view
    });
    join_all(asked).await
}

/// Returns when a region's store last took log of a resource, if that can be told within `limit`.
pub(crate) async fn log_received_at(
    driver: &dyn ResourceDriver,
    region: &RegionName,
    limit: Duration,
) -> Option<Timestamp> {
    log_of(driver, region, limit).await?.received_at
}

async fn log_of(
    driver: &dyn ResourceDriver,
    region: &RegionName,
    limit: Duration,
) -> Option<LogFacts> {
    let look = driver.observe(std::slice::from_ref(region));
    let facts = tokio::time::timeout(limit, look).await.ok()?;
    facts.regions.get(region)?.log.clone().ok()?
}

/// Returns when the daemon of a region was last seen to write log of any workload into its store. What the primary's
/// `archive_command` puts there says nothing of it.
pub(crate) async fn took_log_at(setup: &Setup, region: &RegionName) -> Option<Timestamp> {
    let workloads = setup.config.workloads.iter();
    let drivers = workloads.filter_map(|(name, workload)| setup.drivers(name, workload).ok());
    let looks = drivers
        .flat_map(BTreeMap::into_values)
        .map(|driver| async move { log_of(driver.as_ref(), region, LIMIT).await?.shipped_at });
    join_all(looks).await.into_iter().flatten().max()
}

impl DaemonView {
    /// Tells whether one that cannot be asked from here is seen by what it does: its store has just taken log.
    pub(crate) fn is_seen_at_work(&self, now: Timestamp) -> bool {
        // The time is that of the other machine's clock. One that is ahead shows a daemon that has died as alive for no longer
        // than it would show one that lives.
        let distance = |at| now.duration_since(at).abs();
        self.died.is_none() && self.took_log_at.is_some_and(|at| distance(at) <= ALIVE)
    }
}

async fn ask(region: &RegionName, address: SocketAddr) -> DaemonView {
    let unreachable = |why: String| DaemonView {
        region: region.clone(),
        status: None,
        uptime_seconds: None,
        took_log_at: None,
        died: None,
        problems: vec![format!("cannot be reached from here at {address}: {why}")],
    };
    let answer = match tokio::time::timeout(LIMIT, get(address)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return unreachable(error.to_string()),
        Err(_) => return unreachable(format!("no answer within {LIMIT:?}")),
    };
    if answer["region"] != region.as_str() {
        return unreachable("that is not the daemon of this region".to_owned());
    }
    let mut problems = Vec::new();
    for (name, check) in answer["checks"].as_object().into_iter().flatten() {
        if check["status"] != "healthy" {
            problems.push(format!(
                "{name}: {}",
                check["detail"].as_str().unwrap_or_default()
            ));
        }
    }
    DaemonView {
        region: region.clone(),
        status: answer["status"].as_str().map(str::to_owned),
        uptime_seconds: answer["uptime_seconds"].as_f64(),
        took_log_at: None,
        died: None,
        problems,
    }
}

/// Gets `/health`. The status code says no more than the document does.
async fn get(address: SocketAddr) -> std::io::Result<Value> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET /health HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    // HTTP/1.0: the body is neither chunked nor followed by anything.
    stream.take(MAX_BYTES).read_to_end(&mut answer).await?;
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n");
    let end = end.ok_or_else(|| std::io::Error::other("the answer is not HTTP"))?;
    serde_json::from_slice(&answer[end + 4..]).map_err(std::io::Error::other)
}
