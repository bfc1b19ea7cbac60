//! The report: one HTML file without anything from elsewhere, light or dark as the reader's screen is.

use super::chart;
use super::failover::Failover;
use super::summary::Summary;
use crate::judge::Verdict;
use crate::ledger::{Outage, Record};

/// Everything that the page shows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Page<'a> {
    pub(super) summary: &'a Summary,
    pub(super) failover: &'a Failover,
    pub(super) record: &'a Record,
    pub(super) verdict: &'a Verdict,
    pub(super) outage: Option<Outage>,
    pub(super) lost_at_us: u64,
    pub(super) faults: &'a [String],
}

const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #667080; --paper: #fff; --edge: #d8dee6;
  --home: #4c78a8; --new: #3a9d5d; --lost: #d1383d; --failed: #d9922b; --step: #7a6fb0; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ee; --soft: #98a2b0; --paper: #14181d;
  --edge: #333b45; --home: #6f9bd1; --new: #58c27e; --lost: #ef6a6e; --failed: #e5b15c; --step: #a79be0; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 1080px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0 0 .2rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
p { margin: .3rem 0; } .soft { color: var(--soft); }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid var(--edge); vertical-align: top; }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.verdict { padding: .5rem .8rem; border-left: 4px solid var(--new); margin: 1rem 0; }
.verdict.bad { border-color: var(--lost); }
svg { width: 100%; height: auto; } svg text { font-size: 11px; fill: var(--soft); }
svg .tick { text-anchor: middle; } svg text.mark { fill: var(--ink); font-weight: 600; }
rect.home, .key.home { fill: var(--home); background: var(--home); }
rect.new, .key.new { fill: var(--new); background: var(--new); }
rect.lost, .key.lost { fill: var(--lost); background: var(--lost); }
rect.failed, .key.failed { fill: var(--failed); background: var(--failed); }
rect.step { fill: var(--step); } rect.step.failed { fill: var(--lost); }
line.axis { stroke: var(--edge); } line.mark { stroke: var(--ink); stroke-dasharray: 3 3; opacity: .6; }
.key { display: inline-block; width: .8em; height: .8em; margin: 0 .4em 0 1em; border-radius: 2px; }
";

impl Page<'_> {
    /// Writes the page.
    pub(super) fn render(&self) -> String {
        let title = match self.summary.client_outage_seconds {
            Some(seconds) => format!("A region lost, the workload back after {seconds:.1} s"),
            None => "A region lost".to_owned(),
        };
        let rows: String = self
            .summary
            .rows(self.failover)
            .iter()
            .map(|(name, value, remark)| {
                let (name, value, remark) = (escape(name.trim()), escape(value), escape(remark));
                format!("<tr><th>{name}</th><td class=\"number\">{value}</td><td class=\"soft\">{remark}</td></tr>\n")
            })
            .collect();
        format!(
            "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width\">\n\
             <title>{title}</title>\n<style>{STYLE}</style>\n\
             <h1>{title}</h1>\n<p class=\"soft\">Execution {execution}, {started:.0}. \
             The region was killed on purpose; detection and decision were not exercised.</p>\n\
             {verdict}\n<h2>What the client saw</h2>\n{chart}\n{legend}\n\
             <h2>In numbers</h2>\n<table>{rows}</table>\n\
             <h2>What the failover did</h2>\n{steps}\n</html>\n",
            execution = escape(&self.failover.execution),
            started = self.failover.started_at,
            verdict = self.verdict(),
            chart = chart::draw(self),
            legend = legend(),
            steps = self.steps(),
        )
    }

    fn verdict(&self) -> String {
        if self.faults.is_empty() {
            let Summary {
                acknowledged_commits,
                recovered_commits,
                lost_commits,
                ..
            } = self.summary;
            let lost = match lost_commits {
                0 => "none was lost".to_owned(),
                lost => format!("{lost} were lost, the newest ones, as the plan had announced"),
            };
            return format!(
                "<p class=\"verdict\">Of {acknowledged_commits} acknowledged commits {recovered_commits} \
                 were found in the recovered database; {lost}.</p>"
            );
        }
        let faults: String = self
            .faults
            .iter()
            .map(|fault| format!("<br>{}", escape(fault)))
            .collect();
        format!("<p class=\"verdict bad\"><b>This is not a pass.</b>{faults}</p>")
    }

    fn steps(&self) -> String {
        let rows: String = self
            .failover
            .steps
            .iter()
            .map(|step| {
                let took = step
                    .took_seconds
                    .map_or(String::new(), |s| format!("{s:.3} s"));
                let summary = escape(step.summary.as_deref().unwrap_or_default());
                let (id, uses, state) = (escape(&step.id), escape(&step.uses), escape(&step.state));
                format!(
                    "<tr><th>{id}</th><td>{uses}</td><td>{state}</td>\
                     <td class=\"number\">{took}</td><td>{summary}</td></tr>\n"
                )
            })
            .collect();
        format!(
            "<table><tr><th>step</th><th>uses</th><th>state</th><th>took</th><th></th></tr>\n{rows}</table>"
        )
    }
}

fn legend() -> &'static str {
    "<p class=\"soft\"><span class=\"key home\"></span>acknowledged in the lost region, found\
     <span class=\"key lost\"></span>acknowledged there, lost\
     <span class=\"key new\"></span>acknowledged in the new region\
     <span class=\"key failed\"></span>refused or unanswered; each bar is 100 ms</p>"
}

/// Writes text so that HTML shows it as it is.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests;
