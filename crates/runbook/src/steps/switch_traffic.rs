//! `switch-traffic`: makes the region moved to the answer that clients get.
//!
//! The epoch is written beside the answer in the same update, on condition of the previous value (PROTOCOL 9). What the
//! plan saw is tried first; if that has changed, what stands there now is replaced as long as its epoch is lower than
//! ours, because whoever wrote it is superseded. Idempotent because a record that holds our epoch is left as it is.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dr_provider::driver::{Action, Applied, Undo, Verified};
use dr_provider::traffic::TrafficState;
use dr_provider::{Error, ErrorKind, Result, Traffic};
use futures::future::join_all;
use serde_json::{Value, json};

use super::open_epoch;
use crate::history::History;
use crate::plan::{Idempotency, Mode, Plan, PlannedStep, Target};
use crate::record::Place;
use crate::request::clients_by_hand;
use crate::step::{Impossible, Scene, Step, Unmet, Work};

/// The step's name.
pub const NAME: &str = "switch-traffic";

/// How long the look may take whether a record can be switched.
const LOOK_LIMIT: Duration = Duration::from_secs(5);

/// The step.
#[derive(Debug)]
pub struct SwitchTraffic;

#[async_trait]
impl Step for SwitchTraffic {
    fn name(&self) -> &'static str {
        NAME
    }

    fn summary(&self) -> &'static str {
        "lead clients to the region moved to"
    }

    fn idempotency(&self) -> Idempotency {
        Idempotency::Conditional
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(20)
    }

    fn follows(&self) -> &'static [&'static str] {
        &[open_epoch::NAME]
    }

    fn may_be_skipped(&self) -> bool {
        true
    }

    fn targets(&self, scene: &Scene<'_>) -> Vec<Target> {
        let traffic = scene.world.traffic.iter();
        traffic.map(|t| Target::Traffic(t.name.clone())).collect()
    }

    fn plan(
        &self,
        scene: &Scene<'_>,
        target: &Target,
        _: &Value,
    ) -> std::result::Result<Vec<Action>, Impossible> {
        let mut all = scene.world.traffic.iter();
        let known = all.find(|t| *target == Target::Traffic(t.name.clone()));
        let answer = known.and_then(|traffic| traffic.answer.clone());
        let (Some(traffic), Some(answer)) = (known, answer) else {
            let to = scene.to();
            return Err(Impossible::new(
                format!("`{target}` has no answer for {to}"),
                format!("add `{to}` to its `answers`"),
            ));
        };
        let previous = traffic.state.as_ref().ok();
        Ok(vec![Action {
            name: NAME.to_owned(),
            summary: format!("let `{target}` answer {answer}"),
            current: previous.map(|state| state.answer.clone()),
            intended: Some(answer),
            dependencies: vec![scene.needs_target(format!("authority of `{target}`"))],
            undo: Undo::Reversible("a later epoch can switch back".to_owned()),
            parameters: json!({ "previous": previous }),
        }])
    }

    async fn apply(&self, work: &Work, target: &Target, action: &Action) -> Result<Applied> {
        let traffic = find(work, target)?;
        let plan = work.plan();
        let previous = action.parameters.get("previous").cloned();
        let planned: Option<TrafficState> =
            previous.and_then(|value| serde_json::from_value(value).ok());
        if let Some(planned) = &planned {
            match traffic.switch(&plan.to, plan.opens, planned).await {
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                Err(error) => return Err(error),
                Ok(state) => return Ok(switched(work, target, planned, &state)),
            }
        }
        let seen = traffic.observe().await?;
        if is_ours(plan, &seen) {
            return Ok(switched(work, target, &seen, &seen));
        }
        if seen.epoch.is_some_and(|epoch| epoch > plan.opens) {
            return Err(Error::new(
                ErrorKind::Superseded,
                "switch",
                target.to_string(),
            ));
        }
        let state = traffic.switch(&plan.to, plan.opens, &seen).await?;
        Ok(switched(work, target, &seen, &state))
    }

    async fn left_standing(&self, work: &Work, target: &Target) -> Option<String> {
        let look = async { find(work, target)?.observe().await };
        Some(match look.await {
            Ok(state) => format!("it answers {}", state.answer),
            Err(error) => {
                let why = dr_provider::error::chain(&error);
                format!("what it answers is not known: {why}")
            }
        })
    }

    async fn verify(&self, work: &Work, target: &Target, _: &Action) -> Verified {
        let look = async { find(work, target)?.observe().await };
        match look.await {
            Ok(state) if is_ours(work.plan(), &state) => {
                Verified::Done(switched(work, target, &state, &state))
            }
            Ok(state) => Verified::NotDone {
                seen: format!("it answers {}", state.answer),
            },
            Err(error) => Verified::unknown(&error),
        }
    }
}

/// Finds a traffic record of the plan in this machine's configuration.
pub(crate) fn find<'a>(work: &'a Work, target: &Target) -> Result<&'a Arc<dyn Traffic>> {
    let mut all = work.site.traffic.iter();
    let known = all.find(|traffic| *target == Target::Traffic(traffic.describe()));
    known.ok_or_else(|| work.not_configured(target))
}

/// Tells whether a record is as this plan leaves it.
pub(crate) fn is_ours(plan: &Plan, state: &TrafficState) -> bool {
    state.region.as_ref() == Some(&plan.to) && state.epoch == Some(plan.opens)
}

/// Returns the serial number of the zone with which this execution's update was taken, if it made one.
pub(crate) fn taken_with(history: &History, target: &Target) -> Option<u32> {
    let ours = |place: &Place| {
        let step = history.plan.step(&place.step);
        let lane = step.and_then(|step| Some((step, step.lanes.get(place.lane)?)));
        lane.is_some_and(|(step, lane)| step.uses == NAME && lane.target == *target)
    };
    let mut places = history.actions().map(|(place, _)| place);
    let evidence = &history.applied(places.find(|place| ours(place))?)?.evidence;
    u32::try_from(evidence["now"]["serial"].as_u64()?).ok()
}

/// Looks, before a move by appointment changes anything, whether the authority of each record that it needs still answers: people may
/// have thought about it for days. Such a move can wait, and behind the promotion clients would.
pub(crate) async fn can_be_asked(work: &Work) -> std::result::Result<(), Unmet> {
    let plan = work.plan();
    if plan.mode != Mode::Planned || clients_by_hand(&work.history.statements).is_some() {
        return Ok(());
    }
    let ahead = |step: &&PlannedStep| step.uses == NAME && !work.history.is_over(&step.id);
    let lanes = plan.steps.iter().filter(ahead).flat_map(|step| &step.lanes);
    let looks = lanes.filter(|lane| !lane.optional).map(|lane| async {
        let look = async { find(work, &lane.target)?.observe().await };
        let why = match tokio::time::timeout(LOOK_LIMIT, look).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => dr_provider::error::chain(&error),
            Err(_) => format!("no answer within {LOOK_LIMIT:?}"),
        };
        Err(Unmet::Unfit(format!(
            "clients of `{}` could not be led: {why}; nothing is done before its name server answers",
            lane.target
        )))
    });
    join_all(looks).await.into_iter().collect()
}

fn switched(work: &Work, target: &Target, from: &TrafficState, to: &TrafficState) -> Applied {
    let summary = format!("`{target}` answers {}", to.answer);
    work.applied(summary, json!({ "previous": from, "now": to }))
}
