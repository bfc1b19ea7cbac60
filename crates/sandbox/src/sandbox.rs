//! A whole sandbox: made, started, driven, ended.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dr_model::{RegionName, SystemClock};

use crate::layout::{Layout, NAME, Place, StoreKind};
use crate::ledger::{Load, Options as LoadOptions};
use crate::place::{claim, default_directory, program, reachable};
use crate::postgres::find_programs;
use crate::process::{Keeper, Launcher, Output, adopt_orphans, end_all};
use crate::region::Region;
use crate::{Error, Result, config, dns, machines, network, user, wait};

/// The region where the workload is served at first.
pub const HOME: &str = "us-east-1";
/// The region that it moves to.
pub const RECOVERY: &str = "us-west-2";

/// Another region that it can move to, in a sandbox of three.
pub const THIRD: &str = "eu-west-1";

/// What a sandbox is to be like.
#[derive(Clone, Debug)]
pub struct Builder {
    directory: Option<PathBuf>,
    standby: bool,
    sync: bool,
    daemons: bool,
    store: StoreKind,
    machines: bool,
    guard: Option<u32>,
    third: bool,
}

/// A running sandbox. Dropping it ends every process of it.
#[derive(Debug)]
pub struct Sandbox {
    layout: Layout,
    launcher: Launcher,
    clock: SystemClock,
    keeper: Option<Keeper>,
}

impl Builder {
    /// Uses this directory, which must be empty, missing or an earlier sandbox's.
    #[must_use]
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// Chooses whether the recovery region keeps a standby; it does unless told otherwise.
    #[must_use]
    pub fn standby(mut self, standby: bool) -> Self {
        self.standby = standby;
        self
    }

    /// Chooses whether commits wait for the recovery region's store; they do not unless told otherwise.
    #[must_use]
    pub fn sync(mut self, sync: bool) -> Self {
        self.sync = sync;
        self
    }

    /// Chooses what the stores are; directories unless told otherwise.
    #[must_use]
    pub fn store(mut self, store: StoreKind) -> Self {
        self.store = store;
        self
    }

    /// Chooses whether each region is on a machine of its own ([`machines`]); they share this one unless told otherwise.
    /// Stores are to be on S3 then, for nobody reaches another's directories.
    #[must_use]
    pub fn machines(mut self, machines: bool) -> Self {
        self.machines = machines;
        self
    }

    /// Runs the server at home under a guard with a lease of so many seconds. It takes daemons.
    #[must_use]
    pub fn guard(mut self, lease_seconds: u32) -> Self {
        self.guard = Some(lease_seconds);
        self
    }

    /// Adds a third region ([`THIRD`]), which the workload can be moved to as well.
    #[must_use]
    pub fn third(mut self, third: bool) -> Self {
        self.third = third;
        self
    }

    /// Chooses whether the daemons run; they do unless told otherwise.
    #[must_use]
    pub fn daemons(mut self, daemons: bool) -> Self {
        self.daemons = daemons;
        self
    }

    /// Makes and starts everything: DNS, the primary, the standby, the application at home, the daemons.
    ///
    /// Must be called within a tokio runtime. Dropping the future ends what it has started.
    pub async fn start(self) -> Result<Sandbox> {
        adopt_orphans()?;
        let sandbox = self.prepare().await?;
        let started = self.start_all(&sandbox).await;
        started.map_err(|error| error.on_disk(&sandbox.layout().directory))?;
        Ok(sandbox)
    }

    /// Returns the regions that the workload can be moved to.
    fn recovery(&self) -> &'static [&'static str] {
        if self.third {
            &[RECOVERY, THIRD]
        } else {
            &[RECOVERY]
        }
    }

    async fn start_all(&self, sandbox: &Sandbox) -> Result<()> {
        let home = sandbox.region(HOME)?;
        let names = self.recovery().iter();
        let others: Vec<Region<'_>> = names
            .map(|name| sandbox.region(name))
            .collect::<Result<_>>()?;
        sandbox.start_dns().await?;
        home.start_store().await?;
        for other in &others {
            other.start_store().await?;
        }
        let primary = home.postgres()?;
        primary.write_settings()?;
        primary.create().await?;
        primary.start()?;
        primary.wait_ready().await?;
        primary.populate().await?;
        let mut streaming = Vec::new();
        for other in &others {
            let replica = other.postgres()?;
            replica.write_settings()?;
            if self.standby {
                replica.clone_from(&primary).await?;
                replica.start()?;
                replica.wait_ready().await?;
                streaming.push(replica.standby_name());
            }
        }
        if self.daemons {
            tokio::try_join!(home.start_daemon(), async {
                for other in &others {
                    other.start_daemon().await?;
                }
                Ok(())
            })?;
            let regions = std::iter::once(&home).chain(&others);
            streaming.extend(regions.map(Region::receiver_name));
        }
        primary.wait_streaming(&streaming).await?;
        if self.guard.is_some() {
            // A guard reads the register, which is in a store that a daemon makes.
            primary.stop().await?;
            home.start_guard()?;
            primary.wait_ready().await?;
            primary.wait_streaming(&streaming).await?;
        }
        if self.sync {
            let receiver = sandbox.region(RECOVERY)?.receiver_name();
            let names = format!("FIRST 1 ({receiver})");
            primary.set("synchronous_standby_names", &names).await?;
            primary.wait_synchronous(&receiver).await?;
        }
        home.start_app().await
    }

    /// Makes the directory with the configuration, and the keeper that will clean up after us.
    async fn prepare(&self) -> Result<Sandbox> {
        let postgres_programs = find_programs()?;
        let user = user::unprivileged()?;
        let demo = program("dr-demo")?;
        let dr = if self.daemons {
            program("dr")?
        } else {
            demo.with_file_name("dr")
        };
        let wanted = self
            .directory
            .clone()
            .unwrap_or_else(|| default_directory(user.as_ref()));
        let directory = claim(&wanted, user.as_ref())?;
        let launcher = Launcher::new(&directory, user)
            .with("DR_POSTGRES_BIN", postgres_programs.display().to_string());
        let demo = reachable(demo, &directory, &launcher)?;
        let dr = if self.daemons {
            reachable(dr, &directory, &launcher)?
        } else {
            dr
        };
        let s3_server = match self.store {
            StoreKind::Directory => None,
            StoreKind::S3 => Some(reachable(program("dr-s3-server")?, &directory, &launcher)?),
        };
        let home: RegionName = name(HOME);
        let recovery: Vec<RegionName> = self.recovery().iter().map(|text| name(text)).collect();
        let dns = if self.machines {
            SocketAddr::new(machines::middle(), 5300)
        } else {
            let loopback = [127, 0, 0, 1].into();
            SocketAddr::new(loopback, network::free_port(&[loopback])?)
        };
        let mut names = vec![home.clone()];
        names.extend(recovery.iter().cloned());
        let regions = if self.machines {
            places_apart(&directory, &names, self.store)
        } else {
            places(&directory, &names, self.store)?
        };
        let mut layout = Layout {
            dns,
            postgres_programs,
            dr,
            demo,
            s3_server,
            regions,
            directory,
        };
        launcher.make_directory(&layout.directory.join("log"))?;
        for place in layout.regions.values() {
            let log = place.directory.join("log");
            for made in [
                &place.directory,
                &log,
                &place.store(),
                &place.daemon(),
                &place.app(),
            ] {
                launcher.make_directory(made)?;
            }
        }
        if self.machines {
            let logs = layout.directory.join("log");
            machines::make(&launcher, &mut layout.regions, &logs).await?;
        }
        let text = serde_json::to_string_pretty(&layout).map_err(|source| Error::Output {
            program: "the layout".to_owned(),
            source,
        })?;
        launcher.write_file(&layout.file(), &text)?;
        config::write_secrets(&layout, &launcher)?;
        let options = config::Options {
            home,
            recovery,
            sync: self.sync,
            standby: self.standby,
            guard: self.guard,
        };
        config::write(&layout, &options, &launcher)?;
        let keeper = Some(Keeper::start(&launcher, &layout.demo, &layout.directory)?);
        Ok(Sandbox {
            layout,
            launcher,
            clock: SystemClock::new(),
            keeper,
        })
    }
}

impl Sandbox {
    /// Describes a sandbox with a standby and daemons, without synchronous replication.
    #[must_use]
    pub fn builder() -> Builder {
        Builder {
            directory: None,
            standby: true,
            sync: false,
            daemons: true,
            store: StoreKind::Directory,
            machines: false,
            guard: None,
            third: false,
        }
    }

    /// Returns where everything is.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Returns what starts programs in the sandbox's name.
    #[must_use]
    pub fn launcher(&self) -> &Launcher {
        &self.launcher
    }

    /// Returns the clock that all times of the sandbox are on.
    #[must_use]
    pub fn clock(&self) -> SystemClock {
        self.clock
    }

    /// Returns a region.
    pub fn region(&self, region: &str) -> Result<Region<'_>> {
        let found = self
            .layout
            .regions
            .iter()
            .find(|(name, _)| name.as_str() == region);
        let (name, place) = found.ok_or_else(|| Error::NoRegion(region.to_owned()))?;
        Ok(Region::new(self, name, place))
    }

    /// Prepares a `dr` command on the sandbox's configuration.
    #[must_use]
    pub fn dr_command<S: AsRef<std::ffi::OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> std::process::Command {
        self.dr_by(&self.launcher, arguments)
    }

    /// Prepares a `dr` command at a terminal of its own, made by `script`: what is written to its input is typed there.
    #[must_use]
    pub fn dr_at_terminal(&self, arguments: &[&str]) -> std::process::Command {
        let config = self.layout.directory.display().to_string();
        let dr = self.layout.dr.display().to_string();
        let words = [dr.as_str(), "--config", &config].into_iter();
        let words = words.chain(arguments.iter().copied());
        let line: Vec<_> = words
            .map(|word| format!("'{}'", word.replace('\'', r"'\''")))
            .collect();
        let script = std::path::Path::new("script");
        let mut command = self.launcher.command(script, &self.layout.directory);
        command
            .args(["-qec", &line.join(" "), "/dev/null"])
            .stdin(std::process::Stdio::piped());
        command
    }

    /// Prepares a `dr` command on the machine of a region.
    pub fn dr_command_in<S: AsRef<std::ffi::OsStr>>(
        &self,
        region: &str,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<std::process::Command> {
        Ok(self.dr_by(&self.region(region)?.launcher(), arguments))
    }

    fn dr_by<S: AsRef<std::ffi::OsStr>>(
        &self,
        launcher: &Launcher,
        arguments: impl IntoIterator<Item = S>,
    ) -> std::process::Command {
        let mut command = launcher.command(&self.layout.dr, &self.layout.directory);
        command
            .arg("--config")
            .arg(&self.layout.directory)
            .args(arguments);
        command
    }

    /// Runs a `dr` command to its end, whatever its status.
    pub async fn dr<S: AsRef<std::ffi::OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<Output> {
        self.launcher
            .output(self.dr_command(arguments), false)
            .await
    }

    /// Starts a load on the application, by its DNS name. Its record is also written to `commits.jsonl`; that of another load
    /// beside it to a file with the number of its first worker.
    pub fn load(&self, options: LoadOptions) -> Result<Load> {
        let name = match options.first_worker {
            0 => "commits.jsonl".to_owned(),
            first => format!("commits-{first}.jsonl"),
        };
        let file = self.layout.directory.join(name);
        Load::start(&self.layout, self.clock, options, file)
    }

    /// Gives up control and leaves everything running; `dr-demo stop` ends it.
    pub fn leave_running(mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            keeper.dismiss();
        }
    }

    async fn start_dns(&self) -> Result<()> {
        let mut command = self
            .launcher
            .command(&self.layout.demo, &self.layout.directory);
        command
            .arg("dns")
            .arg("--directory")
            .arg(&self.layout.directory);
        self.launcher
            .start(command, &self.layout.directory.join("log/dns.log"))?;
        let what = format!("the DNS server on {}", self.layout.dns);
        wait::until(&what, Duration::from_secs(10), async || {
            dns::lookup(self.layout.dns, NAME)
                .await
                .map_err(|error| error.to_string())
        })
        .await
        .map(drop)
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // Without a keeper it was left running on purpose.
        if let Some(mut keeper) = self.keeper.take() {
            end_all(&self.layout.directory, Some(keeper.pid()));
            keeper.dismiss();
        }
    }
}

fn name(text: &str) -> RegionName {
    text.parse()
        .expect("the names are written in the source and valid")
}

fn places(
    directory: &Path,
    regions: &[RegionName],
    store: StoreKind,
) -> Result<BTreeMap<RegionName, Place>> {
    let addresses = network::addresses(u8::try_from(regions.len()).unwrap_or(u8::MAX));
    let app_port = network::free_port(&addresses)?;
    // A port is free again once it was found: the next one found may be the same.
    let mut taken = BTreeSet::from([app_port]);
    let mut another = |address| -> Result<u16> {
        loop {
            let port = network::free_port(&[address])?;
            if taken.insert(port) {
                return Ok(port);
            }
        }
    };
    regions
        .iter()
        .zip(addresses)
        .map(|(region, address)| {
            let place = Place {
                directory: directory.join(region.as_str()),
                address,
                postgres_port: another(address)?,
                app_port,
                daemon_port: another(address)?,
                store_port: match store {
                    StoreKind::Directory => None,
                    StoreKind::S3 => Some(another(address)?),
                },
                machine: None,
            };
            Ok((region.clone(), place))
        })
        .collect()
}

/// The same on machines of their own, where every port is free.
fn places_apart(
    directory: &Path,
    regions: &[RegionName],
    store: StoreKind,
) -> BTreeMap<RegionName, Place> {
    let place = |(number, region): (u8, &RegionName)| {
        let place = Place {
            directory: directory.join(region.as_str()),
            address: machines::address_of(number),
            postgres_port: 5432,
            app_port: 8080,
            daemon_port: 8600,
            store_port: (store == StoreKind::S3).then_some(9000),
            machine: None,
        };
        (region.clone(), place)
    };
    (0..).zip(regions).map(place).collect()
}
