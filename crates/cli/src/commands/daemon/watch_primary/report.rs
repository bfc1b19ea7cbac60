//! Writing an outage down with a proposal, and telling those whom the workload names: that it began, and that it is over.

use std::time::Duration;

use dr_coordination::outage::{self, FORMAT_VERSION, Mark, Outage, Proposal, Sign};
use dr_coordination::register::EpochRecord;
use dr_model::detection::Disruption;
use dr_provider::error::chain;
use dr_provider::notifier::Message;
use dr_runbook::plan::is_behind;
use dr_runbook::{Class, World};
use futures::future::join_all;
use jiff::Timestamp;
use serde_json::json;

use super::looks::Looks;
use super::{Following, TELL_AGAIN, Watch, WatchPrimaries};
use crate::commands::status;
use crate::readiness::{self, NoPlan};

/// How long one message may take.
const TELL_LIMIT: Duration = Duration::from_secs(5);

/// How long looking for the last heartbeat may take.
const BEAT_LIMIT: Duration = Duration::from_secs(3);

/// How long the looks for the plan may take.
const PLAN_LIMIT: Duration = Duration::from_secs(10);

impl WatchPrimaries {
    /// Writes the outage into this region's store; the error says in a few words why it is not written yet.
    pub(super) async fn report(
        &self,
        watch: &Watch,
        record: &EpochRecord,
        disruption: Disruption,
        looks: &Looks,
        landmarks: Vec<String>,
    ) -> Result<Outage, String> {
        let look = dr_runbook::observe(&watch.site, &self.region);
        let world = tokio::time::timeout(PLAN_LIMIT, look).await.ok();
        // The last beat of a primary before this one says nothing of this one.
        let is_of_another = world
            .as_ref()
            .is_some_and(|world| is_behind(world, &self.region));
        let (last_answered_at, last_sign) = match disruption.last_answered_at {
            Some(at) => (Some(at), Sign::Answered),
            None if is_of_another => (None, Sign::Answered),
            None => match self.last_beat(watch, disruption.first_missed_at).await {
                Some(at) => (Some(at), Sign::Heartbeat),
                None => (None, Sign::Answered),
            },
        };
        let outage = Outage {
            version: FORMAT_VERSION,
            workload: watch.name.clone(),
            epoch: record.epoch,
            primary: record.primary.clone(),
            seen_from: self.region.clone(),
            last_answered_at,
            last_sign,
            first_missed_at: disruption.first_missed_at,
            detected_at: watch.site.clock.now(),
            looks: looks.missed(),
            landmarks,
            proposal: self.propose(watch, world.as_ref())?,
            reported_by: watch.setup.actor.clone(),
        };
        let store = watch.setup.stores.get(&self.region);
        let store = store.ok_or("this region has no store")?;
        let written = outage::report(&**store, &outage).await;
        written.map_err(|error| format!("that cannot be written down: {}", chain(&error)))?;
        Ok(outage)
    }

    /// Returns when the primary last wrote before `missed`, as far as this region can tell, the oldest over the resources: the newest
    /// heartbeat that the standby has, or when log last arrived in the store. A time behind `missed` is of a clock that says nothing.
    async fn last_beat(&self, watch: &Watch, missed: Timestamp) -> Option<Timestamp> {
        let region = &self.region;
        let looks = watch.site.resources.values().map(|driver| async move {
            let standby = async {
                let beat = driver.log_stream()?.last_beat(region);
                tokio::time::timeout(BEAT_LIMIT, beat).await.ok()?.ok()?
            };
            let store = status::log_received_at(driver.as_ref(), region, BEAT_LIMIT);
            let (standby, store) = tokio::join!(standby, store);
            let before = |at: &Timestamp| *at <= missed;
            standby.filter(before).or(store.filter(before))
        });
        let found = join_all(looks).await;
        // Of one that is not known nothing can be said, and so of the whole.
        found
            .into_iter()
            .collect::<Option<Vec<_>>>()?
            .into_iter()
            .min()
    }

    /// Makes the plan that a person is asked to decide about.
    fn propose(&self, watch: &Watch, world: Option<&World>) -> Result<Proposal, String> {
        let mut proposal = Proposal {
            to: self.region.clone(),
            plan: None,
            refusal: None,
            command: format!("dr failover --to {} {}", self.region, watch.name),
        };
        let Some(world) = world else {
            proposal.refusal = Some(format!("no answer within {PLAN_LIMIT:?}"));
            return Ok(proposal);
        };
        match readiness::plan(&watch.setup, &watch.workload, world, &self.region) {
            Ok(plan) => proposal.plan = Some(plan.hash),
            // Somebody has decided already; the silence is part of what they do.
            Err(NoPlan::Refused(refusal)) if refusal.class() == Class::Busy => {
                return Err(refusal.to_string());
            }
            Err(NoPlan::Refused(refusal)) => proposal.refusal = Some(refusal.to_string()),
            Err(NoPlan::Runbook(error)) => proposal.refusal = Some(error.message),
        }
        Ok(proposal)
    }

    /// Tells everybody who is to be told, at least once; whoever could not be told is tried again.
    pub(super) async fn tell(&self, watch: &Watch, known: &mut Following) {
        let now = watch.site.clock.elapsed();
        let (Some(outage), Some(due)) = (&known.outage, known.tell_at) else {
            return;
        };
        if now < due {
            return;
        }
        let (all, any) = self.send(watch, &began(outage)).await;
        known.heard |= any;
        let marked = match (all, watch.setup.stores.get(&self.region)) {
            (true, Some(store)) => {
                let now = watch.site.clock.now();
                outage::mark(&**store, outage, Mark::Told, now)
                    .await
                    .is_ok()
            }
            _ => false,
        };
        known.tell_at = (!marked).then(|| now + TELL_AGAIN);
    }

    /// Tells those who were told of an outage that it is over, at least once.
    pub(super) async fn tell_end(&self, watch: &Watch, known: &mut Following) {
        let now = watch.site.clock.elapsed();
        let Some((outage, at)) = &known.ended else {
            return;
        };
        if now < known.tell_end_at {
            return;
        }
        let (all, _) = self.send(watch, &ended(outage, *at)).await;
        let marked = match (all, watch.setup.stores.get(&self.region)) {
            (true, Some(store)) => {
                let now = watch.site.clock.now();
                let marked = outage::mark(&**store, outage, Mark::EndTold, now);
                marked.await.is_ok()
            }
            _ => false,
        };
        if marked {
            known.ended = None;
        }
        known.tell_end_at = now + TELL_AGAIN;
    }

    /// Sends a message to everybody who is to be told; returns whether all have taken it, and whether anybody has.
    async fn send(&self, watch: &Watch, message: &Message) -> (bool, bool) {
        let sent = watch.site.notifiers.iter().map(|notifier| async move {
            let told = tokio::time::timeout(TELL_LIMIT, notifier.notify(message)).await;
            let why = match told {
                Ok(Ok(())) => return true,
                Ok(Err(error)) => chain(&error),
                Err(_) => format!("no answer within {TELL_LIMIT:?}"),
            };
            let to = notifier.describe();
            tracing::warn!(to, why, "could not tell of the outage");
            false
        });
        let sent = join_all(sent).await;
        (sent.iter().all(|told| *told), sent.contains(&true))
    }
}

fn began(outage: &Outage) -> Message {
    Message {
        subject: format!(
            "{} does not answer in {}; nothing was done: `{}` proposes a failover",
            outage.workload, outage.primary, outage.proposal.command
        ),
        idempotency_key: outage.id(),
        body: json!(outage),
    }
}

fn ended(outage: &Outage, at: Timestamp) -> Message {
    let mut body = json!(outage);
    body["ended_at"] = json!(at);
    Message {
        subject: format!(
            "{} answers again in {}, since {at:.0}; it did not since {:.0}, and nothing was done",
            outage.workload, outage.primary, outage.first_missed_at
        ),
        idempotency_key: format!("{}/ended", outage.id()),
        body,
    }
}

#[cfg(test)]
mod tests {
    use dr_coordination::Actor;
    use dr_model::Epoch;

    use super::*;

    #[test]
    fn the_end_is_another_message_about_the_same_outage() {
        let at = |text: &str| -> Timestamp { text.parse().unwrap() };
        let outage = Outage {
            version: FORMAT_VERSION,
            workload: "orders".parse().unwrap(),
            epoch: Epoch(3),
            primary: "us-east-1".parse().unwrap(),
            seen_from: "us-west-2".parse().unwrap(),
            last_answered_at: None,
            last_sign: Sign::Answered,
            first_missed_at: at("2026-11-21T12:00:02Z"),
            detected_at: at("2026-11-21T12:00:06Z"),
            looks: Vec::new(),
            landmarks: Vec::new(),
            proposal: Proposal {
                to: "us-west-2".parse().unwrap(),
                plan: None,
                refusal: None,
                command: "dr failover --to us-west-2 orders".to_owned(),
            },
            reported_by: Actor::new("postgres", "db1.west", 7),
        };
        let (began, ended) = (began(&outage), ended(&outage, at("2026-11-21T12:07:00Z")));
        assert_eq!(
            ended.subject,
            "orders answers again in us-east-1, since 2026-11-21T12:07:00Z; it did not since 2026-11-21T12:00:02Z, and nothing was done"
        );
        assert_eq!(ended.body["ended_at"], "2026-11-21T12:07:00Z");
        assert_eq!(ended.body["detected_at"], began.body["detected_at"]);
        assert_eq!(
            ended.idempotency_key,
            format!("{}/ended", began.idempotency_key)
        );
    }
}
