//! Proving that the old primary is stopped: the fence `stopped` (PROTOCOL 7).
//!
//! The directory is first proven to be the old primary's, by the control file in it: cluster, timeline, and that it was
//! not a standby. Stopping anything else would prove nothing, and may stop what is needed.
//!
//! `standby.signal` is left in the data directory *before* anything is stopped, so that whatever starts the server again, an
//! init system or a person, starts a standby, and with it a setting that makes of this one a standby that answers nobody. Then the postmaster is stopped if it runs, and every process that has the
//! data directory as its working directory is looked for: a backend can outlive a killed postmaster for a moment and
//! acknowledge one more commit. What no shutdown ends, because it is frozen or waits for a dead disk, is killed. Only their
//! absence is proof.
//!
//! Idempotent because each part looks first.

use std::path::Path;
use std::time::Duration;

use dr_model::RegionName;
use dr_provider::driver::{Applied, Evidence, Fence, Fenced, StopProof, Verified};
use dr_provider::error::chain;
use dr_provider::host::Command;
use dr_provider::{Error, ErrorKind, Host, Result};

use super::processes;
use crate::data_directory::{Claimed, DataDirectory, Postmaster, real_path};
use crate::driver::PostgresDriver;
use crate::options::InstanceOptions;
use crate::standby::quarantine;
use crate::wait::Deadline;

const OPERATION: &str = "stop the old primary of";

/// How long a server that should be gone may take to answer: it is on the host itself.
const ANSWER_LIMIT: Duration = Duration::from_millis(200);

/// How long a server that a command of its own did not stop may say nothing before it counts as one that hangs.
const SILENT_AFTER: Duration = Duration::from_secs(1);

/// How long one command on the old primary's host may take; the step as a whole is bounded by its runbook.
const COMMAND_LIMIT: Duration = Duration::from_millis(1500);

/// How long processes may take to be gone that were told to shut down at once.
const GRACE: Duration = Duration::from_millis(300);

/// How long the kernel may take to end what was killed: on a machine that is overloaded, or writes out memory, not at once.
const KILLED_WITHIN: Duration = Duration::from_secs(5);

/// Kills those of the processes that are PostgreSQL's, and tells whether there were any. One that is frozen takes no other signal, and
/// it is a crash that its log is made for.
pub(super) async fn kill(host: &dyn Host, ids: &[String], directory: &Path) -> Result<bool> {
    // Somebody's shell stands in the directory as well, and some may have ended meanwhile, their numbers another's: it is looked again,
    // by the directory itself and not by a path, which is another place in a container. One command, because on another machine each
    // costs a round trip.
    let words = format!(
        "for p in {}; do [ /proc/$p/cwd -ef \"$1\" ] || continue; read -r c 2>/dev/null </proc/$p/comm || continue; \
         case $c in postgres|postmaster) kill -KILL $p && echo $p;; esac; done",
        ids.join(" ")
    );
    let directory = directory.display().to_string();
    let command = Command::new(["sh", "-c", &words, "sh", &directory]);
    let done = host.run(&command, COMMAND_LIMIT).await?;
    Ok(!done.stdout.is_empty())
}

impl PostgresDriver {
    pub(super) async fn stop_old_primary(
        &self,
        region: &RegionName,
        claimed: Claimed,
        fence: &Fence,
    ) -> Result<Applied> {
        let instance = self.instance_options(region)?;
        let directory = &instance.data_directory;
        let host = self.admitted(region, fence).await?;
        self.identify(region, claimed).await?;
        let mark = claimed.mark();
        host.write(&directory.join("standby.signal"), mark.as_bytes())
            .await?;
        quarantine(&**host, directory).await?;
        let ran = !processes(&**host, directory).await?.is_empty();
        for command in self.ways_to_stop(instance) {
            if processes(&**host, directory).await?.is_empty() {
                break;
            }
            // What it says counts for nothing, and not that it takes its time: only that nobody is left does.
            if let Err(error) = host.run(&command, COMMAND_LIMIT).await {
                tracing::warn!(error = dr_provider::error::chain(&error), "stop command");
            }
        }
        let mut left = self.remaining(&**host, directory, GRACE).await?;
        // Whoever writes a command of their own has said how a server is stopped that can be; one that hangs hears nothing of it.
        if !left.is_empty() && (instance.stop.is_none() || self.is_silent(region).await) {
            let within = match kill(&**host, &left, directory).await? {
                true => KILLED_WITHIN,
                false => Duration::ZERO,
            };
            left = self.remaining(&**host, directory, within).await?;
        }
        if !left.is_empty() {
            return Err(self.alive(format!(
                "processes {} still run in `{}` on {}",
                left.join(", "),
                directory.display(),
                host.name()
            )));
        }
        self.nobody_answers(region, claimed).await?;
        Ok(self.stopped(region, &**host, ran))
    }

    /// Tells whether nothing comes from the server, neither an answer nor a refusal, as one gives that shuts down.
    async fn is_silent(&self, region: &RegionName) -> bool {
        // Twice: the kernel sends a lost packet again after a second.
        for _look in 0..2 {
            let ask = async {
                let mut connection = self.connect(region).await?;
                connection.position().await
            };
            if tokio::time::timeout(SILENT_AFTER, ask).await.is_ok() {
                return false;
            }
        }
        true
    }

    pub(super) async fn is_old_primary_stopped(
        &self,
        region: &RegionName,
        claimed: Claimed,
    ) -> Result<Verified> {
        let directory = &self.instance_options(region)?.data_directory;
        let host = self.host(region)?;
        let found = self.identify(region, claimed).await?;
        if found.fenced != Some(claimed.timeline) {
            let seen = format!(
                "no standby.signal of a fence in `{}` on {}",
                directory.display(),
                host.name()
            );
            return Ok(Verified::NotDone { seen });
        }
        let left = processes(&**host, directory).await?;
        if !left.is_empty() {
            return Ok(Verified::NotDone {
                seen: format!("processes {} run there", left.join(", ")),
            });
        }
        self.nobody_answers(region, claimed).await?;
        Ok(Verified::Done(self.stopped(region, &**host, false)))
    }

    /// Makes sure that the directory is the one of the primary being left, and of no other region's server.
    pub(super) async fn identify(
        &self,
        region: &RegionName,
        claimed: Claimed,
    ) -> Result<DataDirectory> {
        let instance = self.instance_options(region)?;
        let host = self.host(region)?;
        let directory = &instance.data_directory;
        let found = DataDirectory::look(&**host, &self.parts().binaries, directory).await?;
        if let Some(why) = found.is_not(claimed) {
            return Err(self.failed(OPERATION, why));
        }
        for (other, options) in &self.options().instances {
            if other == region || options.host != instance.host {
                continue;
            }
            if real_path(&**host, &options.data_directory).await?.as_ref() == Some(&found.path) {
                let place = found.path.display();
                return Err(self.failed(OPERATION, format!("`{place}` is that of {other} as well")));
            }
        }
        if let Some(postmaster) = Postmaster::read(&**host, directory).await? {
            let runs_in = real_path(&**host, &postmaster.directory).await?;
            if runs_in.as_ref() != Some(&found.path) || postmaster.port != instance.port {
                let why = format!(
                    "the server of `{}` was started in `{}` on port {}, not on port {}",
                    found.path.display(),
                    postmaster.directory.display(),
                    postmaster.port,
                    instance.port
                );
                return Err(self.failed(OPERATION, why));
            }
        }
        Ok(found)
    }

    /// Returns the processes that are still there a moment after they were told to end.
    async fn remaining(
        &self,
        host: &dyn Host,
        directory: &Path,
        within: Duration,
    ) -> Result<Vec<String>> {
        let deadline = Deadline::new(self.clock(), within);
        loop {
            let left = processes(host, directory).await?;
            if left.is_empty() || !deadline.pause().await {
                return Ok(left);
            }
        }
    }

    /// Returns the commands that stop the server, to be tried in turn while it runs.
    ///
    /// A fast shutdown ends all sessions at once and lets standbys and receivers have what was written; one of them that
    /// does not answer would hold it up, so what is left after a second is stopped immediately.
    fn ways_to_stop(&self, instance: &InstanceOptions) -> Vec<Command> {
        if let Some(argv) = &instance.stop {
            return vec![Command::new(argv.iter().cloned())];
        }
        let stop = |mode: &str, wait: &str| {
            Command::new([
                self.parts().binaries.join("pg_ctl").display().to_string(),
                "stop".to_owned(),
                "--pgdata".to_owned(),
                instance.data_directory.display().to_string(),
                format!("--mode={mode}"),
                wait.to_owned(),
            ])
        };
        vec![stop("fast", "--timeout=1"), stop("immediate", "--no-wait")]
    }

    /// Makes sure that no primary of the cluster answers at the instance's address: the directory could be a copy, with
    /// the server in another one.
    pub(super) async fn nobody_answers(&self, region: &RegionName, claimed: Claimed) -> Result<()> {
        let Some(answer) = self.answer(region, claimed).await else {
            return Ok(());
        };
        let why = match answer {
            Answer::Primary(said) => {
                return Err(self.alive(format!("{said}: the directory is not its own")));
            }
            Answer::Standby(said) => format!("{said}: the directory is not its own"),
            Answer::Other(said) => said,
        };
        Err(self.failed(OPERATION, why))
    }

    /// Adds to why the old primary was not stopped that it answers, if it does: nobody can have seen it stopped then.
    pub(super) async fn not_stopped(
        &self,
        region: &RegionName,
        claimed: Claimed,
        error: Error,
    ) -> Error {
        match self.answer(region, claimed).await {
            Some(Answer::Primary(said)) => {
                let alive = self.alive(format!("{}; and {said}", cause(&error)));
                match error.hint() {
                    Some(hint) => alive.with_hint(hint),
                    None => alive,
                }
            }
            _ => error,
        }
    }

    /// Returns what answers at the instance's address, or why that cannot be asked; `None` if nobody does.
    async fn answer(&self, region: &RegionName, claimed: Claimed) -> Option<Answer> {
        let ask = async {
            let mut connection = self.connect(region).await?;
            connection.position().await
        };
        match tokio::time::timeout(ANSWER_LIMIT, ask).await {
            Ok(Ok(found)) if found.system_identifier == claimed.system_identifier => {
                let answers = |what: &str| {
                    format!("a {what} of this cluster still answers where that in {region} listens")
                };
                Some(match found.in_recovery {
                    false => Answer::Primary(answers("primary")),
                    true => Answer::Standby(answers("standby")),
                })
            }
            Ok(Err(error)) if error.kind() == ErrorKind::Invalid => Some(Answer::Other(format!(
                "whether anybody answers where that in {region} listens cannot be asked: {}",
                chain(&error)
            ))),
            Ok(Err(error)) if error.is_permanent() => Some(Answer::Other(format!(
                "somebody still answers where that in {region} listens: {}",
                chain(&error)
            ))),
            _ => None,
        }
    }

    /// The error that says that the old primary was seen to be alive, after it was tried to stop it.
    fn alive(&self, why: String) -> Error {
        Error::new(ErrorKind::Conflict, OPERATION, self.resource().to_string()).because(why)
    }

    fn stopped(&self, region: &RegionName, host: &dyn Host, ran: bool) -> Applied {
        let fenced = Fenced {
            proof: Some(StopProof::Stopped),
            at: self.clock().now(),
            ran,
            alive: None,
        };
        self.applied(
            format!(
                "{} in {region} is stopped: no process of it on {}, and standby.signal is in its data directory",
                self.resource(),
                host.name()
            ),
            fenced.to_evidence(),
        )
    }
}

/// Who answers at the address of the old primary, as a sentence.
enum Answer {
    /// A primary of its cluster.
    Primary(String),
    /// A standby of its cluster.
    Standby(String),
    /// Somebody who does not say what it is, or cannot be asked.
    Other(String),
}

/// Returns why something was not done: the causes alone where they say more than what was tried.
fn cause(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(source) if error.operation() == OPERATION => chain(source),
        _ => chain(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::{Child, Command};

    use dr_local::LocalHost;

    use super::*;

    #[tokio::test]
    async fn only_what_is_named_as_a_server_is_killed() {
        let place = tempfile::tempdir().unwrap();
        let host = LocalHost::new(place.path().join("state"));
        let start = |name: &str| -> Child {
            let program = place.path().join(name);
            std::fs::copy("/bin/sleep", &program).unwrap();
            let mut command = Command::new(program);
            command.arg("60").current_dir(place.path()).spawn().unwrap()
        };
        let mut all = ["postgres", "postmaster", "shell"].map(start);
        // Before it is the other program it has the name of this one.
        for (child, name) in all.iter().zip(["postgres", "postmaster", "shell"]) {
            let comm = format!("/proc/{}/comm", child.id());
            while std::fs::read_to_string(&comm).unwrap().trim() != name {
                tokio::task::yield_now().await;
            }
        }
        let ids: Vec<String> = all.iter().map(|child| child.id().to_string()).collect();
        // Of the same names and somewhere else they are another server's.
        assert!(!kill(&host, &ids, Path::new("/")).await.unwrap());
        assert!(kill(&host, &ids, place.path()).await.unwrap());
        for child in &mut all[..2] {
            assert_eq!(child.wait().unwrap().signal(), Some(9));
        }
        assert!(!kill(&host, &ids, place.path()).await.unwrap());
        assert!(all[2].try_wait().unwrap().is_none());
        all[2].kill().unwrap();
        all[2].wait().unwrap();
    }
}
