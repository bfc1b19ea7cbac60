//! `check-readiness`: makes and tries the failover plan of every workload that this region can recover, again and again.
//!
//! At most every [`Readiness::every`](dr_config::Readiness::every) and sooner while a failover would not come to its end, and
//! whenever what an assessment rests on has changed: until the next one it is stale. A job or a receiver that ceases to work is
//! a reason to look at once. Writes to no register and no store.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dr_jobs::engine::{Board, Condition};
use dr_model::{RegionName, WorkloadName};
use futures::future::join_all;
use jiff::Timestamp;
use rand::RngExt;
use tokio::sync::watch;

use crate::commands::status::Verdict;
use crate::error::Result;
use crate::readiness::{self, Basis, Readiness, Standpoint};
use crate::wiring::Setup;

/// The job's name.
pub(crate) const NAME: &str = "check-readiness";

/// The first wait after an assessment that found something wrong; doubled with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest wait after one: what was put right by hand is not to be an alarm for minutes more.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How often it is looked whether the epoch has changed.
const TICK: Duration = Duration::from_secs(5);

/// How many ticks pass between two looks at what costs more: the files of the configuration, and the log that is missing.
const TICKS_A_LOOK: u32 = 12;

/// How long a look for changes may take.
const LIMIT: Duration = Duration::from_secs(5);

/// What is known of one workload.
#[derive(Clone, Debug)]
pub(super) struct Known {
    /// The newest assessment; `None` while the primary is in this region.
    pub(super) readiness: Option<Readiness>,
    /// What has changed since, and when that was seen.
    pub(super) stale: Option<(Timestamp, Vec<String>)>,
}

/// The job, for all workloads that this region can recover.
pub(super) struct CheckReadiness {
    setup: Arc<Setup>,
    config: PathBuf,
    region: RegionName,
    board: Arc<Board>,
    known: Mutex<BTreeMap<WorkloadName, Known>>,
}

impl CheckReadiness {
    pub(super) fn new(
        setup: &Arc<Setup>,
        config: &Path,
        region: &RegionName,
        board: Arc<Board>,
    ) -> Self {
        Self {
            setup: Arc::clone(setup),
            config: config.to_owned(),
            region: region.clone(),
            board,
            known: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<WorkloadName, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns what is known of every workload.
    pub(super) fn known(&self) -> BTreeMap<WorkloadName, Known> {
        self.lock().clone()
    }

    /// Returns the workloads that have a place in this region.
    pub(super) fn workloads(&self) -> impl Iterator<Item = &WorkloadName> {
        let workloads = self.setup.config.workloads.iter();
        workloads
            .filter(|(_, workload)| {
                workload.home == self.region || workload.recovery.contains(&self.region)
            })
            .map(|(name, _)| name)
    }

    /// Looks after all of them until `stop` turns true.
    pub(super) async fn keep(&self, stop: watch::Receiver<bool>) {
        join_all(
            self.workloads()
                .map(|name| self.keep_one(name, stop.clone())),
        )
        .await;
    }

    async fn keep_one(&self, name: &WorkloadName, mut stop: watch::Receiver<bool>) {
        let every = match self.setup.workload(name) {
            Ok(workload) => workload.readiness.every,
            Err(_) => return,
        };
        let mut pause = FIRST_PAUSE;
        while !*stop.borrow() {
            // From before the look, so that what fails meanwhile is looked at again.
            let failures = self.board.failures();
            let ready = tokio::select! {
                checked = self.check(name) => matches!(checked, Ok(known) if known.is_fine()),
                // Whoever takes over waits for the end of this, and looks itself.
                _stopped = stop.wait_for(|stop| *stop) => return,
            };
            let wait = if ready {
                pause = FIRST_PAUSE;
                // So that many workloads do not look all at once.
                every.mul_f64(rand::rng().random_range(0.8..=1.0))
            } else {
                let wait = pause.min(every);
                pause = (wait * 2).min(LONGEST_PAUSE);
                wait
            };
            let until = self.setup.clock.elapsed() + wait;
            let mut ticks = 0;
            loop {
                let left = until.saturating_sub(self.setup.clock.elapsed());
                if left.is_zero() {
                    break;
                }
                tokio::select! {
                    () = tokio::time::sleep(left.min(TICK)) => {}
                    _stopped = stop.wait_for(|stop| *stop) => return,
                }
                ticks += 1;
                // A store that takes no writes any more is found by whoever writes to it.
                if self.board.failures() != failures {
                    break;
                }
                let changed = tokio::select! {
                    changed = self.has_changed(name, ticks % TICKS_A_LOOK == 0) => changed,
                    _stopped = stop.wait_for(|stop| *stop) => return,
                };
                if changed {
                    break;
                }
            }
        }
    }

    /// Assesses a workload now, and writes its line on the board.
    pub(super) async fn check(&self, name: &WorkloadName) -> Result<Known> {
        let workload = self.setup.workload(name)?;
        let look = readiness::assess(
            &self.setup,
            name,
            workload,
            &self.region,
            Standpoint::Inside,
        );
        let readiness = match look.await {
            Ok(readiness) => readiness,
            Err(error) => {
                let why = error.message.clone();
                self.board.set(&task(name), Condition::Unknown(why));
                return Err(error);
            }
        };
        let mut known = Known {
            readiness,
            stale: None,
        };
        // This daemon goes on with the configuration that it was started with.
        if let Some(readiness) = &known.readiness {
            let files = self.files();
            if files.is_some() && files != readiness.basis.configuration {
                let now = Basis {
                    configuration: files,
                    ..Basis::default()
                };
                let before = self.lock().get(name).and_then(|known| known.stale.clone());
                let since = before.map_or_else(|| self.setup.clock.now(), |(since, _)| since);
                known.stale = Some((since, readiness.basis.changes(&now)));
            }
        }
        self.lock().insert(name.clone(), known.clone());
        self.board.set(&task(name), known.condition());
        Ok(known)
    }

    /// Returns the digest of the configuration's files as they are now; `None` if they cannot be used.
    fn files(&self) -> Option<String> {
        let loaded = Setup::load(&self.config).ok()?;
        Some(loaded.config.digest().to_hex().to_string())
    }

    /// Looks whether anything has changed that an assessment rests on; then it is stale until the next one.
    async fn has_changed(&self, name: &WorkloadName, thorough: bool) -> bool {
        let Some(before) = self.lock().get(name).cloned() else {
            return false;
        };
        let (Ok(workload), Some(readiness)) = (self.setup.workload(name), &before.readiness) else {
            // The primary is here; once it is not, the epoch is another.
            return before.readiness.is_none() && !self.has_primary(name).await;
        };
        let register = self.setup.register(name, workload);
        let record = tokio::time::timeout(LIMIT, register.follow()).await;
        let epoch = record.ok().and_then(|read| read.ok()).flatten();
        let mut now = Basis {
            configuration: readiness.basis.configuration.clone(),
            epoch: epoch.map(|record| record.epoch),
            missing: None,
        };
        if thorough {
            now.configuration = self.files();
            now.missing = self.missing(name).await;
        }
        let changes = readiness.basis.changes(&now);
        let told = before
            .stale
            .as_ref()
            .is_some_and(|(_, all)| *all == changes);
        if changes.is_empty() || told {
            return false;
        }
        let stale = Known {
            stale: Some((self.setup.clock.now(), changes)),
            ..before
        };
        self.board.set(&task(name), stale.condition());
        self.lock().insert(name.clone(), stale);
        true
    }

    async fn has_primary(&self, name: &WorkloadName) -> bool {
        let Ok(workload) = self.setup.workload(name) else {
            return true;
        };
        let register = self.setup.register(name, workload);
        match tokio::time::timeout(LIMIT, register.follow()).await {
            Ok(Ok(Some(record))) => record.primary == self.region,
            _ => true,
        }
    }

    /// Returns the log that is known to be missing in this region's store; `None` if that could not be seen.
    async fn missing(&self, name: &WorkloadName) -> Option<BTreeSet<String>> {
        let drivers = self.setup.drivers(name, self.setup.workload(name).ok()?);
        let mut all = BTreeSet::new();
        for driver in drivers.ok()?.values() {
            let look = driver.observe(std::slice::from_ref(&self.region));
            let facts = tokio::time::timeout(LIMIT, look).await.ok()?;
            let log = facts.regions.get(&self.region)?.log.as_ref().ok()?;
            all.extend(log.iter().flat_map(|log| log.missing.iter().cloned()));
        }
        Some(all)
    }
}

/// Returns the name of a workload's line on the board.
fn task(name: &WorkloadName) -> String {
    format!("readiness {name}")
}

impl Known {
    /// Tells whether a failover would come to its end as far as anybody can tell, or is not for this region.
    fn is_fine(&self) -> bool {
        let readiness = self.readiness.as_ref();
        readiness.is_none_or(|readiness| readiness.verdict == Verdict::Ok)
    }

    /// Says it in one line.
    pub(super) fn describe(&self) -> String {
        let Some(readiness) = &self.readiness else {
            return "the primary is here".to_owned();
        };
        let text = readiness.describe();
        match &self.stale {
            None => text,
            Some((since, changes)) => {
                format!(
                    "stale since {since:.0}: {}; before: {text}",
                    changes.join("; ")
                )
            }
        }
    }

    fn condition(&self) -> Condition {
        let text = self.describe();
        match &self.readiness {
            None => Condition::Good(text),
            Some(readiness) => match readiness.verdict {
                Verdict::Breach => Condition::Bad(text),
                Verdict::Ok if self.stale.is_none() => Condition::Good(text),
                Verdict::Ok | Verdict::Unknown => Condition::Unknown(text),
            },
        }
    }
}
