//! What was looked at before anything is done: from where, what was seen, and what could not be.
//!
//! What could not be seen is named with the reason, and never taken for well (principle 6). The region being left is described as the
//! plan saw it: no step looks at that for this again (L1).

use std::fmt;

use dr_model::{RegionName, ResourceName};
use dr_provider::driver::{Instance, RegionFacts, Role};
use serde::{Deserialize, Serialize};

use crate::history::History;
use crate::steps::assess_region;
use crate::world::{RegisterFacts, World};

/// What was seen, and what could not be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sight {
    /// The machine that it was looked from.
    pub looked_from: String,
    /// What was seen, one line each.
    pub seen: Vec<String>,
    /// What could not be seen.
    pub not_seen: Vec<NotSeen>,
}

/// Something that could not be seen. Nobody knows how it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotSeen {
    /// What.
    pub what: String,
    /// Why not.
    pub why: String,
}

impl fmt::Display for NotSeen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} could not be seen: {}", self.what, self.why)
    }
}

impl Sight {
    /// Begins with nothing, looked at from a machine.
    pub(crate) fn from_machine(name: impl Into<String>) -> Self {
        Self {
            looked_from: name.into(),
            ..Self::default()
        }
    }

    /// Says what the plan saw anywhere but of the databases in the region moved to, which are looked at again.
    pub(crate) fn beyond(world: &World, to: &RegionName) -> Self {
        let mut sight = Self::from_machine(&world.looked_from);
        if let RegisterFacts::Unreachable { why, .. } = &world.register {
            sight.not_seen("the register", why);
        }
        for (name, resource) in &world.resources {
            let regions = resource.facts.regions.iter().chain(&resource.elsewhere);
            for (region, facts) in regions.filter(|(region, _)| *region != to) {
                sight.resource(name, region, facts);
            }
        }
        for record in &world.traffic {
            match &record.state {
                Ok(state) => sight.seen(format!("`{}` answers {}", record.name, state.answer)),
                Err(why) => sight.not_seen(format!("`{}`", record.name), why),
            }
        }
        sight.not_seen.extend(world.unseen.iter().cloned());
        sight
    }

    /// Adds what was seen of a database in a region.
    pub(crate) fn resource(
        &mut self,
        name: &ResourceName,
        region: &RegionName,
        facts: &RegionFacts,
    ) {
        let it = format!("`{name}` in {region}");
        match &facts.instance {
            Instance::Running {
                role,
                timeline,
                position,
                ..
            } => {
                let role = match role {
                    Role::Primary => "primary",
                    Role::Standby => "standby",
                };
                self.seen(format!(
                    "{it} is a {role} on timeline {timeline} at {position}"
                ));
            }
            Instance::Stopped => self.seen(format!("{it} is stopped")),
            Instance::Absent => self.seen(format!("{it} has no data directory")),
            Instance::NotConfigured => self.seen(format!("{it} is not configured")),
            Instance::Unreachable { why, runs, .. } => {
                if *runs {
                    self.seen(format!("{it} runs, although it does not answer"));
                }
                self.not_seen(it, why);
            }
        }
        let log = format!("the log of `{name}` in the store of {region}");
        match &facts.log {
            Ok(Some(held)) => self.seen(format!(
                "{log} reaches {} on timeline {}",
                held.end, held.timeline
            )),
            Ok(None) => self.seen(format!("{log} is not there")),
            Err(why) => self.not_seen(log, why),
        }
    }

    /// Adds something that was seen.
    pub(crate) fn seen(&mut self, what: impl Into<String>) {
        self.seen.push(what.into());
    }

    /// Adds something that could not be seen.
    pub(crate) fn not_seen(&mut self, what: impl Into<String>, why: impl Into<String>) {
        let (what, why) = (what.into(), why.into());
        self.not_seen.push(NotSeen { what, why });
    }

    /// Says what could not be seen, on one line each.
    pub fn unknown(&self) -> impl Iterator<Item = String> {
        let each = self.not_seen.iter();
        each.map(|NotSeen { what, why }| format!("{what}: {why}"))
    }

    /// Says all of it on one line.
    pub(crate) fn line(&self) -> String {
        let mut parts = Vec::new();
        if !self.seen.is_empty() {
            parts.push(self.seen.join(", "));
        }
        if !self.not_seen.is_empty() {
            let unknown: Vec<_> = self.unknown().collect();
            parts.push(format!("not seen: {}", unknown.join(", ")));
        }
        parts.join("; ")
    }

    fn take(&mut self, other: Self) {
        if self.looked_from.is_empty() {
            self.looked_from = other.looked_from;
        } else if !other.looked_from.is_empty() && self.looked_from != other.looked_from {
            self.looked_from = format!("{}, then {}", self.looked_from, other.looked_from);
        }
        self.seen.extend(other.seen);
        self.not_seen.extend(other.not_seen);
    }
}

/// Returns what `assess-region` has seen in an execution; `None` before that, or if nothing was recorded of it.
pub(crate) fn assessed(history: &History) -> Option<Sight> {
    let steps = history.plan.steps.iter();
    let assess: Vec<_> = steps
        .filter(|step| step.uses == assess_region::NAME)
        .collect();
    let mut whole = None::<Sight>;
    for (place, _) in history.actions() {
        if !assess.iter().any(|step| step.id == place.step) {
            continue;
        }
        let applied = history.applied(place);
        let sight = applied.and_then(|a| Sight::deserialize(&a.evidence).ok());
        if let Some(sight) = sight {
            whole.get_or_insert_default().take(sight);
        }
    }
    whole
}

#[cfg(test)]
mod tests {
    use dr_model::{Lsn, TimelineId};
    use serde_json::Value;

    use super::*;

    fn facts(instance: Instance) -> RegionFacts {
        RegionFacts {
            instance,
            log: Err("no answer within 2.4 s".to_owned()),
            detail: Value::Null,
            late: Vec::new(),
        }
    }

    fn of(instance: Instance) -> Sight {
        let mut sight = Sight::from_machine("laptop");
        let (database, east) = ("database".parse().unwrap(), "us-east-1".parse().unwrap());
        sight.resource(&database, &east, &facts(instance));
        sight
    }

    #[test]
    fn what_does_not_answer_is_not_seen_and_never_well() {
        let silent = of(Instance::Unreachable {
            why: "connection timed out".to_owned(),
            runs: false,
            on_host: false,
            hint: None,
        });
        assert_eq!(silent.seen, Vec::<String>::new());
        insta::assert_snapshot!(silent.line(), @"not seen: `database` in us-east-1: connection timed out, the log of `database` in the store of us-east-1: no answer within 2.4 s");
        let hangs = of(Instance::Unreachable {
            why: "no answer within 2.4 s".to_owned(),
            runs: true,
            on_host: true,
            hint: None,
        });
        let alive = "`database` in us-east-1 runs, although it does not answer";
        assert_eq!(hangs.seen, [alive]);
        assert_eq!(hangs.not_seen.len(), 2);
    }

    #[test]
    fn what_answers_is_seen_as_it_is() {
        let standby = of(Instance::Running {
            role: Role::Standby,
            timeline: TimelineId(1),
            position: Lsn(0x5000),
            replayed: None,
        });
        let seen = "`database` in us-east-1 is a standby on timeline 1 at 0/5000";
        assert_eq!(standby.seen, [seen]);
        assert_eq!(
            of(Instance::Stopped).seen,
            ["`database` in us-east-1 is stopped"]
        );
        let gone = ["`database` in us-east-1 has no data directory"];
        assert_eq!(of(Instance::Absent).seen, gone);
    }
}
