//! `dr wal push` as the `archive_command` of a real server: with a daemon that does it, and without.

use dr_sandbox::{HOME, Sandbox};
use rustix::process::Signal;

use crate::support::{acknowledge, ask, backup, cluster, dr, end, judged, start, until};

/// Finishes a segment, and waits until everything up to it is archived, and nothing has failed.
async fn archived(sandbox: &Sandbox, how: &str) -> String {
    let finished = "pg_walfile_name(pg_switch_wal())";
    let segment = ask(sandbox, HOME, finished).await.unwrap();
    until(&format!("segments archived {how}"), async || {
        let query = "select last_archived_wal || ' ' || failed_count from pg_stat_archiver";
        let seen = ask(sandbox, HOME, query).await?;
        match seen.split_once(' ') {
            Some((last, "0")) if last >= segment.as_str() => Ok(()),
            _ => Err(format!("{seen}, and {segment} is the last")),
        }
    })
    .await;
    segment
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_archives_by_it() {
    let sandbox = start(Sandbox::builder().standby(false)).await;
    let home = sandbox.region(HOME).unwrap();
    backup(&sandbox, HOME).await;
    let primary = cluster(&sandbox, HOME);
    let words = ["wal", "push", "ledger/database", "%p"];
    let command = sandbox.dr_command(words);
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_str().unwrap()).collect();
    let variables = command
        .get_envs()
        .filter_map(|(name, value)| Some(format!("{}='{}'", name.to_str()?, value?.to_str()?)));
    let variables: Vec<_> = variables.collect();
    let command = format!("{} {}", variables.join(" "), words.join(" "));
    let client = primary.connect("postgres").await.unwrap();
    for (name, value) in [
        ("archive_command", command.as_str()),
        ("archive_mode", "on"),
    ] {
        let set = format!("alter system set {name} = '{}'", value.replace('\'', "''"));
        client.batch_execute(&set).await.unwrap();
    }
    drop(client);
    primary.stop().await.unwrap();
    primary.start().unwrap();
    primary.wait_ready().await.unwrap();

    let load = sandbox.load(Default::default()).unwrap();
    acknowledge(&load, 200).await;
    let by_daemon = archived(&sandbox, "by the daemon").await;
    // Nobody receives any more: what is archived is all that comes into the store.
    home.signal_daemon(Signal::TERM);
    until("the end of the daemon", async || match home.daemon() {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    })
    .await;
    acknowledge(&load, 200).await;
    let alone = archived(&sandbox, "without a daemon").await;
    assert!(by_daemon < alone);
    for segment in [&by_daemon, &alone] {
        let fetched = sandbox.layout().directory.join(segment);
        let place = fetched.to_str().unwrap();
        let words = [
            "wal",
            "fetch",
            "ledger/database",
            segment,
            place,
            "--in",
            HOME,
        ];
        let output = dr(&sandbox, &words).await;
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let own = home.place().data_directory().join("pg_wal").join(segment);
        if own.exists() {
            assert_eq!(
                std::fs::read(&fetched).unwrap(),
                std::fs::read(own).unwrap()
            );
        }
    }
    home.start_daemon().await.unwrap();
    let verdict = judged(&sandbox, HOME, &load.stop().await.unwrap()).await;
    assert_eq!(verdict.lost, vec![]);
    end(sandbox);
}
