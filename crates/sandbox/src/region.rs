//! A region: everything below one directory, with its processes; and how it is lost.

use std::path::Path;
use std::time::Duration;

use dr_model::{Clock, RegionName};
use rustix::process::{Pid, Signal, kill_process};

use crate::layout::{DR_ROLE, Place, STORE_BUCKET, STORE_KEY};
use crate::postgres::Cluster;
use crate::process::{Launcher, Process, Table, end, is_alive, members};
use crate::sandbox::Sandbox;
use crate::{Error, Result, config, http, service, wait};

/// How long a daemon may take until it answers.
const START_LIMIT: Duration = Duration::from_secs(30);

/// What is left in the place of a lost store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LostStore {
    /// Nothing: the directory has gone.
    #[default]
    Renamed,
    /// An empty directory, like a mount point without its disk.
    Empty,
}

/// One region of a sandbox.
#[derive(Clone, Copy, Debug)]
pub struct Region<'a> {
    sandbox: &'a Sandbox,
    name: &'a RegionName,
    place: &'a Place,
}

impl<'a> Region<'a> {
    pub(crate) fn new(sandbox: &'a Sandbox, name: &'a RegionName, place: &'a Place) -> Self {
        Self {
            sandbox,
            name,
            place,
        }
    }

    /// Returns where its parts are.
    #[must_use]
    pub fn place(&self) -> &'a Place {
        self.place
    }

    /// Returns the control of its PostgreSQL.
    pub fn postgres(&self) -> Result<Cluster> {
        Cluster::new(self.sandbox.layout(), self.name, &self.launcher())
    }

    /// Returns what starts programs on the region's machine.
    #[must_use]
    pub fn launcher(&self) -> Launcher {
        self.sandbox.launcher().on(self.place.machine)
    }

    /// Returns its processes: those of the sandbox that work inside its directory.
    #[must_use]
    pub fn processes(&self) -> Vec<Process> {
        self.processes_in(&Table::read(), &self.place.directory)
    }

    fn processes_in(&self, table: &Table, directory: &Path) -> Vec<Process> {
        let inside = |process: &Process| {
            process
                .directory
                .as_ref()
                .is_some_and(|at| at.starts_with(directory))
        };
        members(table, &self.sandbox.layout().directory)
            .into_iter()
            .filter(inside)
            .collect()
    }

    /// Kills every process of the region and takes its store away, in one instant; returns that instant in microseconds
    /// of the sandbox's clock.
    pub fn lose(&self, store: LostStore) -> Result<u64> {
        let found = self.processes();
        let at = self.sandbox.clock().elapsed();
        signal(&found, Signal::KILL);
        let (from, to) = (self.place.store(), self.place.lost_store());
        std::fs::rename(&from, to).map_err(Error::file("move away", &from))?;
        if store == LostStore::Empty {
            self.sandbox.launcher().make_directory(&from)?;
        }
        // What was forked while the list was made, until nothing is left.
        if !end(|table| self.processes_in(table, &self.place.directory)) {
            return Err(Error::Directory {
                directory: self.place.directory.clone(),
                reason: "processes in it survive SIGKILL".to_owned(),
            });
        }
        Ok(u64::try_from(at.as_micros()).unwrap_or(u64::MAX))
    }

    /// Starts the S3 server of the region's store, if it has one, and waits until it listens. What was in it is there
    /// again.
    pub async fn start_store(&self) -> Result<()> {
        self.start_store_with(&[]).await
    }

    /// Ends the S3 server of the region's store as a crash does: requests under way get no answer.
    pub async fn stop_store(&self) -> Result<()> {
        let servers = || {
            let mut found = self.processes();
            found.retain(|process| process.name.starts_with("dr-s3-server"));
            found
        };
        signal(&servers(), Signal::KILL);
        let what = format!("the end of the S3 server of `{}`", self.name);
        wait::until(&what, START_LIMIT, async || match servers() {
            left if left.is_empty() => Ok(()),
            left => Err(format!("{left:?}")),
        })
        .await
    }

    /// As [`start_store`](Self::start_store), with more words for the server, as `--faults 7`.
    pub async fn start_store_with(&self, words: &[&str]) -> Result<()> {
        let layout = self.sandbox.layout();
        let (Some(listen), Some(program)) = (self.place.store_listen(), &layout.s3_server) else {
            return Ok(());
        };
        let launcher = self.launcher();
        let mut command = launcher.command(program, &self.place.directory);
        command
            .args(["--bucket", STORE_BUCKET, "--access-key-id", STORE_KEY])
            .arg("--listen")
            .arg(listen.to_string())
            .arg("--directory")
            .arg(&self.place.directory)
            .args(words)
            .env("DR_S3_SERVER_SECRET", layout.store_secret()?);
        launcher.start(command, &self.place.log("store"))?;
        let what = format!("the S3 server of `{}` on {listen}", self.name);
        wait::until(&what, START_LIMIT, async || {
            let connected = tokio::net::TcpStream::connect(listen).await;
            connected.map(drop).map_err(|error| error.to_string())
        })
        .await
    }

    /// Starts the daemon, which must not run already, and waits until it answers.
    pub async fn start_daemon(&self) -> Result<()> {
        let layout = self.sandbox.layout();
        let launcher = self.launcher();
        let mut command = launcher.command(&layout.dr, &self.place.daemon());
        command.arg("--config").arg(&layout.directory);
        command.args(["daemon", "--region", self.name.as_str()]);
        let log = self.place.log("daemon");
        let pid = launcher.start(command, &log)?;
        let what = format!(
            "the daemon of `{}` (its log is `{}`)",
            self.name,
            log.display()
        );
        let answered = wait::until(&what, START_LIMIT, async || {
            if !is_alive(pid) {
                return Ok(false);
            }
            http::get(self.place.daemon_listen(), "/live")
                .await
                .map(|_| true)
        });
        if answered.await? {
            return Ok(());
        }
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        let lines: Vec<&str> = said.lines().collect();
        Err(Error::Program {
            program: format!("dr daemon --region {}", self.name),
            status: "it has ended".to_owned(),
            detail: lines[lines.len().saturating_sub(5)..].join("; "),
        })
    }

    /// Starts the guard of the region's server, which must not run; returns its process id. It starts the server once the
    /// register says that it may.
    pub fn start_guard(&self) -> Result<i32> {
        let words = config::guard_command(self.sandbox.layout(), self.name);
        let launcher = self.launcher();
        let mut command = launcher.command(words[0].as_ref(), &self.place.directory);
        command.args(&words[1..]);
        launcher.start(command, &self.place.log("guard"))
    }

    /// Asks the daemon for a path, such as `/health`, and returns what it answers with whatever status.
    pub async fn ask_daemon(&self, path: &str) -> std::result::Result<String, String> {
        let (_status, text) = http::ask(self.place.daemon_listen(), path).await?;
        Ok(text)
    }

    /// Returns the daemon's processes.
    #[must_use]
    pub fn daemon(&self) -> Vec<Process> {
        self.processes_in(&Table::read(), &self.place.daemon())
    }

    /// Sends a signal to the daemon's processes: SIGSTOP freezes its receiver, SIGCONT thaws it, SIGKILL crashes it.
    pub fn signal_daemon(&self, which: Signal) {
        signal(&self.daemon(), which);
    }

    /// Starts the application.
    pub async fn start_app(&self) -> Result<()> {
        service::start(self.sandbox.layout(), self.name, &self.launcher()).await
    }

    /// Returns the name under which the region's receiver of WAL is connected.
    #[must_use]
    pub fn receiver_name(&self) -> String {
        format!("{DR_ROLE}_{}", self.name.to_identifier())
    }

    /// Returns the labels of the backups that its store holds whole: those that have a manifest.
    #[must_use]
    pub fn backups(&self) -> Vec<String> {
        let list = |path: &Path| std::fs::read_dir(path).into_iter().flatten().flatten();
        let clusters = list(&self.place.store().join("postgres"));
        let mut labels: Vec<String> = clusters
            .flat_map(|cluster| list(&cluster.path().join("backup")))
            .filter(|backup| backup.path().join("manifest").exists())
            .map(|backup| backup.file_name().to_string_lossy().into_owned())
            .collect();
        labels.sort();
        labels
    }
}

/// Sends a signal to processes; one that has gone meanwhile is passed over.
pub fn signal(processes: &[Process], which: Signal) {
    for process in processes {
        if let Some(pid) = Pid::from_raw(process.pid) {
            let _gone = kill_process(pid, which);
        }
    }
}
