//! When something occurs: five fields and a time zone.
//!
//! # When clocks change
//!
//! A pattern whose minute and hour are single numbers (`30 2 * * *`) occurs exactly once on every day that it names:
//! * where the clock jumps over that time, at the first moment after the gap;
//! * where that time comes twice, the first time.
//!
//! Any other pattern (`*/15 * * * *`, `0 2,14 * * *`) follows the wall clock: what falls into a gap does not occur, and
//! what falls into a repeated hour occurs in both.

use std::fmt;

use croner::errors::CronError;
use croner::parser::{CronParser, Seconds, Year};
use dr_model::document::{Context, FromNode, Node, Problem};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

/// A pattern of five fields in a time zone.
#[derive(Clone)]
pub struct Cron {
    pattern: Box<croner::Cron>,
    zone: TimeZone,
}

impl fmt::Debug for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cron({self})")
    }
}

/// Prints the pattern and the zone: `0 2 * * * (Europe/Paris)`.
impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let zone = self.zone.iana_name().unwrap_or("UTC");
        write!(f, "{} ({zone})", self.pattern.as_str())
    }
}

/// The text is not a pattern that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There are not five fields.
    #[error("a cron pattern has five fields, this one has {0}")]
    Fields(usize),
    /// A field is wrong.
    #[error("{0}")]
    Field(String),
    /// The fields name no day that ever comes.
    #[error("no such date ever comes")]
    Never,
}

impl Cron {
    /// Parses five fields: minute, hour, day of month, month, day of week.
    ///
    /// As everywhere, a day matches if it is named by the day of month *or* by the day of week when both are given.
    pub fn new(text: &str, zone: TimeZone) -> Result<Self, Error> {
        let fields = text.split_whitespace().count();
        if fields != 5 {
            return Err(Error::Fields(fields));
        }
        let parser = CronParser::builder()
            .seconds(Seconds::Disallowed)
            .year(Year::Disallowed)
            .build();
        let pattern = parser
            .parse(text)
            .map_err(|error| Error::Field(field(&error)))?;
        let pattern = Box::new(pattern);
        let cron = Self { pattern, zone };
        // Patterns repeat within 400 years, so the start does not matter.
        match cron.after(Timestamp::UNIX_EPOCH) {
            Some(_) => Ok(cron),
            None => Err(Error::Never),
        }
    }

    /// Returns the first occurrence later than `moment`; `None` only beyond the year 4999.
    #[must_use]
    pub fn after(&self, moment: Timestamp) -> Option<Timestamp> {
        let start = Zoned::new(moment, self.zone.clone());
        let next = self.pattern.find_next_occurrence(&start, false).ok()?;
        Some(next.timestamp())
    }

    /// Returns the latest occurrence at `moment` or earlier; `None` only before the year 1.
    #[must_use]
    pub fn at_or_before(&self, moment: Timestamp) -> Option<Timestamp> {
        let start = Zoned::new(moment, self.zone.clone());
        let last = self.pattern.find_previous_occurrence(&start, true).ok()?;
        Some(last.timestamp())
    }

    pub(crate) fn read(node: &Node, context: &mut Context, zone: &TimeZone) -> Option<Self> {
        let text = String::from_node(node, context)?;
        match Self::new(&text, zone.clone()) {
            Ok(cron) => Some(cron),
            Err(error) => {
                let what = node.explain(&format!("`{text}`: {error}"));
                let problem = Problem::error(&node.span, what)
                    .expected("minute, hour, day of month, month, day of week: `0 2 * * *`");
                context.report(match error {
                    Error::Fields(1) => problem.hint("`0 * * * *` is hourly, `0 0 * * *` daily"),
                    Error::Fields(6) => problem.hint("there is no field for seconds"),
                    _ => problem,
                });
                None
            }
        }
    }
}

/// Says what is wrong with a field, as a fragment.
fn field(error: &CronError) -> String {
    let message = match error {
        CronError::ComponentError(message)
        | CronError::InvalidPattern(message)
        | CronError::IllegalCharacters(message) => message.clone(),
        other => other.to_string(),
    };
    let mut chars = message.trim_end_matches('.').chars();
    let first = chars.next().into_iter().flat_map(char::to_lowercase);
    first.chain(chars).collect()
}

/// Reads the name of a time zone in the IANA database.
pub(crate) fn zone(node: &Node, context: &mut Context) -> Option<TimeZone> {
    let name = String::from_node(node, context)?;
    match TimeZone::get(&name) {
        Ok(zone) => Some(zone),
        Err(_) => {
            let written = node.as_text().unwrap_or_default();
            let problem = Problem::error(&node.span, format!("there is no time zone `{written}`"))
                .expected("a name of the IANA database, such as `UTC` or `Europe/Paris`");
            context.report(problem);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn occurrences(pattern: &str, zone: &str, from: &str, count: usize) -> Vec<String> {
        let cron = Cron::new(pattern, TimeZone::get(zone).unwrap()).unwrap();
        let mut moment: Timestamp = from.parse().unwrap();
        let mut shown = Vec::new();
        for _ in 0..count {
            let next = cron.after(moment).unwrap();
            assert!(next > moment);
            assert_eq!(cron.at_or_before(next), Some(next), "both directions agree");
            moment = next;
            shown.push(moment.to_string());
        }
        shown
    }

    #[test]
    fn a_single_time_in_the_gap_occurs_after_it() {
        // On 2026-03-29 the clock of Paris jumps from 02:00 to 03:00, which is 01:00 UTC.
        assert_eq!(
            occurrences("30 2 * * *", "Europe/Paris", "2026-03-28T00:00:00Z", 3),
            [
                "2026-03-28T01:30:00Z",
                "2026-03-29T01:00:00Z",
                "2026-03-30T00:30:00Z"
            ]
        );
    }

    #[test]
    fn a_single_time_that_comes_twice_occurs_once() {
        // On 2026-10-25 the hour from 02:00 comes twice in Paris: from 00:00 UTC and from 01:00 UTC.
        assert_eq!(
            occurrences("30 2 * * *", "Europe/Paris", "2026-10-24T12:00:00Z", 2),
            ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]
        );
    }

    #[test]
    fn other_patterns_follow_the_wall_clock() {
        assert_eq!(
            occurrences("*/30 * * * *", "Europe/Paris", "2026-03-29T00:45:00Z", 2),
            ["2026-03-29T01:00:00Z", "2026-03-29T01:30:00Z"]
        );
        assert_eq!(
            occurrences("*/30 * * * *", "Europe/Paris", "2026-10-25T00:15:00Z", 4),
            [
                "2026-10-25T00:30:00Z",
                "2026-10-25T01:00:00Z",
                "2026-10-25T01:30:00Z",
                "2026-10-25T02:00:00Z"
            ]
        );
        assert_eq!(
            occurrences("0 2,14 * * *", "Europe/Paris", "2026-03-28T20:00:00Z", 1),
            ["2026-03-29T12:00:00Z"]
        );
    }

    #[test]
    fn utc_has_neither_gap_nor_overlap() {
        assert_eq!(
            occurrences("0 2 * * *", "UTC", "2026-03-28T02:00:00Z", 2),
            ["2026-03-29T02:00:00Z", "2026-03-30T02:00:00Z"]
        );
    }

    #[rstest]
    #[case("0 0 30 2 *", Error::Never)]
    #[case("0 0 31 4,6,9,11 *", Error::Never)]
    #[case("@daily", Error::Fields(1))]
    #[case("0 0 * * * *", Error::Fields(6))]
    #[case("", Error::Fields(0))]
    fn refused(#[case] pattern: &str, #[case] error: Error) {
        assert_eq!(Cron::new(pattern, TimeZone::UTC).unwrap_err(), error);
    }

    #[rstest]
    #[case("60 0 * * *")]
    #[case("0 24 * * *")]
    #[case("0 0 0 * *")]
    #[case("0 0 * 13 *")]
    #[case("x 0 * * *")]
    #[case("0 0 * * MOON")]
    #[case("5-1 0 * * *")]
    #[case("*/0 0 * * *")]
    fn wrong_fields(#[case] pattern: &str) {
        assert!(matches!(
            Cron::new(pattern, TimeZone::UTC),
            Err(Error::Field(_))
        ));
    }

    #[test]
    fn leap_days_and_last_days_come() {
        assert_eq!(
            occurrences("0 0 29 2 *", "UTC", "2026-01-01T00:00:00Z", 1),
            ["2028-02-29T00:00:00Z"]
        );
        assert_eq!(
            occurrences("0 0 L * *", "UTC", "2026-02-01T00:00:00Z", 1),
            ["2026-02-28T00:00:00Z"]
        );
    }
}
