//! Following an execution from outside, by its journal in the store.

use std::path::PathBuf;
use std::time::Duration;

use dr_model::Clock;
use dr_sandbox::layout::NAME;
use dr_sandbox::process::{Output, Process, Table, members};
use dr_sandbox::{RECOVERY, Sandbox, dns};
use rustix::process::Signal;
use tokio::task::JoinHandle;

use crate::gate::intends;
use crate::support::{LIMIT, ask, is_primary};

/// How often a journal is looked at: its entries may follow each other within a few milliseconds.
const INTERVAL: Duration = Duration::from_millis(1);

/// A `dr` command that runs while the test goes on.
pub(crate) struct Running {
    directory: PathBuf,
    pub(crate) ended: JoinHandle<dr_sandbox::Result<Output>>,
}

impl Running {
    pub(crate) fn start(sandbox: &Sandbox, words: &[&str]) -> Self {
        Self::command(sandbox, sandbox.dr_command(words))
    }

    /// The same with a command made by hand, which must work in the sandbox's directory.
    pub(crate) fn command(sandbox: &Sandbox, command: std::process::Command) -> Self {
        let launcher = sandbox.launcher().clone();
        Self {
            directory: sandbox.layout().directory.clone(),
            ended: tokio::spawn(async move { launcher.output(command, false).await }),
        }
    }

    /// Sends it a signal. Daemons work elsewhere, and other commands must not run at the same time.
    pub(crate) fn signal(&self, which: Signal) {
        dr_sandbox::region::signal(&self.processes(), which);
    }

    fn processes(&self) -> Vec<Process> {
        let mut found = members(&Table::read(), &self.directory);
        found.retain(|process| {
            process.name == "dr" && process.directory.as_deref() == Some(&self.directory)
        });
        found
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.is_finished()
    }

    /// Waits for its end, which [`Self::end`] returns.
    pub(crate) async fn ending(&self) {
        while !self.has_ended() {
            tokio::time::sleep(INTERVAL).await;
        }
    }

    pub(crate) async fn end(self) -> Output {
        tokio::time::timeout(LIMIT, self.ended)
            .await
            .unwrap()
            .unwrap()
            .unwrap()
    }
}

/// Returns the ids of the executions whose journals are in the recovery region's store.
pub(crate) fn executions(sandbox: &Sandbox) -> Vec<String> {
    executions_in(sandbox, RECOVERY)
}

/// Returns the ids of the executions whose journals are in a region's store, the oldest first.
pub(crate) fn executions_in(sandbox: &Sandbox, region: &str) -> Vec<String> {
    names(sandbox, region, "execution")
}

/// Returns the id of the newest of them.
pub(crate) fn newest_execution(sandbox: &Sandbox, region: &str) -> Option<String> {
    executions_in(sandbox, region).pop()
}

/// Returns the files of its journal, in order.
pub(crate) fn journal_files(sandbox: &Sandbox, region: &str) -> Vec<PathBuf> {
    let Some(id) = newest_execution(sandbox, region) else {
        return Vec::new();
    };
    let directory = format!("execution/{id}");
    let names = names(sandbox, region, &directory);
    let store = sandbox.region(region).unwrap().place().store();
    let files = names.iter().map(|name| store.join(&directory).join(name));
    files.collect()
}

/// Returns the texts of its journal, in order.
pub(crate) fn journal(sandbox: &Sandbox, region: &str) -> Vec<String> {
    let files = journal_files(sandbox, region);
    let texts = files.iter().map(std::fs::read_to_string);
    texts.map(Result::unwrap).collect()
}

/// Returns the epochs in the register, by the names of their records.
pub(crate) fn epochs(sandbox: &Sandbox) -> Vec<String> {
    epochs_in(sandbox, RECOVERY)
}

/// Returns those that are in the store of a region.
pub(crate) fn epochs_in(sandbox: &Sandbox, region: &str) -> Vec<String> {
    names(sandbox, region, "register/ledger")
}

/// Returns how many entries all journals together have.
pub(crate) fn entries(sandbox: &Sandbox) -> usize {
    let ids = executions(sandbox);
    ids.iter()
        .map(|id| names(sandbox, RECOVERY, &format!("execution/{id}")).len())
        .sum()
}

fn names(sandbox: &Sandbox, region: &str, directory: &str) -> Vec<String> {
    let store = sandbox.region(region).unwrap().place().store();
    let listed = std::fs::read_dir(store.join(directory))
        .into_iter()
        .flatten()
        .flatten();
    let mut names: Vec<String> = listed
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    // What is being written has a name of its own until it is whole.
    names.retain(|name| !name.starts_with('.'));
    names.sort();
    names
}

/// Waits until the journals hold `count` entries; answers false if the command ends before.
pub(crate) async fn reaches(sandbox: &Sandbox, running: &Running, count: usize) -> bool {
    let limit = sandbox.clock().elapsed() + LIMIT;
    while entries(sandbox) < count {
        if running.has_ended() {
            return false;
        }
        assert!(sandbox.clock().elapsed() < limit, "no entry {count}");
        tokio::time::sleep(INTERVAL).await;
    }
    true
}

/// Waits until a command's journal says that it is about to do a step; answers false if the command ends before.
pub(crate) async fn comes_to(sandbox: &Sandbox, running: &Running, step: &str) -> bool {
    let limit = sandbox.clock().elapsed() + LIMIT;
    while !journal(sandbox, RECOVERY)
        .iter()
        .any(|text| intends(text, step))
    {
        if running.has_ended() {
            return false;
        }
        assert!(sandbox.clock().elapsed() < limit, "it never came to {step}");
        tokio::time::sleep(INTERVAL).await;
    }
    true
}

/// Checks that the workload has moved exactly once: one epoch, one promotion, and the name leads to the new primary.
pub(crate) async fn moved_once(sandbox: &Sandbox) {
    assert_eq!(epochs(sandbox), ["00000001", "00000002"]);
    assert!(is_primary(sandbox, RECOVERY).await);
    let timeline = "select substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)";
    assert_eq!(ask(sandbox, RECOVERY, timeline).await.unwrap(), "00000002");
    let answer = dns::lookup(sandbox.layout().dns, NAME).await.unwrap();
    assert_eq!(
        answer.address,
        sandbox.region(RECOVERY).unwrap().place().address
    );
}
