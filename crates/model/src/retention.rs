//! What is kept of a series of recovery points, decided from their times alone.
//!
//! Periods that hold no recovery point do not count: where none is taken any more, none is lost either. Days, weeks, months
//! and years are those of UTC, by the time at which a recovery point was begun.

use std::fmt;
use std::time::Duration;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// What is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// So many of the newest.
    pub last: u32,
    /// Everything younger than this.
    pub within: Option<Duration>,
    /// The newest of each of so many days.
    pub daily: u32,
    /// The newest of each of so many weeks, which begin on Mondays.
    pub weekly: u32,
    /// The newest of each of so many months.
    pub monthly: u32,
    /// The newest of each of so many years.
    pub yearly: u32,
    /// How far back any moment can be restored: the log before it goes, but for what makes recovery points consistent. The
    /// recovery point that this takes is kept too, whatever [`decide`](Self::decide) says of it.
    /// `None` keeps all the log since the oldest recovery point.
    pub log: Option<Duration>,
}

impl Default for Retention {
    /// Daily for 30 days and monthly for a year; any moment of the time that the daily ones span.
    fn default() -> Self {
        Self {
            daily: 30,
            monthly: 12,
            log: Some(Duration::from_secs(31 * 24 * 3600)),
            ..Self::NOTHING
        }
    }
}

/// Why a recovery point is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It is among the newest.
    Last,
    /// It is young.
    Within,
    /// It is the newest of this day.
    Day(Date),
    /// It is the newest of the week that begins on this day.
    Week(Date),
    /// It is the newest of the month that begins on this day.
    Month(Date),
    /// It is the newest of the year that begins on this day.
    Year(Date),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Last => f.write_str("last"),
            Self::Within => f.write_str("within"),
            Self::Day(date) => write!(f, "day {date}"),
            Self::Week(date) => write!(f, "week of {date}"),
            Self::Month(date) => write!(f, "month {}", date.strftime("%Y-%m")),
            Self::Year(date) => write!(f, "year {}", date.year()),
        }
    }
}

impl Retention {
    /// Keeps nothing by itself.
    pub const NOTHING: Self = Self {
        last: 0,
        within: None,
        daily: 0,
        weekly: 0,
        monthly: 0,
        yearly: 0,
        log: None,
    };

    /// Says of each of `times`, which are in any order, why it is kept; of one that expires, nothing.
    #[must_use]
    pub fn decide(&self, times: &[Timestamp], now: Timestamp) -> Vec<Vec<Reason>> {
        let mut newest_first: Vec<usize> = (0..times.len()).collect();
        newest_first.sort_by_key(|index| std::cmp::Reverse((times[*index], *index)));
        let mut reasons = vec![Vec::new(); times.len()];
        for index in newest_first.iter().take(self.last as usize) {
            reasons[*index].push(Reason::Last);
        }
        if let Some(since) = self.within.map(|within| before(now, within)) {
            for index in newest_first.iter().filter(|index| times[**index] >= since) {
                reasons[*index].push(Reason::Within);
            }
        }
        type PeriodOf = fn(Date) -> Reason;
        let periods: [(u32, PeriodOf); 4] = [
            (self.daily, Reason::Day),
            (self.weekly, |date| {
                let since = i64::from(date.weekday().to_monday_zero_offset());
                Reason::Week(date.saturating_sub(jiff::Span::new().days(since)))
            }),
            (self.monthly, |date| Reason::Month(date.first_of_month())),
            (self.yearly, |date| Reason::Year(date.first_of_year())),
        ];
        for (count, period) in periods {
            let mut met: Vec<Reason> = Vec::new();
            for index in &newest_first {
                if met.len() == count as usize {
                    break;
                }
                let period = period(times[*index].to_zoned(TimeZone::UTC).date());
                if !met.contains(&period) {
                    met.push(period);
                    reasons[*index].push(period);
                }
            }
        }
        reasons
    }

    /// Returns the moment from which on all the log is kept; `None` if that is all of it.
    #[must_use]
    pub fn log_since(&self, now: Timestamp) -> Option<Timestamp> {
        self.log.map(|log| before(now, log))
    }
}

fn before(now: Timestamp, time: Duration) -> Timestamp {
    let time = SignedDuration::try_from(time).unwrap_or(SignedDuration::MAX);
    now.checked_sub(time).unwrap_or(Timestamp::MIN)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    /// A recovery point every six hours for 800 days up to now.
    fn series(now: Timestamp) -> Vec<Timestamp> {
        (0..3200)
            .map(|number| {
                now.checked_sub(SignedDuration::from_hours(number * 6))
                    .unwrap()
            })
            .collect()
    }

    fn kept(retention: Retention, times: &[Timestamp], now: Timestamp) -> Vec<Timestamp> {
        let reasons = retention.decide(times, now);
        let kept = times.iter().zip(reasons).filter(|(_, why)| !why.is_empty());
        kept.map(|(time, _)| *time).collect()
    }

    #[test]
    fn the_default_is_daily_for_a_month_and_monthly_for_a_year() {
        let now = time("2026-11-21T23:00:00Z");
        let kept = kept(Retention::default(), &series(now), now);
        assert_eq!(kept.len(), 30 + 12 - 2, "two months are among the days");
        assert_eq!(kept[0], now);
        assert_eq!(kept[29], time("2026-10-23T23:00:00Z"));
        // The last one of each month.
        assert_eq!(kept[30], time("2026-09-30T23:00:00Z"));
        assert_eq!(*kept.last().unwrap(), time("2025-12-31T23:00:00Z"));
    }

    #[test]
    fn periods_without_any_do_not_count() {
        let now = time("2026-11-21T12:00:00Z");
        let old = [
            time("2020-02-01T00:00:00Z"),
            time("2020-02-03T00:00:00Z"),
            time("2020-02-03T06:00:00Z"),
        ];
        let daily = Retention {
            daily: 2,
            ..Retention::NOTHING
        };
        assert_eq!(kept(daily, &old, now), [old[0], old[2]]);
        assert_eq!(kept(Retention::NOTHING, &old, now), []);
    }

    #[test]
    fn each_rule_keeps_by_itself() {
        let now = time("2026-11-21T12:00:00Z");
        let times: Vec<Timestamp> = [
            "2026-11-21T11:00:00Z",
            "2026-11-21T10:00:00Z",
            "2026-11-15T23:59:59Z",
            "2026-11-09T00:00:00Z",
            "2025-12-31T23:59:59Z",
        ]
        .map(time)
        .into();
        let of = |retention: Retention| {
            let reasons = retention.decide(&times, now);
            let said = |why: &Vec<Reason>| why.iter().map(ToString::to_string).collect();
            reasons.iter().map(said).collect::<Vec<Vec<String>>>()
        };
        let nothing = Retention::NOTHING;
        let last = of(Retention { last: 2, ..nothing });
        assert_eq!(last, [vec!["last"], vec!["last"], vec![], vec![], vec![]]);
        let hours = Some(Duration::from_secs(2 * 3600));
        let within = of(Retention {
            within: hours,
            ..nothing
        });
        assert_eq!(
            within,
            [vec!["within"], vec!["within"], vec![], vec![], vec![]]
        );
        let weekly = of(Retention {
            weekly: 9,
            ..nothing
        });
        let week = |day: &str| vec![format!("week of {day}")];
        assert_eq!(
            weekly,
            [
                week("2026-11-16"),
                vec![],
                week("2026-11-09"),
                vec![],
                week("2025-12-29")
            ]
        );
        let yearly = of(Retention {
            yearly: 9,
            ..nothing
        });
        assert_eq!(yearly[0], ["year 2026"]);
        assert_eq!(yearly[4], ["year 2025"]);
    }

    #[test]
    fn what_is_kept_today_was_kept_yesterday() {
        let retention = Retention {
            last: 3,
            weekly: 5,
            ..Retention::default()
        };
        // A year in which nothing that expired is asked for again: a rule must not need what it gave up.
        let mut now = time("2025-01-01T02:00:00Z");
        let mut held: Vec<Timestamp> = Vec::new();
        let mut given_up: BTreeSet<Timestamp> = BTreeSet::new();
        for _ in 0..500 {
            held.push(now);
            let keep = kept(retention, &held, now);
            given_up.extend(held.iter().filter(|time| !keep.contains(time)));
            let all: Vec<Timestamp> = given_up.iter().chain(&keep).copied().collect();
            let ideal = kept(retention, &all, now);
            assert!(ideal.iter().all(|time| keep.contains(time)), "{now}");
            held = keep;
            now = now.checked_add(SignedDuration::from_hours(24)).unwrap();
        }
        assert!(held.len() >= 30 + 10, "{}", held.len());
    }
}
