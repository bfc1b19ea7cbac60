//! Bringing the cluster back from a store, into an empty directory.
//!
//! First everything is proven, then something is written: a base backup from which the log in the same store reaches the
//! target without a hole (R27). The files get the settings that make the server fetch the log from there, and the control
//! file, without which no server starts, its name last.

mod choose;
mod directory;
mod settings;
mod target;

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use dr_model::{Lsn, RegionName};
use dr_provider::driver::{Proof, Restore, RestoreReport, RestoreRequest};
use dr_provider::{Error, ErrorKind, Result};

use crate::actions::Log;
use crate::archive::Held;
use crate::backup::Base;
use crate::driver::PostgresDriver;

use choose::Chosen;
use settings::{Ending, Recovery};

const OPERATION: &str = "restore";

#[async_trait]
impl Restore for PostgresDriver {
    async fn restore(&self, request: &RestoreRequest) -> Result<RestoreReport> {
        directory::check(&request.directory)?;
        let store = self.store(&request.region)?;
        let cluster = self.cluster_in(store, OPERATION).await?;
        let bases = self.bases(store, cluster).await?;
        // What a recovery point needs begins where its log does.
        let since = bases.usable.iter().map(Base::log_start).min();
        let held = Held::read(store, cluster, since.unwrap_or(Lsn::INVALID)).await?;
        let (chosen, ending) = self.choose(store, bases, &held, &request.target).await?;
        self.write(&request.region, &request.directory, chosen, ending)
            .await
    }
}

impl PostgresDriver {
    /// Restores recovery point `label` as a standby that replays `log` from the store of `region`: what a failover
    /// promotes when no standby is left.
    ///
    /// Proves before it writes that the store holds all of `log` since the recovery point.
    pub(crate) async fn restore_standby(
        &self,
        region: &RegionName,
        log: Log,
        label: &str,
        directory: &Path,
    ) -> Result<RestoreReport> {
        if !self.host(region)?.is_local() {
            return Err(self.failed(
                OPERATION,
                format!("the host in {region} is not this machine"),
            ));
        }
        directory::check(directory)?;
        let store = self.store(region)?;
        let bases = self.bases(store, log.system_identifier).await?;
        let Some(base) = bases
            .usable
            .into_iter()
            .find(|base| base.label.as_str() == label)
        else {
            return Err(
                Error::new(ErrorKind::NotFound, OPERATION, self.resource().to_string()).because(
                    format!(
                        "{} holds no usable recovery point {label}",
                        store.location()
                    ),
                ),
            );
        };
        let held = Held::read(store, log.system_identifier, base.log_start()).await?;
        let chosen = choose::prove(base, &held, log.timeline)
            .and_then(|(base, reach)| match &reach.hole {
                Some(hole) => Err(hole.to_string()),
                None => Ok(Chosen {
                    base,
                    reach,
                    passed_over: Vec::new(),
                }),
            })
            .map_err(|why| self.failed(OPERATION, format!("recovery point {label}: {why}")))?;
        let sealed = self.seal_of(store, log).await?;
        self.write(
            region,
            directory,
            chosen,
            Ending::Standby { through: sealed },
        )
        .await
    }

    /// Writes the directory.
    async fn write(
        &self,
        region: &RegionName,
        directory: &Path,
        chosen: Chosen,
        ending: Ending,
    ) -> Result<RestoreReport> {
        let begun = self.clock().elapsed();
        let Chosen {
            base,
            reach,
            passed_over,
        } = chosen;
        if !base.source.tablespaces.is_empty() {
            let places: Vec<&str> = base
                .source
                .tablespaces
                .values()
                .map(String::as_str)
                .collect();
            return Err(Error::new(
                ErrorKind::Unsupported,
                OPERATION,
                self.resource().to_string(),
            )
            .because(format!(
                "recovery point {} has tablespaces ({}), and where they go cannot be said yet",
                base.label,
                places.join(", ")
            )));
        }
        let recovery = Recovery {
            label: base.label.to_string(),
            timeline: reach.timeline,
            restore_command: self.restore_command(region, ending.through())?,
            ending,
        };
        let settings = settings::settings(&recovery, self.options().instances.get(region));
        let store = self.store(region)?;
        let repository = self.repository(store, base.source.system_identifier)?;
        let reader = repository.open(&base.label).await?;
        let stats = directory::write(&reader, directory, &recovery, settings).await?;
        Ok(RestoreReport {
            recovery_point: base.recovery_point(),
            proof: Proof::Hashed,
            passed_over,
            timeline: reach.timeline,
            log_end: recovery.ending.through().unwrap_or(reach.end),
            written_bytes: stats.written_bytes,
            took: self.clock().elapsed().saturating_sub(begun),
        })
    }

    /// Returns where a chain was sealed, if it was.
    async fn seal_of(
        &self,
        store: &Arc<dyn dr_provider::ObjectStore>,
        log: Log,
    ) -> Result<Option<Lsn>> {
        let chain = dr_coordination::chain::ChainId::from(log);
        let tail = dr_coordination::chain::find_tail(&**store, &chain, crate::register::patience());
        Ok(tail
            .await?
            .filter(|tail| tail.seal.is_some())
            .map(|tail| tail.end))
    }
}
