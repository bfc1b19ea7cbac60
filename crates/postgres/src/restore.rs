//! Bringing the cluster back from a store, into an empty directory.
//!
//! First everything is proven, then something is written: a base backup from which the log in the same store reaches the
//! target without a hole (R27). The files get the settings that make the server fetch the log from there, and the control
//! file, without which no server starts, its name last.

mod choose;
mod directory;
mod end;
mod log;
mod settings;
mod target;

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use dr_model::{Lsn, RegionName, TimelineId};
use dr_provider::driver::{LogStretch, Proof, Restore, RestorePlan, RestoreReport, RestoreRequest};
use dr_provider::{Error, ErrorKind, Result};

use crate::actions::Log;
use crate::archive::Held;
use crate::backup::Base;
use crate::driver::PostgresDriver;
use crate::wal::TimelineHistory;

use choose::Chosen;
use end::End;
use log::stretches;
use settings::{Ending, Recovery};

const OPERATION: &str = "restore";

#[async_trait]
impl Restore for PostgresDriver {
    async fn plan(&self, request: &RestoreRequest) -> Result<RestorePlan> {
        Ok(self.decide(request).await?.plan)
    }

    async fn restore(&self, request: &RestoreRequest) -> Result<RestoreReport> {
        directory::check(&request.directory)?;
        let decided = self.decide(request).await?;
        self.write(&request.region, &request.directory, decided)
            .await
    }
}

/// What was decided before anything is written.
struct Decided {
    base: Base,
    ending: Ending,
    /// The timeline that is followed.
    timeline: TimelineId,
    plan: RestorePlan,
}

impl PostgresDriver {
    /// Decides everything about a restore that a person asks for.
    async fn decide(&self, request: &RestoreRequest) -> Result<Decided> {
        let store = self.store(&request.region)?;
        let cluster = self.cluster_in(store, OPERATION).await?;
        let bases = self.bases(store, cluster).await?;
        // What a recovery point needs begins where its log does.
        let since = bases.usable.iter().map(Base::log_start).min();
        let held = Held::read(store, cluster, since.unwrap_or(Lsn::INVALID)).await?;
        let (chosen, end) = self.choose(store, bases, &held, request).await?;
        let history = held.history(chosen.reach.timeline)?;
        Ok(decided(chosen, end, history))
    }

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
        let end = End {
            ending: Ending::Standby { through: sealed },
            said: "by a promotion".to_owned(),
            needed: sealed.unwrap_or(chosen.reach.end),
            proven: true,
            notes: Vec::new(),
        };
        let decided = decided(chosen, end, held.history(log.timeline)?);
        self.write(region, directory, decided).await
    }

    /// Writes the directory.
    async fn write(
        &self,
        region: &RegionName,
        directory: &Path,
        decided: Decided,
    ) -> Result<RestoreReport> {
        let begun = self.clock().elapsed();
        let Decided {
            base,
            ending,
            timeline,
            plan,
        } = decided;
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
            timeline,
            restore_command: self.restore_command(region, ending.through())?,
            ending,
        };
        let settings = settings::settings(&recovery, self.options().instances.get(region));
        let store = self.store(region)?;
        let repository = self.repository(store, base.source.system_identifier)?;
        let reader = repository.open(&base.label).await?;
        let stats = directory::write(&reader, directory, &recovery, settings).await?;
        Ok(RestoreReport {
            plan,
            proof: Proof::Hashed,
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

/// Puts together what a plan shows.
fn decided(chosen: Chosen, end: End, history: &TimelineHistory) -> Decided {
    let Chosen {
        base,
        reach,
        passed_over,
    } = chosen;
    let source = &base.source;
    let size = source.segment_bytes;
    let log = stretches(history, source.timeline, base.log_start(), end.needed, size);
    let segments = |stretch: &LogStretch| {
        stretch
            .to
            .bytes_since(size.start_of(stretch.from))
            .div_ceil(size.bytes())
    };
    let plan = RestorePlan {
        recovery_point: base.recovery_point(),
        passed_over,
        log_segments: log.iter().map(segments).sum(),
        log_bytes: log.iter().map(|one| one.to.bytes_since(one.from)).sum(),
        log,
        end: end.said,
        end_proven: end.proven,
        log_end: end.ending.through().unwrap_or(reach.end),
        notes: end.notes,
    };
    Decided {
        base,
        ending: end.ending,
        timeline: reach.timeline,
        plan,
    }
}
