//! One PostgreSQL cluster of the sandbox.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use dr_model::RegionName;
use tokio_postgres::{Client, NoTls};

use super::{roles, settings};
use crate::layout::{Layout, Place, STANDBY_ROLE, SUPERUSER, WORKLOAD};
use crate::process::Launcher;
use crate::{Error, Result, wait};

/// How long a server may take to start or to answer. Generous: the machine may be busy compiling.
const LIMIT: Duration = Duration::from_secs(60);

/// The control of the cluster in one region.
#[derive(Clone, Debug)]
pub struct Cluster {
    region: RegionName,
    place: Place,
    layout: Layout,
    launcher: Launcher,
}

/// What a primary says of a standby.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standby {
    /// The name under which it is connected.
    pub name: String,
    /// The process on the primary that sends to it.
    pub walsender: i32,
    /// Its state, such as `streaming`.
    pub state: String,
    /// Its part in synchronous replication: `async`, `sync`, `potential` or `quorum`.
    pub sync_state: String,
}

impl Cluster {
    /// Takes control of the region's cluster, which may not exist yet.
    pub fn new(layout: &Layout, region: &RegionName, launcher: &Launcher) -> Result<Self> {
        Ok(Self {
            region: region.clone(),
            place: layout.place(region)?.clone(),
            layout: layout.clone(),
            launcher: launcher.clone(),
        })
    }

    /// Writes the settings of the region, which exist before and beside the data directory.
    pub fn write_settings(&self) -> Result<()> {
        self.launcher.write_file(
            &self.place.settings_file(),
            &settings::of_region(&self.place),
        )?;
        self.launcher
            .write_file(&self.place.access_file(), &settings::access(&self.place))
    }

    /// Makes an empty cluster with page checksums.
    pub async fn create(&self) -> Result<()> {
        let mut command = self.command("initdb");
        command
            .arg("--pgdata")
            .arg(self.place.data_directory())
            .arg(format!("--username={SUPERUSER}"))
            .arg(format!(
                "--pwfile={}",
                self.layout.password_file(SUPERUSER).display()
            ))
            // Nothing in it is worth a flush before the first start.
            .args(["--no-sync", "--data-checksums", "--auth=scram-sha-256"])
            .args(["--encoding=UTF8", "--locale=C"]);
        self.launcher.run(command).await?;
        let inside = self.place.data_directory().join("postgresql.conf");
        self.launcher
            .write_file(&inside, settings::IN_DATA_DIRECTORY)
    }

    /// Makes the roles, the workload's database and its table.
    pub async fn populate(&self) -> Result<()> {
        let failed = || roles::failed(self.region.as_str());
        let client = self.connect("postgres").await?;
        for statement in roles::statements(&self.layout)? {
            client.batch_execute(&statement).await.map_err(failed())?;
        }
        let client = self.connect(WORKLOAD).await?;
        for statement in roles::grants() {
            client.batch_execute(&statement).await.map_err(failed())?;
        }
        Ok(())
    }

    /// Makes this region's cluster a copy of `primary` that follows it through a slot of its own.
    pub async fn clone_from(&self, primary: &Self) -> Result<()> {
        let name = self.standby_name();
        let source = format!(
            "host={} port={} user={STANDBY_ROLE} application_name={name}",
            primary.place.address, primary.place.postgres_port
        );
        let mut command = self.command("pg_basebackup");
        command
            .arg("--pgdata")
            .arg(self.place.data_directory())
            .args(["--write-recovery-conf", "--create-slot", "--slot", &name])
            .args([
                "--wal-method=stream",
                "--checkpoint=fast",
                "--no-sync",
                "--dbname",
                &source,
            ])
            .env("PGPASSWORD", self.layout.password(STANDBY_ROLE)?);
        self.launcher.run(command).await?;
        let mode = std::fs::Permissions::from_mode(0o700);
        let directory = self.place.data_directory();
        std::fs::set_permissions(&directory, mode).map_err(Error::file("close", directory))
    }

    /// Returns the name of this region's standby: of its slot, and of its connection.
    #[must_use]
    pub fn standby_name(&self) -> String {
        format!("standby_{}", self.region.to_identifier())
    }

    /// Starts the server; returns its process id. It runs in the foreground, as a child of this program.
    pub fn start(&self) -> Result<i32> {
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.place.data_directory());
        self.launcher.start(command, &self.place.log("postgres"))
    }

    /// Stops the server in an orderly way.
    pub async fn stop(&self) -> Result<()> {
        self.control(&["stop", "--mode=fast", "--wait"]).await
    }

    /// Makes the standby a primary, without any of the care that `dr` takes.
    pub async fn promote(&self) -> Result<()> {
        self.control(&["promote", "--wait"]).await
    }

    async fn control(&self, words: &[&str]) -> Result<()> {
        let mut command = self.command("pg_ctl");
        command
            .args(words)
            .arg("--pgdata")
            .arg(self.place.data_directory());
        self.launcher.run(command).await.map(drop)
    }

    /// Waits until the server answers queries.
    pub async fn wait_ready(&self) -> Result<()> {
        let what = format!("PostgreSQL of `{}` answering queries", self.region);
        wait::until(&what, LIMIT, async || {
            let client = self
                .connect("postgres")
                .await
                .map_err(|error| describe(&error))?;
            client
                .simple_query("SELECT 1")
                .await
                .map(drop)
                .map_err(|error| error.to_string())
        })
        .await
    }

    /// Connects as the superuser.
    pub async fn connect(&self, database: &str) -> Result<Client> {
        let mut config = tokio_postgres::Config::new();
        config
            .host(self.place.address.to_string())
            .port(self.place.postgres_port)
            .user(SUPERUSER)
            .password(self.layout.password(SUPERUSER)?)
            .dbname(database)
            .application_name("dr-sandbox")
            .connect_timeout(Duration::from_secs(2));
        let (client, connection) = config.connect(NoTls).await.map_err(self.failed("log in"))?;
        // Ends with the client; what goes wrong in it is reported to the client's calls.
        tokio::spawn(async move {
            let _ended = connection.await;
        });
        Ok(client)
    }

    /// Lists what is connected to this primary to replicate.
    pub async fn standbys(&self) -> Result<Vec<Standby>> {
        let client = self.connect("postgres").await?;
        let query = "SELECT application_name, pid, coalesce(state, ''), coalesce(sync_state, '')
                     FROM pg_stat_replication ORDER BY 1";
        let rows = client
            .query(query, &[])
            .await
            .map_err(self.failed("list the standbys"))?;
        Ok(rows
            .iter()
            .map(|row| Standby {
                name: row.get(0),
                walsender: row.get(1),
                state: row.get(2),
                sync_state: row.get(3),
            })
            .collect())
    }

    /// Waits until everything named streams from this primary.
    pub async fn wait_streaming(&self, names: &[String]) -> Result<Vec<Standby>> {
        let what = format!(
            "the streaming of {} from `{}`",
            names.join(", "),
            self.region
        );
        wait::until(&what, LIMIT, async || {
            let found = self.standbys().await.map_err(|error| describe(&error))?;
            let all = names.iter().all(|name| {
                found
                    .iter()
                    .any(|s| s.name == *name && s.state == "streaming")
            });
            if all {
                Ok(found)
            } else {
                Err(format!("connected: {found:?}"))
            }
        })
        .await
    }

    /// Waits until commits wait for what is connected under `name`.
    pub async fn wait_synchronous(&self, name: &str) -> Result<()> {
        let what = format!("the synchronous replication of `{}` to {name}", self.region);
        wait::until(&what, LIMIT, async || {
            let found = self.standbys().await.map_err(|error| describe(&error))?;
            let holds = found
                .iter()
                .any(|s| s.name == name && s.sync_state == "sync");
            if holds {
                Ok(())
            } else {
                Err(format!("connected: {found:?}"))
            }
        })
        .await
    }

    /// Changes a setting while the server runs, and waits until it is in force.
    pub async fn set(&self, name: &'static str, value: &str) -> Result<()> {
        let failed = || self.failed("change a setting");
        let client = self.connect("postgres").await?;
        let quoted = value.replace('\'', "''");
        client
            .batch_execute(&format!("ALTER SYSTEM SET {name} = '{quoted}'"))
            .await
            .map_err(failed())?;
        client
            .batch_execute("SELECT pg_reload_conf()")
            .await
            .map_err(failed())?;
        wait::until(&format!("the setting `{name}`"), LIMIT, async || {
            let query = "SELECT current_setting($1)";
            let row = client
                .query_one(query, &[&name])
                .await
                .map_err(|e| e.to_string())?;
            let seen: String = row.get(0);
            if seen == value { Ok(()) } else { Err(seen) }
        })
        .await
    }

    /// Returns the ids of all commits in the ledger.
    pub async fn ledger(&self) -> Result<Vec<i64>> {
        let client = self.connect(WORKLOAD).await?;
        let rows = client
            .query("SELECT id FROM ledger", &[])
            .await
            .map_err(self.failed("read the ledger"))?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    fn command(&self, program: &str) -> std::process::Command {
        let program = self.layout.postgres_programs.join(program);
        self.launcher.command(&program, &self.place.directory)
    }

    fn failed(&self, operation: &'static str) -> impl FnOnce(tokio_postgres::Error) -> Error {
        let region = self.region.to_string();
        move |source| Error::Sql {
            operation,
            region,
            source,
        }
    }
}

/// Writes an error with its causes in one line.
pub(crate) fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
