//! The wire between the regions is cut, and both are alive. Each is on a machine of its own here; clients and DNS are in
//! between and reach both. One client has the answer of DNS from before and never asks again. The ledger is the judge.

use std::collections::BTreeSet;
use std::time::Duration;

use dr_coordination::register::Guard;
use dr_model::loss::Bound;
use dr_model::{Clock, Lsn};
use dr_sandbox::demo::Failover;
use dr_sandbox::judge::{Verdict, judge};
use dr_sandbox::layout::StoreKind;
use dr_sandbox::ledger::{Load, Options};
use dr_sandbox::process::Output;
use dr_sandbox::{Builder, HOME, RECOVERY, Sandbox, machines};
use rstest::rstest;
use rustix::process::Signal;
use serde_json::Value;

use crate::executions::{Running, comes_to, epochs, executions, moved_once, reaches};
use crate::promotion::{RECEIVED, WRITTEN, freeze_walsender};
use crate::second_loss::register_in;
use crate::self_fence::{LEASE_SECONDS, is_armed, is_stopped, server};
use crate::support::{
    acknowledge, acknowledge_after, apart, ask_lsn, backup, cluster, end, is_primary, lost_before,
    now_us, says, start, until,
};

/// How long the old primary is watched after everything is over.
const WATCH: Duration = Duration::from_secs(3);

/// What `dr failover` is told.
pub(crate) const MOVE: [&str; 5] = ["failover", "--to", RECOVERY, "--yes", "--json"];

/// Two machines with a client that follows DNS and one that does not.
pub(crate) struct Parted {
    pub(crate) sandbox: Sandbox,
    pub(crate) load: Load,
    pub(crate) stale: Load,
}

impl Parted {
    /// Starts everything and waits until the workload is protected.
    pub(crate) async fn start(builder: Builder) -> Self {
        let sandbox = start(builder.machines(true).store(StoreKind::S3)).await;
        let load = sandbox.load(Options::default()).unwrap();
        let stale = Options {
            workers: 2,
            rate: 40,
            first_worker: 1000,
            stale: true,
            ..Options::default()
        };
        let stale = sandbox.load(stale).unwrap();
        backup(&sandbox, RECOVERY).await;
        register_in(&sandbox, RECOVERY).await;
        acknowledge(&load, 100).await;
        acknowledge(&stale, 20).await;
        Self {
            sandbox,
            load,
            stale,
        }
    }

    async fn cut(&self) {
        let [home, recovery] = self.ends();
        machines::cut(self.sandbox.launcher(), home, recovery)
            .await
            .unwrap();
    }

    async fn mend(&self) {
        let [home, recovery] = self.ends();
        machines::mend(self.sandbox.launcher(), home, recovery)
            .await
            .unwrap();
    }

    fn ends(&self) -> [std::net::IpAddr; 2] {
        [HOME, RECOVERY].map(|region| self.sandbox.region(region).unwrap().place().address)
    }

    /// Runs `dr` on the machine of a region.
    async fn dr(&self, region: &str, words: &[&str]) -> Output {
        let command = self.sandbox.dr_command_in(region, words).unwrap();
        let output = self.sandbox.launcher().output(command, false);
        output.await.unwrap()
    }

    /// Waits until the old primary's daemon knows that its epoch is over, from the register's copy in its own store.
    async fn home_knows(&self) {
        let newest = epochs(&self.sandbox).pop().unwrap();
        let copies = self.sandbox.region(HOME).unwrap().place().store();
        let copy = copies.join("copies/register/ledger").join(newest);
        until("the newest record at home", async || {
            if copy.exists() {
                Ok(())
            } else {
                Err(format!("{} is not there", copy.display()))
            }
        })
        .await;
    }

    /// Watches for a while that the client that never asks again is told nothing more.
    async fn nothing_more_is_told(&self) {
        let told = self.stale.acknowledged();
        let over = self.sandbox.clock().elapsed() + WATCH;
        while self.sandbox.clock().elapsed() < over {
            assert_eq!(self.stale.acknowledged(), told, "by the old primary");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Counts the commits of the old primary that the new one has not, as `dr execution divergence` does, once it has stopped there.
    async fn diverged(&self, execution: &str) -> u64 {
        cluster(&self.sandbox, HOME).stop().await.unwrap();
        let words = ["execution", "divergence", execution, "--json"];
        let diverged = self.dr(HOME, &words).await;
        assert_eq!(diverged.status.code(), Some(10), "{diverged:?}");
        says(&diverged, 10, &["Recorded as evidence"]);
        let diverged: Value = serde_json::from_str(&diverged.stdout).unwrap();
        let commits = &diverged["resources"][0]["found"][0]["in"][1]["commits"];
        commits.as_u64().unwrap_or_else(|| panic!("{diverged}"))
    }

    /// Checks that what is lost was acknowledged before a guard stops a primary that was cut off at this moment.
    async fn lost_soon_after(self, cut_at: u64) -> Verdict {
        let guard = Guard {
            lease_seconds: LEASE_SECONDS,
        };
        let limit = u64::try_from(guard.stopped_after().as_micros()).unwrap();
        let verdict = self.end().await;
        for commit in &verdict.lost {
            let late = commit.ended_us.saturating_sub(cut_at);
            assert!(late <= limit, "{late} µs after the cut: {commit:?}");
        }
        verdict
    }

    /// Compares what both clients were told with the ledger in the recovery region.
    pub(crate) async fn end(self) -> Verdict {
        let mut commits = self.load.stop().await.unwrap().commits;
        commits.extend(self.stale.stop().await.unwrap().commits);
        commits.sort_by_key(|commit| commit.ended_us);
        let found = cluster(&self.sandbox, RECOVERY).ledger().await.unwrap();
        let verdict = judge(&commits, &found.into_iter().collect::<BTreeSet<i64>>());
        assert_eq!(verdict.holes, vec![]);
        assert_eq!(verdict.refused_found, Vec::<i64>::new());
        end(self.sandbox);
        verdict
    }
}

pub(crate) fn report(output: &Output) -> Failover {
    serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// With commits that wait for the recovery region's store, the seal is proof enough: the old primary lives, and nothing that
/// anybody was told is lost, then or after the wire is whole again.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_promised_is_lost_to_a_primary_that_lives_on() {
    if !apart(
        "partitions::nothing_promised_is_lost_to_a_primary_that_lives_on",
        "--net",
    ) {
        return;
    }
    let parted = Parted::start(Sandbox::builder().sync(true)).await;
    let sandbox = &parted.sandbox;
    parted.cut().await;
    let cut_at = now_us(sandbox);
    let output = parted.dr(RECOVERY, &MOVE).await;
    let failover = report(&output);
    assert_eq!(failover.state, "completed", "{output:?}");
    assert_eq!(
        (failover.fence.as_str(), &failover.loss.bound),
        ("sealed", &Bound::Zero)
    );
    moved_once(sandbox).await;
    acknowledge_after(&parted.load, cut_at).await;
    assert!(is_primary(sandbox, HOME).await);

    parted.mend().await;
    parted.home_knows().await;
    parted.nothing_more_is_told().await;
    assert_eq!(parted.end().await.lost, vec![]);
}

/// The executor stops within its work, the old primary comes back meanwhile, and the executor goes on as if nothing had been.
#[rstest]
#[case::in_the_open_epoch(4)]
#[case::about_the_seal(10)]
#[case::after_it(14)]
#[tokio::test(flavor = "multi_thread")]
async fn the_old_primary_is_back_in_the_middle(#[case] entry: usize) {
    let name = match entry {
        4 => "case_1_in_the_open_epoch",
        10 => "case_2_about_the_seal",
        _ => "case_3_after_it",
    };
    if !apart(
        &format!("partitions::the_old_primary_is_back_in_the_middle::{name}"),
        "--net",
    ) {
        return;
    }
    let parted = Parted::start(Sandbox::builder().sync(true)).await;
    let sandbox = &parted.sandbox;
    parted.cut().await;
    let running = Running::command(sandbox, sandbox.dr_command_in(RECOVERY, MOVE).unwrap());
    assert!(reaches(sandbox, &running, entry).await);
    running.signal(Signal::STOP);
    parted.mend().await;
    let back_at = now_us(sandbox);
    // Until the seal is in, the old epoch may acknowledge; afterwards nobody may.
    parted.home_knows().await;
    running.signal(Signal::CONT);
    let output = running.end().await;
    assert_eq!(report(&output).state, "completed", "{output:?}");
    moved_once(sandbox).await;
    acknowledge_after(&parted.load, back_at).await;
    assert_eq!(parted.end().await.lost, vec![]);
}

/// Without that, a primary out of sight may go on accepting commits: nothing moves without somebody's word, and then what it cost
/// is measured.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_proof_it_is_refused_and_an_override_is_measured() {
    if !apart(
        "partitions::without_a_proof_it_is_refused_and_an_override_is_measured",
        "--net",
    ) {
        return;
    }
    let parted = Parted::start(Sandbox::builder()).await;
    let sandbox = &parted.sandbox;
    parted.cut().await;
    let refused = parted.dr(RECOVERY, &MOVE).await;
    says(&refused, 12, &["proves", "--override"]);
    assert_eq!((epochs(sandbox).len(), executions(sandbox).len()), (1, 0));
    acknowledge(&parted.load, 50).await;

    let moved_at = now_us(sandbox);
    let overridden = [&MOVE[..], &["--override", "the wire is cut"]].concat();
    let output = parted.dr(RECOVERY, &overridden).await;
    let failover = report(&output);
    assert!(
        matches!(failover.loss.bound, Bound::Growing { .. }),
        "{output:?}"
    );
    moved_once(sandbox).await;
    acknowledge_after(&parted.load, moved_at).await;
    // Two primaries: this is what the override took upon itself.
    acknowledge(&parted.stale, 50).await;
    parted.mend().await;
    parted.home_knows().await;

    let counted = parted.diverged(&failover.execution).await;
    // It does not stand there as unknown for ever.
    let listed = parted.dr(HOME, &["evidence", "list", "--json"]).await;
    let listed: Value = serde_json::from_str(&listed.stdout).unwrap();
    let records = listed["records"].as_array().unwrap();
    let newest = &records.last().unwrap()["record"];
    assert_eq!(newest["subject"], failover.execution.as_str(), "{listed}");
    let measured = newest["body"].to_string();
    assert!(
        measured.contains(&format!("\"commits\":{counted}")),
        "{newest}"
    );
    let verdict = parted.end().await;
    assert!(verdict.lost.len() >= 50, "{}", verdict.lost.len());
    // Heartbeats are commits too.
    assert!(counted >= verdict.lost.len() as u64, "{counted}");
}

/// The same in the middle of an override: what the old primary acknowledged is lost from the seal on, and is measured.
#[rstest]
#[case::before_the_seal("seal")]
#[case::before_clients_are_led("switch")]
#[tokio::test(flavor = "multi_thread")]
async fn back_in_the_middle_of_an_override_it_is_measured(#[case] step: &str) {
    let name = match step {
        "seal" => "case_1_before_the_seal",
        _ => "case_2_before_clients_are_led",
    };
    if !apart(
        &format!("partitions::back_in_the_middle_of_an_override_it_is_measured::{name}"),
        "--net",
    ) {
        return;
    }
    let parted = Parted::start(Sandbox::builder()).await;
    let sandbox = &parted.sandbox;
    parted.cut().await;
    let overridden = [&MOVE[..], &["--override", "the wire is cut"]].concat();
    let command = sandbox.dr_command_in(RECOVERY, overridden).unwrap();
    let running = Running::command(sandbox, command);
    assert!(
        comes_to(sandbox, &running, step).await,
        "{:?}",
        running.end().await
    );
    running.signal(Signal::STOP);
    parted.mend().await;
    let back_at = now_us(sandbox);
    parted.home_knows().await;
    acknowledge(&parted.stale, 20).await;
    running.signal(Signal::CONT);
    let failover = report(&running.end().await);
    assert_eq!(failover.state, "completed", "{failover:?}");
    assert_eq!(failover.fence, "none", "{failover:?}");
    assert!(
        matches!(failover.loss.bound, Bound::Growing { .. }),
        "{failover:?}"
    );
    moved_once(sandbox).await;
    acknowledge_after(&parted.load, back_at).await;
    // Nothing has stopped it: what it still acknowledges is lost, and this is what was measured.
    let both = now_us(sandbox);
    acknowledge(&parted.stale, 20).await;
    let counted = parted.diverged(&failover.execution).await;
    let verdict = parted.end().await;
    let after = verdict.lost.iter().filter(|lost| lost.started_us >= both);
    assert!(after.count() >= 10, "{}", verdict.lost.len());
    assert!(counted >= verdict.lost.len() as u64, "{counted}");
}

/// The same with a guard: whether it sees that the epoch is over or nothing at all, it stops, and nothing is lost that was acknowledged
/// later than that.
#[rstest]
#[case::in_the_open_epoch(None)]
#[case::before_the_seal(Some("seal"))]
#[case::before_clients_are_led(Some("switch"))]
#[tokio::test(flavor = "multi_thread")]
async fn back_in_the_middle_a_guarded_primary_is_stopped(#[case] step: Option<&str>) {
    let name = match step {
        None => "case_1_in_the_open_epoch",
        Some("seal") => "case_2_before_the_seal",
        _ => "case_3_before_clients_are_led",
    };
    if !apart(
        &format!("partitions::back_in_the_middle_a_guarded_primary_is_stopped::{name}"),
        "--net",
    ) {
        return;
    }
    let parted = Parted::start(Sandbox::builder().guard(LEASE_SECONDS)).await;
    let sandbox = &parted.sandbox;
    is_armed(sandbox, HOME).await;
    let before = epochs(sandbox).len();
    parted.cut().await;
    let cut_at = now_us(sandbox);
    let running = Running::command(sandbox, sandbox.dr_command_in(RECOVERY, MOVE).unwrap());
    match step {
        Some(step) => assert!(
            comes_to(sandbox, &running, step).await,
            "{:?}",
            running.end().await
        ),
        // What comes next is the wait for the guard, which only looks and leaves no entry.
        None => {
            until("an open epoch", async || match epochs(sandbox).len() {
                count if count > before => Ok(()),
                count => Err(format!("{count} of {before}")),
            })
            .await;
        }
    }
    running.signal(Signal::STOP);
    parted.mend().await;
    let back_at = now_us(sandbox);
    parted.home_knows().await;
    is_stopped(sandbox).await;
    running.signal(Signal::CONT);
    let output = running.end().await;
    let failover = report(&output);
    assert_eq!(failover.state, "completed", "{output:?}");
    assert!(
        matches!(failover.fence.as_str(), "self-stopped" | "stopped"),
        "{output:?}"
    );
    assert!(
        matches!(failover.loss.bound, Bound::Seconds { .. }),
        "{output:?}"
    );
    assert_eq!(epochs(sandbox).len(), before + 1);
    assert!(is_primary(sandbox, RECOVERY).await);
    acknowledge_after(&parted.load, back_at).await;
    assert_eq!(server(sandbox), vec![]);
    parted.nothing_more_is_told().await;
    parted.lost_soon_after(cut_at).await;
}

/// The standby lags when the wire is cut, and the store has what it has not; nothing promised is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_lags_behind_a_cut_is_brought_up_from_the_store() {
    if !apart(
        "partitions::a_standby_that_lags_behind_a_cut_is_brought_up_from_the_store",
        "--net",
    ) {
        return;
    }
    let parted = Parted::start(Sandbox::builder().sync(true)).await;
    let sandbox = &parted.sandbox;
    freeze_walsender(sandbox).await;
    let received = ask_lsn(sandbox, RECOVERY, RECEIVED).await.unwrap();
    acknowledge(&parted.load, 100).await;
    parted.cut().await;
    let cut_at = now_us(sandbox);
    let behind = ask_lsn(sandbox, RECOVERY, RECEIVED).await.unwrap();
    let output = parted.dr(RECOVERY, &MOVE).await;
    let failover = report(&output);
    assert_eq!(failover.state, "completed", "{output:?}");
    assert_eq!(failover.rung, "promote");
    assert_eq!(
        (failover.fence.as_str(), &failover.loss.bound),
        ("sealed", &Bound::Zero)
    );
    let sealed: Lsn = failover.sealed["lsn"]
        .as_str()
        .and_then(|at| at.parse().ok())
        .unwrap_or_else(|| panic!("{}", failover.sealed));
    assert!(behind < sealed, "{received} {behind} {sealed}");
    moved_once(sandbox).await;
    acknowledge_after(&parted.load, cut_at).await;
    parted.mend().await;
    parted.home_knows().await;
    parted.nothing_more_is_told().await;
    assert_eq!(parted.end().await.lost, vec![]);
}

/// The store lags, and the standby has what it has not: what the standby had when the wire was cut is kept.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_lags_behind_a_cut_is_given_what_the_standby_has() {
    if !apart(
        "partitions::a_store_that_lags_behind_a_cut_is_given_what_the_standby_has",
        "--net",
    ) {
        return;
    }
    let parted = Parted::start(Sandbox::builder()).await;
    let sandbox = &parted.sandbox;
    for region in [HOME, RECOVERY] {
        sandbox.region(region).unwrap().signal_daemon(Signal::STOP);
    }
    acknowledge(&parted.load, 100).await;
    let safe = now_us(sandbox);
    let written = ask_lsn(sandbox, HOME, WRITTEN).await.unwrap();
    until("the log in the standby", async || {
        match ask_lsn(sandbox, RECOVERY, RECEIVED).await? {
            received if received >= written => Ok(()),
            received => Err(format!("{received} of {written}")),
        }
    })
    .await;
    parted.cut().await;
    let cut_at = now_us(sandbox);
    for region in [HOME, RECOVERY] {
        sandbox.region(region).unwrap().signal_daemon(Signal::CONT);
    }
    let overridden = [&MOVE[..], &["--override", "the wire is cut"]].concat();
    let output = parted.dr(RECOVERY, &overridden).await;
    let failover = report(&output);
    assert_eq!(failover.state, "completed", "{output:?}");
    moved_once(sandbox).await;
    acknowledge_after(&parted.load, cut_at).await;
    parted.mend().await;
    parted.home_knows().await;
    cluster(sandbox, HOME).stop().await.unwrap();
    let verdict = parted.end().await;
    assert_eq!(lost_before(&verdict, safe), 0, "{verdict:?}");
}

/// The old primary runs under a guard: once it cannot see the register it is stopped, so that a failover needs nobody's word. What
/// it acknowledged until then is lost, and nothing later.
#[tokio::test(flavor = "multi_thread")]
async fn a_guarded_primary_that_is_cut_off_stops_by_itself() {
    if !apart(
        "partitions::a_guarded_primary_that_is_cut_off_stops_by_itself",
        "--net",
    ) {
        return;
    }
    let parted = Parted::start(Sandbox::builder().guard(LEASE_SECONDS)).await;
    let sandbox = &parted.sandbox;
    is_armed(sandbox, HOME).await;
    let before = epochs(sandbox).len();
    parted.cut().await;
    let cut_at = now_us(sandbox);
    // The old primary goes on for a while, for those who reach it.
    acknowledge_after(&parted.stale, cut_at).await;
    let output = parted.dr(RECOVERY, &MOVE).await;
    let moved_at = now_us(sandbox);
    let failover = report(&output);
    assert_eq!(failover.state, "completed", "{output:?}");
    assert_eq!(failover.fence, "self-stopped", "{output:?}");
    assert!(
        matches!(failover.loss.bound, Bound::Seconds { .. }),
        "{output:?}"
    );
    assert_eq!(epochs(sandbox).len(), before + 1);
    assert_eq!(server(sandbox), vec![]);
    assert!(is_primary(sandbox, RECOVERY).await);
    acknowledge_after(&parted.load, moved_at).await;

    let told = parted.stale.acknowledged();
    parted.mend().await;
    // It may not come back as a primary.
    let words = ["host", "guard", "ledger/database", "--region", HOME];
    let refused = parted.dr(HOME, &words).await;
    says(&refused, 12, &["may not run as a primary here", RECOVERY]);
    parted.nothing_more_is_told().await;
    assert_eq!(parted.stale.acknowledged(), told, "after the new epoch");
    let verdict = parted.lost_soon_after(cut_at).await;
    assert!(
        !verdict.lost.is_empty(),
        "the old primary went on for a while"
    );
}

/// The primary answers, its store does not: that is no reason to leave it, and no witness makes it one.
#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_answers_without_its_store_is_not_left() {
    if !apart(
        "partitions::a_primary_that_answers_without_its_store_is_not_left",
        "--net",
    ) {
        return;
    }
    let parted = Parted::start(Sandbox::builder()).await;
    let sandbox = &parted.sandbox;
    let home = sandbox.region(HOME).unwrap();
    let mut server = home.processes();
    server.retain(|process| process.name.starts_with("dr-s3-server"));
    assert!(!server.is_empty());
    dr_sandbox::region::signal(&server, Signal::STOP);
    let refused = parted.dr(RECOVERY, &MOVE).await;
    says(&refused, 12, &["answers"]);
    let stated = [&MOVE[..], &["--witness", "test: its store is gone"]].concat();
    let refused = parted.dr(RECOVERY, &stated).await;
    says(&refused, 12, &["answers"]);
    assert_eq!(epochs(sandbox).len(), 1);
    acknowledge(&parted.load, 50).await;
    dr_sandbox::region::signal(&server, Signal::CONT);
    parted.load.stop().await.unwrap();
    parted.stale.stop().await.unwrap();
    end(parted.sandbox);
}
