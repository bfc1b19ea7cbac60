//! Every action of every shipped runbook is done three times: once, once more at once, and from another machine by somebody who was
//! not told what came of it. Nothing changes but what is had at least once.

use std::sync::Arc;
use std::time::Duration;

use dr_model::ExecutionId;
use rstest::rstest;

use super::matrix::{Case, outcome, undisturbed};
use super::runs::planned_by;
use super::world::{Everything, shipped_undo};
use crate::history::History;
use crate::outcome::StepState;
use crate::record::{Outcome, Place, Record};
use crate::request::{Request, Statement};
use crate::site::Site;
use crate::step::Work;
use crate::steps::registry;
use crate::waits::Waits;
use crate::{Plan, observe, plan};

impl Case {
    /// Plans it in its world; what is undone is left behind there before.
    async fn plan(self, world: &Everything) -> Plan {
        if self != Self::UndoMove {
            return planned_by(world, &self.runbook(), &self.request()).await;
        }
        let undoes = Some(self.stuck_move(world).await);
        let request = Request {
            undoes,
            statements: vec![Statement::Override("no".to_owned())],
            ..Request::new(self.store())
        };
        let seen = observe(&world.site("laptop"), &request.to).await;
        plan(&shipped_undo(), &seen, &request).unwrap()
    }
}

#[rstest]
#[tokio::test(start_paused = true)]
async fn what_is_done_again_changes_nothing(
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
) {
    let expected = undisturbed(case).await;
    let world = case.world().await;
    let plan = case.plan(&world).await;
    let [laptop, desk] = ["laptop", "desk"].map(|machine| Arc::new(world.site(machine)));
    let id: ExecutionId = "20261121T120000Z-us-west-2-0000".parse().unwrap();
    let at = plan.observed_at;
    let mut history = History::new(id, plan.clone(), at);
    let mut repeated = 0;
    for step in &plan.steps {
        history.take(&Record::Began {
            step: step.id.clone(),
            at,
        });
        for (index, lane) in step.lanes.iter().enumerate() {
            let kind = registry::find(&lane.uses).unwrap();
            for (number, action) in lane.actions.iter().enumerate() {
                let place = Place {
                    step: step.id.clone(),
                    lane: index,
                    fallback: false,
                    action: number,
                };
                history.take(&Record::Intended {
                    place: place.clone(),
                    attempt: 1,
                    at,
                });
                let work = |site: &Arc<Site>, takeovers| Work {
                    site: Arc::clone(site),
                    history: Arc::new(history.clone()),
                    step: Arc::new(step.clone()),
                    opened: None,
                    takeovers,
                    waits: Waits::default(),
                };
                let limit = Duration::from_secs_f64(step.timeout_seconds);
                let of = format!("{case:?}: {}: {}", step.id, action.name);
                let first = work(&laptop, 0);
                let first = tokio::time::timeout(limit, kind.apply(&first, &lane.target, action));
                let Ok(first) = first.await else {
                    // A fence that gets no answer proves nothing, and nobody waits for it.
                    assert!(kind.is_best_effort(), "{of}");
                    continue;
                };
                let before = outcome(&world, None).await;
                for again in [work(&laptop, 0), work(&desk, 1)] {
                    let applied = kind.apply(&again, &lane.target, action).await;
                    assert!(applied.is_ok(), "{of}: {applied:?}");
                    assert_eq!(outcome(&world, None).await, before, "{of}");
                    repeated += 1;
                }
                history.take(&Record::Concluded {
                    place,
                    outcome: Outcome::Done {
                        applied: first.unwrap(),
                        observed: false,
                    },
                    took_seconds: 0.0,
                });
            }
        }
        history.take(&Record::Finished {
            step: step.id.clone(),
            state: StepState::Done,
            summary: String::new(),
            at,
        });
    }
    assert!(repeated > 10, "{repeated}");
    let is = outcome(&world, None).await;
    assert_eq!(is.effects, expected.effects);
    assert_eq!(is.records, expected.records);
    assert_eq!(is.traffic, expected.traffic);
    assert_eq!(is.flags, expected.flags);
}
