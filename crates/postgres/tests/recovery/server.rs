//! Real PostgreSQL servers on unix sockets, stopped whatever happens to the test.
//!
//! `setpriv` drops root, as which no server runs, and makes the kernel stop the server when the test dies.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use dr_model::{Lsn, SystemIdentifier};
use dr_pgwire::{Config, Connection, TlsMode};
use jiff::Timestamp;

/// A version of PostgreSQL that is tested: the system's, or one that `scripts/packages test` brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    System,
    Brought(u32),
}

impl Version {
    /// Returns the version of a data directory; the system's of one that is still to be made.
    pub(crate) fn of(data: &Path) -> Self {
        let Ok(text) = fs::read_to_string(data.join("PG_VERSION")) else {
            return Self::System;
        };
        let brought = Self::Brought(text.trim().parse().unwrap());
        if brought.place().join("postgres").exists() {
            brought
        } else {
            Self::System
        }
    }

    /// Returns where its programs are; without them the tests of this version fail.
    pub(crate) fn binaries(self) -> PathBuf {
        let place = self.place();
        assert!(
            place.join("postgres").exists(),
            "there is no server in {}: run scripts/packages test",
            place.display()
        );
        place
    }

    /// Tells whether it is there; says so if not. For a version that cannot be brought to every machine.
    #[expect(
        clippy::print_stderr,
        reason = "what was not tested must not pass in silence"
    )]
    pub(crate) fn is_there(self) -> bool {
        let place = self.place();
        let there = place.join("postgres").exists();
        if !there {
            eprintln!("skipped: there is no server in {}", place.display());
        }
        there
    }

    fn place(self) -> PathBuf {
        match self {
            Self::System => std::env::var_os("DR_PG_BIN")
                .or_else(|| std::env::var_os("DR_POSTGRES_BIN"))
                .map_or_else(|| "/usr/lib/postgresql/15/bin".into(), PathBuf::from),
            Self::Brought(major) => Path::new(env!("CARGO_TARGET_TMPDIR"))
                .join(format!("../tools/postgresql-{major}/bin")),
        }
    }
}

/// The longest that a condition is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The number in the name of every socket: each server has a socket directory of its own.
pub(crate) const PORT: u16 = 5432;

/// A running server.
pub(crate) struct Server {
    pub(crate) data: PathBuf,
    pub(crate) socket: PathBuf,
    postmaster: Child,
}

impl Server {
    /// Makes a cluster in `directory` with segments of so many MiB.
    pub(crate) fn initialise(directory: &Path, segment_mebibytes: u32) {
        Self::initialise_as(Version::System, directory, segment_mebibytes);
    }

    /// As [`initialise`](Self::initialise), of a version.
    pub(crate) fn initialise_as(version: Version, directory: &Path, segment_mebibytes: u32) {
        let mut initdb = as_postgres(&version.binaries(), "initdb");
        initdb.args([
            "--no-sync",
            "--auth=trust",
            "--username=postgres",
            "--data-checksums",
        ]);
        initdb.arg(format!("--wal-segsize={segment_mebibytes}"));
        run(initdb.arg("-D").arg(directory));
    }

    /// Starts the server of a data directory with a socket of its own beside it; settings on the command line win.
    pub(crate) async fn start(data: &Path, settings: &[impl AsRef<OsStr>]) -> Self {
        let mut server = Self::spawn(data, settings);
        server.wait_until_ready().await;
        server
    }

    /// As [`start`](Self::start), without waiting for anything.
    pub(crate) fn spawn(data: &Path, settings: &[impl AsRef<OsStr>]) -> Self {
        let socket = data.with_extension("socket");
        fs::create_dir_all(&socket).unwrap();
        give_to_postgres(&socket);
        let log = fs::File::create(data.with_extension("log")).unwrap();
        let mut postgres = as_postgres(&Version::of(data).binaries(), "postgres");
        postgres.arg("-D").arg(data).stdin(Stdio::null());
        let own = format!("unix_socket_directories={}", socket.display());
        let port = format!("port={PORT}");
        let common = [
            "listen_addresses=",
            port.as_str(),
            "fsync=off",
            "autovacuum=off",
            own.as_str(),
        ];
        for setting in common {
            postgres.arg("-c").arg(setting);
        }
        for setting in settings {
            postgres.arg("-c").arg(setting);
        }
        postgres.stdout(log.try_clone().unwrap()).stderr(log);
        let postmaster = postgres.spawn().unwrap();
        Self {
            data: data.to_owned(),
            socket,
            postmaster,
        }
    }

    pub(crate) async fn wait_until_ready(&mut self) {
        let ready = async {
            loop {
                if let Some(status) = self.postmaster.try_wait().unwrap() {
                    panic!("the server ended with {status}: {}", self.log());
                }
                if Connection::connect(&self.config()).await.is_ok() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, ready).await.is_err() {
            panic!("the server does not get ready: {}", self.log());
        }
    }

    /// Waits until the server has ended by itself, and returns its log.
    pub(crate) async fn ended(mut self) -> String {
        let ended = async {
            while self.postmaster.try_wait().unwrap().is_none() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, ended).await.unwrap();
        self.log()
    }

    /// Waits until the server accepts writes.
    pub(crate) async fn wait_until_promoted(&self) {
        let promoted = async {
            while self.sql("select pg_is_in_recovery()").await == "t" {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, promoted).await.is_err() {
            panic!("the server is still in recovery: {}", self.log());
        }
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.data.with_extension("log")).unwrap_or_default()
    }

    /// Returns what the server says of where its recovery ended, without the particulars.
    pub(crate) fn reached(&self) -> String {
        let log = self.log();
        let line = log.lines().find(|line| line.contains("recovery stopping"));
        let said = line
            .and_then(|line| line.split("LOG:  ").nth(1))
            .unwrap_or_default();
        let end = said.find(" (LSN)").or_else(|| said.find(", time "));
        said[..end.unwrap_or(said.len())].to_owned()
    }

    pub(crate) fn config(&self) -> Config {
        let mut config = Config::new(self.socket.clone(), PORT, "postgres");
        config.database = Some("postgres".to_owned());
        config.tls = TlsMode::Disable;
        config
    }

    pub(crate) async fn connect(&self) -> Connection {
        Connection::connect(&self.config()).await.unwrap()
    }

    /// Runs statements and returns the first value of the last one's result; empty without one.
    pub(crate) async fn sql(&self, text: &str) -> String {
        let rows = self.connect().await.query(text).await.unwrap();
        let row = rows.first();
        row.and_then(|row| row.get::<Option<String>>(0).unwrap())
            .unwrap_or_default()
    }

    pub(crate) async fn lsn(&self) -> Lsn {
        self.sql("select pg_current_wal_flush_lsn()")
            .await
            .parse()
            .unwrap()
    }

    pub(crate) async fn now(&self) -> Timestamp {
        let micros = self
            .sql("select (extract(epoch from clock_timestamp()) * 1000000)::bigint")
            .await;
        Timestamp::from_microsecond(micros.parse().unwrap()).unwrap()
    }

    pub(crate) async fn system_identifier(&self) -> SystemIdentifier {
        self.sql("select system_identifier from pg_control_system()")
            .await
            .parse()
            .unwrap()
    }
}

impl Server {
    /// Stops the server in good order.
    pub(crate) fn stop(&mut self) {
        self.end("INT");
    }

    /// Ends the server as a crash does.
    pub(crate) fn crash(&mut self) {
        self.end("QUIT");
    }

    fn end(&mut self, signal: &str) {
        let id = self.postmaster.id().to_string();
        let _sent = Command::new("kill")
            .args(["-s", signal, &id])
            .stderr(Stdio::null())
            .status();
        let _ended = self.postmaster.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end("QUIT");
    }
}

/// Gives a file to the user that servers run as.
pub(crate) fn give_to_postgres(path: &Path) {
    if is_root() {
        run(Command::new("chown").arg("postgres:postgres").arg(path));
    }
}

/// Runs a command that must succeed.
pub(crate) fn run(command: &mut Command) {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command:?}: {text}");
}

/// Returns a program of PostgreSQL, to be run as the user that servers run as.
pub(crate) fn as_postgres(binaries: &Path, program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "QUIT"]);
    if is_root() {
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
    }
    command.arg(binaries.join(program));
    command
        .current_dir("/")
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("LC_ALL", "C.UTF-8");
    command
}

/// Returns the command that stops the server of a data directory: `pg_ctl` refuses to be run as root.
pub(crate) fn stop_command(data: &Path) -> Vec<String> {
    let mut command = as_postgres(&Version::of(data).binaries(), "pg_ctl");
    command.args(["stop", "--mode=fast", "--timeout=1", "--pgdata"]);
    command.arg(data);
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| word.to_str().unwrap().to_owned())
        .collect()
}

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}
