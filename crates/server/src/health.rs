//! The document that `/health` answers with.

use std::collections::BTreeMap;

use serde::Serialize;

/// How something is. Unknown is a state of its own and never healthy (principle 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// It works.
    Healthy,
    /// Nobody can tell.
    Unknown,
    /// It does not work.
    Unhealthy,
}

/// One named part of the daemon or of what it looks after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Component {
    /// How it is.
    pub status: Status,
    /// One line that says why.
    pub detail: String,
}

/// The whole document.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Health {
    /// The worst status of all components.
    pub status: Status,
    /// Version of the program.
    pub version: &'static str,
    /// The daemon's region.
    pub region: String,
    /// Seconds since the daemon started.
    pub uptime_seconds: f64,
    /// Whether everything has been started once.
    pub started: bool,
    /// Components by name.
    pub checks: BTreeMap<String, Component>,
}

impl Health {
    /// Puts a document together; its status is the worst of `checks`, and unknown if there are none.
    #[must_use]
    pub fn new(
        version: &'static str,
        region: String,
        uptime_seconds: f64,
        started: bool,
        checks: BTreeMap<String, Component>,
    ) -> Self {
        let status = checks
            .values()
            .map(|check| check.status)
            .max()
            .unwrap_or(Status::Unknown);
        Self {
            status,
            version,
            region,
            uptime_seconds,
            started,
            checks,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health(statuses: &[Status]) -> Status {
        let checks = statuses
            .iter()
            .enumerate()
            .map(|(n, &status)| {
                (
                    n.to_string(),
                    Component {
                        status,
                        detail: String::new(),
                    },
                )
            })
            .collect();
        Health::new("0", "r".to_owned(), 0.0, true, checks).status
    }

    #[test]
    fn the_worst_component_decides() {
        assert_eq!(health(&[]), Status::Unknown);
        assert_eq!(health(&[Status::Healthy]), Status::Healthy);
        assert_eq!(health(&[Status::Healthy, Status::Unknown]), Status::Unknown);
        assert_eq!(
            health(&[Status::Unhealthy, Status::Unknown]),
            Status::Unhealthy
        );
    }
}
