//! The timeline as a picture: commits over time, and the steps of the failover below on the same axis.

use dr_model::RegionName;
use jiff::Timestamp;

use super::page::Page;
use crate::ledger::Outcome;
use crate::sandbox::HOME;

/// Time that one bar stands for.
const BIN_US: u64 = 100_000;
/// What is shown before the loss, so that the outage is not a thin line in a long calm.
const BEFORE_US: u64 = 6_000_000;

const WIDTH: f64 = 1080.0;
const LEFT: f64 = 150.0;
const BARS: f64 = 220.0;
const TOP: f64 = 34.0;
const ROW: f64 = 20.0;

/// One bar: commits whose outcome the client had within its time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Bar {
    home: u32,
    elsewhere: u32,
    lost: u32,
    failed: u32,
}

struct Axis {
    from_us: u64,
    to_us: u64,
    origin: Timestamp,
}

impl Axis {
    fn x(&self, at_us: u64) -> f64 {
        let at = at_us.clamp(self.from_us, self.to_us) - self.from_us;
        let length = (self.to_us - self.from_us).max(1);
        LEFT + (WIDTH - LEFT - 10.0) * at as f64 / length as f64
    }

    /// Places a wall-clock time on the axis.
    fn offset(&self, at: Timestamp) -> u64 {
        u64::try_from(at.duration_since(self.origin).as_micros()).unwrap_or(0)
    }
}

/// Draws the picture as SVG, coloured by the page's style.
pub(super) fn draw(page: &Page<'_>) -> String {
    let commits = &page.record.commits;
    let first = commits
        .first()
        .map_or(0, |commit| commit.started_us)
        .min(page.lost_at_us);
    let last = commits
        .last()
        .map_or(page.lost_at_us, |commit| commit.ended_us);
    let axis = Axis {
        from_us: first.max(page.lost_at_us.saturating_sub(BEFORE_US)) / BIN_US * BIN_US,
        to_us: last.max(page.lost_at_us + BIN_US),
        origin: page.record.origin,
    };
    let bars = bars(page, &axis);
    let rows = page
        .failover
        .steps
        .iter()
        .filter(|step| step.started_at.is_some())
        .count();
    let height = TOP + BARS + 40.0 + ROW * rows as f64;
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\" \
         aria-label=\"Commits over time, around the loss of the region\">\n"
    );
    draw_bars(&mut svg, &axis, &bars);
    draw_seconds(&mut svg, &axis, page.lost_at_us);
    draw_steps(&mut svg, &axis, page);
    draw_marks(&mut svg, &axis, page, height);
    svg.push_str("</svg>\n");
    svg
}

fn bars(page: &Page<'_>, axis: &Axis) -> Vec<Bar> {
    let count = (axis.to_us - axis.from_us) / BIN_US + 1;
    let mut bars = vec![Bar::default(); usize::try_from(count).unwrap_or(0)];
    let lost: std::collections::BTreeSet<i64> = page.verdict.lost.iter().map(|c| c.id).collect();
    for commit in page
        .record
        .commits
        .iter()
        .filter(|commit| commit.ended_us >= axis.from_us)
    {
        let bin = usize::try_from((commit.ended_us - axis.from_us) / BIN_US).unwrap_or(usize::MAX);
        let Some(bar) = bars.get_mut(bin) else {
            continue;
        };
        let home = commit
            .region
            .as_ref()
            .is_some_and(|r: &RegionName| r.as_str() == HOME);
        *match commit.outcome {
            Outcome::Acknowledged if lost.contains(&commit.id) => &mut bar.lost,
            Outcome::Acknowledged if home => &mut bar.home,
            Outcome::Acknowledged => &mut bar.elsewhere,
            Outcome::Refused | Outcome::Indeterminate => &mut bar.failed,
        } += 1;
    }
    bars
}

fn draw_bars(svg: &mut String, axis: &Axis, bars: &[Bar]) {
    let highest = bars
        .iter()
        .map(|bar| bar.home + bar.elsewhere + bar.lost)
        .max()
        .unwrap_or(1);
    let scale = BARS / f64::from(highest.max(1));
    let width = (axis.x(axis.from_us + BIN_US) - LEFT - 1.0).max(0.6);
    for (number, bar) in bars.iter().enumerate() {
        let x = axis.x(axis.from_us + number as u64 * BIN_US);
        let mut base = TOP + BARS;
        for (class, count) in [
            ("home", bar.home),
            ("lost", bar.lost),
            ("new", bar.elsewhere),
        ] {
            if count > 0 {
                let height = f64::from(count) * scale;
                base -= height;
                svg.push_str(&format!(
                    "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{base:.1}\" width=\"{width:.1}\" \
                     height=\"{height:.1}\"><title>{count} commits in 100 ms</title></rect>"
                ));
            }
        }
        if bar.failed > 0 {
            let y = TOP + BARS + 3.0;
            svg.push_str(&format!(
                "<rect class=\"failed\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"4\">\
                 <title>{} commits refused or unanswered</title></rect>",
                bar.failed
            ));
        }
    }
    let y = TOP + BARS;
    let rate = u64::from(highest) * 1_000_000 / BIN_US;
    svg.push_str(&format!(
        "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{rate}/s</text>\
         <text x=\"{:.0}\" y=\"{y:.0}\" text-anchor=\"end\">0</text>\
         <line class=\"axis\" x1=\"{LEFT}\" x2=\"{:.0}\" y1=\"{y}\" y2=\"{y}\"/>",
        LEFT - 6.0,
        TOP + 10.0,
        LEFT - 6.0,
        WIDTH - 10.0
    ));
}

fn draw_seconds(svg: &mut String, axis: &Axis, lost_at_us: u64) {
    let first = (lost_at_us - axis.from_us) / 1_000_000;
    for second in 0.. {
        let at = lost_at_us - first * 1_000_000 + second * 1_000_000;
        if at > axis.to_us {
            break;
        }
        let label = second.cast_signed() - first.cast_signed();
        svg.push_str(&format!(
            "<text class=\"tick\" x=\"{:.1}\" y=\"{:.0}\">{label:+} s</text>",
            axis.x(at),
            TOP + BARS + 22.0
        ));
    }
}

fn draw_steps(svg: &mut String, axis: &Axis, page: &Page<'_>) {
    let mut y = TOP + BARS + 36.0;
    for step in &page.failover.steps {
        let Some(started) = step.started_at else {
            continue;
        };
        let from = axis.offset(started);
        let took = step.took_seconds.unwrap_or(0.0).max(0.0);
        let (x, end) = (axis.x(from), axis.x(from + (took * 1e6) as u64));
        let title = super::page::escape(step.summary.as_deref().unwrap_or(&step.uses));
        svg.push_str(&format!(
            "<text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <rect class=\"step {}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.0}\" rx=\"2\">\
             <title>{title} ({took:.2} s)</title></rect>",
            LEFT - 6.0,
            y + 11.0,
            super::page::escape(&step.id),
            super::page::escape(&step.state),
            (end - x).max(2.0),
            ROW - 6.0
        ));
        y += ROW;
    }
}

fn draw_marks(svg: &mut String, axis: &Axis, page: &Page<'_>, height: f64) {
    let switched = page
        .failover
        .steps
        .iter()
        .find(|step| step.uses == "switch-traffic");
    let switched = switched.and_then(|step| {
        let took = (step.took_seconds? * 1e6) as u64;
        Some(axis.offset(step.started_at?) + took)
    });
    let first_after = page.outage.map(|outage| outage.first_after_us);
    let marks = [
        (Some(page.lost_at_us), "region lost", "end"),
        (switched, "DNS switched", "end"),
        (first_after, "first commit after", "start"),
    ];
    for (row, (at, text, anchor)) in marks.into_iter().enumerate() {
        let Some(at) = at else { continue };
        let x = axis.x(at);
        let y = 11.0 + if row == 1 { 14.0 } else { 0.0 };
        let shift = if anchor == "end" { -4.0 } else { 4.0 };
        svg.push_str(&format!(
            "<line class=\"mark\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"4\" y2=\"{height:.0}\"/>\
             <text class=\"mark\" x=\"{:.1}\" y=\"{y}\" text-anchor=\"{anchor}\">{text}</text>",
            x + shift
        ));
    }
}
