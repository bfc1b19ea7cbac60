//! Watching the primary of every workload from the regions that it can be recovered in.
//!
//! What is found is a state, up, down or unknown, and never a failover: once a primary is down beyond doubt, an outage is
//! written into this region's store, with a plan for a person to decide about, and those whom the workload names are told.
//! Unknown is for when nothing else answers either: then it is our own network that is broken, and nothing is proposed.

mod looks;
mod report;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dr_config::Workload;
use dr_coordination::outage::{self, Mark, Outage};
use dr_coordination::register::EpochRecord;
use dr_jobs::engine::{Board, Condition};
use dr_model::detection::{Change, Detector, Disruption, PrimaryState, Round};
use dr_model::{Epoch, RegionName, WorkloadName};
use dr_provider::error::chain;
use dr_runbook::Site;
use futures::future::join_all;
use jiff::Timestamp;
use tokio::sync::watch;

use crate::error::Result;
use crate::wiring::Setup;
use looks::{Answer, Landmark, Looks};

/// How long the register may take to say who is primary; the last that was known counts until then.
const REGISTER_LIMIT: Duration = Duration::from_secs(1);

/// How often it is tried again to tell somebody who could not be told.
const TELL_AGAIN: Duration = Duration::from_secs(30);

/// The watch over all workloads that this region can recover.
pub(super) struct WatchPrimaries {
    region: RegionName,
    watches: Vec<Watch>,
    board: Arc<Board>,
    states: Mutex<BTreeMap<WorkloadName, Watched>>,
}

/// What the metrics say of one primary in another region.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watched {
    pub(super) state: PrimaryState,
    /// Rounds of looks since the daemon started, or since the primary left this region.
    pub(super) rounds: u64,
}

/// One workload.
struct Watch {
    name: WorkloadName,
    workload: Workload,
    site: Site,
    setup: Arc<Setup>,
    landmarks: BTreeMap<RegionName, Vec<Landmark>>,
}

/// What is known of the primary of one epoch.
struct Following {
    epoch: Epoch,
    detector: Detector,
    /// A disruption that is beyond doubt and not written down yet.
    unreported: Option<Disruption>,
    /// The outage that goes on.
    outage: Option<Outage>,
    /// When those who are to be told are told of it next; `None` once they were, or if nobody is.
    tell_at: Option<Duration>,
    /// Whether somebody was told of it.
    heard: bool,
    /// An outage that is over, and when: those who were told of it are to be told that.
    ended: Option<(Outage, Timestamp)>,
    /// When they are told next.
    tell_end_at: Duration,
}

impl WatchPrimaries {
    pub(super) fn new(setup: &Arc<Setup>, region: &RegionName, board: Arc<Board>) -> Result<Self> {
        let mut watches = Vec::new();
        for (name, workload) in setup.workloads_in(region) {
            let site = setup.site(name, workload)?;
            let regions = std::iter::once(&workload.home).chain(&workload.recovery);
            let landmarks = regions
                .map(|primary| (primary.clone(), setup.landmarks(workload, &site, primary)))
                .collect();
            watches.push(Watch {
                name: name.clone(),
                workload: workload.clone(),
                site,
                setup: Arc::clone(setup),
                landmarks,
            });
        }
        Ok(Self {
            region: region.clone(),
            watches,
            board,
            states: Mutex::default(),
        })
    }

    /// Returns how each primary in another region is.
    pub(super) fn states(&self) -> BTreeMap<WorkloadName, Watched> {
        let states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        states.clone()
    }

    fn set(&self, watch: &Watch, state: Option<PrimaryState>, condition: Condition) {
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        match state {
            Some(state) => {
                let rounds = states.get(&watch.name).map_or(0, |watched| watched.rounds) + 1;
                states.insert(watch.name.clone(), Watched { state, rounds })
            }
            None => states.remove(&watch.name),
        };
        drop(states);
        self.board
            .set(&format!("primary of {}", watch.name), condition);
    }

    /// Watches all of them until `stop` turns true.
    pub(super) async fn keep(&self, stop: watch::Receiver<bool>) {
        let watches = self.watches.iter();
        join_all(watches.map(|watch| self.keep_one(watch, stop.clone()))).await;
    }

    async fn keep_one(&self, watch: &Watch, mut stop: watch::Receiver<bool>) {
        let mut record = None;
        let mut following = None;
        while !*stop.borrow() {
            let began = watch.site.clock.elapsed();
            record = watch.newest(record).await;
            match &record {
                None => {
                    let why = "nobody can tell which region it is in".to_owned();
                    self.set(watch, Some(PrimaryState::Unknown), Condition::Unknown(why));
                }
                Some(record) if record.primary == self.region => {
                    following = None;
                    self.set(watch, None, Condition::Good("it is here".to_owned()));
                }
                Some(record) => self.round(watch, record, &mut following).await,
            }
            let spent = watch.site.clock.elapsed().saturating_sub(began);
            tokio::select! {
                () = tokio::time::sleep(watch.workload.detection.every.saturating_sub(spent)) => {}
                _stopped = stop.wait_for(|stop| *stop) => {}
            }
        }
    }

    /// Looks once, and does what follows from it.
    async fn round(&self, watch: &Watch, record: &EpochRecord, following: &mut Option<Following>) {
        if following
            .as_ref()
            .is_none_or(|known| known.epoch != record.epoch)
        {
            match self.begin(watch, record.epoch).await {
                Ok(new) => *following = Some(new),
                Err(error) => {
                    let why = format!("this region's store cannot be read: {}", chain(&error));
                    self.set(watch, Some(PrimaryState::Unknown), Condition::Unknown(why));
                    return;
                }
            }
        }
        let Some(known) = following else { return };
        let at = watch.site.clock.now();
        let looks = Looks::take(&watch.site, &record.primary).await;
        let (round, landmarks) = match looks.answer() {
            Answer::There => (Round::Answered, Vec::new()),
            Answer::Unasked => (Round::Unasked, Vec::new()),
            Answer::Silent => {
                let all = watch.landmarks.get(&record.primary);
                let answered = looks::ask(all.map_or(&[][..], Vec::as_slice)).await;
                let round = match answered.is_empty() {
                    true => Round::Unclear,
                    false => Round::Missed,
                };
                (round, answered)
            }
        };
        match known.detector.take(round, at) {
            Change::None => {}
            Change::WentDown(disruption) => known.unreported = Some(disruption),
            Change::CameBack => self.came_back(watch, known).await,
        }
        if known.detector.state() == PrimaryState::Down
            && let Some(disruption) = known.unreported
        {
            match self
                .report(watch, record, disruption, &looks, landmarks)
                .await
            {
                Ok(outage) => {
                    known.outage = Some(outage);
                    known.unreported = None;
                    known.tell_at = Some(Duration::ZERO);
                    known.heard = false;
                }
                Err(why) => {
                    let text = format!("{} does not answer, and {why}", record.primary);
                    self.set(watch, Some(PrimaryState::Down), Condition::Bad(text));
                    return;
                }
            }
        }
        // In the order in which it happened.
        self.tell_end(watch, known).await;
        self.tell(watch, known).await;
        let state = known.detector.state();
        self.set(
            watch,
            Some(state),
            condition(record, known, &looks, round, watch.has_landmark(record)),
        );
    }

    /// Begins to follow an epoch's primary; an outage that was written down before goes on.
    async fn begin(&self, watch: &Watch, epoch: Epoch) -> dr_provider::Result<Following> {
        let down_after: NonZeroU32 = watch.workload.detection.down_after;
        let store = watch.setup.stores.get(&self.region);
        let seen = match store {
            Some(store) => outage::newest(&**store, &watch.name, epoch).await?,
            None => None,
        };
        let ended = seen
            .as_ref()
            .and_then(|seen| Some((seen.outage.clone(), seen.untold_end?)));
        let open = seen.filter(|seen| !seen.ended);
        let detector = match &open {
            None => Detector::new(down_after),
            Some(seen) => Detector::during(
                down_after,
                Disruption {
                    last_answered_at: seen.outage.last_answered_at,
                    first_missed_at: seen.outage.first_missed_at,
                },
            ),
        };
        Ok(Following {
            epoch,
            detector,
            unreported: None,
            tell_at: open
                .as_ref()
                .and_then(|seen| (!seen.told).then_some(Duration::ZERO)),
            heard: open.as_ref().is_some_and(|seen| seen.told) && !watch.site.notifiers.is_empty(),
            outage: open.map(|seen| seen.outage),
            ended,
            tell_end_at: Duration::ZERO,
        })
    }

    async fn came_back(&self, watch: &Watch, known: &mut Following) {
        known.unreported = None;
        known.tell_at = None;
        let announced = std::mem::take(&mut known.heard);
        let (Some(outage), Some(store)) =
            (known.outage.take(), watch.setup.stores.get(&self.region))
        else {
            return;
        };
        let now = watch.site.clock.now();
        let ended = Mark::Ended { announced };
        if let Err(error) = outage::mark(&**store, &outage, ended, now).await {
            tracing::warn!(outage = outage.id(), error = %chain(&error), "its end could not be written down");
        }
        if announced {
            known.ended = Some((outage, now));
            known.tell_end_at = Duration::ZERO;
        }
    }
}

impl Watch {
    /// Returns the newest record that can be read, or the last one known.
    async fn newest(&self, last: Option<EpochRecord>) -> Option<EpochRecord> {
        let register = &self.site.register;
        match tokio::time::timeout(REGISTER_LIMIT, register.follow()).await {
            Ok(Ok(Some(record))) => return Some(record),
            // Its store may be lost with the primary: copies say who that was.
            Ok(_) | Err(_) if last.is_some() => return last,
            Ok(_) | Err(_) => {}
        }
        let copies = register.read_copies().await;
        let newest = copies.into_iter().filter_map(|copy| copy.newest.ok()?);
        newest.max_by_key(|record| record.epoch)
    }

    fn has_landmark(&self, record: &EpochRecord) -> bool {
        let landmarks = self.landmarks.get(&record.primary);
        landmarks.is_some_and(|landmarks| !landmarks.is_empty())
    }
}

/// Says in one line how the primary is.
fn condition(
    record: &EpochRecord,
    known: &Following,
    looks: &Looks,
    round: Round,
    has_landmark: bool,
) -> Condition {
    let primary = &record.primary;
    let since = known.detector.missed_since();
    let since = since.map_or_else(String::new, |since| format!(" since {since:.0}"));
    match (known.detector.state(), round) {
        (PrimaryState::Down, _) | (_, Round::Missed) if known.outage.is_some() => {
            let command = known
                .outage
                .as_ref()
                .map_or("", |outage| outage.proposal.command.as_str());
            Condition::Bad(format!(
                "{primary} does not answer{since}: `{command}` proposes what to do"
            ))
        }
        (_, Round::Unasked) if looks.is_empty() => Condition::Good(
            "nothing can be asked: the workload has neither databases nor checks".to_owned(),
        ),
        (_, Round::Unasked) => Condition::Unknown(format!(
            "{primary} cannot be asked: {}",
            looks.missed().join("; ")
        )),
        (_, Round::Unclear) if !has_landmark => Condition::Unknown(format!(
            "{primary} does not answer{since}, and nothing beside it can be asked: name `detection.landmarks`"
        )),
        (_, Round::Unclear) => Condition::Unknown(format!(
            "neither {primary} nor anything beside it answers{since}: our own network may be broken"
        )),
        (_, Round::Missed) => Condition::Unknown(format!(
            "{primary} does not answer{since}: {}",
            looks.missed().join("; ")
        )),
        (_, Round::Answered) => match looks.trouble().as_slice() {
            [] => Condition::Good(format!("{primary} answers")),
            // It is up, and whether it is well, those who look after the application know.
            trouble => Condition::Unknown(format!("{primary} answers, but {}", trouble.join("; "))),
        },
    }
}
