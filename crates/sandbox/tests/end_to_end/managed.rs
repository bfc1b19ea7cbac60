//! A standby that Patroni has started is promoted by a command that asks Patroni, or not at all.

use dr_sandbox::{HOME, LostStore, RECOVERY, Sandbox};

use crate::executions::{epochs, executions, moved_once};
use crate::support::{
    acknowledge, acknowledge_after, backup, dr, end, is_primary, judged, says, start,
};

#[tokio::test(flavor = "multi_thread")]
async fn what_patroni_manages_is_promoted_by_its_command_only() {
    let sandbox = start(Sandbox::builder()).await;
    let load = sandbox.load(Default::default()).unwrap();
    backup(&sandbox, RECOVERY).await;
    acknowledge(&load, 100).await;
    // What Patroni leaves in a data directory; a copy of its configuration alone says nothing.
    let data = sandbox.region(RECOVERY).unwrap().place().data_directory();
    std::fs::write(data.join("patroni.dynamic.json"), "{}").unwrap();
    let plan = ["failover", "--to", RECOVERY, "--plan"];
    let output = dr(&sandbox, &plan).await;
    assert!(!output.stderr.contains("Patroni"), "{output:?}");
    let words = data.join("postmaster.opts");
    let started = std::fs::read_to_string(&words).unwrap();
    let started = format!("{} \"--cluster_name=ledger\"\n", started.trim_end());
    std::fs::write(&words, started).unwrap();

    let lost_at = sandbox
        .region(HOME)
        .unwrap()
        .lose(LostStore::Renamed)
        .unwrap();
    let output = dr(&sandbox, &["failover", "--to", RECOVERY, "--yes"]).await;
    says(&output, 20, &["Patroni", "`promote: [COMMAND, …]`"]);
    assert_eq!((epochs(&sandbox).len(), executions(&sandbox).len()), (1, 0));
    assert!(!is_primary(&sandbox, RECOVERY).await);

    let file = sandbox.layout().directory.join("dr.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    let standby = "            standby: warm\n";
    assert!(text.contains(standby), "{text}");
    let program = sandbox.layout().postgres_programs.join("pg_ctl");
    let write = |promote: &str| {
        let text = text.replace(
            standby,
            &format!("{standby}            promote: {promote}\n"),
        );
        sandbox.launcher().write_file(&file, &text).unwrap();
    };
    // One that does nothing.
    write("[\"false\"]");
    let output = dr(&sandbox, &["failover", "--to", RECOVERY, "--yes"]).await;
    says(&output, 14, &["`false` ended with status 1"]);
    let [id] = &executions(&sandbox)[..] else {
        panic!("one execution");
    };
    write(&format!(
        "[\"{}\", promote, --no-wait, --silent, --pgdata, \"{}\"]",
        program.display(),
        data.display()
    ));
    let output = dr(&sandbox, &["execution", "resume", id]).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    moved_once(&sandbox).await;
    acknowledge_after(&load, lost_at).await;
    let record = load.stop().await.unwrap();
    judged(&sandbox, RECOVERY, &record).await;
    end(sandbox);
}
