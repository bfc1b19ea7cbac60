//! The server of a boot test: on a socket of its own and nowhere else, as the user that owns the files.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use dr_pgwire::{Config, TlsMode};
use dr_provider::driver::RestoreRequest;
use dr_provider::{Error, ErrorKind, Result};
use tokio::process::{Child, Command};

use super::OPERATION;
use super::scratch::Scratch;
use crate::driver::PostgresDriver;
use crate::instance::{CONNECT_LIMIT, Instance};
use crate::wait::Deadline;

/// How long replay may take as a whole.
const REPLAY_LIMIT: Duration = Duration::from_secs(6 * 3600);

/// Lines of the server's log that are shown.
const LAST_WORDS: usize = 5;

/// A running server, stopped when this is dropped; its directory is emptied by whoever owns that.
pub(super) struct Server<'a> {
    driver: &'a PostgresDriver,
    scratch: &'a Scratch,
    process: Child,
}

impl<'a> Server<'a> {
    /// Starts it.
    pub(super) fn start(driver: &'a PostgresDriver, scratch: &'a Scratch) -> Result<Self> {
        // Nothing of the recovery point: that a program cannot be started is the machine's fault.
        let failed = |error: io::Error| {
            let program = driver.parts().binaries.join("postgres");
            Error::new(
                ErrorKind::Unavailable,
                "start",
                program.display().to_string(),
            )
            .because(error)
        };
        let owner = fs::metadata(scratch.data()).map_err(failed)?;
        if owner.uid() == 0 {
            let place = scratch.path().display().to_string();
            return Err(
                Error::new(ErrorKind::Invalid, "boot a recovery point in", place)
                    .because("the directory belongs to root, as whom no server runs")
                    .with_hint(
                        "give it to the user that servers run as, and run `dr` as that user",
                    ),
            );
        }
        let rules = scratch.path().join("pg_hba.conf");
        let make = || -> io::Result<(File, File)> {
            let socket = scratch.socket();
            fs::create_dir(&socket)?;
            fs::set_permissions(&socket, fs::Permissions::from_mode(0o700))?;
            // Whoever gets to the socket is the owner.
            fs::write(&rules, "local all all trust\n")?;
            chown(&socket, Some(owner.uid()), Some(owner.gid()))?;
            chown(&rules, Some(owner.uid()), Some(owner.gid()))?;
            let log = File::create(scratch.log())?;
            Ok((log.try_clone()?, log))
        };
        let (out, err) = make().map_err(failed)?;
        let mut command = Command::new(driver.parts().binaries.join("postgres"));
        command.arg("-D").arg(scratch.data());
        for setting in [
            "listen_addresses=".to_owned(),
            format!("port={}", RestoreRequest::PORT),
            format!("unix_socket_directories={}", scratch.socket().display()),
            format!("hba_file={}", rules.display()),
            // Whatever the restored files say: nothing leaves this server (R30).
            "archive_mode=off".to_owned(),
            "logging_collector=off".to_owned(),
            "log_destination=stderr".to_owned(),
            "ssl=off".to_owned(),
            "fsync=off".to_owned(),
            // The machine may be much smaller than the primary's.
            "shared_buffers=128MB".to_owned(),
            "huge_pages=off".to_owned(),
            // A tablespace that was made in place stops recovery without it, and may have been made by a session that had set it.
            "allow_in_place_tablespaces=on".to_owned(),
        ] {
            command.arg("-c").arg(setting);
        }
        command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .current_dir("/");
        if rustix::process::geteuid().is_root() {
            command.uid(owner.uid()).gid(owner.gid());
        }
        Ok(Self {
            driver,
            scratch,
            process: command.kill_on_drop(true).spawn().map_err(failed)?,
        })
    }

    /// Returns how to reach a database of it.
    pub(super) fn config(&self, user: &str, database: &str) -> Config {
        let mut config = Config::new(self.scratch.socket(), RestoreRequest::PORT, user.to_owned());
        config.database = Some(database.to_owned());
        config.tls = TlsMode::Disable;
        config.connect_timeout = CONNECT_LIMIT;
        config
    }

    /// Waits for the end of the replay, at which the server pauses.
    pub(super) async fn replayed(&mut self) -> Result<Instance> {
        let options = self.driver.options();
        let config = self.config(&options.user, &options.database);
        let deadline = Deadline::new(self.driver.clock(), REPLAY_LIMIT);
        loop {
            let ended = self.process.try_wait();
            if let Some(status) = ended.map_err(|error| self.failed(error.to_string()))? {
                return Err(self.failed(format!("the server ended with {status}")));
            }
            let subject = self.driver.resource().to_string();
            if let Ok(mut instance) = Instance::connect(&config, subject).await
                && instance.has_recovered(OPERATION).await?
            {
                return Ok(instance);
            }
            if !deadline.pause().await {
                return Err(self.failed("it has not replayed the log in time"));
            }
        }
    }

    fn failed(&self, why: impl Into<String>) -> Error {
        let why = why.into();
        match last_words(&self.scratch.log()).as_str() {
            "" => self.driver.failed(OPERATION, why),
            said => self
                .driver
                .failed(OPERATION, format!("{why}; the last of its log: {said}")),
        }
    }
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        // Only where a run was called off is there anything left to stop. Its processes end before it does, so that none
        // writes into a directory that is being removed.
        if let Err(error) = self.scratch.stop() {
            tracing::warn!(%error, "the server of a boot test was not stopped");
        }
    }
}

/// Returns the last lines of a log.
fn last_words(path: &Path) -> String {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().rev().take(LAST_WORDS).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("; ")
}
