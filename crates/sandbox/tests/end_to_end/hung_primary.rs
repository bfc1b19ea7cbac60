//! A primary that hangs runs all the same: nobody's word that it has stopped is taken, and what it goes on to do is not lost.

use dr_sandbox::{HOME, RECOVERY, Sandbox};
use rustix::process::Signal;

use crate::executions::{epochs, executions};
use crate::support::{acknowledge, backup, end, is_primary, refused, start};

#[tokio::test(flavor = "multi_thread")]
async fn a_witness_does_not_outweigh_processes_that_are_there() {
    let sandbox = start(Sandbox::builder()).await;
    let load = sandbox.load(Default::default()).unwrap();
    backup(&sandbox, RECOVERY).await;
    acknowledge(&load, 100).await;
    let home = sandbox.region(HOME).unwrap();
    let file = home.place().data_directory().join("postmaster.pid");
    let text = std::fs::read_to_string(file).unwrap();
    let number: i32 = text.lines().next().unwrap().parse().unwrap();
    // It takes no new connection; those that are open go on.
    let mut postmaster = home.processes();
    postmaster.retain(|process| process.pid == number);
    assert_eq!(postmaster.len(), 1);
    dr_sandbox::region::signal(&postmaster, Signal::STOP);
    acknowledge(&load, 20).await;
    let words = ["failover", "--to", RECOVERY, "--yes"];
    let seen = "its processes run on its host";
    refused(&sandbox, &words, 12, &[seen]).await;
    let stated = [&words[..], &["--witness", "test: it is powered off"]].concat();
    refused(&sandbox, &stated, 12, &[seen, "does not outweigh"]).await;
    dr_sandbox::region::signal(&postmaster, Signal::CONT);
    assert_eq!(epochs(&sandbox), ["00000001"]);
    acknowledge(&load, 20).await;
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

/// A fence that runs into its time limit says nothing, and a witness who says more is looked behind.
#[tokio::test(flavor = "multi_thread")]
async fn a_witness_is_looked_behind_where_the_fence_found_nothing() {
    let sandbox = start(Sandbox::builder()).await;
    let load = sandbox.load(Default::default()).unwrap();
    backup(&sandbox, RECOVERY).await;
    acknowledge(&load, 100).await;
    let home = sandbox.region(HOME).unwrap();
    let data = home.place().data_directory();
    let file = sandbox.layout().directory.join("dr.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    let of_home = |line: &&str| line.contains(&format!("\"{}\"", data.display()));
    let mut lines = text.lines().filter(of_home);
    let stop = lines.find(|line| line.contains(" stop: ")).unwrap();
    let stopping = |by: &str| {
        let text = text.replace(stop, &format!("            stop: {by}"));
        sandbox.launcher().write_file(&file, &text).unwrap();
    };
    stopping("[\"true\"]");
    let words = ["failover", "--to", RECOVERY, "--yes"];
    refused(&sandbox, &words, 14, &["alive"]).await;
    let ids = executions(&sandbox);
    let [id] = &ids[..] else {
        panic!("one execution: {ids:?}");
    };

    // Stopping it takes longer than the fence may, and it takes no new connection.
    stopping("[\"sleep\", \"60\"]");
    let text = std::fs::read_to_string(data.join("postmaster.pid")).unwrap();
    let number: i32 = text.lines().next().unwrap().parse().unwrap();
    let mut postmaster = home.processes();
    postmaster.retain(|process| process.pid == number);
    assert_eq!(postmaster.len(), 1);
    dr_sandbox::region::signal(&postmaster, Signal::STOP);
    let resume = ["execution", "resume", id.as_str()];
    refused(&sandbox, &resume, 14, &["nothing proves"]).await;
    let witnessed = [&resume[..], &["--witness", "test: it is off"]].concat();
    let seen = "its processes run on its host";
    refused(&sandbox, &witnessed, 14, &["alive", seen]).await;
    dr_sandbox::region::signal(&postmaster, Signal::CONT);
    assert!(is_primary(&sandbox, HOME).await);
    assert!(!is_primary(&sandbox, RECOVERY).await);
    load.stop().await.unwrap();
    end(sandbox);
}
