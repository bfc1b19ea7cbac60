//! Each way around the wait of synchronous mode is noticed: from then on a seal proves nothing.

use dr_model::loss::Bound;
use dr_sandbox::layout::{STANDBY_ROLE, SUPERUSER, WORKLOAD};
use dr_sandbox::process::is_alive;
use dr_sandbox::{HOME, LostStore, RECOVERY, Sandbox};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::{
    acknowledge, acknowledge_after, cluster, dr, dr_json, end, fail_over, judged, start, until,
};

const NAMES: &str = "synchronous_standby_names";
const COMMIT: &str = "synchronous_commit";

/// A promise is worth what is known of the wait (R21).
#[tokio::test(flavor = "multi_thread")]
async fn every_way_around_the_wait_makes_it_conditional() {
    let sandbox = start(Sandbox::builder().sync(true)).await;
    let primary = cluster(&sandbox, HOME);
    let receiver = sandbox.region(RECOVERY).unwrap().receiver_name();
    proven(&sandbox).await;

    primary.set(NAMES, "").await.unwrap();
    conditional(&sandbox, "synchronous_standby_names is").await;
    // Whoever asks only for the state is told as well.
    let status = dr(&sandbox, &["status"]).await;
    assert_eq!(status.status.code(), Some(10), "{}", status.stdout);
    let said = "may be acknowledged and lost: synchronous_standby_names is";
    assert!(status.stdout.contains(said), "{}", status.stdout);
    primary
        .set(NAMES, &format!("FIRST 1 ({receiver})"))
        .await
        .unwrap();

    for (on, name) in [
        ("role", WORKLOAD),
        ("database", WORKLOAD),
        ("role", SUPERUSER),
    ] {
        alter(&sandbox, &format!("alter {on} {name} set {COMMIT} = local")).await;
        conditional(&sandbox, &format!("{on} {name}")).await;
        alter(&sandbox, &format!("alter {on} {name} reset {COMMIT}")).await;
    }
    for value in ["local", "remote_apply"] {
        primary.set(COMMIT, value).await.unwrap();
        conditional(&sandbox, &format!("synchronous_commit is '{value}'")).await;
        primary.set(COMMIT, "on").await.unwrap();
    }
    let impostor = impersonate(&sandbox, &receiver);
    conditional(&sandbox, &format!("2 walsenders stream as {receiver}")).await;
    kill_process(Pid::from_raw(impostor).unwrap(), Signal::KILL).unwrap();
    until("the end of the impostor", async || {
        if is_alive(impostor) {
            Err("it lives".to_owned())
        } else {
            Ok(())
        }
    })
    .await;
    proven(&sandbox).await;

    // And what is conditional when the region is lost is not called sealed.
    let load = sandbox.load(Default::default()).unwrap();
    acknowledge(&load, 50).await;
    alter(
        &sandbox,
        &format!("alter role {WORKLOAD} set {COMMIT} = local"),
    )
    .await;
    until("a plan that is conditional", async || {
        let loss = planned(&sandbox).await;
        if loss["sealing_proves_zero"] == false {
            Ok(())
        } else {
            Err(loss.to_string())
        }
    })
    .await;
    acknowledge(&load, 50).await;
    let lost_at = sandbox
        .region(HOME)
        .unwrap()
        .lose(LostStore::Renamed)
        .unwrap();
    let failover = fail_over(&sandbox, &[]).await;
    assert_eq!(failover.fence, "stopped");
    assert!(
        matches!(failover.loss.bound, Bound::Seconds { .. }),
        "{:?}",
        failover.loss
    );
    acknowledge_after(&load, lost_at).await;
    judged(&sandbox, RECOVERY, &load.stop().await.unwrap()).await;
    end(sandbox);
}

/// Returns what a plan says of the database's loss.
async fn planned(sandbox: &Sandbox) -> serde_json::Value {
    let words = ["failover", "--to", RECOVERY, "--plan", "--json"];
    let plan = dr_json(sandbox, &words).await;
    plan["loss"]["resources"]["database"].clone()
}

async fn proven(sandbox: &Sandbox) {
    until(
        "a plan in which the seal proves that nothing is lost",
        async || {
            let loss = planned(sandbox).await;
            if loss["sealing_proves_zero"] == true {
                Ok(())
            } else {
                Err(loss.to_string())
            }
        },
    )
    .await;
}

/// Waits until the receiver has found `reason` and a plan says that a seal proves nothing, and why.
async fn conditional(sandbox: &Sandbox, reason: &str) {
    let log = sandbox.region(RECOVERY).unwrap().place().log("daemon");
    until(&format!("the reason {reason:?} in a plan"), async || {
        let said = std::fs::read_to_string(&log).unwrap();
        let found = said.lines().rfind(|line| line.contains("do not hold"));
        let loss = planned(sandbox).await;
        let because = loss["because"].to_string();
        let stated = because.contains("conditional") && because.contains(reason);
        let stated = stated && loss["sealing_proves_zero"] == false;
        if stated && found.is_some_and(|line| line.contains(reason)) {
            Ok(())
        } else {
            Err(format!("{found:?}, {because}"))
        }
    })
    .await;
}

async fn alter(sandbox: &Sandbox, statement: &str) {
    let client = cluster(sandbox, HOME).connect("postgres").await.unwrap();
    client.batch_execute(statement).await.unwrap();
}

/// Starts another receiver of the log under the name of `dr`'s; returns its process id.
fn impersonate(sandbox: &Sandbox, name: &str) -> i32 {
    let layout = sandbox.layout();
    let launcher = sandbox.launcher();
    let place = sandbox.region(HOME).unwrap().place();
    let into = layout.directory.join("impostor");
    launcher.make_directory(&into).unwrap();
    let program = layout.postgres_programs.join("pg_receivewal");
    let mut command = launcher.command(&program, &into);
    command
        .arg("--directory")
        .arg(&into)
        .arg("--dbname")
        .arg(format!(
            "host={} port={} user={STANDBY_ROLE} application_name={name}",
            place.address, place.postgres_port
        ));
    command.env("PGPASSWORD", layout.password(STANDBY_ROLE).unwrap());
    launcher.start(command, &into.join("log")).unwrap()
}
