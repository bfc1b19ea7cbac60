//! What the demo found, in numbers.

use jiff::Timestamp;
use serde::Serialize;

use super::failover::Failover;
use super::screen::{Colour, Screen};
use crate::judge::Verdict;
use crate::ledger::{Outage, Record};

/// The result: the object that `--json` prints.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Commits that the client was told are durable.
    pub acknowledged_commits: usize,
    /// Commits of which the client was told nothing certain.
    pub indeterminate_commits: usize,
    /// Acknowledged commits that the recovered database holds.
    pub recovered_commits: usize,
    /// Acknowledged commits that it does not hold.
    pub lost_commits: usize,
    /// Lost commits that are not part of the lost suffix. Always 0, or something is broken.
    pub holes: usize,
    /// The longest time without an acknowledged commit; `null` if there was none after the loss.
    pub client_outage_seconds: Option<f64>,
    /// Time to recover, from the start of `dr failover`: detection and decision were not exercised. `null` if clients were
    /// not proven to be led to the new region.
    pub rta_seconds: Option<f64>,
    /// From the newest heartbeat in the recovered database, or the newest commit that it replayed if that is younger, to the loss, which
    /// no daemon had the time to measure: the demo knows it. `null` if neither could be read.
    pub rpa_seconds: Option<f64>,
    /// What the engine itself took of the execution's time, beside what its steps did.
    pub overhead_seconds: Option<f64>,
    /// How the database came back: `promote` or `restore`.
    pub rung: String,
    /// What proves that the old primary has stopped.
    pub fence: String,
    /// Where the log was sealed.
    pub sealed: serde_json::Value,
    /// The report, an HTML page.
    pub report: String,
    /// The sandbox's directory.
    pub directory: String,
}

impl Summary {
    pub(super) fn new(
        verdict: &Verdict,
        outage: Option<Outage>,
        failover: &Failover,
        lost_at: Timestamp,
        report: &std::path::Path,
        directory: &std::path::Path,
    ) -> Self {
        Self {
            acknowledged_commits: verdict.acknowledged,
            indeterminate_commits: verdict.indeterminate,
            recovered_commits: verdict.recovered,
            lost_commits: verdict.lost.len(),
            holes: verdict.holes.len(),
            client_outage_seconds: outage.map(|outage| outage.duration().as_secs_f64()),
            rta_seconds: failover.rta_seconds,
            rpa_seconds: failover.rpa_seconds.or_else(|| failover.rpa_since(lost_at)),
            overhead_seconds: failover.overhead_seconds,
            rung: failover.rung.clone(),
            fence: failover.fence.clone(),
            sealed: failover.sealed.clone(),
            report: report.display().to_string(),
            directory: directory.display().to_string(),
        }
    }

    /// Lays the numbers out as rows of a name, a value and a remark.
    pub(super) fn rows(&self, failover: &Failover) -> Vec<(&'static str, String, String)> {
        let seconds = |value: Option<f64>| value.map_or("unknown".into(), |v| format!("{v:.2} s"));
        let interval = failover
            .rpa_interval_seconds
            .map_or(String::new(), |interval| {
                format!("by heartbeats and commits, ± {interval:.2} s")
            });
        let position = |key: &str| match &self.sealed[key] {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let sealed = format!("{} on timeline {}", position("lsn"), position("timeline"));
        let estimate = failover
            .loss
            .estimate
            .as_ref()
            .map_or("unknown".into(), |estimate| {
                format!("{:.2} s", estimate.delay_seconds)
            });
        vec![
            (
                "acknowledged commits",
                self.acknowledged_commits.to_string(),
                String::new(),
            ),
            (
                "  recovered",
                self.recovered_commits.to_string(),
                String::new(),
            ),
            (
                "  lost",
                self.lost_commits.to_string(),
                format!(
                    "announced: estimate {estimate}, at most {}",
                    failover.loss.bound
                ),
            ),
            (
                "  holes",
                self.holes.to_string(),
                "lost commits are the newest ones only".into(),
            ),
            (
                "indeterminate",
                self.indeterminate_commits.to_string(),
                "the client was told nothing certain".into(),
            ),
            (
                "client outage",
                seconds(self.client_outage_seconds),
                "between two acknowledged commits".into(),
            ),
            (
                "RTA",
                seconds(self.rta_seconds),
                "detection and decision were not exercised".into(),
            ),
            ("RPA", seconds(self.rpa_seconds), interval),
            ("rung", self.rung.clone(), String::new()),
            ("fence", self.fence.clone(), String::new()),
            ("sealed", sealed, String::new()),
        ]
    }

    /// Writes the numbers as a table.
    pub(super) fn table(&self, failover: &Failover, screen: Screen) -> String {
        let rows = self.rows(failover);
        let width = rows
            .iter()
            .map(|(_, value, _)| value.chars().count())
            .max()
            .unwrap_or(0);
        let lines = rows.iter().map(|(name, value, remark)| {
            let value = format!("{value:>width$}");
            let painted = match *name {
                "  holes" if self.holes > 0 => screen.paint(Colour::Red, &value),
                "  lost" if self.lost_commits == 0 => screen.paint(Colour::Green, &value),
                "client outage" => screen.paint(Colour::Bold, &value),
                _ => value,
            };
            let remark = screen.paint(Colour::Dim, remark);
            format!("  {name:<22}{painted}   {remark}")
                .trim_end()
                .to_owned()
        });
        lines.collect::<Vec<_>>().join("\n")
    }
}

/// Says what is wrong with a result, if anything is.
pub(super) fn faults(
    verdict: &Verdict,
    outage: Option<Outage>,
    failover: &Failover,
    record: &Record,
    sync: bool,
) -> Vec<String> {
    let mut faults = Vec::new();
    if !verdict.holes.is_empty() {
        faults.push(format!(
            "{} lost commits are followed by commits that survived: the log has holes",
            verdict.holes.len()
        ));
    }
    if sync && !verdict.lost.is_empty() {
        faults.push(format!(
            "{} acknowledged commits are lost although commits waited for the other region's store",
            verdict.lost.len()
        ));
    }
    let unannounced = verdict.lost.iter().filter(|commit| {
        let since = jiff::SignedDuration::from_micros(commit.ended_us.cast_signed());
        record
            .origin
            .checked_add(since)
            .is_ok_and(|at| !failover.loss.allows(at))
    });
    let unannounced = unannounced.count();
    if unannounced > 0 && !sync {
        faults.push(format!(
            "{unannounced} lost commits lie outside what the plan announced: {}",
            failover.loss.bound
        ));
    }
    if !verdict.refused_found.is_empty() {
        faults.push(format!(
            "{} commits that the application refused are in the database",
            verdict.refused_found.len()
        ));
    }
    if outage.is_none() {
        faults.push("no commit was acknowledged after the loss".to_owned());
    }
    if failover.state != "completed" {
        let reason = failover.reason.as_deref().unwrap_or("it does not say why");
        faults.push(format!(
            "the execution ended as `{}`: {reason}",
            failover.state
        ));
    }
    faults
}
