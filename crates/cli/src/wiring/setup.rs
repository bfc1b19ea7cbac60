//! A loaded configuration, and what is made from it.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use dr_config::{Config, NoRunbook, Region, Runbook, Workload};
use dr_coordination::Actor;
use dr_coordination::identity::{Identity, read_identity};
use dr_coordination::register::Register;
use dr_local::{LocalHost, LocalSecrets, SshAddress, SshHost, SshOptions};
use dr_model::document::{Problem, Resolver, closest, one_of};
use dr_model::{Clock, RegionName, ResourceId, RunbookName, SystemClock, WorkloadName};
use dr_postgres::{Options, Parts, PostgresDriver};
use dr_provider::{ErrorKind, Host, ObjectStore, ResourceDriver, SecretSource};

use super::stores::Stores;
use super::{actor, binaries, environment, keys, kinds, stores};
use crate::error::{CommandError, Result};
use crate::exit::Exit;

/// A configuration, who acts on it, and where time comes from.
pub(crate) struct Setup {
    pub(crate) config: Config,
    /// Problems that do not keep the configuration from being used.
    pub(crate) warnings: Vec<Problem>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) actor: Actor,
    pub(crate) stores: Stores,
    secrets: Arc<LocalSecrets>,
    /// What was made of a workload's register: whoever asks for it again shares what it has learnt.
    registers: Mutex<BTreeMap<WorkloadName, Register>>,
    /// The hosts that were asked for, by their region and name: whoever acts on one uses the connection that there is.
    hosts: Mutex<BTreeMap<(RegionName, String), Arc<dyn Host>>>,
}

impl Setup {
    /// Loads the configuration at `path`, a directory or the `dr.yaml` in it.
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let secrets = Arc::new(local_secrets(&directory(path)));
        let resolver = Arc::clone(&secrets);
        let resolver: Arc<dyn Resolver> = Arc::new(move |text: &str| {
            let resolved = resolver.resolve(text);
            // What failed is the reference; its value is not part of the error.
            resolved
                .map(|value| value.expose().to_owned())
                .map_err(|error| dr_provider::error::chain(&error))
        });
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let loaded = dr_config::load(path, &kinds::kinds(), resolver)
            .map_err(|problems| CommandError::from_problems(&problems, path))?;
        Ok(Self {
            stores: stores::stores(&loaded.config, &secrets, &clock)?,
            config: loaded.config,
            warnings: loaded.warnings,
            clock,
            actor: actor::actor(),
            secrets,
            registers: Mutex::default(),
            hosts: Mutex::default(),
        })
    }

    /// Returns a region, which must be configured.
    pub(crate) fn region(&self, name: &RegionName) -> Result<&Region> {
        self.config
            .regions
            .get(name)
            .ok_or_else(|| unknown("region", name.as_str(), self.config.regions.keys()))
    }

    /// Returns a workload, which must be configured.
    pub(crate) fn workload(&self, name: &WorkloadName) -> Result<&Workload> {
        let workloads = &self.config.workloads;
        workloads
            .get(name)
            .ok_or_else(|| unknown("workload", name.as_str(), workloads.keys()))
    }

    /// Returns a runbook, which must be there and fit to be used.
    pub(crate) fn runbook(&self, name: &RunbookName) -> Result<&Runbook> {
        let runbooks = &self.config.runbooks;
        runbooks.get(name).map_err(|none| match none {
            NoRunbook::Unknown => unknown("runbook", name.as_str(), runbooks.names()),
            NoRunbook::Unusable(files) => CommandError::from_unusable(name, &files),
        })
    }

    /// Returns the workloads of these names, or all of them if there are none.
    pub(crate) fn workloads(
        &self,
        names: &[WorkloadName],
    ) -> Result<Vec<(WorkloadName, &Workload)>> {
        if names.is_empty() {
            return Ok(self
                .config
                .workloads
                .iter()
                .map(|(name, workload)| (name.clone(), workload))
                .collect());
        }
        names
            .iter()
            .map(|name| Ok((name.clone(), self.workload(name)?)))
            .collect()
    }

    /// Returns the store of a region, which must be configured.
    pub(crate) fn store(&self, region: &RegionName) -> Result<Arc<dyn ObjectStore>> {
        self.region(region)?;
        // There is one for each configured region.
        self.stores
            .get(region)
            .cloned()
            .ok_or_else(|| unknown("region", region.as_str(), self.stores.keys()))
    }

    /// Returns the store of a region once it has said that it is that region's: in another one,
    /// nothing found and nothing missing means anything (PROTOCOL 4).
    pub(crate) async fn identified(&self, region: &RegionName) -> Result<Arc<dyn ObjectStore>> {
        self.identity(region).await?;
        self.store(region)
    }

    /// Returns the identity of a region's store. One of another region is refused for safety: it is
    /// nothing that trying again would change.
    pub(crate) async fn identity(&self, region: &RegionName) -> Result<Identity> {
        let store = self.store(region)?;
        read_identity(&*store, region).await.map_err(|error| {
            let other = error.kind() == ErrorKind::Invalid;
            let mut error = CommandError::from(error);
            if other {
                error.exit = Exit::Refused;
            }
            error
        })
    }

    /// Returns where references to secrets are resolved.
    pub(crate) fn secrets(&self) -> &LocalSecrets {
        &self.secrets
    }

    /// Returns the region whose store holds the first record of a workload's register: the first
    /// that is not its home.
    pub(crate) fn first_register(workload: &Workload) -> &RegionName {
        workload.recovery.first().unwrap_or(&workload.home)
    }

    /// Returns the register of a workload.
    pub(crate) fn register(&self, name: &WorkloadName, workload: &Workload) -> Register {
        let mut registers = self
            .registers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let register = registers.entry(name.clone()).or_insert_with(|| {
            let first = Self::first_register(workload);
            Register::new(name.clone(), self.stores.clone(), first.clone())
        });
        register.clone()
    }

    /// Returns a host of a region by its name in the configuration.
    pub(crate) fn host(&self, region: &RegionName, name: &str) -> Result<Arc<dyn Host>> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (region.clone(), name.to_owned());
        if let Some(host) = hosts.get(&key) {
            return Ok(Arc::clone(host));
        }
        let host = self.make_host(region, name)?;
        hosts.insert(key, Arc::clone(&host));
        Ok(host)
    }

    fn make_host(&self, region: &RegionName, name: &str) -> Result<Arc<dyn Host>> {
        let configured = self.region(region)?;
        if name == "local" {
            // Whoever acts in a region on one machine remembers epochs in one place.
            let state = configured.daemon.as_ref().map_or_else(
                || self.config.directory.join("state").join(region.as_str()),
                |daemon| daemon.state_directory.clone(),
            );
            return Ok(Arc::new(LocalHost::new(state)));
        }
        let refuse = |why: String| {
            let what = format!("host `{name}` in `{region}` cannot be used");
            CommandError::new(Exit::Configuration, what).because(why)
        };
        let address: SshAddress = name
            .parse()
            .map_err(|error: dr_local::ssh_host::InvalidAddress| refuse(error.to_string()))?;
        let ssh = configured.ssh.as_ref().ok_or_else(|| {
            refuse("nothing says which key is shown to it and which host keys are believed".into())
                .hint(format!(
                    "add `ssh: {{ identity: /etc/dr/ssh.key, known_hosts: /etc/dr/known_hosts }}` to `regions.{region}`"
                ))
        })?;
        let daemon = configured.daemon.as_ref();
        let state = daemon.map(|daemon| daemon.state_directory.display().to_string());
        let state_directory = ssh.state_directory.clone().or(state).ok_or_else(|| {
            refuse("nothing says where it remembers epochs".to_owned())
                .hint(format!("add `state_directory` to `regions.{region}.ssh`"))
        })?;
        let options = SshOptions {
            identity: crate::kit::file(&self.config, &ssh.identity),
            known_hosts: crate::kit::file(&self.config, &ssh.known_hosts),
            program: ssh.program.clone(),
            state_directory,
            connect_timeout: ssh.connect_timeout,
        };
        Ok(Arc::new(SshHost::new(address, options)))
    }

    /// Returns the driver of a resource.
    pub(crate) fn driver(&self, id: &ResourceId) -> Result<Arc<dyn ResourceDriver>> {
        // The one kind so far; the configuration knows no other.
        Ok(Arc::new(self.postgres(id)?))
    }

    /// Returns what the configuration says of a PostgreSQL cluster.
    pub(crate) fn postgres_options(&self, id: &ResourceId) -> Result<Options> {
        let workload = self.workload(&id.workload)?;
        let resources = &workload.resources;
        let resource = resources.get(&id.resource).ok_or_else(|| {
            unknown(
                &format!("resource of `{}`", id.workload),
                id.resource.as_str(),
                resources.keys(),
            )
        })?;
        let read = self.config.read(&resource.node);
        read.map_err(|problems| CommandError::from_problems(&problems, &self.config.directory))
    }

    /// Refuses to act as root on data directories of this machine that are another user's: PostgreSQL's programs do not run as root, and
    /// its servers cannot read what root writes for them. A move would stop half-way.
    pub(crate) fn refuse_root(&self, workload: &WorkloadName) -> Result<()> {
        if !rustix::process::geteuid().is_root() {
            return Ok(());
        }
        for resource in self.workload(workload)?.resources.keys() {
            let id = ResourceId {
                workload: workload.clone(),
                resource: resource.clone(),
            };
            let instances = self.postgres_options(&id)?.instances;
            for instance in instances.values().filter(|known| known.is_here()) {
                let place = &instance.data_directory;
                let Ok(found) = std::fs::metadata(place) else {
                    continue;
                };
                let owner = found.uid();
                if owner != 0 {
                    let what = format!(
                        "root cannot do this for `{workload}`: `{}` belongs to user {owner}, and PostgreSQL's programs refuse to run as root",
                        place.display()
                    );
                    let hint = format!(
                        "run it as that user: `setpriv --reuid={owner} --regid={} --clear-groups dr …`, or `sudo --user`",
                        found.gid()
                    );
                    return Err(CommandError::new(Exit::Refused, what).hint(hint));
                }
            }
        }
        Ok(())
    }

    /// Returns the driver of a PostgreSQL cluster.
    pub(crate) fn postgres(&self, id: &ResourceId) -> Result<PostgresDriver> {
        let options = self.postgres_options(id)?;
        let workload = self.workload(&id.workload)?;
        let mut hosts = BTreeMap::new();
        for (region, instance) in &options.instances {
            hosts.insert(region.clone(), self.host(region, &instance.host)?);
        }
        Ok(PostgresDriver::new(Parts {
            resource: id.clone(),
            options,
            stores: self.stores.clone(),
            hosts,
            register: self.register(&id.workload, workload),
            actor: self.actor.clone(),
            secrets: Arc::clone(&self.secrets) as Arc<dyn SecretSource>,
            keys: keys::keys(&self.config)?,
            clock: Arc::clone(&self.clock),
            program: self.program()?,
            environment: environment::variables(&self.config),
            binaries: binaries::binaries(),
        }))
    }

    /// Returns where one of PostgreSQL's own programs is on this machine.
    pub(crate) fn program_of_postgres(name: &str) -> PathBuf {
        binaries::binaries().join(name)
    }

    /// Returns the beginning of every command line that calls this program from elsewhere: all
    /// absolute.
    pub(crate) fn program(&self) -> Result<Vec<String>> {
        let program = std::env::current_exe()?;
        let text = |path: &Path| {
            path.to_str().map(str::to_owned).ok_or_else(|| {
                CommandError::new(
                    Exit::Failed,
                    format!(
                        "`{}` is not UTF-8, and PostgreSQL cannot be told it",
                        path.display()
                    ),
                )
            })
        };
        Ok(vec![
            text(&program)?,
            "--config".to_owned(),
            text(&self.config.directory)?,
        ])
    }
}

/// Returns where the references of the configuration in a directory are resolved.
fn local_secrets(directory: &Path) -> LocalSecrets {
    let base = dr_config::base(directory);
    let secrets = LocalSecrets::new(&base);
    if base == directory {
        return secrets;
    }
    secrets.with_beside(directory.join(crate::kit::SECRETS))
}

/// Returns the directory of a configuration that may not be there: loading it says so.
fn directory(path: &Path) -> PathBuf {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    match path.parent() {
        Some(parent) if path.is_file() => parent.to_owned(),
        _ => path,
    }
}

/// Says that a name on the command line means nothing, and which one may have been meant.
pub(crate) fn unknown<'a, N: std::fmt::Display + 'a>(
    what: &str,
    written: &str,
    known: impl Iterator<Item = &'a N>,
) -> CommandError {
    let known: Vec<String> = known.map(ToString::to_string).collect();
    let error = CommandError::new(Exit::Usage, format!("there is no {what} `{written}`"));
    match closest(written, &known) {
        Some(near) => error.hint(format!(
            "did you mean `{near}`? there is {}",
            one_of(&known)
        )),
        None => error.hint(format!("there is {}", one_of(&known))),
    }
}
