//! A primary that hangs runs all the same: it is ended on its host before anything comes up elsewhere, and nobody's word that it has
//! stopped is taken.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;

use dr_sandbox::process::Process;
use dr_sandbox::{HOME, RECOVERY, Sandbox};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::executions::executions;
use crate::support::{acknowledge, backup, cluster, dr, end, is_primary, refused, start};

/// Its processes, of which the first takes connections. Frozen, it takes no new one, and those that are open go on.
fn postmaster(sandbox: &Sandbox) -> Vec<Process> {
    let home = sandbox.region(HOME).unwrap();
    let file = home.place().data_directory().join("postmaster.pid");
    let text = std::fs::read_to_string(file).unwrap();
    let number: i32 = text.lines().next().unwrap().parse().unwrap();
    let mut postmaster = home.processes();
    postmaster.retain(|process| process.pid == number);
    assert_eq!(postmaster.len(), 1);
    postmaster
}

/// Neither its own way to stop it nor a shutdown ends it.
#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_hangs_is_killed() {
    let sandbox = start(Sandbox::builder()).await;
    let load = sandbox.load(Default::default()).unwrap();
    backup(&sandbox, RECOVERY).await;
    acknowledge(&load, 100).await;
    let postmaster = postmaster(&sandbox);
    dr_sandbox::region::signal(&postmaster, Signal::STOP);
    acknowledge(&load, 20).await;
    let words = ["failover", "--to", RECOVERY, "--yes", "--json"];
    let output = dr(&sandbox, &words).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(
        output.stderr.contains("runs and does not answer"),
        "{output:?}"
    );
    let report: Value = serde_json::from_str(&output.stdout).unwrap();
    let proofs = &report["resources"]["database"]["proofs"];
    assert_eq!(proofs, &json!(["stopped"]), "{report:#}");
    assert!(is_primary(&sandbox, RECOVERY).await);
    let left = sandbox.region(HOME).unwrap().processes();
    let same = |process: &Process| process.pid == postmaster[0].pid;
    assert!(!left.iter().any(same), "{left:?}");
    acknowledge(&load, 20).await;
    load.stop().await.unwrap();
    end(sandbox);
}

/// Where it cannot be fenced: its directory takes no mark.
#[tokio::test(flavor = "multi_thread")]
async fn a_witness_does_not_outweigh_processes_that_are_there() {
    let sandbox = start(Sandbox::builder()).await;
    let load = sandbox.load(Default::default()).unwrap();
    backup(&sandbox, RECOVERY).await;
    acknowledge(&load, 100).await;
    let data = sandbox.region(HOME).unwrap().place().data_directory();
    let postmaster = postmaster(&sandbox);
    dr_sandbox::region::signal(&postmaster, Signal::STOP);
    acknowledge(&load, 20).await;
    let may = |mode| std::fs::set_permissions(&data, Permissions::from_mode(mode)).unwrap();
    may(0o500);
    let words = ["failover", "--to", RECOVERY, "--yes"];
    refused(&sandbox, &words, 14, &["nothing proves"]).await;
    let ids = executions(&sandbox);
    let [id] = &ids[..] else {
        panic!("one execution: {ids:?}");
    };
    let stated = ["execution", "resume", id, "--witness", "test: it is off"];
    let seen = "its processes run on its host";
    refused(&sandbox, &stated, 14, &[seen, "alive"]).await;
    may(0o700);
    dr_sandbox::region::signal(&postmaster, Signal::CONT);
    assert!(is_primary(&sandbox, HOME).await);
    assert!(!is_primary(&sandbox, RECOVERY).await);
    load.stop().await.unwrap();
    end(sandbox);
}

/// What cannot be looked at on its host may answer all the same, also when somebody goes on with what was begun before.
#[tokio::test(flavor = "multi_thread")]
async fn a_witness_does_not_outweigh_a_server_that_answers() {
    let sandbox = start(Sandbox::builder()).await;
    let load = sandbox.load(Default::default()).unwrap();
    backup(&sandbox, RECOVERY).await;
    acknowledge(&load, 100).await;
    let data = sandbox.region(HOME).unwrap().place().data_directory();
    let file = sandbox.layout().directory.join("dr.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    let of_home = |line: &&str| line.contains(&format!("\"{}\"", data.display()));
    let mut lines = text.lines().filter(of_home);
    let stop = lines.find(|line| line.contains(" stop: ")).unwrap();
    // A command that does nothing, and says that it has.
    let text = text.replace(stop, "            stop: [\"true\"]");
    sandbox.launcher().write_file(&file, &text).unwrap();
    let words = ["failover", "--to", RECOVERY, "--yes"];
    refused(&sandbox, &words, 14, &["alive"]).await;

    let ids = executions(&sandbox);
    let [id] = &ids[..] else {
        panic!("one execution: {ids:?}");
    };
    let gone = format!(
        "data_directory: \"{}\"",
        data.with_extension("gone").display()
    );
    let own = format!("data_directory: \"{}\"", data.display());
    assert!(text.contains(&own), "{text}");
    let text = text.replace(&own, &gone);
    sandbox.launcher().write_file(&file, &text).unwrap();
    let witnessed = ["execution", "resume", id, "--witness", "test: it is off"];
    refused(&sandbox, &witnessed, 14, &["alive", "answers"]).await;
    assert!(is_primary(&sandbox, HOME).await);
    assert!(!is_primary(&sandbox, RECOVERY).await);
    load.stop().await.unwrap();
    end(sandbox);
}

/// Somebody overrides that the old primary is alive: clients are led by the name, and those that are still connected to it are counted.
#[tokio::test(flavor = "multi_thread")]
async fn an_override_counts_who_is_left_at_the_old_side() {
    let sandbox = start(Sandbox::builder()).await;
    let load = sandbox.load(Default::default()).unwrap();
    backup(&sandbox, RECOVERY).await;
    acknowledge(&load, 100).await;
    let file = sandbox.layout().directory.join("dr.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    let data = sandbox.region(HOME).unwrap().place().data_directory();
    let of_home = |line: &&str| line.contains(&format!("\"{}\"", data.display()));
    let mut lines = text.lines().filter(of_home);
    let stop = lines.find(|line| line.contains(" stop: ")).unwrap();
    let text = text.replace(stop, "            stop: [\"true\"]");
    sandbox.launcher().write_file(&file, &text).unwrap();
    // Sessions of clients that stay: the application's own come and go with the load.
    let first = cluster(&sandbox, HOME).connect("ledger").await.unwrap();
    let second = cluster(&sandbox, HOME).connect("ledger").await.unwrap();
    let words = ["failover", "--to", RECOVERY, "--yes", "--json"];
    let words = [&words[..], &["--override", "test: it may live on"]].concat();
    let output = dr(&sandbox, &words).await;
    let report: Value = serde_json::from_str(&output.stdout).unwrap();
    assert!(is_primary(&sandbox, HOME).await && is_primary(&sandbox, RECOVERY).await);
    let steps = report["steps"].as_array().unwrap();
    let prove = steps.iter().find(|step| step["id"] == "prove").unwrap();
    let said = prove["summary"].as_str().unwrap();
    assert!(said.contains("/health at"), "{said}");
    let (before, _) = said
        .split_once(" sessions of clients are open")
        .unwrap_or_else(|| panic!("{said}"));
    let count = before.rsplit(' ').next().unwrap().parse::<u64>().unwrap();
    assert!(count >= 2, "{said}");
    drop((first, second));
    load.stop().await.unwrap();
    end(sandbox);
}

/// A fence that comes to nothing says nothing, and a witness who says more is looked behind.
#[tokio::test(flavor = "multi_thread")]
async fn a_witness_is_looked_behind_where_the_fence_found_nothing() {
    let sandbox = start(Sandbox::builder()).await;
    let load = sandbox.load(Default::default()).unwrap();
    backup(&sandbox, RECOVERY).await;
    acknowledge(&load, 100).await;
    let data = sandbox.region(HOME).unwrap().place().data_directory();
    let file = sandbox.layout().directory.join("dr.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    let of_home = |line: &&str| line.contains(&format!("\"{}\"", data.display()));
    let mut lines = text.lines().filter(of_home);
    let stop = lines.find(|line| line.contains(" stop: ")).unwrap();
    let text = text.replace(stop, "            stop: [\"true\"]");
    sandbox.launcher().write_file(&file, &text).unwrap();
    let words = ["failover", "--to", RECOVERY, "--yes"];
    refused(&sandbox, &words, 14, &["alive"]).await;
    let ids = executions(&sandbox);
    let [id] = &ids[..] else {
        panic!("one execution: {ids:?}");
    };

    // Its directory takes no mark, and it takes no new connection.
    let may = |mode| std::fs::set_permissions(&data, Permissions::from_mode(mode)).unwrap();
    may(0o500);
    let postmaster = postmaster(&sandbox);
    dr_sandbox::region::signal(&postmaster, Signal::STOP);
    let resume = ["execution", "resume", id.as_str()];
    refused(&sandbox, &resume, 14, &["nothing proves"]).await;
    let witnessed = [&resume[..], &["--witness", "test: it is off"]].concat();
    let seen = "its processes run on its host";
    refused(&sandbox, &witnessed, 14, &["alive", seen]).await;
    may(0o700);
    dr_sandbox::region::signal(&postmaster, Signal::CONT);
    assert!(is_primary(&sandbox, HOME).await);
    assert!(!is_primary(&sandbox, RECOVERY).await);
    load.stop().await.unwrap();
    end(sandbox);
}
