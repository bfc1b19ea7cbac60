//! Looking at the old primary itself: whether it is alive, whatever a person states or a guard should have done (PROTOCOL 7).
//!
//! Only what the server or its host says counts. A store or a register that is slow hides no server that answers.

use std::time::Duration;

use dr_model::RegionName;
use dr_provider::ResourceDriver;
use dr_provider::driver::{Facts, Instance, Role};

/// How long the region being left may take to show itself: longer than a login may, so that of a server that hangs it is still
/// said what its host sees.
pub(crate) const LOST_REGION_LIMIT: Duration = Duration::from_millis(2500);

/// How long each part of a look at everything in that region may take, its store, its server, its host: what was seen in time is kept, and
/// a moment is left to put it together.
pub(crate) const PART_LIMIT: Duration = Duration::from_millis(2400);

/// What a look came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    /// What was seen: a lower-case fragment.
    pub(crate) seen: String,
    /// Whether that shows that it is alive.
    pub(crate) alive: bool,
    /// Whether the look came to an end in time.
    pub(crate) in_time: bool,
}

/// Looks at the instance in `region` within [`LOST_REGION_LIMIT`].
pub(crate) async fn look(driver: &dyn ResourceDriver, region: &RegionName) -> Look {
    let Ok(instance) = tokio::time::timeout(LOST_REGION_LIMIT, driver.look(region)).await else {
        return Look {
            seen: no_answer(),
            alive: false,
            in_time: false,
        };
    };
    Look {
        seen: describe(&instance),
        alive: is_alive(Some(&instance)),
        in_time: true,
    }
}

/// Says that nothing was seen in time.
pub(crate) fn no_answer() -> String {
    format!("no answer within {} s", LOST_REGION_LIMIT.as_secs_f64())
}

/// Tells whether an instance answers as a primary, or shows otherwise that it runs, so that nobody can have seen it stopped.
pub(crate) fn is_alive(instance: Option<&Instance>) -> bool {
    matches!(
        instance,
        Some(
            Instance::Running {
                role: Role::Primary,
                ..
            } | Instance::Unreachable { runs: true, .. }
        )
    )
}

/// Tells the same of what was seen of a resource in `region`.
pub(crate) fn was_alive(facts: &Facts, region: &RegionName) -> bool {
    is_alive(facts.regions.get(region).map(|seen| &seen.instance))
}

fn describe(instance: &Instance) -> String {
    match instance {
        Instance::Running {
            role: Role::Primary,
            ..
        } => "a primary answers".to_owned(),
        Instance::Running {
            role: Role::Standby,
            ..
        } => "a standby answers".to_owned(),
        Instance::Stopped => "it is stopped".to_owned(),
        Instance::Absent => "its data directory is gone".to_owned(),
        Instance::NotConfigured => "no instance is configured".to_owned(),
        Instance::Unreachable { why, .. } => why.clone(),
    }
}
