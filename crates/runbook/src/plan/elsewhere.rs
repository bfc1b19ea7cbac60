//! What other regions hold of the log of a database that is rebuilt in its own. Pure.
//!
//! A standby, or another region's store, may have heard of the primary longer than the store of its own region. It is taken over before
//! the log is sealed; what cannot be seen cannot be.

use dr_model::{Lsn, RegionName};
use dr_provider::driver::{Instance, LogFacts, RegionFacts, Role};

use super::{Mode, Refusal, Target, in_place};
use crate::request::{Request, override_reason};
use crate::step::Scene;
use crate::world::{ResourceFacts, World};

/// Returns the regions that hold more of the log than the store that a database is rebuilt from, which is to be gathered first. Somebody who
/// sets safety rules aside leaves it where it is.
pub(crate) fn gathered(scene: &Scene<'_>, target: &Target) -> Vec<RegionName> {
    let Target::Resource(name) = target else {
        return Vec::new();
    };
    let (world, request) = (scene.world, scene.request);
    let rebuilt = scene.mode == Mode::InPlace && request.target.is_none();
    let resource = world.resources.get(name).filter(|_| rebuilt);
    let own = resource.and_then(|resource| Some((own_log(resource, &request.to)?, resource)));
    let Some((own, resource)) = own.filter(|_| override_reason(&request.statements).is_none())
    else {
        return Vec::new();
    };
    let ahead = resource
        .elsewhere
        .iter()
        .filter(|(_, seen)| matches!(beyond(own, seen), Ok(Some(_))));
    ahead.map(|(region, _)| region.clone()).collect()
}

/// Refuses to rebuild in place while a store that commits waited for cannot be seen; says what else is not taken over.
pub(super) fn refuse(world: &World, request: &Request, mode: Mode) -> Result<Vec<String>, Refusal> {
    let mut warnings = Vec::new();
    // Whoever names a moment wants what came after it to be left out.
    if mode != Mode::InPlace || request.target.is_some() {
        return Ok(warnings);
    }
    let overridden = override_reason(&request.statements).is_some();
    for (name, resource) in &world.resources {
        if in_place::goes_on(world, request, name) {
            continue;
        }
        let Some(own) = own_log(resource, &request.to) else {
            continue;
        };
        let claim = resource.facts.claim.as_ref();
        for (region, seen) in &resource.elsewhere {
            match beyond(own, seen) {
                Err(()) if !overridden && claim.is_some_and(|claim| claim.sync.contains(region)) => {
                    return Err(Refusal::UnseenElsewhere {
                        resource: name.clone(),
                        to: request.to.clone(),
                        region: region.clone(),
                    });
                }
                Err(()) => warnings.push(format!(
                    "{region} could not be looked at, and may hold more of the log of `{name}` than the store of {} does",
                    request.to
                )),
                Ok(Some((holder, end))) if overridden => warnings.push(format!(
                    "{holder} in {region} has the log of `{name}` up to {end}: what lies beyond {} is left out, by override",
                    own.end
                )),
                Ok(_) => {}
            }
        }
    }
    Ok(warnings)
}

fn own_log<'a>(resource: &'a ResourceFacts, to: &RegionName) -> Option<&'a LogFacts> {
    resource.facts.regions.get(to)?.log.as_ref().ok()?.as_ref()
}

/// Returns who in a region holds the same log further than `own`, and how far; the error is that not all of it could be seen, and what was
/// seen holds no more.
fn beyond(own: &LogFacts, seen: &RegionFacts) -> Result<Option<(&'static str, Lsn)>, ()> {
    let standby = match &seen.instance {
        Instance::Running {
            role: Role::Standby,
            timeline,
            position,
            ..
        } if *timeline == own.timeline => Some(("its standby", *position)),
        _ => None,
    };
    let stored = seen.log.as_ref().ok().and_then(Option::as_ref);
    let stored = stored.filter(|log| (log.epoch, log.timeline) == (own.epoch, own.timeline));
    let stored = stored.map(|log| ("its store", log.end));
    let furthest = standby
        .into_iter()
        .chain(stored)
        .max_by_key(|(_, end)| *end);
    let further = furthest.filter(|(_, end)| *end > own.end);
    let unseen = seen.log.is_err() || matches!(seen.instance, Instance::Unreachable { .. });
    match further {
        None if unseen => Err(()),
        found => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use dr_model::{Epoch, TimelineId};
    use rstest::rstest;
    use serde_json::Value;

    use super::*;

    fn log(end: u64) -> LogFacts {
        LogFacts {
            epoch: Epoch(3),
            timeline: TimelineId(2),
            start: Lsn(0x100),
            end: Lsn(end),
            missing: Vec::new(),
            sealed: false,
            primary_end: Lsn(end),
            received_at: None,
            shipped_at: None,
            last_commit_at: None,
            commits_per_second: None,
            covered_at: None,
            promise: None,
            recovery_points: Vec::new(),
            unusable: Vec::new(),
            earlier: None,
        }
    }

    fn standby(timeline: u32, position: u64) -> Instance {
        Instance::Running {
            role: Role::Standby,
            timeline: TimelineId(timeline),
            position: Lsn(position),
            replayed: None,
        }
    }

    fn silent() -> Instance {
        Instance::Unreachable {
            why: "no route".to_owned(),
            runs: false,
            on_host: false,
            hint: None,
        }
    }

    #[rstest]
    #[case::level(standby(2, 0x500), Ok(Some(log(0x500))), Ok(None))]
    #[case::standby_ahead(standby(2, 0x501), Ok(None), Ok(Some(("its standby", Lsn(0x501)))))]
    #[case::store_ahead(Instance::Absent, Ok(Some(log(0x600))), Ok(Some(("its store", Lsn(0x600)))))]
    #[case::the_further(standby(2, 0x501), Ok(Some(log(0x600))), Ok(Some(("its store", Lsn(0x600)))))]
    #[case::another_timeline(standby(1, 0x900), Ok(None), Ok(None))]
    #[case::silent(silent(), Ok(None), Err(()))]
    #[case::store_silent(Instance::Stopped, Err("no answer".to_owned()), Err(()))]
    #[case::silent_and_ahead(silent(), Ok(Some(log(0x600))), Ok(Some(("its store", Lsn(0x600)))))]
    fn whoever_holds_more_is_found(
        #[case] instance: Instance,
        #[case] log_there: Result<Option<LogFacts>, String>,
        #[case] expected: Result<Option<(&'static str, Lsn)>, ()>,
    ) {
        let seen = RegionFacts {
            instance,
            log: log_there,
            detail: Value::Null,
            late: Vec::new(),
        };
        assert_eq!(beyond(&log(0x500), &seen), expected);
        // The chain of another epoch is another log, however long it is.
        if let Ok(Some(there)) = &seen.log {
            let other = RegionFacts {
                instance: Instance::Absent,
                log: Ok(Some(LogFacts {
                    epoch: Epoch(2),
                    ..there.clone()
                })),
                ..seen
            };
            assert_eq!(beyond(&log(0x500), &other), Ok(None));
        }
    }
}
