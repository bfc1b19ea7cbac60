//! Real PostgreSQL clusters for tests: started on a unix socket and a free loopback port in a
//! temporary directory, and stopped whatever happens to the test.
//!
//! PostgreSQL refuses to run as root; then it runs as the user `postgres`. `setpriv` makes the
//! kernel stop the server when the test dies without unwinding.

#![allow(
    dead_code,
    reason = "every test file compiles this module and uses a part of it"
)]

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use dr_pgwire::{Config, Connection, TlsMode};
use tempfile::TempDir;

/// The longest that a condition is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A running PostgreSQL server, stopped when dropped.
pub(crate) struct Cluster {
    directory: TempDir,
    pub(crate) port: u16,
    postmaster: Child,
}

impl Cluster {
    /// Makes and starts a cluster whose superuser `postgres` may do anything over the unix socket;
    /// `hba` lines come first. Physical replication is possible.
    pub(crate) async fn start(settings: &[(&str, &str)], hba: &[&str]) -> Self {
        let directory = Self::directory();
        let data = directory.path().join("data");
        let mut initdb = as_postgres("initdb");
        initdb.args([
            "--no-sync",
            "--auth=trust",
            "--username=postgres",
            "--data-checksums",
        ]);
        run(initdb.arg("-D").arg(&data));
        let mut lines = hba.to_vec();
        lines.extend(["local all all trust", "local replication all trust"]);
        fs::write(data.join("pg_hba.conf"), lines.join("\n") + "\n").unwrap();
        Self::start_in(directory, settings).await
    }

    /// Makes and starts a standby of this cluster.
    pub(crate) async fn standby(&self) -> Self {
        let directory = Self::directory();
        let mut backup = as_postgres("pg_basebackup");
        backup.args([
            "--no-sync",
            "--checkpoint=fast",
            "--write-recovery-conf",
            "-U",
            "postgres",
        ]);
        backup
            .arg("-h")
            .arg(self.socket())
            .args(["-p", &self.port.to_string()]);
        run(backup.arg("-D").arg(directory.path().join("data")));
        Self::start_in(directory, &[]).await
    }

    async fn start_in(directory: TempDir, settings: &[(&str, &str)]) -> Self {
        let data = directory.path().join("data");
        let port = free_port();
        let mut lines = vec![
            "fsync = off".to_owned(),
            "listen_addresses = '127.0.0.1'".to_owned(),
            format!("port = {port}"),
            format!("unix_socket_directories = '{}'", directory.path().display()),
            "autovacuum = off".to_owned(),
        ];
        lines.extend(
            settings
                .iter()
                .map(|(name, value)| format!("{name} = '{value}'")),
        );
        fs::write(
            data.join("postgresql.auto.conf.test"),
            lines.join("\n") + "\n",
        )
        .unwrap();
        let mut conf = fs::read_to_string(data.join("postgresql.conf")).unwrap();
        conf.push_str("include 'postgresql.auto.conf.test'\n");
        fs::write(data.join("postgresql.conf"), conf).unwrap();

        let log = fs::File::create(directory.path().join("log")).unwrap();
        let mut postgres = as_postgres("postgres");
        postgres.arg("-D").arg(&data).stdin(Stdio::null());
        postgres.stdout(log.try_clone().unwrap()).stderr(log);
        let postmaster = postgres.spawn().unwrap();
        let mut cluster = Self {
            directory,
            port,
            postmaster,
        };
        cluster.wait_until_ready().await;
        cluster
    }

    fn directory() -> TempDir {
        // Short, because the path of a unix socket may not exceed 107 bytes.
        let directory = tempfile::Builder::new()
            .prefix("pgw")
            .tempdir_in("/tmp")
            .unwrap();
        if is_root() {
            run(Command::new("chown")
                .arg("postgres:postgres")
                .arg(directory.path()));
        }
        directory
    }

    async fn wait_until_ready(&mut self) {
        let config = self.config();
        let ready = async {
            loop {
                if let Some(status) = self.postmaster.try_wait().unwrap() {
                    panic!("the server ended with {status}: {}", self.log());
                }
                if Connection::connect(&config).await.is_ok() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, ready).await.is_err() {
            panic!("the server does not get ready: {}", self.log());
        }
    }

    /// The directory of the unix socket.
    pub(crate) fn socket(&self) -> &Path {
        self.directory.path()
    }

    /// The data directory.
    pub(crate) fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// The server's log.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// Connects as superuser over the unix socket.
    pub(crate) fn config(&self) -> Config {
        let mut config = Config::new(self.socket().to_owned(), self.port, "postgres");
        config.database = Some("postgres".to_owned());
        config
    }

    /// Connects over loopback.
    pub(crate) fn tcp(&self, user: &str, password: Option<&str>, tls: TlsMode) -> Config {
        let mut config = Config::new("127.0.0.1", self.port, user);
        config.database = Some("postgres".to_owned());
        config.password = password.map(Into::into);
        config.tls = tls;
        config
    }

    /// A superuser's session.
    pub(crate) async fn connect(&self) -> Connection {
        Connection::connect(&self.config()).await.unwrap()
    }

    /// A walsender session over the unix socket.
    pub(crate) async fn connect_replication(&self) -> Connection {
        let config = Config {
            replication: true,
            ..self.config()
        };
        Connection::connect(&config).await.unwrap()
    }

    /// Asks the server to end every session and stop in good order (SIGINT), without waiting for
    /// it.
    pub(crate) fn begin_stop(&self) {
        self.signal("INT");
    }

    fn signal(&self, signal: &str) {
        let id = self.postmaster.id().to_string();
        let _sent = Command::new("kill").args(["-s", signal, &id]).status();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.signal("QUIT");
        let _ended = self.postmaster.wait();
    }
}

/// Gives a file to the user that PostgreSQL runs as.
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

fn as_postgres(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "QUIT"]);
    if is_root() {
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
    }
    command.arg(Path::new("/usr/lib/postgresql/15/bin").join(program));
    command
        .current_dir("/")
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("LC_ALL", "C.UTF-8");
    command
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").unwrap().uid() == 0
}

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}
