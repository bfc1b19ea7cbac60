//! Every shipped runbook at every journal boundary: who dies there is followed by another machine, and the world ends up
//! as it does undisturbed. Every effect of every runbook going wrong in every way: what is stuck is gone on with.

use std::collections::BTreeMap;
use std::sync::Arc;

use dr_config::Runbook;
use dr_coordination::register::EpochRecord;
use dr_model::{Clock, Lsn, RegionName};
use dr_provider::driver::RestoreTarget;
use dr_provider::traffic::TrafficState;
use rstest::rstest;

use super::crash::mortal_site;
use super::runs::planned_by;
use super::world::{
    Everything, Fault, east, runbook, shipped, shipped_failback, shipped_planned, shipped_recover,
    shipped_restore, shipped_undo, west,
};
use crate::events::Silent;
use crate::outcome::{State, StepState};
use crate::proof::ProofName;
use crate::request::{Request, Rung};
use crate::site::Site;
use crate::{Error, Report, abort, execute, executions, resume};

/// A shipped runbook, and the world that it is for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Case {
    FailoverRegion,
    FailoverRegionByRestore,
    /// Of a region out of sight, whose primary runs under a guard.
    FailoverRegionByItself,
    /// With the steps that no shipped runbook uses.
    OwnSteps,
    FailoverPlanned,
    FailbackRegion,
    UndoMove,
    /// Of a database that died, in its own region.
    RecoverComponent,
    /// To a moment that lies behind.
    RestoreDatabase,
}

/// A planned move with the steps that no shipped runbook uses.
const OWN_STEPS: &str = "\
version: 1
name: own-steps
summary: A planned move with steps of one's own.
steps:
  - { id: assess, uses: assess-region }
  - { id: gate, uses: check-data-loss }
  - { id: epoch, uses: open-epoch }
  - { id: quiet, uses: stop-service }
  - { id: stop, uses: stop-writes }
  - { id: seal, uses: seal-wal }
  - { id: promote, uses: promote-database }
  - { id: settle, uses: wait, with: { for: 30s } }
  - { id: warm, uses: run-command, with: { on: ledger, run: [warm-up] } }
  - { id: serve, uses: start-service }
";

impl Case {
    pub(super) async fn world(self) -> Everything {
        let world = Everything::new().await;
        if self == Self::FailoverRegionByItself {
            world.arm(10).await;
            world.state().left_reachable = false;
        }
        world.state().left_serving = self != Self::FailoverRegion;
        world.state().left_running = matches!(
            self,
            Self::OwnSteps
                | Self::FailoverPlanned
                | Self::FailbackRegion
                | Self::UndoMove
                | Self::RestoreDatabase
        );
        world
    }

    pub(super) fn runbook(self) -> Runbook {
        match self {
            Self::FailoverRegion | Self::FailoverRegionByRestore | Self::FailoverRegionByItself => {
                shipped()
            }
            Self::OwnSteps => runbook(OWN_STEPS).unwrap(),
            Self::FailoverPlanned | Self::UndoMove => shipped_planned(),
            Self::FailbackRegion => shipped_failback(),
            Self::RecoverComponent => shipped_recover(),
            Self::RestoreDatabase => shipped_restore(),
        }
    }

    /// The region in whose store the journal of the runbook is.
    pub(super) fn store(self) -> RegionName {
        match self {
            Self::UndoMove | Self::RecoverComponent | Self::RestoreDatabase => east(),
            _ => west(),
        }
    }

    fn is_in_place(self) -> bool {
        matches!(self, Self::RecoverComponent | Self::RestoreDatabase)
    }

    pub(super) fn request(self) -> Request {
        if self.is_in_place() {
            let name = "before".to_owned();
            return Request {
                target: (self == Self::RestoreDatabase).then_some(RestoreTarget::Name(name)),
                ..Request::new(east())
            };
        }
        Request {
            rung: (self == Self::FailoverRegionByRestore).then_some(Rung::Restore),
            ..Request::new(west())
        }
    }

    /// Executes the runbook; `None` if the process died before its end.
    async fn run(self, world: &Everything, site: Site) -> Option<Report> {
        if self == Self::UndoMove {
            let moved = self.stuck_move(world).await;
            let undo = shipped_undo();
            let aborted = abort(Arc::new(site), &moved, "no", &undo, &Silent).await;
            return aborted.ok()?.undone_by;
        }
        let plan = planned_by(world, &self.runbook(), &self.request()).await;
        execute(Arc::new(site), plan, &Silent).await.ok()
    }

    /// Leaves a move behind that came to no promotion: what is to be undone.
    pub(super) async fn stuck_move(self, world: &Everything) -> dr_model::ExecutionId {
        world.state().left_end = Lsn(0x6000);
        let plan = planned_by(world, &self.runbook(), &self.request()).await;
        let site = Arc::new(world.site("laptop"));
        let report = execute(site, plan, &Silent).await.unwrap();
        assert_eq!(report.state, State::Stuck);
        report.execution
    }

    /// Goes on with whatever is left, from another machine, until nothing is.
    async fn recover(self, world: &Everything) -> Option<Report> {
        let mut last = None;
        for _ in 0..4 {
            let clock: Arc<dyn Clock> = world.clock.clone();
            let (all, unseen) = executions::list(&world.stores, &clock).await;
            assert_eq!(unseen, Vec::<String>::new());
            let ours = |found: &&executions::Summary| found.to == self.store();
            let head = world.register().read().await.unwrap().unwrap();
            let open = all.iter().filter(|found| found.may_go_on(&head));
            let open: Vec<_> = open.collect();
            let Some(next) = open.iter().copied().find(ours) else {
                // The move itself is still there to be called off, if nobody has begun to undo it.
                let Some(moved) = open.first() else {
                    return last;
                };
                let site = Arc::new(world.site("desk"));
                let undo = shipped_undo();
                let aborted = abort(site, &moved.execution, "no", &undo, &Silent).await;
                last = aborted.unwrap().undone_by;
                continue;
            };
            let site = Arc::new(world.site("desk"));
            match resume(site, &next.execution, "it died", vec![], &Silent).await {
                Ok(report) if report.state.is_final() => last = Some(report),
                Ok(report) => last = Some(report),
                Err(Error::Over { .. }) => return last,
                Err(error) => panic!("{error}"),
            }
        }
        last
    }
}

/// What a runbook comes to, without what depends on when it happened.
#[derive(Debug, PartialEq)]
pub(super) struct Outcome {
    state: Option<State>,
    rung: Option<Rung>,
    fence: Option<ProofName>,
    rpa: Option<f64>,
    steps: Vec<(String, StepState)>,
    /// How often each effect was had; of those that may be had more than once, that they were.
    pub(super) effects: BTreeMap<String, usize>,
    pub(super) records: Vec<(u64, RegionName, String)>,
    primary: Option<&'static str>,
    pub(super) traffic: TrafficState,
    pub(super) flags: [bool; 5],
}

pub(super) async fn outcome(world: &Everything, report: Option<&Report>) -> Outcome {
    let records = world.register().read_all().await.unwrap();
    let records = records.iter().map(|record: &EpochRecord| {
        let claims = serde_json::to_string(&record.clusters).unwrap();
        (record.epoch.0, record.primary.clone(), claims)
    });
    let state = world.state();
    let mut effects = BTreeMap::new();
    for (name, _) in &state.effects {
        let count = effects.entry(name.clone()).or_insert(0);
        *count = match name.as_str() {
            // At least once, by contract.
            "notify" | "warm-up" => 1,
            _ => *count + 1,
        };
    }
    let steps = report.iter().flat_map(|report| &report.steps);
    Outcome {
        state: report.map(|report| report.state),
        rung: report.map(|report| report.rung),
        fence: report.map(|report| report.fence),
        rpa: report.and_then(|report| report.rpa_seconds),
        steps: steps.map(|step| (step.id.0.clone(), step.state)).collect(),
        effects,
        records: records.collect(),
        primary: state.primary_here,
        traffic: state.traffic.clone(),
        flags: [
            state.sealed,
            state.serving,
            state.left_running,
            state.left_serving,
            state.left_follows,
        ],
    }
}

pub(super) async fn undisturbed(case: Case) -> Outcome {
    let world = case.world().await;
    let report = case.run(&world, world.site("laptop")).await.unwrap();
    assert_eq!(report.state, State::Completed, "{report:#?}");
    outcome(&world, Some(&report)).await
}

#[rstest]
#[case(Case::FailoverRegion, 10)]
#[case(Case::FailoverRegionByRestore, 10)]
#[case(Case::FailoverRegionByItself, 11)]
#[case(Case::OwnSteps, 10)]
#[case(Case::FailoverPlanned, 12)]
#[case(Case::FailbackRegion, 12)]
#[case(Case::UndoMove, 4)]
#[case(Case::RecoverComponent, 5)]
#[case(Case::RestoreDatabase, 9)]
#[tokio::test(start_paused = true)]
async fn whoever_dies_anywhere_is_followed_to_the_same_end(
    #[case] case: Case,
    #[case] at_least: usize,
) {
    let expected = undisturbed(case).await;
    let mut deaths = 0;
    for lands in [false, true] {
        for last in 1.. {
            let world = case.world().await;
            let site = mortal_site(&world, &case.store(), last, lands);
            if case.run(&world, site).await.is_some() {
                break;
            }
            deaths += 1;
            let at = format!("{case:?}, death {last}, landed: {lands}");
            let Some(report) = case.recover(&world).await else {
                let clock: Arc<dyn Clock> = world.clock.clone();
                let (all, _) = executions::list(&world.stores, &clock).await;
                let to = if case.is_in_place() { east() } else { west() };
                match all.iter().find(|found| found.to == to) {
                    // It died before anybody could know of it, and so before it did anything.
                    None => {
                        assert_eq!((last, lands), (1, false), "{at}");
                        assert_eq!(world.state().effects, [], "{at}");
                    }
                    // Only its last word was lost on the way back to it: all is done.
                    Some(_) => {
                        let is = outcome(&world, None).await;
                        assert_eq!(is.effects, expected.effects, "{at}");
                        assert_eq!(is.records, expected.records, "{at}");
                        assert_eq!(is.traffic, expected.traffic, "{at}");
                        assert_eq!(is.flags, expected.flags, "{at}");
                    }
                }
                continue;
            };
            assert_eq!(outcome(&world, Some(&report)).await, expected, "{at}");
        }
    }
    assert!(deaths >= 2 * at_least, "{deaths}");
}

/// Dies, and whoever follows dies as well, at the same place of what is left: two in a row lose no more than one.
#[rstest]
#[case(Case::FailoverRegion)]
#[case(Case::FailoverPlanned)]
#[tokio::test(start_paused = true)]
async fn whoever_follows_may_die_too(#[case] case: Case) {
    let expected = undisturbed(case).await;
    for last in 2.. {
        let world = case.world().await;
        let site = mortal_site(&world, &case.store(), last, true);
        if case.run(&world, site).await.is_some() {
            break;
        }
        let clock: Arc<dyn Clock> = world.clock.clone();
        let (all, _) = executions::list(&world.stores, &clock).await;
        for second in 1..=3 {
            let id = &all[0].execution;
            let site = mortal_site(&world, &case.store(), second, second % 2 == 0);
            // It may come to its end.
            let _ended = resume(Arc::new(site), id, "it died", vec![], &Silent).await;
        }
        let report = case.recover(&world).await;
        let is = outcome(&world, report.as_ref()).await;
        assert_eq!(is.effects, expected.effects, "{case:?}, death {last}");
        assert_eq!(is.records, expected.records, "{case:?}, death {last}");
        assert_eq!(is.flags, expected.flags, "{case:?}, death {last}");
        assert_eq!(is.traffic, expected.traffic, "{case:?}, death {last}");
    }
}

#[rstest]
#[tokio::test(start_paused = true)]
async fn whatever_goes_wrong_once_is_put_right(
    #[values(
        Case::FailoverRegion,
        Case::FailoverRegionByRestore,
        Case::FailoverRegionByItself,
        Case::OwnSteps,
        Case::FailoverPlanned,
        Case::FailbackRegion,
        Case::UndoMove,
        Case::RecoverComponent,
        Case::RestoreDatabase
    )]
    case: Case,
    #[values(
        Fault::Definite,
        Fault::Unavailable,
        Fault::AnswerLost,
        Fault::RequestLost,
        Fault::Hang
    )]
    fault: Fault,
) {
    let expected = undisturbed(case).await;
    for effect in expected.effects.keys() {
        // What the move does that is undone happens before.
        if case == Case::UndoMove && ["shut-down", "seal-chain"].contains(&effect.as_str()) {
            continue;
        }
        let world = case.world().await;
        world.script(effect, [fault]);
        let first = case.run(&world, world.site("laptop")).await.unwrap();
        let at = format!("{case:?}, {fault:?} of {effect}");
        let last = match first.state.is_final() {
            true => first,
            false => {
                let stuck = first.stuck.as_ref().unwrap();
                assert!(!stuck.remedy.is_empty(), "{at}");
                case.recover(&world).await.unwrap()
            }
        };
        let is = outcome(&world, Some(&last)).await;
        // What is proven before anything is changed ends it there.
        if effect == "prepare" && last.state == State::Failed {
            assert_eq!((is.records.len(), is.effects.len()), (1, 0), "{at}");
            continue;
        }
        assert_eq!(is.records, expected.records, "{at}");
        assert_eq!(is.traffic, expected.traffic, "{at}");
        match (last.state, effect.as_str()) {
            // Nobody waits for these, and it is said that they are not done.
            (State::CompletedWithExceptions, "notify" | "keep-slots" | "follow") => continue,
            (State::Completed, _) => {}
            _ => panic!("{at}: {last:#?}"),
        }
        // A promotion that was definitely not done is followed by the fallback, where there is one.
        let falls_back = matches!(case, Case::FailoverRegion | Case::FailoverRegionByItself);
        if falls_back && effect == "promote-standby" && last.rung == Rung::Restore {
            assert_eq!(world.count("promote-standby"), 0, "{at}");
            assert_eq!(world.count("restore-instance"), 1, "{at}");
            continue;
        }
        assert_eq!(is.effects, expected.effects, "{at}");
        assert_eq!(is.flags, expected.flags, "{at}");
    }
}
