//! Bringing the cluster back from a store, into an empty directory.
//!
//! First everything is proven, then something is written: a base backup from which the log in the same store reaches the
//! target without a hole (R27). The files get the settings that make the server fetch the log from there, and the control
//! file, without which no server starts, its name last.

mod choose;
mod configuration;
mod damage;
mod delta;
mod directory;
mod end;
mod in_use;
mod lease;
mod log;
mod outside;
mod replayed;
mod room;
mod settings;
mod standby;
mod target;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use dr_coordination::chain::{self, Section, prove_readable};
use dr_model::{ExecutionId, Lsn, RegionName, SystemIdentifier, TimelineId};
use dr_provider::driver::{
    Existing, LogReach, LogStretch, Proof, Restore, RestorePlan, RestoreProgress, RestoreReport,
    RestoreRequest,
};
use dr_provider::error::chain as explain;
use dr_provider::{Error, ErrorKind, ObjectStore, Result};
use dr_repository::{BackupReader, Label};
use tokio::sync::watch;

use crate::archive::Held;
use crate::backup::Base;
use crate::driver::PostgresDriver;
use crate::register::patience;
use crate::wal::TimelineHistory;

pub(crate) use configuration::substitute;
pub(crate) use damage::{Damaged, Unrestored};
pub(crate) use directory::{CONTROL_FILE, check_scratch};
pub(crate) use settings::{TARGETS, quoted};
pub(crate) use standby::stretches_to;

use choose::Chosen;
use delta::Mark;
use directory::Beside;
use end::End;
pub(crate) use lease::leased;
pub(crate) use room::free_bytes;
use settings::{Ending, Purpose, Recovery};

/// What says in a data directory that it is not whole.
pub(crate) const MARK: &str = Mark::FILE;

const OPERATION: &str = "restore";

/// How often a way around damaged log is looked for.
const MOST_LOOKS: usize = 16;

#[async_trait]
impl Restore for PostgresDriver {
    async fn reaches(&self, region: &RegionName) -> Result<BTreeMap<String, LogReach>> {
        let store = self.store(region)?;
        let cluster = self.cluster_in(store, OPERATION).await?;
        let bases = self.bases(store, cluster).await?.usable;
        let reaches = self.reaches_of(store, cluster, &bases).await?;
        let named = |(label, reach): (Label, LogReach)| (label.to_string(), reach);
        Ok(reaches.into_iter().map(named).collect())
    }

    async fn plan(&self, request: &RestoreRequest) -> Result<RestorePlan> {
        let (mut decided, _) = self.decide(request, request.is_named).await?;
        self.verify_log(request, &mut decided).await?;
        Ok(decided.plan)
    }

    async fn restore(&self, request: &RestoreRequest) -> Result<RestoreReport> {
        if request.existing == Existing::Nothing {
            self.check_free(&request.directory).await?;
        }
        let (mut decided, reader) = self.decide(request, true).await?;
        let delta = request.existing != Existing::Nothing;
        self.verify_log(request, &mut decided).await?;
        let purpose = Purpose::Copy {
            port: request.port,
            instance: self.options().instances.get(&request.region),
        };
        let progress = request.progress.clone();
        self.write(
            &request.region,
            &request.directory,
            (decided, &reader),
            purpose,
            Ways {
                delta,
                progress,
                ..Ways::default()
            },
        )
        .await
    }
}

/// What a person does about a recovery point that is damaged.
const TAKE_ANOTHER: &str = "restore another recovery point (`--recovery-point`), or from the store of another region (`--in`)";

/// Says of damage, unless that is said already, that another recovery point may be taken.
fn take_another(error: Error) -> Error {
    match (error.kind(), error.hint()) {
        (ErrorKind::Corrupt, None) => error.with_hint(TAKE_ANOTHER),
        _ => error,
    }
}

/// How the files are written.
#[derive(Default)]
struct Ways {
    /// Whether what is there is restored over.
    delta: bool,
    /// The execution on whose behalf that is done, and what it leaves in the directory to be known by.
    note: Option<(ExecutionId, (&'static str, String))>,
    progress: Option<watch::Sender<RestoreProgress>>,
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
    /// Returns how far the log behind each recovery point goes; those are left out that have not even the log that they need themselves.
    pub(crate) async fn reaches_of(
        &self,
        store: &Arc<dyn ObjectStore>,
        cluster: SystemIdentifier,
        bases: &[Base],
    ) -> Result<BTreeMap<Label, LogReach>> {
        let since = bases.iter().map(Base::log_start).min();
        let held = Held::read(store, cluster, since.unwrap_or(Lsn::INVALID)).await?;
        let Some(newest) = held.newest_timeline() else {
            return Ok(BTreeMap::new());
        };
        let reach = |base: &Base| {
            // One that is no part of the newest history goes on along its own.
            let found = choose::prove(base.clone(), &held, newest)
                .or_else(|_| choose::prove(base.clone(), &held, base.source.timeline));
            let (_, reach) = found.ok()?;
            let hole = reach.hole.map(|hole| hole.to_string());
            let end = reach.end;
            Some((base.label.clone(), LogReach { end, hole }))
        };
        Ok(bases.iter().filter_map(reach).collect())
    }

    /// Looks at the directories that are to be written, before anything is.
    async fn check_target(
        &self,
        request: &RestoreRequest,
        decided: &Decided,
        reader: &BackupReader,
    ) -> Result<()> {
        let directory = &request.directory;
        let cluster = decided.base.source.system_identifier;
        let tablespaces = &decided.plan.tablespaces;
        let delta = request.existing != Existing::Nothing;
        if delta {
            let at = directory.clone();
            blocking(move || directory::check_place(&at)).await??;
        }
        match request.existing {
            Existing::Nothing => self.check_free(directory).await?,
            Existing::SameCluster => delta::check(directory, cluster, false)?,
            Existing::AnyCluster => delta::check(directory, cluster, true)?,
        }
        self.check_places(reader, directory, tablespaces, delta)
            .await
    }

    /// Makes sure that nothing stands in the directory that a person names.
    async fn check_free(&self, directory: &Path) -> Result<()> {
        let (at, configured) = (directory.to_owned(), self.configured_owners());
        blocking(move || directory::check_named(&at, &configured)).await?
    }

    /// Looks at where tablespaces go, and whether there is room for everything.
    async fn check_places(
        &self,
        reader: &BackupReader,
        directory: &Path,
        tablespaces: &BTreeMap<u32, PathBuf>,
        delta: bool,
    ) -> Result<()> {
        let (at, places, configured) = (
            directory.to_owned(),
            tablespaces.clone(),
            self.configured_owners(),
        );
        // A file system that hangs must not keep the thread from those who wait for no longer than they said.
        let looked = blocking(move || {
            if !places.is_empty() {
                in_use::check(&at, &places, &in_use::owners(configured))?;
            }
            outside::check(&at, &places, delta)
        });
        looked.await??;
        room::check(reader, directory, tablespaces, delta).await
    }

    /// Decides everything about a restore that a person asks for, and with `check_target` looks at where it goes. A recovery point that turns out
    /// not to be whole is passed over for another one, unless the person named it; nothing is written about it, because this may be a plan.
    async fn decide(
        &self,
        request: &RestoreRequest,
        check_target: bool,
    ) -> Result<(Decided, BackupReader)> {
        let mut damaged = Damaged::default();
        let decide = async |damaged: &Damaged| {
            let (decided, reader) = self.decide_without(request, damaged).await?;
            if check_target {
                // How much goes where may have to be read from it.
                let looked = self.check_target(request, &decided, &reader).await;
                looked.map_err(|error| Unrestored::of(&decided.base, take_another(error)))?;
            }
            let directory = request.is_named.then_some(&*request.directory);
            self.check_replay(&request.region, directory, &decided)
                .await?;
            Ok((decided, reader))
        };
        loop {
            match decide(&damaged).await {
                Err(Unrestored::Damaged { base, error })
                    if request.recovery_point.is_none() && !damaged.holds(&base.label) =>
                {
                    let why = explain(&error);
                    tracing::warn!(label = %base.label, "the recovery point cannot be restored, another one is looked for: {why}");
                    damaged.add(&base.label, why);
                }
                decided => return Ok(decided?),
            }
        }
    }

    /// Does so, passing over what was found damaged before.
    async fn decide_without(
        &self,
        request: &RestoreRequest,
        damaged: &Damaged,
    ) -> std::result::Result<(Decided, BackupReader), Unrestored> {
        let store = self.store(&request.region)?;
        let named = request.recovery_point.as_deref();
        let cluster = self.cluster_of_named(store, named, OPERATION).await?;
        let mut bases = self.bases(store, cluster).await?;
        damaged.mark(&mut bases);
        // What a recovery point needs begins where its log does.
        let since = bases.usable.iter().map(Base::log_start).min();
        let mut held = Held::read(store, cluster, since.unwrap_or(Lsn::INVALID)).await?;
        let mut looks = 0;
        let mut decided = loop {
            let (chosen, end) = self.choose(store, &bases, &held, request).await?;
            let history = held.history(chosen.reach.timeline)?;
            let decided = decided(chosen, end, history);
            // By the headers, which are many: only of the log that is going to be replayed.
            if held
                .prove((store, self.keys()), cluster, &decided.plan.log)
                .await?
            {
                break decided;
            }
            looks += 1;
            if looks == MOST_LOOKS {
                let why = format!(
                    "the log is damaged in {looks} places: {}",
                    held.damage().join("; ")
                );
                return Err(self.failed(OPERATION, why).into());
            }
        };
        decided.plan.notes.extend(held.damage().iter().cloned());
        self.leave_out_locked(store, &mut decided).await;
        let source = &decided.base.source;
        match outside::untold(source, &request.outside) {
            // Where nothing is going to be written yet, it is enough to know what will have to be said.
            Some((why, hint)) if !request.is_named => {
                decided.plan.notes.push(format!("{why}; {hint}"));
            }
            _ => {
                let directory = request.is_named.then_some(&*request.directory);
                let places = outside::places(source, &request.outside, directory);
                decided.plan.tablespaces =
                    places.map_err(|(why, hint)| self.invalid(OPERATION, why).with_hint(hint))?;
            }
        }
        let opened = self.open_whole(store, &decided.base).await;
        let reader = opened.map_err(|error| Unrestored::of(&decided.base, error))?;
        let packs = reader.packs().iter();
        decided.plan.pack_bytes = packs.map(|pack| pack.info.bytes).sum();
        let missing = configuration::missing(&reader).await;
        let missing =
            missing.map_err(|error| Unrestored::of(&decided.base, take_another(error)))?;
        if !missing.is_empty() {
            decided.plan.notes.push(format!(
                "the recovery point has no {}: in the restored directory there will be the least that a server starts with; \
                 put your own there before it is used for more",
                missing.join(", no ")
            ));
        }
        Ok((decided, reader))
    }

    /// Has the server given no more log than the target needs where what follows in the same segment is encrypted with a key that is not at
    /// hand: a server asks for whole segments.
    async fn leave_out_locked(&self, store: &Arc<dyn ObjectStore>, decided: &mut Decided) {
        let source = &decided.base.source;
        let (Some(last), Ending::Target { through, .. }) =
            (decided.plan.log.last(), &mut decided.ending)
        else {
            return;
        };
        let size = source.segment_bytes;
        let segment = size.start_of(Lsn(last.to.0.saturating_sub(1)));
        let behind = segment.advance(size.bytes()).min(*through);
        if behind <= last.to {
            return;
        }
        let section = Section::new(source.system_identifier, last.timeline, last.to, behind);
        // What else is wrong with it is found out when the server asks for it.
        let proof = prove_readable(&**store, section, self.keys(), patience()).await;
        if let Err(chain::Error::Locked { .. }) = proof {
            *through = last.to;
            decided.plan.log_end = last.to;
        }
    }

    /// Reads the log up to the target, if that is asked for: after everything else that may refuse the restore, because it takes longest.
    async fn verify_log(&self, request: &RestoreRequest, decided: &mut Decided) -> Result<()> {
        if !request.verify_log {
            return Ok(());
        }
        let source = &decided.base.source;
        let log = log::Log {
            store: Arc::clone(self.store(&request.region)?),
            keys: self.keys().clone(),
            cluster: source.system_identifier,
            size: source.segment_bytes,
        };
        log.verify(&decided.plan.log).await.map_err(|error| {
            let hint = "restore to a moment before it (`--at`), or from the store of another region (`--in`)";
            match error.kind() {
                ErrorKind::Corrupt | ErrorKind::NotFound => error.with_hint(hint),
                _ => error,
            }
        })?;
        decided.plan.log_verified = true;
        Ok(())
    }

    /// Restores what a person asks for as the region's next primary: with the settings and the port of its own server. Fails before
    /// it writes if less than `spare` bytes would be left of `free`. Takes none that is known to be `damaged`.
    pub(crate) async fn restore_next(
        &self,
        request: &RestoreRequest,
        free: u64,
        spare: u64,
        damaged: &Damaged,
    ) -> std::result::Result<RestoreReport, Unrestored> {
        directory::check(&request.directory)?;
        let (mut decided, reader) = self.decide_without(request, damaged).await?;
        let needed = decided.plan.recovery_point.database_bytes + spare;
        check_room(OPERATION, &request.directory, free, needed)?;
        self.check_replay(&request.region, Some(&request.directory), &decided)
            .await?;
        self.verify_log(request, &mut decided).await?;
        let purpose = Purpose::InPlace(self.instance_options(&request.region)?);
        let base = decided.base.clone();
        let written = self.write(
            &request.region,
            &request.directory,
            (decided, &reader),
            purpose,
            Ways::default(),
        );
        let written = written.await;
        written.map_err(|error| Unrestored::of(&base, error))
    }

    /// Decides about a restore as [`restore_next`](Self::restore_next) does, and does nothing.
    pub(crate) async fn could_be_restored(&self, request: &RestoreRequest) -> Result<()> {
        let (decided, _) = self.decide_without(request, &Damaged::default()).await?;
        self.check_replay(&request.region, Some(&request.directory), &decided)
            .await
    }

    /// Opens a recovery point and proves that it can be read: its manifest, its key, its packs. Reads none of its content.
    pub(crate) async fn open_whole(
        &self,
        store: &Arc<dyn ObjectStore>,
        base: &Base,
    ) -> Result<BackupReader> {
        let repository = self.repository(store, base.source.system_identifier)?;
        let opened = async {
            let reader = repository.open(&base.label).await?;
            reader.check_key()?;
            // By one listing of each backup that it refers to.
            reader.check_presence().await?;
            Ok::<_, dr_repository::Error>(reader)
        };
        opened.await.map_err(|error| take_another(error.into()))
    }

    /// Writes the directory.
    async fn write(
        &self,
        region: &RegionName,
        directory: &Path,
        (decided, reader): (Decided, &BackupReader),
        purpose: Purpose<'_>,
        ways: Ways,
    ) -> Result<RestoreReport> {
        let begun = self.clock().elapsed();
        let Decided {
            base,
            ending,
            timeline,
            plan,
        } = decided;
        let recovery = Recovery {
            label: base.label.to_string(),
            timeline,
            restore_command: self.restore_command(region, ending.through())?,
            ending,
        };
        let store = self.store(region)?;
        let repository = self.repository(store, base.source.system_identifier)?;
        let (execution, note) = ways.note.unzip();
        let work = async {
            let beside = Beside {
                signal: recovery.ending.signal(),
                settings: settings::settings(&recovery, &purpose),
                missing: configuration::missing(reader).await?,
                tablespaces: plan.tablespaces.clone(),
                progress: ways.progress,
                mark: Mark {
                    cluster: base.source.system_identifier,
                    execution,
                },
                delta: ways.delta,
                note,
            };
            directory::write(reader, directory, beside).await
        };
        let stats = leased(&repository, &base.label, self.clock(), work).await?;
        Ok(RestoreReport {
            plan,
            proof: Proof::Hashed,
            total_bytes: stats.total_bytes,
            written_bytes: stats.written_bytes,
            removed: stats.removed,
            took: self.clock().elapsed().saturating_sub(begun),
        })
    }
}

/// Does what waits for a file system on a thread that is for that.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Error::new(ErrorKind::Failed, OPERATION, "a directory").because(error))
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
    let log = log::since(&base, end.needed, history);
    let segments = |stretch: &LogStretch| {
        stretch
            .to
            .bytes_since(size.start_of(stretch.from))
            .div_ceil(size.bytes())
    };
    let mut notes = end.notes;
    if let Some(why) = &base.failure {
        notes.push(format!(
            "the recovery point may not be whole, and it is the one that was named or the only one that will do: {why}"
        ));
    }
    let damaged = source.damaged_pages.len() as u64 + source.more_damaged_pages;
    if damaged > 0 {
        let first: Vec<_> = source
            .damaged_pages
            .iter()
            .take(3)
            .map(ToString::to_string)
            .collect();
        notes.push(format!(
            "the recovery point holds {damaged} damaged pages of the database ({}{}), which are restored as they are: `dr recovery-point list` \
             shows whether an older one has none, for `--recovery-point`",
            first.join("; "),
            if damaged > first.len() as u64 { "; …" } else { "" }
        ));
    }
    let plan = RestorePlan {
        recovery_point: base.recovery_point(),
        pack_bytes: 0,
        passed_over,
        log_segments: log.iter().map(segments).sum(),
        log_bytes: log.iter().map(|one| one.to.bytes_since(one.from)).sum(),
        log,
        end: end.said,
        end_proven: end.proven,
        log_verified: false,
        log_end: end.ending.through().unwrap_or(reach.end),
        tablespaces: BTreeMap::new(),
        notes,
    };
    Decided {
        base,
        ending: end.ending,
        timeline: reach.timeline,
        plan,
    }
}

/// Fails if less is free for a place than it is going to need.
pub(crate) fn check_room(operation: &str, place: &Path, free: u64, needed: u64) -> Result<()> {
    if free >= needed {
        return Ok(());
    }
    let why = format!(
        "{} MiB are free, {} MiB are needed",
        free >> 20,
        needed.div_ceil(1 << 20)
    );
    let subject = place.display().to_string();
    let error = Error::new(ErrorKind::Full, operation, subject).because(why);
    Err(error.with_hint("make room there, or name a place on another file system"))
}
