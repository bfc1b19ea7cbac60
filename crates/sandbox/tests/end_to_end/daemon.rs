//! A daemon is stopped, crashes and comes back: half a backup is none, and the log goes on where it was.

use std::path::PathBuf;
use std::time::Duration;

use dr_model::Clock;
use dr_sandbox::process::Table;
use dr_sandbox::{HOME, LostStore, RECOVERY, Sandbox};
use rustix::process::Signal;

use crate::support::{
    acknowledge, acknowledge_after, ask_lsn, backup, cluster, dr, dr_json, end, fail_over, judged,
    lost_before, now_us, start, stored, until,
};

/// How long a daemon may take to stop in an orderly way.
const STOP: Duration = Duration::from_secs(10);
/// The finest that a cron pattern tells apart.
const MINUTE: Duration = Duration::from_secs(60);
/// Enough incompressible bytes for several packs.
const NOISE_BYTES: usize = 300 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_was_cut_off_is_none() {
    let sandbox = start(Sandbox::builder().standby(false).daemons(false)).await;
    let home = sandbox.region(HOME).unwrap();
    make_noise(&sandbox);
    sandbox
        .region(RECOVERY)
        .unwrap()
        .start_daemon()
        .await
        .unwrap();
    home.start_daemon().await.unwrap();
    until("a first pack", async || {
        let packs = packs(&sandbox);
        if packs.is_empty() {
            Err("none so far".to_owned())
        } else {
            Ok(())
        }
    })
    .await;
    home.signal_daemon(Signal::KILL);
    until("the end of the daemon", async || ended(&sandbox, HOME)).await;
    assert_eq!(home.backups(), Vec::<String>::new(), "it was to be cut off");
    assert_ne!(packs(&sandbox), Vec::<PathBuf>::new());
    assert_eq!(recovery_points(&sandbox).await, 0);

    home.start_daemon().await.unwrap();
    backup(&sandbox, HOME).await;
    assert_eq!(recovery_points(&sandbox).await, 1);
    let into = sandbox.layout().directory.join("restored");
    sandbox.launcher().make_directory(&into).unwrap();
    let into = into.join("pgdata").display().to_string();
    let words = ["restore", "ledger/database", "--in", HOME, "--into", &into];
    let output = dr(&sandbox, &words).await;
    assert_eq!(output.status.code(), Some(0), "{}", output.stderr);
    end(sandbox);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_goes_on_over_a_stop_and_a_crash() {
    let sandbox = start(Sandbox::builder()).await;
    let recovery = sandbox.region(RECOVERY).unwrap();
    let load = sandbox.load(Default::default()).unwrap();
    acknowledge(&load, 100).await;
    let began = sandbox.clock().elapsed();
    recovery.signal_daemon(Signal::TERM);
    until("the end of the daemon", async || ended(&sandbox, RECOVERY)).await;
    assert!(sandbox.clock().elapsed() - began < STOP);
    acknowledge(&load, 100).await;
    for _ in 0..3 {
        recovery.start_daemon().await.unwrap();
        acknowledge(&load, 50).await;
        recovery.signal_daemon(Signal::KILL);
        until("the end of the daemon", async || ended(&sandbox, RECOVERY)).await;
        acknowledge(&load, 50).await;
    }
    recovery.start_daemon().await.unwrap();
    backup(&sandbox, RECOVERY).await;

    // Only what is in the store counts: the standby is taken away before the region is lost.
    let safe = now_us(&sandbox);
    let written = ask_lsn(&sandbox, HOME, "select pg_current_wal_flush_lsn()")
        .await
        .unwrap();
    stored(&sandbox, RECOVERY, written).await;
    cluster(&sandbox, RECOVERY).stop().await.unwrap();
    std::fs::remove_dir_all(recovery.place().data_directory()).unwrap();
    let lost_at = sandbox
        .region(HOME)
        .unwrap()
        .lose(LostStore::Empty)
        .unwrap();
    let failover = fail_over(&sandbox, &[]).await;
    assert_eq!(failover.rung, "restore");
    acknowledge_after(&load, lost_at).await;
    let verdict = judged(&sandbox, RECOVERY, &load.stop().await.unwrap()).await;
    assert_eq!(lost_before(&verdict, safe), 0, "{verdict:?}");
    end(sandbox);
}

/// Puts a file among those of the database that no compression makes small.
fn make_noise(sandbox: &Sandbox) {
    let file = sandbox
        .region(HOME)
        .unwrap()
        .place()
        .data_directory()
        .join("noise");
    let mut random = std::fs::File::open("/dev/urandom").unwrap();
    let mut written = std::fs::File::create(&file).unwrap();
    let mut limited = std::io::Read::take(&mut random, NOISE_BYTES as u64);
    std::io::copy(&mut limited, &mut written).unwrap();
    if let Some(user) = sandbox.launcher().user() {
        user.own(&file).unwrap();
    }
}

pub(crate) fn ended(sandbox: &Sandbox, region: &str) -> Result<(), String> {
    let left = sandbox.region(region).unwrap().daemon();
    if left.is_empty() {
        Ok(())
    } else {
        Err(format!("{left:?} of {}", Table::read().iter().count()))
    }
}

/// Lists the packs of all backups in the home region's store.
fn packs(sandbox: &Sandbox) -> Vec<PathBuf> {
    let list = |path: PathBuf| {
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    let store = sandbox.region(HOME).unwrap().place().store();
    let clusters = list(store.join("postgres")).into_iter();
    let backups = clusters.flat_map(|cluster| list(cluster.join("backup")));
    let files = backups.flat_map(|backup| list(backup.join("packs")));
    // What is being written has a name of its own until it is whole.
    files
        .filter(|file| !file.file_name().unwrap().to_string_lossy().starts_with('.'))
        .collect()
}

async fn recovery_points(sandbox: &Sandbox) -> usize {
    let words = ["recovery-point", "list", "--region", HOME, "--json"];
    let listed = dr_json(sandbox, &words).await;
    listed["recovery_points"].as_array().unwrap().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_runs_when_it_is_asked_for() {
    let sandbox = start(Sandbox::builder().standby(false)).await;
    let home = sandbox.region(HOME).unwrap();
    backup(&sandbox, HOME).await;
    let before = home.backups();
    assert_eq!(before.len(), 1, "{before:?}");

    let at_home = ["job", "run", "snapshot", "--region", HOME, "--json"];
    let asked = dr_json(&sandbox, &at_home).await;
    let label = asked["detail"]["recovery_point"]["label"].as_str().unwrap();
    let after = home.backups();
    assert_eq!(after.len(), 2, "{after:?}");
    assert!(after.iter().any(|backup| backup == label) && !before.contains(&label.to_owned()));

    let elsewhere = dr(&sandbox, &["job", "run", "snapshot", "--region", RECOVERY]).await;
    assert_eq!(elsewhere.status.code(), Some(64), "{}", elsewhere.stderr);
    assert!(
        elsewhere.stderr.contains("us-east-1 is the primary"),
        "{}",
        elsewhere.stderr
    );
    let stream = dr(&sandbox, &["job", "run", "wal", "--region", HOME]).await;
    assert_eq!(stream.status.code(), Some(64), "{}", stream.stderr);
    let unknown = dr(&sandbox, &["job", "run", "snapshto", "--region", HOME]).await;
    assert_eq!(unknown.status.code(), Some(64), "{}", unknown.stderr);
    assert!(
        unknown.stderr.contains("did you mean `snapshot`"),
        "{}",
        unknown.stderr
    );

    // Without a daemon, the command does it itself.
    let recovery = sandbox.region(RECOVERY).unwrap();
    recovery.signal_daemon(Signal::KILL);
    until("the end of the daemon", async || ended(&sandbox, RECOVERY)).await;
    // Its threads may outlive its number for a moment, and with them the socket.
    let socket = sandbox
        .layout()
        .directory
        .join(RECOVERY)
        .join("daemon/control.sock");
    until(
        "the end of the socket",
        async || match std::os::unix::net::UnixStream::connect(&socket) {
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => Ok(()),
            other => Err(format!("{other:?}")),
        },
    )
    .await;
    let copy = dr_json(
        &sandbox,
        &["job", "run", "copy", "--region", RECOVERY, "--json"],
    )
    .await;
    assert!(copy["summary"].is_string(), "{copy}");
    assert_eq!(recovery.backups().len(), 2);
    end(sandbox);
}

/// A daemon that was away when a snapshot was due takes it once it is back, and takes one, not one for each.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_was_missed_is_made_up_for_once() {
    let sandbox = start(Sandbox::builder().standby(false)).await;
    let home = sandbox.region(HOME).unwrap();
    let before = backup(&sandbox, HOME).await;
    home.signal_daemon(Signal::TERM);
    until("the end of the daemon", async || ended(&sandbox, HOME)).await;

    // Due in the next minute, and then not for a day: what comes after that minute can only be the one that was missed.
    let due = sandbox.clock().now() + jiff::SignedDuration::from_secs(60);
    let cron = due.strftime("%M %H * * *").to_string();
    let file = sandbox.layout().directory.join("schedules/ledger.yaml");
    let schedules = std::fs::read_to_string(&file).unwrap();
    let usual = "0 2 * * *";
    assert!(schedules.contains(usual), "{schedules}");
    let changed = schedules.replace(usual, &cron);
    sandbox.launcher().write_file(&file, &changed).unwrap();
    let passed = due.strftime("%H:%M").to_string();
    dr_sandbox::wait::until("the minute it is due", MINUTE * 2, async || {
        let now = sandbox.clock().now().strftime("%H:%M").to_string();
        if now == passed { Ok(()) } else { Err(now) }
    })
    .await
    .unwrap();
    assert_eq!(home.backups(), before);

    home.start_daemon().await.unwrap();
    until("the snapshot that was missed", async || {
        let backups = home.backups();
        if backups.len() > before.len() {
            Ok(())
        } else {
            Err(format!("{backups:?}"))
        }
    })
    .await;
    // It is started once more, and finds nothing that it missed: the next is due tomorrow.
    home.signal_daemon(Signal::TERM);
    until("the end of the daemon", async || ended(&sandbox, HOME)).await;
    home.start_daemon().await.unwrap();
    let written = ask_lsn(&sandbox, HOME, "select pg_current_wal_flush_lsn()")
        .await
        .unwrap();
    stored(&sandbox, HOME, written).await;
    assert_eq!(home.backups().len(), before.len() + 1);
    end(sandbox);
}

/// Nobody says that it is well, and nothing that it does shows it: that is unknown, long before an objective is breached.
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_gone_is_not_taken_for_well() {
    let sandbox = start(Sandbox::builder().daemons(false)).await;
    let file = sandbox.layout().directory.join("dr.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    let patient = text.replace("rpo: 15s", "rpo: 1h");
    assert_ne!(patient, text);
    sandbox.launcher().write_file(&file, &patient).unwrap();
    for region in [HOME, RECOVERY] {
        let region = sandbox.region(region).unwrap();
        region.start_daemon().await.unwrap();
    }
    let load = sandbox.load(Default::default()).unwrap();
    acknowledge(&load, 50).await;
    backup(&sandbox, RECOVERY).await;
    until("a workload that is well", async || {
        let status = dr(&sandbox, &["status"]).await;
        match status.status.code() {
            Some(0) => Ok(()),
            _ => Err(status.stdout),
        }
    })
    .await;

    let recovery = sandbox.region(RECOVERY).unwrap();
    recovery.signal_daemon(Signal::KILL);
    let said = format!("nothing shows that the daemon of {RECOVERY} runs");
    let status = until("what is not known", async || {
        let status = dr(&sandbox, &["status"]).await;
        match status.status.code() {
            Some(11) => Ok(status.stdout),
            _ => Err(status.stdout),
        }
    })
    .await;
    let headline = "ledger: protected, but not known to be well\n";
    assert!(status.starts_with(headline), "{status}");
    assert!(status.contains(&said), "{status}");
    // Its lock tells at once; that its store takes no log any more would tell after half a minute.
    assert!(status.contains("was killed or died"), "{status}");
    let checked = dr(&sandbox, &["check", "--online"]).await;
    assert_eq!(checked.status.code(), Some(20), "{checked:?}");
    let unknown = format!("unknown daemon of {RECOVERY}: cannot be reached");
    assert!(checked.stdout.contains(&unknown), "{}", checked.stdout);

    recovery.start_daemon().await.unwrap();
    until("a workload that is well again", async || {
        let status = dr(&sandbox, &["status"]).await;
        match status.status.code() {
            Some(0) => Ok(()),
            _ => Err(status.stdout),
        }
    })
    .await;
    load.stop().await.unwrap();
    end(sandbox);
}
