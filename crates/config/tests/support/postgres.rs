//! A PostgreSQL cluster of its own, reached by a socket in its directory only.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A running cluster, ended with its directory.
pub(crate) struct Cluster {
    directory: tempfile::TempDir,
}

fn binaries() -> PathBuf {
    if let Some(directory) = std::env::var_os("DR_POSTGRES_BIN") {
        return PathBuf::from(directory);
    }
    let entries = std::fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is installed");
    let version = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
    let newest = entries.flatten().map(|e| e.path()).max_by_key(version);
    newest.expect("PostgreSQL is installed").join("bin")
}

/// Makes a command that runs as an unprivileged user: PostgreSQL refuses root.
fn unprivileged(program: &str) -> Command {
    let program = binaries().join(program);
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command
        .args([
            "--reuid=postgres",
            "--regid=postgres",
            "--clear-groups",
            "--",
        ])
        .arg(program);
    command
}

fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output().expect("`id` exists");
    output.stdout == b"0\n"
}

fn run(command: &mut Command) -> Output {
    let output = command.output().expect("the program starts");
    assert!(
        output.status.success(),
        "{command:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

impl Cluster {
    pub(crate) fn start() -> Self {
        let cluster = Self::directory();
        run(unprivileged("initdb")
            .args([
                "--no-sync",
                "--auth=trust",
                "--username=postgres",
                "--pgdata",
            ])
            .arg(cluster.data()));
        cluster.control(&["start"]);
        cluster
    }

    /// Makes a standby of `primary` with a base backup taken by `user`.
    pub(crate) fn standby(primary: &Self, user: &str) -> Self {
        let cluster = Self::directory();
        run(unprivileged("pg_basebackup")
            .args(["--no-sync", "--write-recovery-conf", "--checkpoint=fast"])
            .args(["--username", user, "--host"])
            .arg(primary.socket())
            .arg("--pgdata")
            .arg(cluster.data()));
        cluster.control(&["start"]);
        cluster
    }

    fn directory() -> Self {
        let directory = tempfile::tempdir().expect("a directory can be made");
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(directory.path(), mode).expect("it is ours");
        if is_root() {
            run(Command::new("chown").arg("postgres").arg(directory.path()));
        }
        Self { directory }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn socket(&self) -> &Path {
        self.directory.path()
    }

    /// Runs `pg_ctl` and waits until it is done.
    pub(crate) fn control(&self, arguments: &[&str]) {
        let options = format!(
            "-c listen_addresses='' -c unix_socket_directories='{}' -c fsync=off",
            self.socket().display()
        );
        run(unprivileged("pg_ctl")
            .args(arguments)
            .args(["--wait", "--timeout=30", "--silent", "--options", &options])
            .arg("--log")
            .arg(self.directory.path().join("log"))
            .arg("--pgdata")
            .arg(self.data()));
    }

    /// Runs statements with `psql` and returns what it prints, or why it failed.
    pub(crate) fn query(&self, user: &str, sql: &str) -> Result<String, String> {
        let output = unprivileged("psql")
            .args([
                "--no-psqlrc",
                "-v",
                "ON_ERROR_STOP=1",
                "-qAt",
                "-d",
                "postgres",
                "-U",
                user,
            ])
            .arg("-h")
            .arg(self.socket())
            .args(["-c", sql])
            .env_clear()
            .output()
            .expect("psql starts");
        shown(output)
    }

    /// Runs a script with `psql -f`.
    pub(crate) fn script(&self, script: &str) -> Result<String, String> {
        let path = self.directory.path().join("script.sql");
        std::fs::write(&path, script).expect("the directory can be written");
        let output = unprivileged("psql")
            .args([
                "--no-psqlrc",
                "-qAt",
                "-d",
                "postgres",
                "-U",
                "postgres",
                "-h",
            ])
            .arg(self.socket())
            .arg("-f")
            .arg(&path)
            .env_clear()
            .output()
            .expect("psql starts");
        shown(output)
    }

    /// Runs one command on a replication connection.
    pub(crate) fn replication(&self, user: &str, command: &str) -> Result<String, String> {
        let connection = format!(
            "host={} user={user} dbname=postgres replication=true",
            self.socket().display()
        );
        let output = unprivileged("psql")
            .args([
                "--no-psqlrc",
                "-v",
                "ON_ERROR_STOP=1",
                "-qAt",
                "-d",
                &connection,
                "-c",
                command,
            ])
            .env_clear()
            .output()
            .expect("psql starts");
        shown(output)
    }
}

fn shown(output: Output) -> Result<String, String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(text(&output.stderr))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let mut stop = unprivileged("pg_ctl");
        stop.args(["stop", "--mode=immediate", "--silent", "--pgdata"])
            .arg(self.data());
        // Nothing can be done about a failure while a test ends.
        let _ended = stop.status();
    }
}
