//! A throw-away PostgreSQL cluster that listens on a socket only.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use dr_model::{Lsn, SegmentSize, SystemIdentifier, TimelineId};

/// A running cluster; stopped and removed when dropped.
pub(crate) struct Cluster {
    directory: tempfile::TempDir,
    later: RefCell<String>,
}

fn program(name: &str) -> PathBuf {
    let directory = std::env::var_os("DR_PG_BIN");
    let directory = directory.unwrap_or_else(|| "/usr/lib/postgresql/15/bin".into());
    Path::new(&directory).join(name)
}

/// The user that servers run as: ourselves, or `postgres` when we are root, which a server refuses to run as.
fn server_user() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let line = users.lines().find(|line| line.starts_with("postgres:"));
    let fields: Vec<&str> = line.expect("a user `postgres`").split(':').collect();
    Some((fields[2].parse().unwrap(), fields[3].parse().unwrap()))
}

fn command(name: &str) -> Command {
    let mut command = Command::new(program(name));
    if let Some((user, group)) = server_user() {
        command.uid(user).gid(group);
    }
    command
        .current_dir("/")
        .env("TZ", "UTC")
        .env("PGTZ", "UTC")
        .env("LC_ALL", "C");
    command
}

fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// Returns the position of the record that a line of `pg_waldump` describes.
pub(crate) fn dumped_lsn(line: &str) -> Option<Lsn> {
    let rest = line.split("lsn: ").nth(1)?;
    rest.split(',').next()?.parse().ok()
}

impl Cluster {
    pub(crate) fn start(segment_bytes: u32, settings: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        if let Some((user, group)) = server_user() {
            std::os::unix::fs::chown(directory.path(), Some(user), Some(group)).unwrap();
        }
        let cluster = Self {
            directory,
            later: RefCell::default(),
        };
        run(command("initdb")
            .args(["--no-sync", "-A", "trust", "-U", "postgres", "-D"])
            .arg(cluster.data())
            .arg(format!("--wal-segsize={}", segment_bytes >> 20)));
        let file = cluster.data().join("postgresql.conf");
        let mut text = fs::read_to_string(&file).unwrap();
        let socket = cluster.directory.path().display();
        write!(
            text,
            "\nlisten_addresses=''\nunix_socket_directories='{socket}'\nfsync=off\n{settings}"
        )
        .unwrap();
        fs::write(&file, text).unwrap();
        cluster.start_again();
        cluster
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    pub(crate) fn wal_directory(&self) -> PathBuf {
        self.data().join("pg_wal")
    }

    pub(crate) fn start_again(&self) {
        let log = self.directory.path().join("log");
        let mut start = command("pg_ctl");
        start
            .args(["start", "-w", "-D"])
            .arg(self.data())
            .arg("-l")
            .arg(log);
        let status = start
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success());
    }

    pub(crate) fn stop_at_once(&self) {
        run(command("pg_ctl")
            .args(["stop", "-m", "immediate", "-w", "-D"])
            .arg(self.data()));
    }

    fn psql(&self) -> Command {
        let mut psql = command("psql");
        psql.args([
            "-X",
            "-q",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-U",
            "postgres",
            "-d",
            "postgres",
            "-h",
        ])
        .arg(self.directory.path());
        psql
    }

    /// Runs statements one by one, outside a common transaction.
    pub(crate) fn sql(&self, text: &str) -> String {
        let mut psql = self.psql();
        for statement in text.split("; ") {
            psql.arg("-c").arg(statement);
        }
        run(&mut psql)
    }

    pub(crate) fn sql_later(&self, text: &str) {
        self.later.borrow_mut().push_str(text);
        self.later.borrow_mut().push('\n');
    }

    pub(crate) fn flush_sql(&self) {
        let file = self.directory.path().join("later.sql");
        fs::write(&file, self.later.take()).unwrap();
        run(self.psql().arg("-f").arg(file));
    }

    pub(crate) fn rows(&self, query: &str) -> Vec<String> {
        self.sql(query).lines().map(str::to_owned).collect()
    }

    pub(crate) fn lsn(&self, query: &str) -> Lsn {
        self.sql(query).trim().parse().unwrap()
    }

    pub(crate) fn system_identifier(&self) -> SystemIdentifier {
        let text = self.sql("SELECT system_identifier FROM pg_control_system()");
        text.trim().parse().unwrap()
    }

    /// Reads the WAL between two positions.
    pub(crate) fn wal(&self, start: Lsn, end: Lsn, size: SegmentSize) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut at = start;
        while at < end {
            let name = size.file_name(TimelineId(1), at);
            let file = fs::read(self.wal_directory().join(name)).unwrap();
            let take = size.bytes().min(end.0 - at.0);
            bytes.extend(&file[..usize::try_from(take).unwrap()]);
            at = at.advance(size.bytes());
        }
        bytes
    }

    pub(crate) fn waldump(&self, start: Lsn, end: Lsn) -> String {
        run(command("pg_waldump")
            .arg("-p")
            .arg(self.wal_directory())
            .arg("-s")
            .arg(start.to_string())
            .arg("-e")
            .arg(end.to_string()))
    }

    /// Dumps one file up to where it ceases to be valid.
    pub(crate) fn waldump_file(file: &Path) -> String {
        let output = Command::new(program("pg_waldump"))
            .arg(file)
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let mut stop = command("pg_ctl");
        stop.args(["stop", "-m", "immediate", "-D"])
            .arg(self.data());
        let stopped = stop
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        assert!(stopped.is_ok() || std::thread::panicking());
    }
}
