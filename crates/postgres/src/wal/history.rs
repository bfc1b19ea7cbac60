//! Timeline history files: where each ancestor of a timeline ended.
//!
//! Format: `<timeline>\t<position>\t<reason>` a line, oldest first, as `writeTimeLineHistory` in PostgreSQL's
//! `access/transam/timeline.c` writes it; comments and empty lines are allowed. Timeline 1 has no file.

use std::fmt::Write as _;

use dr_model::{Lsn, TimelineId};

/// An ancestor of a timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ancestor {
    /// The ancestor.
    pub timeline: TimelineId,
    /// Where it was left: its records before this position belong to the descendant, later ones do not.
    pub end: Lsn,
    /// Why, in words for people.
    pub reason: String,
}

/// The whole ancestry of a timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimelineHistory {
    timeline: TimelineId,
    ancestors: Vec<Ancestor>,
}

/// A history file is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// The file is not text.
    #[error("the history of timeline {0} is not text")]
    NotText(TimelineId),
    /// A line is not `<timeline> <position> <reason>`.
    #[error(
        "line {line} of the history of timeline {timeline} is not a timeline and a position: `{text}`"
    )]
    Line {
        /// Whose history it is.
        timeline: TimelineId,
        /// Number of the line, from 1.
        line: usize,
        /// The line.
        text: String,
    },
    /// Timelines or positions do not grow from line to line, or reach the timeline itself.
    #[error("line {line} of the history of timeline {timeline} is out of order")]
    Order {
        /// Whose history it is.
        timeline: TimelineId,
        /// Number of the line, from 1.
        line: usize,
    },
}

impl TimelineHistory {
    /// Returns the history of the first timeline of a cluster, which has no ancestors.
    #[must_use]
    pub fn root(timeline: TimelineId) -> Self {
        Self {
            timeline,
            ancestors: Vec::new(),
        }
    }

    /// Reads the history file of `timeline`.
    pub fn parse(timeline: TimelineId, content: &[u8]) -> Result<Self, HistoryError> {
        let text = std::str::from_utf8(content).map_err(|_| HistoryError::NotText(timeline))?;
        let mut ancestors: Vec<Ancestor> = Vec::new();
        for (index, raw) in text.lines().enumerate() {
            let (line, trimmed) = (index + 1, raw.trim());
            if trimmed.is_empty() || trimmed.starts_with('#') {
                continue;
            }
            let ancestor = parse_line(trimmed).ok_or_else(|| HistoryError::Line {
                timeline,
                line,
                text: raw.to_owned(),
            })?;
            let after_last = ancestors
                .last()
                .is_none_or(|last| last.timeline < ancestor.timeline && last.end <= ancestor.end);
            if !after_last || ancestor.timeline >= timeline {
                return Err(HistoryError::Order { timeline, line });
            }
            ancestors.push(ancestor);
        }
        Ok(Self {
            timeline,
            ancestors,
        })
    }

    /// Returns the timeline whose history this is.
    #[must_use]
    pub fn timeline(&self) -> TimelineId {
        self.timeline
    }

    /// Returns the ancestors, oldest first.
    #[must_use]
    pub fn ancestors(&self) -> &[Ancestor] {
        &self.ancestors
    }

    /// Returns where this timeline branched off its parent; `None` for the first one.
    #[must_use]
    pub fn begin(&self) -> Option<Lsn> {
        self.ancestors.last().map(|parent| parent.end)
    }

    /// Returns the timeline to which the byte at `position` belongs.
    #[must_use]
    pub fn timeline_at(&self, position: Lsn) -> TimelineId {
        let ancestor = self.ancestors.iter().find(|a| position < a.end);
        ancestor.map_or(self.timeline, |a| a.timeline)
    }

    /// Tells whether what stands on `timeline` up to `end` is part of this history: whether a backup that becomes
    /// consistent at `end` can be recovered along it (R28).
    #[must_use]
    pub fn covers(&self, timeline: TimelineId, end: Lsn) -> bool {
        timeline == self.timeline
            || self
                .ancestors
                .iter()
                .any(|a| a.timeline == timeline && end <= a.end)
    }

    /// Returns the history of a timeline that branches off this one at `end`.
    #[must_use]
    pub fn child(&self, timeline: TimelineId, end: Lsn, reason: &str) -> Self {
        let mut ancestors = self.ancestors.clone();
        ancestors.push(Ancestor {
            timeline: self.timeline,
            end,
            reason: reason.to_owned(),
        });
        Self {
            timeline,
            ancestors,
        }
    }

    /// Returns the file's content.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for Ancestor {
            timeline,
            end,
            reason,
        } in &self.ancestors
        {
            writeln!(text, "{timeline}\t{end}\t{reason}").expect("a string takes any text");
        }
        text
    }
}

fn parse_line(line: &str) -> Option<Ancestor> {
    let (timeline, rest) = line.split_once(char::is_whitespace)?;
    let rest = rest.trim_start();
    let (end, reason) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    Some(Ancestor {
        timeline: TimelineId(timeline.parse().ok().filter(|number| *number > 0)?),
        end: end.parse().ok()?,
        reason: reason.trim().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const FILE: &str =
        "1\t0/3000148\tno recovery target specified\n\n2\t0/40000A0\tbefore 2000-01-01\n";

    fn history(content: &str) -> Result<TimelineHistory, HistoryError> {
        TimelineHistory::parse(TimelineId(3), content.as_bytes())
    }

    #[test]
    fn reads_what_postgresql_writes() {
        let parsed = history(FILE).unwrap();
        assert_eq!(parsed.begin(), Some(Lsn(0x0400_00A0)));
        assert_eq!(parsed.timeline_at(Lsn(0x0300_0147)), TimelineId(1));
        assert_eq!(parsed.timeline_at(Lsn(0x0300_0148)), TimelineId(2));
        assert_eq!(parsed.timeline_at(Lsn(0x0400_00A0)), TimelineId(3));
        assert!(parsed.covers(TimelineId(1), Lsn(0x0300_0148)));
        assert!(!parsed.covers(TimelineId(1), Lsn(0x0300_0149)));
        assert_eq!(parsed.to_text(), FILE.replace("\n\n", "\n"));
    }

    #[test]
    fn a_child_reads_back() {
        let child = history(FILE)
            .unwrap()
            .child(TimelineId(7), Lsn(0x0500_0000), "failover");
        let again = TimelineHistory::parse(TimelineId(7), child.to_text().as_bytes());
        assert_eq!(again, Ok(child));
        assert_eq!(TimelineHistory::root(TimelineId(1)).to_text(), "");
    }

    #[rstest]
    #[case("1 0/1 a\n1 0/2 b\n")]
    #[case("2 0/1 a\n1 0/2 b\n")]
    #[case("1 0/2 a\n2 0/1 b\n")]
    #[case("3 0/1 itself\n")]
    #[case("0 0/1 no timeline\n")]
    #[case("x 0/1\n")]
    #[case("1\n")]
    #[case("1 01\n")]
    fn refuses(#[case] content: &str) {
        assert!(history(content).is_err());
    }
}
