//! `verify-traffic`: asks everybody who answers clients until no one leads them elsewhere, and goes there as a client does.
//!
//! The time to recover is taken when this is so. Somebody who does not answer leads nobody anywhere: that is recorded
//! and not waited for, but at least one has to answer, and the checks of the name have to pass where it leads. What is still connected
//! to the old primary is reported with it and waited for by nobody. Where a person left `check-health` out, nobody has seen the service
//! there, and waiting for it would only hold up the rest: its checks are made once, and one that does not pass is recorded as not
//! proven. An authoritative server whose serial number is older than that of the update lags, and is named with both; what a resolver
//! still answers is what its clients get, and is told apart. Idempotent because it only looks.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use dr_model::document::{Context, Node, Reader};
use dr_model::{RegionName, StepId};
use dr_provider::driver::{Action, Applied, Verified};
use dr_provider::probe::Health;
use dr_provider::traffic::{Role, TrafficState, View};
use dr_provider::{Error, ErrorKind, Traffic};
use futures::future::{join, join_all};
use serde::Serialize;
use serde_json::{Value, json};

use super::check_health;
use super::switch_traffic::{self, find, is_ours};
use crate::history::History;
use crate::outcome::StepState;
use crate::plan::{Idempotency, Plan, Target};
use crate::poll::{self, Look};
use crate::residual;
use crate::step::{Impossible, Scene, Step, Work, above_zero, durations, look, look_again};

/// The step's name.
pub const NAME: &str = "verify-traffic";

/// How long it may take until everybody agrees.
const WITHIN: Duration = Duration::from_secs(120);

/// The pause between two looks.
const INTERVAL: Duration = Duration::from_millis(100);

/// The step.
#[derive(Debug)]
pub struct VerifyTraffic;

#[async_trait]
impl Step for VerifyTraffic {
    fn name(&self) -> &'static str {
        NAME
    }

    fn summary(&self) -> &'static str {
        "wait until everybody who answers clients leads them to the region moved to"
    }

    fn idempotency(&self) -> Idempotency {
        Idempotency::ReadOnly
    }

    fn timeout(&self) -> Duration {
        WITHIN + Duration::from_secs(10)
    }

    fn parameters(&self, with: &Node, context: &mut Context) -> Value {
        let mut within = None;
        if let Some(mut reader) = Reader::open(with, context) {
            within = reader.optional_with("within", above_zero);
            reader.finish();
        }
        durations(&[("within", Some(within.unwrap_or(WITHIN)))])
    }

    fn follows(&self) -> &'static [&'static str] {
        &[switch_traffic::NAME]
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
    ) -> Result<Vec<Action>, Impossible> {
        let mut known = scene.world.traffic.iter();
        let known = known.find(|traffic| *target == Target::Traffic(traffic.name.clone()));
        let clients = known.map(|traffic| traffic.clients.join(", "));
        let reach = match clients.filter(|clients| !clients.is_empty()) {
            Some(clients) => format!("{clients} as a client"),
            None => "no check goes by its name".to_owned(),
        };
        Ok(vec![Action {
            dependencies: vec![scene.needs_target(format!("authority of `{target}`"))],
            ..look(
                "ask",
                format!("ask everybody who answers `{target}`; {reach}"),
            )
        }])
    }

    async fn apply(
        &self,
        work: &Work,
        target: &Target,
        _: &Action,
    ) -> dr_provider::Result<Applied> {
        let traffic = find(work, target)?;
        let within = work.seconds("within").unwrap_or(WITHIN);
        let taken = switch_traffic::taken_with(&work.history, target);
        let nobody_saw_it_serve = is_health_left_out(&work.history);
        let look = || async {
            let views = traffic.views().await;
            if let Some(seen) = disagreement(work.plan(), taken, &views) {
                return Look::Again(seen);
            }
            match reach(work, traffic.as_ref(), &views).await {
                Ok(clients) => Look::Over((views, Ok(clients))),
                Err(seen) if nobody_saw_it_serve => Look::Over((views, Err(seen))),
                Err(seen) => Look::Again(seen),
            }
        };
        let (reached, residual) = join(poll::until(&work.waits, within, INTERVAL, look), async {
            // Once, whatever leads clients.
            match work.site.traffic.first() {
                Some(first) if first.describe() == traffic.describe() => residual::look(work).await,
                _ => BTreeMap::new(),
            }
        })
        .await;
        let (views, clients) = reached.map_err(|last| {
            Error::new(ErrorKind::Failed, "verify", target.to_string())
                .because(format!("after {within:?}: {last}"))
        })?;
        let mut said = vec![agreement(&views, Role::Authority, &work.plan().to)];
        if let (Some(said), Some(serial)) = (said.first_mut(), newest(taken, &views)) {
            said.push_str(&format!(", serial {serial}"));
        }
        if views.iter().any(|view| view.role == Role::Resolver) {
            let agreed = agreement(&views, Role::Resolver, &work.plan().to);
            said.push(format!("resolvers: {agreed}"));
        }
        let unproven = clients.as_ref().err().cloned();
        let clients = clients.unwrap_or_default();
        said.extend(clients.iter().map(Reached::say));
        match &unproven {
            Some(why) => said.push(format!(
                "not proven that a client is served: {why}, asked once because `{}` was left out",
                check_health::NAME
            )),
            None if clients.is_empty() => {
                said.push("what a client reaches is unknown: no check goes by the name".to_owned())
            }
            None => {}
        }
        let from = &work.plan().from;
        said.extend(
            residual
                .iter()
                .filter_map(|(name, left)| left.say(name, from)),
        );
        let mut evidence = json!({ "views": views, "taken_with_serial": taken, "clients": clients, "residual": residual });
        if let Some(why) = unproven {
            evidence[UNPROVEN] = json!(why);
        }
        Ok(work.applied(said.join("; "), evidence))
    }

    async fn verify(&self, _: &Work, _: &Target, _: &Action) -> Verified {
        look_again()
    }
}

/// The evidence that clients are led and not proven to be served: why not.
const UNPROVEN: &str = "unproven";

/// Tells whether a person left out what would have seen the service.
fn is_health_left_out(history: &History) -> bool {
    let mut steps = history.plan.steps.iter();
    steps.any(|step| {
        let known = history.step(&step.id);
        step.uses == check_health::NAME
            && known.is_some_and(|known| known.state == StepState::Skipped)
    })
}

/// Tells whether everything that a step of this name has seen of the clients was proven.
pub(crate) fn is_proven(history: &History, step: &StepId) -> bool {
    let mut done = history.actions().filter(|(place, _)| place.step == *step);
    !done.any(|(place, _)| {
        let applied = history.applied(place);
        applied.is_some_and(|applied| applied.evidence.get(UNPROVEN).is_some())
    })
}

/// What a client got.
#[derive(Clone, Debug, Serialize)]
struct Reached {
    /// What it asked for.
    check: String,
    /// Who told it where to go.
    led_by: String,
    /// Where that was.
    at: String,
    /// What it was answered.
    seen: String,
}

impl Reached {
    fn say(&self) -> String {
        format!("{} at {}: {}", self.check, self.at, self.seen)
    }
}

/// Makes the checks that go by the name as a client makes them; the error is the first that does not pass. A client asks a resolver
/// where one is configured, else a server of the zone.
async fn reach(work: &Work, traffic: &dyn Traffic, views: &[View]) -> Result<Vec<Reached>, String> {
    let answered = views.iter().rev();
    let mut answered = answered.filter_map(|view| Some((view, view.state.as_ref().ok()?)));
    let Some((view, state)) = answered.next() else {
        return Err("nobody answers".to_owned());
    };
    let clients = work.site.clients_of(traffic, &work.plan().to);
    let asked = clients.iter().map(|client| async move {
        let check = client.describe(traffic.name());
        let not = |how: &str, what: String| {
            format!(
                "{check}, which {} leads to {}, is {how}: {what}",
                view.observer, state.answer
            )
        };
        match client.probe(traffic.name(), &state.answer).await {
            Health::Healthy(seen) => Ok(Reached {
                led_by: view.observer.clone(),
                at: state.answer.clone(),
                check,
                seen,
            }),
            Health::Unhealthy(seen) => Err(not("unhealthy", seen)),
            Health::Unknown(why) => Err(not("unknown", why)),
        }
    });
    join_all(asked).await.into_iter().collect()
}

/// Says how many of those lead clients where they should, once none leads them elsewhere.
fn agreement(views: &[View], role: Role, to: &RegionName) -> String {
    let of_role = || views.iter().filter(|view| view.role == role);
    let silent = of_role().filter(|view| view.state.is_err()).count();
    let agree = of_role().count() - silent;
    match silent {
        0 => format!("{agree} of {agree} lead to {to}"),
        _ => format!("{agree} lead to {to}, {silent} silent"),
    }
}

/// Returns the newest serial number that is known to hold the update.
fn newest(taken: Option<u32>, holding: &[View]) -> Option<u32> {
    let states = holding.iter().filter_map(|view| view.state.as_ref().ok());
    let seen = states.filter_map(|state| state.serial);
    let later = |one, other| if is_older(one, other) { other } else { one };
    taken.into_iter().chain(seen).reduce(later)
}

/// Compares serial numbers, which come round (RFC 1982).
fn is_older(one: u32, other: u32) -> bool {
    one.wrapping_sub(other).cast_signed() < 0
}

/// Returns who leads clients elsewhere, or that nobody answers; `taken` is the serial number that the update was taken with.
fn disagreement(plan: &Plan, taken: Option<u32>, views: &[View]) -> Option<String> {
    let elsewhere = |role: Role| {
        let asked = views.iter().filter(move |view| view.role == role);
        let answered = asked.filter_map(|view| Some((view, view.state.as_ref().ok()?)));
        answered.filter(|(_, state)| !is_ours(plan, state))
    };
    let mut seen: Vec<String> = elsewhere(Role::Authority)
        .map(|(view, state)| {
            let (who, answers) = (&view.observer, answer_of(plan, state));
            match (state.serial, taken) {
                (Some(serial), Some(taken)) if is_older(serial, taken) => format!(
                    "{who} lags: it answers {answers} with serial {serial}, and the update was taken with {taken}"
                ),
                _ => format!("{who} answers {answers}"),
            }
        })
        .collect();
    seen.extend(elsewhere(Role::Resolver).map(|(view, state)| {
        let (who, answers) = (&view.observer, answer_of(plan, state));
        let left = state.ttl_seconds;
        format!("clients of {who} still get {answers}, for at most {left} s")
    }));
    if !seen.is_empty() {
        return Some(seen.join("; "));
    }
    let answered = views.iter().any(|view| view.state.is_ok());
    (!answered).then(|| "nobody answers".to_owned())
}

/// Writes an answer that is not as it should be; one that differs by its epoch only says so.
fn answer_of(plan: &Plan, state: &TrafficState) -> String {
    match &state.region {
        Some(region) if *region == plan.to => {
            format!("{}, not of epoch {}", state.answer, plan.opens)
        }
        _ => state.answer.clone(),
    }
}
