//! Two workloads with servers of their own leave a region together: what one of them meets is its own matter, and the end is the worst of
//! both. And what is optional in a workload holds nobody up.

use dr_sandbox::ledger::Load;
use dr_sandbox::process::Output;
use dr_sandbox::{HOME, LostStore, RECOVERY, Sandbox};
use rustix::process::Signal;
use serde_json::Value;

use crate::daemon::ended;
use crate::executions::moved_once;
use crate::support::{
    acknowledge, acknowledge_after, backup, dr, dr_json, end, is_primary, judged, now_us, says,
    start, until,
};

/// A secret that is one, and no server's.
const OTHER_KEY: &str = "b3RoZXItc2VjcmV0LW90aGVyLXNlY3JldC1vdGhlci0=";

const BOTH: [&str; 5] = ["failover", "--to", RECOVERY, "--yes", "--json"];

/// Two sandboxes of which the second has no daemons and no stores of its own: its workload is `orders` in the first one's configuration.
struct Both {
    ledger: Sandbox,
    orders: Sandbox,
    loads: [Load; 2],
}

impl Both {
    /// Starts both, with a runbook whose check gives up soon, and waits until both workloads are protected.
    async fn start() -> Self {
        let ledger = start(Sandbox::builder()).await;
        let orders = start(Sandbox::builder().daemons(false)).await;
        let both = ["dr.yaml", "schedules/ledger.yaml"];
        let [own, own_jobs] = both.map(|name| read(&ledger, name));
        let [other, jobs] = both.map(|name| read(&orders, name));
        let (_, workload) = other.split_once("workloads:\n  ledger:\n").unwrap();
        write(&ledger, "dr.yaml", &format!("{own}  orders:\n{workload}"));
        let jobs = jobs.replace("ledger/database", "orders/database");
        assert_ne!(jobs, own_jobs);
        write(&ledger, "schedules/orders.yaml", &jobs);
        for (name, runbook) in [
            (
                "failover-region",
                include_str!("../../../../runbooks/failover-region.yaml"),
            ),
            (
                "failover-planned",
                include_str!("../../../../runbooks/failover-planned.yaml"),
            ),
        ] {
            let hasty = "uses: check-health, with: { within: 5s } }";
            let hasty = runbook.replace("uses: check-health }", hasty);
            assert_ne!(hasty, runbook);
            write(&ledger, &format!("runbooks/{name}.yaml"), &hasty);
        }
        restart_daemons(&ledger).await;
        let loads = [&ledger, &orders].map(|sandbox| sandbox.load(Default::default()).unwrap());
        until("two protected workloads", async || {
            let status = dr_json(&ledger, &["status", "--json"]).await;
            let workloads = status["workloads"].as_array().unwrap();
            let safe = |found: &&Value| {
                found["protected"] == true && found["register"]["region"] == RECOVERY
            };
            match workloads.iter().filter(safe).count() {
                2 => Ok(()),
                _ => Err(status.to_string()),
            }
        })
        .await;
        for load in &loads {
            acknowledge(load, 100).await;
        }
        Self {
            ledger,
            orders,
            loads,
        }
    }

    /// Gives the first workload a check that does not pass until [`Self::mend_ledger`].
    fn break_ledger(&self) {
        let text = read(&self.ledger, "dr.yaml");
        let ready = self.ledger.layout().directory.join("ready");
        let check = format!(
            "    checks:\n      - command: {{ run: [test, -e, {}] }}\n",
            ready.display()
        );
        let broken = text.replacen("    checks:\n", &check, 1);
        assert_ne!(broken, text);
        write(&self.ledger, "dr.yaml", &broken);
    }

    fn mend_ledger(&self) {
        write(&self.ledger, "ready", "");
    }

    /// Loses the home region of both at once.
    fn lose(&self) -> [u64; 2] {
        [&self.ledger, &self.orders].map(|sandbox| {
            sandbox
                .region(HOME)
                .unwrap()
                .lose(LostStore::Renamed)
                .unwrap()
        })
    }

    /// Waits until clients of both are served in the region moved to, and looks at what either has lost.
    async fn prove(self, since: [u64; 2]) {
        let sandboxes = [self.ledger, self.orders];
        for ((sandbox, load), since) in sandboxes.into_iter().zip(self.loads).zip(since) {
            assert!(is_primary(&sandbox, RECOVERY).await);
            acknowledge_after(&load, since).await;
            let record = load.stop().await.unwrap();
            judged(&sandbox, RECOVERY, &record).await;
            end(sandbox);
        }
    }
}

fn read(sandbox: &Sandbox, name: &str) -> String {
    std::fs::read_to_string(sandbox.layout().directory.join(name)).unwrap()
}

fn write(sandbox: &Sandbox, name: &str, text: &str) {
    let file = sandbox.layout().directory.join(name);
    sandbox.launcher().write_file(&file, text).unwrap();
}

/// Ends the daemons, and starts them with the configuration as it is now.
async fn restart_daemons(sandbox: &Sandbox) {
    for name in [HOME, RECOVERY] {
        let region = sandbox.region(name).unwrap();
        region.signal_daemon(Signal::KILL);
        until("the end of a daemon", async || ended(sandbox, name)).await;
        region.start_daemon().await.unwrap();
    }
}

/// Returns the state that each of the moves has come to.
fn states(output: &Output) -> Vec<String> {
    let told: Value = serde_json::from_str(&output.stdout).unwrap();
    let reports = told["reports"].as_array().unwrap();
    let states = reports.iter().map(|report| report["state"].as_str());
    states.map(|state| state.unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workloads_leave_a_lost_region_with_one_command() {
    let both = Both::start().await;
    let lost_at = both.lose();
    let output = dr(&both.ledger, &BOTH).await;
    let moving = "Moving 2 workloads, one after the other: ledger, orders.";
    says(&output, 0, &[moving]);
    assert_eq!(states(&output), ["completed", "completed"]);
    both.prove(lost_at).await;
}

/// The first is stuck at a check that does not pass, the second goes without something optional: the second is moved all the same, and the
/// end is that of the first.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_stuck_keeps_the_other_in_no_lost_region() {
    let both = Both::start().await;
    let sandbox = &both.ledger;
    both.break_ledger();
    let text = read(sandbox, "dr.yaml");
    let (before, orders) = text.split_once("  orders:\n").unwrap();
    let mail = with_mail(orders);
    write(sandbox, "dr.yaml", &format!("{before}  orders:\n{mail}"));
    let lost_at = both.lose();

    let output = dr(sandbox, &BOTH).await;
    says(
        &output,
        14,
        &["Moving 2 workloads", "without `mail`, which is optional"],
    );
    assert!(!output.stderr.contains("Not begun"), "{output:?}");
    assert_eq!(states(&output), ["stuck", "completed-with-exceptions"]);
    let told: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(told["reports"][0]["stuck"]["step"], "verify", "{output:?}");
    acknowledge_after(&both.loads[1], lost_at[1]).await;

    both.mend_ledger();
    let id = told["reports"][0]["execution"].as_str().unwrap();
    let resumed = dr(sandbox, &["execution", "resume", id]).await;
    assert_eq!(resumed.status.code(), Some(0), "{resumed:?}");
    both.prove(lost_at).await;
}

/// The name server of the first does not take its key: it is left for people to see to, with the reason, and the other is moved.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_refused_keeps_the_other_in_no_lost_region() {
    let both = Both::start().await;
    let sandbox = &both.ledger;
    let key = sandbox.layout().key_file();
    let right = std::fs::read_to_string(&key).unwrap();
    sandbox.launcher().write_file(&key, OTHER_KEY).unwrap();
    let lost_at = both.lose();
    let output = dr(sandbox, &BOTH).await;
    says(
        &output,
        65,
        &["Leaving ledger where it is:", "would be refused"],
    );
    assert_eq!(states(&output), ["completed"]);
    let told: Value = serde_json::from_str(&output.stdout).unwrap();
    let unmoved = &told["unmoved"][0];
    assert_eq!(
        (&unmoved["workload"], &unmoved["exit_code"]),
        (&"ledger".into(), &65.into()),
        "{output:?}"
    );
    acknowledge_after(&both.loads[1], lost_at[1]).await;

    // Put right, it is the only one that is left.
    sandbox.launcher().write_file(&key, &right).unwrap();
    let output = dr(sandbox, &BOTH).await;
    says(&output, 0, &["Leaving orders where it is"]);
    both.prove(lost_at).await;
}

/// By appointment nothing makes hurry: the second stays where it is, with its primary, and that is said.
#[tokio::test(flavor = "multi_thread")]
async fn a_planned_move_stops_at_the_first_that_is_stuck() {
    let both = Both::start().await;
    let sandbox = &both.ledger;
    both.break_ledger();
    let planned = [&BOTH[..], &["--planned"]].concat();
    let output = dr(sandbox, &planned).await;
    says(&output, 14, &["Moving 2 workloads", "Not begun: orders."]);
    assert_eq!(states(&output), ["stuck"]);
    assert!(is_primary(&both.orders, HOME).await);
    acknowledge(&both.loads[1], 50).await;

    both.mend_ledger();
    let told: Value = serde_json::from_str(&output.stdout).unwrap();
    let id = told["reports"][0]["execution"].as_str().unwrap();
    let resumed = dr(sandbox, &["execution", "resume", id]).await;
    assert_eq!(resumed.status.code(), Some(0), "{resumed:?}");
    // The one that has arrived is left where it is.
    let again = dr(sandbox, &planned).await;
    says(&again, 0, &["Leaving ledger where it is"]);
    let moved_at = [now_us(&both.ledger), now_us(&both.orders)];
    both.prove(moved_at).await;
}

/// Adds a service that never starts, and is optional, to the text of a workload.
fn with_mail(workload: &str) -> String {
    let mail = format!(
        "    services:\n      mail:\n        optional: true\n        regions:\n          {HOME}: {{ start: [\"true\"], stop: [\"true\"] }}\n          \
         {RECOVERY}: {{ start: [\"false\"], stop: [\"true\"] }}\n"
    );
    let with = workload.replacen("    services:\n", &mail, 1);
    assert_ne!(with, workload);
    with
}

/// A service that does not start and a record whose name server is gone: clients are led to the rest, and both are named.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_optional_and_fails_is_named_and_holds_nobody_up() {
    let sandbox = start(Sandbox::builder()).await;
    let text = with_mail(&read(&sandbox, "dr.yaml"));
    let page = format!(
        "      - kind: rfc2136\n        name: status.sandbox.example\n        optional: true\n        server: 127.0.0.1:9\n        \
         ttl: 1s\n        answers: {{ {HOME}: 127.0.0.2, {RECOVERY}: 127.0.0.3 }}\n    checks:\n"
    );
    let with = text.replacen("    checks:\n", &page, 1);
    assert_ne!(with, text);
    write(&sandbox, "dr.yaml", &with);
    let load = sandbox.load(Default::default()).unwrap();
    backup(&sandbox, RECOVERY).await;
    acknowledge(&load, 200).await;
    let home = sandbox.region(HOME).unwrap();
    let lost_at = home.lose(LostStore::Renamed).unwrap();

    let output = dr(&sandbox, &BOTH).await;
    let named = [
        "without `mail`, which is optional",
        "without `rfc2136 status.sandbox.example`, which is optional",
    ];
    says(&output, 10, &named);
    let report: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(report["state"], "completed-with-exceptions", "{output:?}");
    let reason = report["reason"].as_str().unwrap();
    for name in named {
        assert!(reason.contains(name), "{reason}");
    }
    moved_once(&sandbox).await;
    acknowledge_after(&load, lost_at).await;
    let record = load.stop().await.unwrap();
    judged(&sandbox, RECOVERY, &record).await;
    // Whoever looks later is told the same.
    let id = report["execution"].as_str().unwrap();
    let shown = dr(&sandbox, &["execution", "show", id]).await;
    for name in named {
        assert!(shown.stdout.contains(name), "{shown:?}");
    }
    end(sandbox);
}
