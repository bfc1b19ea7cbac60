//! What a step is: the contract that each file in `steps/` keeps.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dr_model::document::{Context, FromNode, Node, Problem, Reader};
use dr_model::{Epoch, RegionName};
use dr_provider::driver::{Action, Applied, Dependency, Fence, Plane, Undo, Verified};
use dr_provider::{Error, ErrorKind, ResourceDriver, Result};
use serde_json::{Value, json};

use crate::history::History;
use crate::plan::{
    Class, Idempotency, LossPlan, Mode, Plan, PlannedStep, RegisterPlan, Target, in_place,
};
use crate::request::Request;
use crate::site::Site;
use crate::waits::Waits;
use crate::world::World;

/// One kind of step: a verb phrase in kebab case, the same as its file, its type and the word in a runbook.
///
/// Planning is pure. `apply` MUST be idempotent or say otherwise with [`Step::idempotency`]; it is called again after a
/// crash or a time-out unless `verify` finds it done. An error of `apply` whose
/// [`is_definite`](dr_provider::Error::is_definite) holds MUST mean that the action was not done: a fallback may run
/// then.
#[async_trait]
pub trait Step: Send + Sync + fmt::Debug {
    /// Returns its name, as after `uses:`.
    fn name(&self) -> &'static str;

    /// Returns what it does in one line.
    fn summary(&self) -> &'static str;

    /// Returns what happens if one of its actions is done twice.
    fn idempotency(&self) -> Idempotency;

    /// Returns how long one attempt at one action may take unless the runbook says otherwise.
    fn timeout(&self) -> Duration;

    /// Returns the same where what was seen says more about it.
    fn timeout_in(&self, _: &Scene<'_>) -> Duration {
        self.timeout()
    }

    /// Reads its parameters, the subtree under `with:`; reports into `context`.
    fn parameters(&self, with: &Node, context: &mut Context) -> Value {
        if let Some(reader) = Reader::open(with, context) {
            reader.finish();
        }
        Value::Null
    }

    /// Returns the steps that must be over before it may begin, wherever it stands in a runbook.
    fn follows(&self) -> &'static [&'static str] {
        &[]
    }

    /// Returns the steps in whose place it counts where another has to follow them.
    fn stands_for(&self) -> &'static [&'static str] {
        &[]
    }

    /// Returns the steps that may stand in for this one. Most have none: doing something else is not the same.
    fn fallbacks(&self) -> &'static [&'static str] {
        &[]
    }

    /// Tells whether the execution may go on after it failed (`continue_on_error`); not so for what safety rests on.
    fn may_fail(&self) -> bool {
        false
    }

    /// Tells whether a human may decide that it is not done (`dr execution resume --skip`); not so for what safety rests on.
    fn may_be_skipped(&self) -> bool {
        self.may_fail()
    }

    /// Tells whether an action that only looks may take so long that it is worth a write of its own that it has begun: it
    /// can be seen from elsewhere then, and what was waited counts.
    fn waits(&self, _action: &Action) -> bool {
        false
    }

    /// Tells whether it is tried for what it is worth: all its lanes at once, each within the step's time limit, and
    /// whatever comes of them is recorded without ever failing.
    fn is_best_effort(&self) -> bool {
        false
    }

    /// Tells whether its actions may depend on the region being left (L1).
    fn may_touch_region_left(&self) -> bool {
        false
    }

    /// Tells whether the execution may go on while it runs.
    fn in_background(&self, _scene: &Scene<'_>) -> bool {
        false
    }

    /// Returns what it acts on.
    fn targets(&self, scene: &Scene<'_>) -> Vec<Target>;

    /// Decides what is done to one target. Pure.
    fn plan(
        &self,
        scene: &Scene<'_>,
        target: &Target,
        parameters: &Value,
    ) -> std::result::Result<Vec<Action>, Impossible>;

    /// Looks whether the actions on a target may begin; changes nothing.
    async fn check(&self, _work: &Work, _target: &Target) -> std::result::Result<(), Unmet> {
        Ok(())
    }

    /// Does one action.
    async fn apply(&self, work: &Work, target: &Target, action: &Action) -> Result<Applied>;

    /// Says how something optional stands that the execution goes on without, for the record; `None` where that says nothing.
    async fn left_standing(&self, _work: &Work, _target: &Target) -> Option<String> {
        None
    }

    /// Looks whether an action has been done; after `apply`, and first after a crash.
    async fn verify(&self, work: &Work, target: &Target, action: &Action) -> Verified;
}

/// Why nothing can be planned for a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Impossible {
    /// Why: a lower-case fragment.
    pub why: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// What stands in the way: what there is now, a rule by which what is there must not be touched, or what was written or asked for,
    /// which no other day changes.
    pub class: Class,
}

impl Impossible {
    /// Says why what was written can never be done, and what to do about it.
    pub fn new(why: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            hint: Some(hint.into()),
            class: Class::Invalid,
        }
    }

    /// Says why what was asked for on the command line cannot be, and what to ask for instead.
    pub fn asked(why: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            class: Class::Asked,
            ..Self::new(why, hint)
        }
    }

    /// Says why it cannot be done as things are now, and what to do about it.
    pub fn now(why: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            class: Class::Unavailable,
            ..Self::new(why, hint)
        }
    }
}

impl From<Error> for Impossible {
    fn from(error: Error) -> Self {
        Self {
            why: dr_provider::error::chain(&error),
            hint: error.hint().map(str::to_owned),
            class: match error.kind() {
                // What is there already is not overwritten, and what is there may forbid it.
                ErrorKind::AlreadyExists | ErrorKind::Conflict => Class::Safety,
                ErrorKind::Invalid => Class::Invalid,
                _ => Class::Unavailable,
            },
        }
    }
}

/// Why the actions on a target may not begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unmet {
    /// This way is closed; the fallback may be open.
    Unfit(String),
    /// A safety rule forbids it, whichever way is taken; a human has to see to it.
    Forbidden {
        /// The rule and what is missing.
        why: String,
        /// What to do.
        remedy: String,
    },
    /// Somebody else has the say: who, when and why.
    Superseded(String),
}

/// What planning sees.
#[derive(Debug)]
pub struct Scene<'a> {
    /// The facts.
    pub world: &'a World,
    /// What the operator asked for.
    pub request: &'a Request,
    /// How the region being left is taken.
    pub mode: Mode,
    /// The region being left.
    pub from: &'a RegionName,
    /// The epoch that is ended.
    pub ended: Epoch,
    /// Where the new epoch's record is created.
    pub register: &'a RegisterPlan,
    /// What is lost.
    pub loss: &'a LossPlan,
}

impl Scene<'_> {
    /// Returns the region moved to.
    #[must_use]
    pub fn to(&self) -> &RegionName {
        &self.request.to
    }

    /// Returns every resource as a target.
    #[must_use]
    pub fn resources(&self) -> Vec<Target> {
        let names = self.world.resources.keys();
        names.cloned().map(Target::Resource).collect()
    }

    /// Tells whether the log of a database goes on: in its own region it is started again, or is not touched at all.
    #[must_use]
    pub fn goes_on(&self, target: &Target) -> bool {
        let Target::Resource(name) = target else {
            return false;
        };
        self.mode == Mode::InPlace && in_place::goes_on(self.world, self.request, name)
    }

    /// Refuses a request for an earlier moment where `step` would pass it over in silence: it goes to the end of the log.
    pub(crate) fn refuse_moment(&self, step: &str) -> std::result::Result<(), Impossible> {
        match &self.request.target {
            None => Ok(()),
            Some(_) => Err(Impossible::asked(
                format!("`{step}` goes to the end of the log, and an earlier moment was named"),
                "take `--at` away, or use a runbook with `prepare-database` and `replace-database`",
            )),
        }
    }

    /// Returns a dependency on something that serves in the region moved to.
    #[must_use]
    pub fn needs_target(&self, what: impl Into<String>) -> Dependency {
        Dependency {
            region: self.to().clone(),
            plane: Plane::Data,
            what: what.into(),
        }
    }
}

/// Makes an action that only looks.
#[must_use]
pub(crate) fn look(name: &str, summary: impl Into<String>) -> Action {
    Action {
        name: name.to_owned(),
        summary: summary.into(),
        current: None,
        intended: None,
        dependencies: Vec::new(),
        undo: Undo::ReadOnly,
        parameters: Value::Null,
    }
}

/// What an action works with. Owned, so that a best-effort step can run beside the next ones.
#[derive(Clone, Debug)]
pub struct Work {
    /// The world.
    pub site: Arc<Site>,
    /// What has been done so far.
    pub history: Arc<History>,
    /// The step that the action belongs to.
    pub step: Arc<PlannedStep>,
    /// When this process first knew that the execution's epoch is open, by the site's monotonic clock; `None` if another did.
    pub opened: Option<Duration>,
    /// How often the execution had been taken over when this process began.
    pub takeovers: u32,
    /// Where the action says what it waits for.
    pub waits: Waits,
}

impl Work {
    /// Returns the plan.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.history.plan
    }

    /// Returns what every effect carries.
    #[must_use]
    pub fn fence(&self) -> Fence {
        Fence {
            workload: self.plan().workload.clone(),
            epoch: self.plan().opens,
            execution: self.history.execution.clone(),
            takeovers: self.takeovers,
        }
    }

    /// Returns the driver of a resource.
    pub fn driver(&self, target: &Target) -> Result<Arc<dyn ResourceDriver>> {
        let found = match target {
            Target::Resource(name) => self.site.resources.get(name),
            _ => None,
        };
        found
            .map(Arc::clone)
            .ok_or_else(|| self.not_configured(target))
    }

    /// Says that a target of the plan is not in this machine's configuration.
    #[must_use]
    pub fn not_configured(&self, target: &Target) -> Error {
        let subject = target.to_string();
        Error::new(ErrorKind::Invalid, "find in the configuration", subject)
            .with_hint("resume with the configuration that the plan was made with")
    }

    /// Says what was done, now.
    #[must_use]
    pub fn applied(&self, summary: impl Into<String>, evidence: Value) -> Applied {
        Applied {
            summary: summary.into(),
            evidence,
            at: self.site.clock.now(),
        }
    }

    /// Reads a duration among the step's parameters.
    #[must_use]
    pub fn seconds(&self, parameter: &str) -> Option<Duration> {
        let seconds = self.step.parameters.get(parameter)?.as_f64()?;
        Duration::try_from_secs_f64(seconds).ok()
    }
}

/// What a look without an effect says when asked whether it was done: look again.
#[must_use]
pub(crate) fn look_again() -> Verified {
    Verified::NotDone {
        seen: "it only looks".to_owned(),
    }
}

/// Reads how long something may take, which zero is not.
pub(crate) fn above_zero(node: &Node, context: &mut Context) -> Option<Duration> {
    let read = Duration::from_node(node, context)?;
    if read.is_zero() {
        let problem = Problem::error(&node.span, "nothing can be done within no time");
        context.report(problem.expected("a duration above zero"));
        return None;
    }
    Some(read)
}

/// Writes durations as parameters.
#[must_use]
pub(crate) fn durations(values: &[(&str, Option<Duration>)]) -> Value {
    let mut map = serde_json::Map::new();
    for (name, value) in values {
        if let Some(value) = value {
            map.insert((*name).to_owned(), json!(value.as_secs_f64()));
        }
    }
    Value::Object(map)
}
