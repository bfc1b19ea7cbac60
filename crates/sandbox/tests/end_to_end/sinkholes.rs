//! What is asked of the region that is left, counted by what listens in the place of its servers.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use dr_model::{Clock, SystemClock};
use dr_sandbox::judge::judge;
use dr_sandbox::{HOME, LostStore, RECOVERY, Sandbox, machines};
use jiff::Timestamp;

use crate::partitions::{MOVE, Parted, report};
use crate::support::{apart, cluster, end};

/// The region is gone, and something listens in the place of each of its servers: whoever moves the workload away asks it for
/// nothing while the execution lasts, but for the fence.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_asked_of_the_region_that_is_left() {
    if !apart(
        "sinkholes::nothing_is_asked_of_the_region_that_is_left",
        "--net",
    ) {
        return;
    }
    let parted = Parted::start(Sandbox::builder().sync(true)).await;
    let sandbox = &parted.sandbox;
    let (home, recovery) = (
        sandbox.region(HOME).unwrap(),
        sandbox.region(RECOVERY).unwrap(),
    );
    // What the operator starts in the other region would not be on that region's machine.
    recovery.start_app().await.unwrap();
    let record = parted.load.stop().await.unwrap();
    parted.stale.stop().await.unwrap();
    home.lose(LostStore::Renamed).unwrap();
    let place = home.place();
    let ports = [
        place.postgres_port,
        place.app_port,
        place.daemon_port,
        place.store_port.unwrap(),
    ];
    let calls = Calls::default();
    for port in ports {
        calls.count(machines::listen(place, port).unwrap());
    }

    // From the middle, so that a call of this `dr` is known by where it comes from; the region's files are out of sight.
    let user = sandbox.launcher().user().unwrap();
    let layout = sandbox.layout();
    let mut command = sandbox
        .launcher()
        .privileged("unshare".as_ref(), &layout.directory);
    command
        .args(["--mount", "sh", "-c"])
        .arg("mount -t tmpfs tmpfs \"$0\" && exec setpriv \"$@\"")
        .arg(&place.directory)
        .arg(format!("--reuid={}", user.uid))
        .arg(format!("--regid={}", user.gid))
        .args(["--clear-groups", "--"])
        .arg(&layout.dr)
        .arg("--config")
        .arg(&layout.directory)
        .args(MOVE);
    let output = sandbox.launcher().output(command, false).await.unwrap();
    let failover = report(&output);
    assert_eq!(failover.state, "completed", "{output:?}");
    let fence = failover.steps.iter().find(|s| s.uses == "fence-primary");
    let fence = fence.unwrap();
    let began = fence.started_at.unwrap();
    let fenced = began
        ..=began
            .checked_add(jiff::SignedDuration::from_secs_f64(
                fence.took_seconds.unwrap(),
            ))
            .unwrap();
    let middle = |call: &Call| !call.from.ip().to_string().ends_with(".2");
    let calls: Vec<Call> = calls
        .0
        .lock()
        .unwrap()
        .iter()
        .filter(|c| middle(c))
        .cloned()
        .collect();
    let during = calls.iter().filter(|call| call.at >= failover.started_at);
    let others: Vec<&Call> = during
        .filter(|call| call.port != place.postgres_port || !fenced.contains(&call.at))
        .collect();
    assert!(others.is_empty(), "{others:?}; all: {calls:?}");

    let verdict = judge(
        &record.commits,
        &cluster(sandbox, RECOVERY)
            .ledger()
            .await
            .unwrap()
            .into_iter()
            .collect(),
    );
    assert_eq!(verdict.lost, vec![]);
    end(parted.sandbox);
}

/// A connection that somebody opened to what is gone.
#[derive(Clone, Debug)]
struct Call {
    at: Timestamp,
    port: u16,
    from: SocketAddr,
}

/// What listens in the place of servers that are gone; it takes connections, says nothing, and keeps them.
#[derive(Clone, Default)]
struct Calls(Arc<Mutex<Vec<Call>>>);

impl Calls {
    fn count(&self, listener: std::net::TcpListener) {
        let calls = self.0.clone();
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        tokio::spawn(async move {
            let port = listener.local_addr().unwrap().port();
            let mut kept = Vec::new();
            while let Ok((connection, from)) = listener.accept().await {
                let at = SystemClock::new().now();
                calls.lock().unwrap().push(Call { at, port, from });
                kept.push(connection);
            }
        });
    }
}
