//! What an assessment rests on, and what has changed since.

use std::collections::BTreeSet;

use dr_model::{Epoch, RegionName};
use dr_runbook::World;
use serde::Serialize;

use crate::wiring::Setup;

/// What an assessment rests on besides what is measured anew each time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Basis {
    /// The digest of the configuration, in hexadecimal digits; `None` if it cannot be read any more.
    pub(crate) configuration: Option<String>,
    /// The newest epoch; `None` if it was not known.
    pub(crate) epoch: Option<Epoch>,
    /// Log that is known to be missing in the region's store, one line each; `None` if it could not be seen.
    pub(crate) missing: Option<BTreeSet<String>>,
}

impl Basis {
    /// Takes it out of what was seen; `None` if nothing was.
    pub(super) fn of(setup: &Setup, to: &RegionName, world: Option<&World>) -> Self {
        Self {
            configuration: Some(setup.config.digest().to_hex().to_string()),
            epoch: world.and_then(|world| Some(world.register.head()?.epoch)),
            missing: world.and_then(|world| {
                let facts = world.resources.values().map(|resource| &resource.facts);
                let mut all = BTreeSet::new();
                for facts in facts {
                    let log = facts.regions.get(to)?.log.as_ref().ok()?;
                    all.extend(log.iter().flat_map(|log| log.missing.iter().cloned()));
                }
                Some(all)
            }),
        }
    }

    /// Says what has changed since, one line each. What is not known now has not changed: the next assessment says that it
    /// cannot be seen.
    pub(crate) fn changes(&self, now: &Self) -> Vec<String> {
        let mut changes = Vec::new();
        if self.configuration != now.configuration {
            changes.push(match now.configuration {
                Some(_) => "the files of the configuration have changed".to_owned(),
                None => "the files of the configuration can no longer be used".to_owned(),
            });
        }
        match (self.epoch, now.epoch) {
            (was, Some(is)) if was != Some(is) => changes.push(format!("epoch {is} was opened")),
            _ => {}
        }
        if let Some(missing) = &now.missing {
            let known = self.missing.iter().flatten().collect::<BTreeSet<_>>();
            let holes = missing.iter().filter(|hole| !known.contains(hole));
            changes.extend(holes.map(|hole| format!("log is missing: {hole}")));
            if known.iter().any(|hole| !missing.contains(*hole)) {
                changes.push("log that was missing counts no more".to_owned());
            }
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_named_and_silence_is_none() {
        let missing = |lines: &[&str]| Some(lines.iter().map(ToString::to_string).collect());
        let before = Basis {
            configuration: Some("a".to_owned()),
            epoch: Some(Epoch(1)),
            missing: missing(&["0/1 to 0/2"]),
        };
        assert!(before.changes(&before).is_empty());
        let unseen = Basis {
            configuration: Some("a".to_owned()),
            ..Basis::default()
        };
        assert!(before.changes(&unseen).is_empty());
        let after = Basis {
            configuration: Some("b".to_owned()),
            epoch: Some(Epoch(2)),
            missing: missing(&["0/3 to 0/4"]),
        };
        assert_eq!(
            before.changes(&after),
            [
                "the files of the configuration have changed",
                "epoch 2 was opened",
                "log is missing: 0/3 to 0/4",
                "log that was missing counts no more",
            ]
        );
    }
}
