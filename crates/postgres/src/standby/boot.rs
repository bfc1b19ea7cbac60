//! Starting a stopped directory by itself, to let it replay its own log to the end, and stopping it again.
//!
//! A server that crashed has to be brought to a clean end before it can be rewound. It is started as a standby of nobody, so
//! that it never accepts a write, with a configuration of its own, on a socket that only its owner reaches.

use std::path::{Path, PathBuf};
use std::time::Duration;

use dr_model::{Lsn, RegionName};
use dr_pgwire::{Config, Connection};
use dr_provider::host::{Command, PathKind};
use dr_provider::{Host, Result};

use super::remains::Control;
use crate::driver::PostgresDriver;
use crate::restore::TARGETS;
use crate::wait::Standstill;

/// How long the server may take to replay what a crash left.
const START_LIMIT: Duration = Duration::from_secs(3600);

/// How long replay may stand still.
const STANDSTILL: Duration = Duration::from_secs(60);

/// How long it may take to stop.
const STOP_LIMIT: Duration = Duration::from_secs(600);

/// The number in the name of its socket.
const PORT: u16 = 5432;

const OPERATION: &str = "let the old primary replay its own log, of";

impl PostgresDriver {
    /// Brings a directory in which no server runs to a clean end at `end`, without a write of anybody's.
    pub(super) async fn settle(
        &self,
        region: &RegionName,
        control: &Control,
        end: Lsn,
    ) -> Result<()> {
        if control.state.starts_with("shut down") {
            return Ok(());
        }
        let host = self.host(region)?;
        let directory = &self.instance_options(region)?.data_directory;
        let signal = directory.join("standby.signal");
        if host.kind(&signal).await? == PathKind::Missing {
            host.write(&signal, b"").await?;
        }
        let place = self
            .made(&**host, &["mktemp", "-d", "/tmp/dr-XXXXXX"])
            .await?;
        let place = PathBuf::from(place);
        let settled = self
            .replay_alone(&**host, directory, &place, control, end)
            .await;
        let stop = self.pg_ctl(directory, &["stop", "--mode=fast", "--wait"]);
        let stopped = host.run(&stop, STOP_LIMIT).await;
        let shown = place.display().to_string();
        let removed = host
            .run(&Command::new(["rm", "-r", "--", &shown]), STOP_LIMIT)
            .await;
        settled?;
        if stopped?.status != Some(0) {
            let why = format!("the server in `{}` does not stop", directory.display());
            return Err(self.failed(OPERATION, why));
        }
        removed.map(drop)
    }

    async fn replay_alone(
        &self,
        host: &dyn Host,
        directory: &Path,
        place: &Path,
        control: &Control,
        end: Lsn,
    ) -> Result<()> {
        let configuration: String = control
            .least
            .iter()
            .map(|(name, value)| format!("{name} = {value}\n"))
            .chain(["shared_buffers = 32MB\nhuge_pages = off\n".to_owned()])
            .collect();
        host.write(&place.join("postgresql.conf"), configuration.as_bytes())
            .await?;
        host.write(&place.join("pg_hba.conf"), b"local all all trust\n")
            .await?;
        host.write(&place.join("pg_ident.conf"), b"").await?;
        let shown = place.display();
        let mut options = format!(
            "-c config_file={shown}/postgresql.conf -c hba_file={shown}/pg_hba.conf -c ident_file={shown}/pg_ident.conf \
             -c unix_socket_directories={shown} -c port={PORT} -c hot_standby=on -c wal_keep_size=1048576 \
             -c archive_mode=off -c recovery_target_timeline=current -c logging_collector=off \
             -c log_destination=stderr"
        );
        for none in [
            "listen_addresses",
            "primary_conninfo",
            "primary_slot_name",
            "restore_command",
            "archive_cleanup_command",
            "recovery_end_command",
            "synchronous_standby_names",
            "shared_preload_libraries",
        ]
        .iter()
        .chain(&TARGETS)
        {
            options.push_str(&format!(" -c {none}=''"));
        }
        let log = place.join("log").display().to_string();
        let timeout = format!("--timeout={}", START_LIMIT.as_secs());
        let words = [
            "start",
            "--wait",
            &timeout,
            "--log",
            &log,
            "--options",
            &options,
        ];
        let started = host
            .run(&self.pg_ctl(directory, &words), START_LIMIT)
            .await?;
        if started.status != Some(0) {
            let said = host
                .read(Path::new(&log), 0, 1 << 16)
                .await
                .unwrap_or_default();
            let said = String::from_utf8_lossy(&said).into_owned();
            let last = said.lines().rev().find(|line| line.contains("FATAL"));
            let why = last.or(said.lines().last()).unwrap_or("it does not start");
            return Err(self.failed(OPERATION, why));
        }
        let mut config = Config::new(place.to_owned(), PORT, self.options().user.clone());
        config.database = Some(self.options().database.clone());
        let mut standstill = Standstill::new(self.clock(), STANDSTILL);
        let mut furthest = None;
        loop {
            let replayed = async {
                let mut connection = Connection::connect(&config).await?;
                let rows = connection.query("select pg_last_wal_replay_lsn()").await?;
                rows.only()?.get::<Option<Lsn>>(0)
            };
            furthest = replayed.await.ok().flatten().or(furthest);
            if furthest.is_some_and(|replayed| replayed >= end) {
                return Ok(());
            }
            if !standstill.pause(furthest).await {
                let at = furthest.unwrap_or_default();
                let why = format!("it stands still at {at} and has to reach {end}");
                return Err(self.failed(OPERATION, why));
            }
        }
    }

    /// Returns a call of `pg_ctl` on a directory.
    pub(crate) fn pg_ctl(&self, directory: &Path, words: &[&str]) -> Command {
        let program = self.parts().binaries.join("pg_ctl").display().to_string();
        let directory = directory.display().to_string();
        let own = [program.as_str()].into_iter().chain(words.iter().copied());
        Command::new(own.chain(["--pgdata", &directory]))
    }

    /// Runs a small command that has to succeed, and returns the line that it prints.
    pub(super) async fn made(&self, host: &dyn Host, argv: &[&str]) -> Result<String> {
        self.run_long(host, Command::new(argv.iter().copied()), STOP_LIMIT)
            .await
    }

    /// Runs a command that has to succeed, and returns what it prints.
    pub(super) async fn run_long(
        &self,
        host: &dyn Host,
        command: Command,
        limit: Duration,
    ) -> Result<String> {
        let output = host.run(&command, limit).await?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status == Some(0) {
            return Ok(text(&output.stdout));
        }
        let said = text(&output.stderr);
        let program = command.argv.first().map_or("", String::as_str);
        let why = said.lines().last().unwrap_or("it says nothing").to_owned();
        Err(self.failed("prepare the standby of", format!("`{program}`: {why}")))
    }
}
