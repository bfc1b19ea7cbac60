//! `assess-region`: looks once more, at the beginning of the execution, at what the plan rests on.
//!
//! The plan may be minutes old when somebody says yes. If another epoch has been opened since, the execution ends here,
//! before it changed anything. It records what was seen, from which machine, and what could not be seen; of the region being left,
//! which it does not call, what the plan saw. Idempotent because it only looks.

use std::time::Duration;

use async_trait::async_trait;
use dr_coordination::register::EpochRecord;
use dr_provider::driver::{Action, Applied, LossFacts, RegionFacts, Verified};
use dr_provider::{Error, ErrorKind, Result};
use serde_json::{Value, json};

use crate::plan::{Idempotency, Target};
use crate::sight::Sight;
use crate::step::{Impossible, Scene, Step, Work, look, look_again};

/// The step's name.
pub const NAME: &str = "assess-region";

/// The step.
#[derive(Debug)]
pub struct AssessRegion;

#[async_trait]
impl Step for AssessRegion {
    fn name(&self) -> &'static str {
        NAME
    }

    fn summary(&self) -> &'static str {
        "look once more at the register and at the region moved to"
    }

    fn idempotency(&self) -> Idempotency {
        Idempotency::ReadOnly
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(15)
    }

    fn targets(&self, scene: &Scene<'_>) -> Vec<Target> {
        let mut targets = vec![Target::Register];
        targets.extend(scene.resources());
        targets
    }

    fn plan(
        &self,
        scene: &Scene<'_>,
        target: &Target,
        _: &Value,
    ) -> std::result::Result<Vec<Action>, Impossible> {
        let to = scene.to();
        Ok(vec![match target {
            Target::Register => look(
                "read-register",
                format!("check that epoch {} is still the newest", scene.ended),
            ),
            _ => Action {
                dependencies: vec![scene.needs_target(format!("instance and store of `{target}`"))],
                ..look("observe", format!("look at `{target}` in {to}"))
            },
        }])
    }

    async fn apply(&self, work: &Work, target: &Target, _: &Action) -> Result<Applied> {
        if *target == Target::Register {
            let known = register(work).await?;
            return Ok(told(known, work.plan().sight.clone()));
        }
        let (facts, loss) = resource(work, target).await?;
        let to = &work.plan().to;
        let mut sight = Sight::from_machine(&work.site.actor.host);
        match (&facts, target) {
            (Some(facts), Target::Resource(name)) => sight.resource(name, to, facts),
            _ => sight.not_seen(format!("`{target}` in {to}"), "nothing tells of it"),
        }
        let instance = facts.map(|facts| facts.instance);
        let evidence = json!({ "instance": instance, "loss": loss });
        Ok(told(work.applied("", evidence), sight))
    }

    async fn verify(&self, _: &Work, _: &Target, _: &Action) -> Verified {
        look_again()
    }
}

/// Adds to what is known what was seen and what could not be.
fn told(mut known: Applied, sight: Sight) -> Applied {
    let parts = [known.summary, sight.line()];
    let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    known.summary = parts.join("; ");
    if let Value::Object(fields) = &mut known.evidence {
        fields.insert("looked_from".to_owned(), json!(sight.looked_from));
        fields.insert("seen".to_owned(), json!(sight.seen));
        fields.insert("not_seen".to_owned(), json!(sight.not_seen));
    }
    known
}

/// Looks at a resource in the region moved to.
pub(crate) async fn resource(
    work: &Work,
    target: &Target,
) -> Result<(Option<RegionFacts>, LossFacts)> {
    let driver = work.driver(target)?;
    let to = &work.plan().to;
    let mut facts = driver.observe(std::slice::from_ref(to)).await;
    let loss = driver.loss(to, &facts);
    Ok((facts.regions.remove(to), loss))
}

/// Looks whether the register still says what the plan was made from.
pub(crate) async fn register(work: &Work) -> Result<Applied> {
    let plan = work.plan();
    if let Some(why) = &plan.register.unproven {
        let summary = "the register cannot be read; going on by override";
        return Ok(work.applied(summary, json!({ "unproven": why })));
    }
    let newest = work.site.register.read().await?;
    match newest {
        Some(record) if record.epoch == plan.ended => {
            let summary = format!("epoch {} is the newest", record.epoch);
            Ok(work.applied(summary, json!({ "epoch": record.epoch })))
        }
        Some(record) if record.execution.as_ref() == Some(&work.history.execution) => {
            let summary = format!("epoch {} is ours", record.epoch);
            Ok(work.applied(summary, json!({ "epoch": record.epoch })))
        }
        Some(record) => Err(superseded(&record)),
        None => Err(Error::new(
            ErrorKind::Corrupt,
            "read the register of",
            plan.workload.as_str(),
        )
        .because("its records are gone")),
    }
}

/// Says who opened a newer epoch: who, when, where to and why (L13).
pub(crate) fn superseded(winner: &EpochRecord) -> Error {
    let subject = format!("epoch {} of {}", winner.epoch, winner.workload);
    Error::new(ErrorKind::Superseded, "open", subject).because(describe(winner))
}

/// Describes a record for whoever lost to it.
pub(crate) fn describe(winner: &EpochRecord) -> String {
    let execution = match &winner.execution {
        Some(id) => format!(" by execution {id}"),
        None => String::new(),
    };
    format!(
        "epoch {} was opened for {} at {:.0} by {}{execution}: {}",
        winner.epoch, winner.primary, winner.created_at, winner.created_by, winner.reason
    )
}
