//! The daemon's metrics. What is not known has no sample: absence is visible to an alarm, a zero is
//! not.

use std::collections::BTreeMap;
use std::time::Duration;

use dr_config::Objectives;
use dr_jobs::engine::Condition;
use dr_jobs::engine::board::Runs;
use dr_model::detection::PrimaryState;
use dr_model::{RegionName, ResourceId, WorkloadName};
use dr_provider::driver::{Frontier, KeptLog};
use dr_server::{Family, Kind, Sample};
use jiff::Timestamp;

use super::check_readiness::Known;
use super::watch_primary::Watched;
use crate::commands::status::Verdict;
use crate::readiness::Readiness;

/// What the metrics are made of, taken at one moment.
pub(super) struct Snapshot<'a> {
    pub(super) region: &'a RegionName,
    pub(super) now: Timestamp,
    pub(super) uptime: Duration,
    pub(super) frontiers: BTreeMap<ResourceId, Frontier>,
    pub(super) runs: BTreeMap<String, Runs>,
    pub(super) conditions: BTreeMap<String, Condition>,
    pub(super) objectives: &'a BTreeMap<WorkloadName, Objectives>,
    pub(super) readiness: BTreeMap<WorkloadName, Known>,
    pub(super) primaries: BTreeMap<WorkloadName, Watched>,
    pub(super) writers: BTreeMap<ResourceId, usize>,
}

/// Returns all metric families.
pub(super) fn families(snapshot: &Snapshot<'_>) -> Vec<Family> {
    let mut families = vec![
        gauge(
            "dr_up",
            None,
            "Whether the daemon runs.",
            vec![region(snapshot, 1.0)],
        ),
        gauge(
            "dr_uptime_seconds",
            Some("seconds"),
            "Time since the daemon started.",
            vec![region(snapshot, snapshot.uptime.as_secs_f64())],
        ),
        objectives(snapshot),
        conditions(snapshot),
    ];
    families.extend(logs(snapshot));
    families.extend(runs(snapshot));
    families.extend(readiness(snapshot));
    families.extend(primaries(snapshot));
    families.push(writers(snapshot));
    families
}

fn objectives(snapshot: &Snapshot<'_>) -> Family {
    let mut samples = Vec::new();
    for (workload, objectives) in snapshot.objectives {
        for (name, value) in [("rpo", objectives.rpo), ("rto", objectives.rto)] {
            let labels = vec![
                ("workload", workload.to_string()),
                ("objective", name.to_owned()),
            ];
            samples.push(Sample {
                labels,
                value: value.as_secs_f64(),
            });
        }
    }
    gauge(
        "dr_objective_seconds",
        Some("seconds"),
        "What was promised of a workload's recovery.",
        samples,
    )
}

fn conditions(snapshot: &Snapshot<'_>) -> Family {
    let sample = |(task, condition): (&String, &Condition)| {
        let value = match condition {
            Condition::Good(_) => 1.0,
            Condition::Bad(_) => 0.0,
            Condition::Unknown(_) => return None,
        };
        Some(Sample {
            labels: vec![("task", task.clone())],
            value,
        })
    };
    let samples = snapshot.conditions.iter().filter_map(sample).collect();
    gauge(
        "dr_task_healthy",
        None,
        "Whether a task does its work; absent while that is unknown.",
        samples,
    )
}

fn logs(snapshot: &Snapshot<'_>) -> Vec<Family> {
    let each = |value: &dyn Fn(&Frontier) -> Option<f64>| -> Vec<Sample> {
        let sample = |(resource, frontier): (&ResourceId, &Frontier)| {
            let labels = vec![
                ("resource", resource.to_string()),
                ("region", snapshot.region.to_string()),
            ];
            Some(Sample {
                labels,
                value: value(frontier)?,
            })
        };
        snapshot.frontiers.iter().filter_map(sample).collect()
    };
    let slots = |value: &dyn Fn(&KeptLog) -> Option<u64>| -> Vec<Sample> {
        let mut samples = Vec::new();
        for (resource, frontier) in &snapshot.frontiers {
            samples.extend(frontier.kept.iter().filter_map(|kept| {
                let labels = vec![
                    ("resource", resource.to_string()),
                    ("region", snapshot.region.to_string()),
                    ("slot", kept.name.clone()),
                ];
                let value = value(kept)? as f64;
                Some(Sample { labels, value })
            }));
        }
        samples
    };
    let age =
        |at: Option<Timestamp>| at.map(|at| snapshot.now.duration_since(at).as_secs_f64().max(0.0));
    let position = |lsn: dr_model::Lsn| lsn.is_valid().then_some(lsn.0 as f64);
    vec![
        gauge(
            "dr_exposure_seconds",
            Some("seconds"),
            "Time since the store of this region last held all that the primary had reported.",
            each(&|frontier| age(frontier.covered_at)),
        ),
        gauge(
            "dr_log_alarms",
            None,
            "Things that a person has to see to although the log arrives; /health says which.",
            each(&|frontier| Some(frontier.alarms.len() as f64)),
        ),
        gauge(
            "dr_slot_kept_bytes",
            Some("bytes"),
            "Log that the primary keeps for a slot; beside the primary of all slots, elsewhere of the region's own.",
            slots(&|kept| kept.kept_bytes),
        ),
        gauge(
            "dr_slot_safe_bytes",
            Some("bytes"),
            "Log that may still be written before a slot loses some; absent without a limit.",
            slots(&|kept| kept.safe_bytes),
        ),
        gauge(
            "dr_slot_free_bytes",
            Some("bytes"),
            "Room left on the disk of the primary's log; absent where that cannot be seen.",
            slots(&|kept| kept.free_bytes),
        ),
        gauge(
            "dr_log_heard_age_seconds",
            Some("seconds"),
            "Time since the primary last said anything.",
            each(&|frontier| age(frontier.heard_at)),
        ),
        gauge(
            "dr_log_received_bytes",
            Some("bytes"),
            "Position in the log received from the primary.",
            each(&|frontier| position(frontier.received)),
        ),
        gauge(
            "dr_log_durable_bytes",
            Some("bytes"),
            "Position up to which the log is in the store without a hole.",
            each(&|frontier| position(frontier.durable)),
        ),
        gauge(
            "dr_log_primary_bytes",
            Some("bytes"),
            "Position of the primary as last reported.",
            each(&|frontier| position(frontier.primary_end)),
        ),
        gauge(
            "dr_log_streaming",
            None,
            "Whether the log is being received.",
            each(&|frontier| {
                Some(f64::from(u8::from(
                    frontier.state == "streaming" && frontier.problem.is_none(),
                )))
            }),
        ),
        counter(
            "dr_log_chunks",
            None,
            "Chunks written since the receiver started.",
            each(&|f| Some(f.chunks as f64)),
        ),
        counter(
            "dr_log_written_bytes",
            Some("bytes"),
            "Log written since the receiver started.",
            each(&|frontier| Some(frontier.log_bytes as f64)),
        ),
        counter(
            "dr_log_stored_bytes",
            Some("bytes"),
            "Bytes put into the store for it.",
            each(&|frontier| Some(frontier.stored_bytes as f64)),
        ),
    ]
}

fn runs(snapshot: &Snapshot<'_>) -> Vec<Family> {
    let mut totals = Vec::new();
    let mut ages = Vec::new();
    let mut figures = Vec::new();
    for (schedule, runs) in &snapshot.runs {
        for (outcome, count) in [("succeeded", runs.succeeded), ("failed", runs.failed)] {
            let labels = vec![
                ("schedule", schedule.clone()),
                ("outcome", outcome.to_owned()),
            ];
            totals.push(Sample {
                labels,
                value: count as f64,
            });
        }
        for (figure, value) in &runs.figures {
            let labels = vec![
                ("schedule", schedule.clone()),
                ("figure", (*figure).to_owned()),
            ];
            figures.push(Sample {
                labels,
                value: *value,
            });
        }
        if let Some(last) = runs.last_success {
            let value = snapshot.now.duration_since(last).as_secs_f64().max(0.0);
            ages.push(Sample {
                labels: vec![("schedule", schedule.clone())],
                value,
            });
        }
    }
    vec![
        counter(
            "dr_runs",
            None,
            "Runs of each schedule since the daemon started.",
            totals,
        ),
        gauge(
            "dr_last_success_age_seconds",
            Some("seconds"),
            "Time since the last run that did its work began; from the stores after a restart.",
            ages,
        ),
        gauge(
            "dr_run_figure",
            None,
            "What the last run of a schedule that did its work counted; absent until one did.",
            figures,
        ),
    ]
}

fn writers(snapshot: &Snapshot<'_>) -> Family {
    let sample = |(resource, count): (&ResourceId, &usize)| Sample {
        labels: vec![
            ("resource", resource.to_string()),
            ("region", snapshot.region.to_string()),
        ],
        value: *count as f64,
    };
    gauge(
        "dr_primaries",
        None,
        "In how many regions servers of a cluster accept writes, seen from this one; absent while one cannot be seen.",
        snapshot.writers.iter().map(sample).collect(),
    )
}

fn primaries(snapshot: &Snapshot<'_>) -> Vec<Family> {
    let each = |value: &dyn Fn(&Watched) -> Option<f64>| -> Vec<Sample> {
        let sample = |(workload, watched): (&WorkloadName, &Watched)| {
            let labels = vec![
                ("workload", workload.to_string()),
                ("region", snapshot.region.to_string()),
            ];
            let value = value(watched)?;
            Some(Sample { labels, value })
        };
        snapshot.primaries.iter().filter_map(sample).collect()
    };
    vec![
        gauge(
            "dr_primary_up",
            None,
            "Whether the primary in another region answers, seen from this one; absent while that is unknown.",
            each(&|watched| match watched.state {
                PrimaryState::Up => Some(1.0),
                PrimaryState::Down => Some(0.0),
                PrimaryState::Unknown => None,
            }),
        ),
        counter(
            "dr_primary_looks",
            None,
            "Rounds of looks at the primary in another region.",
            each(&|watched| Some(watched.rounds as f64)),
        ),
    ]
}

/// A workload whose primary is in this region has no samples: there is nothing to move here.
fn readiness(snapshot: &Snapshot<'_>) -> Vec<Family> {
    let each = |value: &dyn Fn(&Known, &Readiness) -> Option<f64>| -> Vec<Sample> {
        let sample = |(workload, known): (&WorkloadName, &Known)| {
            let labels = vec![
                ("workload", workload.to_string()),
                ("region", snapshot.region.to_string()),
            ];
            let value = value(known, known.readiness.as_ref()?)?;
            Some(Sample { labels, value })
        };
        snapshot.readiness.iter().filter_map(sample).collect()
    };
    vec![
        gauge(
            "dr_readiness",
            None,
            "Whether a failover to this region would come to its end; absent while that is unknown.",
            each(&|_, readiness| match readiness.verdict {
                Verdict::Ok => Some(1.0),
                Verdict::Breach => Some(0.0),
                Verdict::Unknown => None,
            }),
        ),
        gauge(
            "dr_readiness_score",
            None,
            "How many checks of a failover to this region passed, in percent.",
            each(&|_, readiness| Some(f64::from(readiness.score))),
        ),
        gauge(
            "dr_readiness_age_seconds",
            Some("seconds"),
            "Time since a failover to this region was assessed.",
            each(&|_, readiness| {
                let age = snapshot.now.duration_since(readiness.checked_at);
                Some(age.as_secs_f64().max(0.0))
            }),
        ),
        gauge(
            "dr_readiness_stale",
            None,
            "Whether something has changed since that the assessment rests on; /health says what.",
            each(&|known, _| Some(f64::from(u8::from(known.stale.is_some())))),
        ),
    ]
}

fn region(snapshot: &Snapshot<'_>, value: f64) -> Sample {
    Sample {
        labels: vec![("region", snapshot.region.to_string())],
        value,
    }
}

fn gauge(
    name: &'static str,
    unit: Option<&'static str>,
    help: &'static str,
    samples: Vec<Sample>,
) -> Family {
    Family {
        name,
        kind: Kind::Gauge,
        unit,
        help,
        samples,
    }
}

fn counter(
    name: &'static str,
    unit: Option<&'static str>,
    help: &'static str,
    samples: Vec<Sample>,
) -> Family {
    Family {
        name,
        kind: Kind::Counter,
        unit,
        help,
        samples,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exposure(covered_at: Option<Timestamp>) -> Vec<f64> {
        let frontier = Frontier {
            covered_at,
            ..Frontier::default()
        };
        values(frontier, "dr_exposure_seconds")
    }

    fn values(frontier: Frontier, name: &str) -> Vec<f64> {
        let region = "us-west-2".parse().unwrap();
        let objectives = BTreeMap::new();
        let snapshot = Snapshot {
            region: &region,
            now: Timestamp::from_second(1000).unwrap(),
            uptime: Duration::ZERO,
            frontiers: BTreeMap::from([("orders/database".parse().unwrap(), frontier)]),
            runs: BTreeMap::new(),
            conditions: BTreeMap::new(),
            objectives: &objectives,
            readiness: BTreeMap::new(),
            primaries: BTreeMap::new(),
            writers: BTreeMap::new(),
        };
        let families = families(&snapshot);
        let family = families.iter().find(|family| family.name == name).unwrap();
        family.samples.iter().map(|sample| sample.value).collect()
    }

    #[test]
    fn what_a_slot_keeps_is_shown_and_what_is_not_known_is_not() {
        let frontier = Frontier {
            kept: vec![KeptLog {
                name: "dr_us_west_2".to_owned(),
                kept_bytes: Some(17),
                safe_bytes: None,
                free_bytes: Some(3),
            }],
            ..Frontier::default()
        };
        assert_eq!(values(frontier.clone(), "dr_slot_kept_bytes"), [17.0]);
        assert_eq!(values(frontier.clone(), "dr_slot_free_bytes"), [3.0]);
        assert_eq!(values(frontier, "dr_slot_safe_bytes"), Vec::<f64>::new());
    }

    #[test]
    fn an_unknown_exposure_has_no_sample() {
        assert_eq!(exposure(None), Vec::<f64>::new());
        assert_eq!(exposure(Some(Timestamp::from_second(990).unwrap())), [10.0]);
    }
}
