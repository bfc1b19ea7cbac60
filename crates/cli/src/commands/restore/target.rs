//! Reading where a restore ends.
//!
//! A time without its zone is refused and not guessed: an hour's error restores the mistake that was to be undone.

use std::path::PathBuf;
use std::str::FromStr;

use dr_model::{Lsn, TimelineId};
use dr_provider::driver::{RestoreTarget, TargetTimeline};
use jiff::civil::DateTime;
use jiff::fmt::temporal::DateTimeParser;
use jiff::tz::{Disambiguation, TimeZone};
use jiff::{Timestamp, Zoned};

use crate::error::CommandError;
use crate::exit::Exit;

const EXPECTED: &str = "expected `latest`, `immediate`, a time with its zone such as `2026-11-21T09:30:05Z`, an LSN such as \
     `0/3000148`, `xid:NUMBER` or `name:RESTORE-POINT`";

/// The longest name that PostgreSQL gives a restore point.
const LONGEST_NAME_BYTES: usize = 63;

/// Refuses a moment that has not been yet: nobody can have it back.
pub(crate) fn refuse_future(target: &RestoreTarget, now: Timestamp) -> crate::error::Result<()> {
    match target {
        RestoreTarget::Time(at) if *at > now => {
            let what = format!("`--at {at}` is in the future: it is {now:.0} now");
            Err(CommandError::new(Exit::Usage, what).hint("name a moment that has been"))
        }
        _ => Ok(()),
    }
}

/// Refuses to leave out what a target names where that is nothing that could be left out.
pub(super) fn refuse_exclusive(target: &RestoreTarget) -> crate::error::Result<()> {
    let named = match target {
        RestoreTarget::Latest => "the end of the log",
        RestoreTarget::Immediate => "the moment at which the files are consistent",
        RestoreTarget::Name(_) => "a restore point, which changes nothing",
        RestoreTarget::Time(_) | RestoreTarget::Lsn(_) | RestoreTarget::Transaction(_) => {
            return Ok(());
        }
    };
    let what = format!("`--exclusive` leaves out what `--at` names, and that is {named}");
    Err(CommandError::new(Exit::Usage, what)
        .hint("name a time, a position or a transaction with `--at`, or leave `--exclusive` out"))
}

/// Reads a target.
pub(crate) fn target(text: &str) -> Result<RestoreTarget, String> {
    match text {
        "latest" => return Ok(RestoreTarget::Latest),
        "immediate" => return Ok(RestoreTarget::Immediate),
        _ => {}
    }
    if let Some(number) = text.strip_prefix("xid:") {
        return match number.parse() {
            Ok(number) if number >= 3 => Ok(RestoreTarget::Transaction(number)),
            _ => Err("expected the number of a transaction, 3 or more, after `xid:`".to_owned()),
        };
    }
    if let Some(name) = text.strip_prefix("name:") {
        return match name.len() {
            1..=LONGEST_NAME_BYTES => Ok(RestoreTarget::Name(name.to_owned())),
            _ => Err(format!(
                "expected a name of at most {LONGEST_NAME_BYTES} bytes after `name:`"
            )),
        };
    }
    if let Ok(lsn) = Lsn::from_str(text) {
        return Ok(RestoreTarget::Lsn(lsn));
    }
    time(text, &TimeZone::system())
}

/// Reads a timeline.
pub(super) fn timeline(text: &str) -> Result<TargetTimeline, String> {
    match text {
        "latest" => Ok(TargetTimeline::Latest),
        "current" => Ok(TargetTimeline::Current),
        number => match number.parse() {
            Ok(number) if number > 0 => Ok(TargetTimeline::Number(TimelineId(number))),
            _ => Err("expected the number of a timeline, `latest` or `current`".to_owned()),
        },
    }
}

/// Reads where a tablespace goes.
pub(super) fn tablespace(text: &str) -> Result<(u32, PathBuf), String> {
    let read = text.split_once('=').and_then(|(number, place)| {
        let place = Some(place).filter(|place| !place.is_empty())?;
        Some((number.parse().ok()?, PathBuf::from(place)))
    });
    read.ok_or_else(|| {
        "expected the number of a tablespace and a directory, such as `16400=/srv/fast`".to_owned()
    })
}

fn time(text: &str, local: &TimeZone) -> Result<RestoreTarget, String> {
    // A zone by its name says twice a year two different things.
    let parser = DateTimeParser::new().disambiguation(Disambiguation::Reject);
    if text.contains('[') {
        let zoned = parser.parse_zoned(text);
        return zoned
            .map(|zoned| RestoreTarget::Time(zoned.timestamp()))
            .map_err(|error| error.to_string());
    }
    if let Ok(at) = Timestamp::from_str(text) {
        return Ok(RestoreTarget::Time(at));
    }
    // PostgreSQL writes the zone as hours alone.
    if let Ok(at) = Timestamp::from_str(&format!("{text}:00"))
        && text
            .rfind(['+', '-'])
            .is_some_and(|at| at + 3 == text.len())
    {
        return Ok(RestoreTarget::Time(at));
    }
    match DateTime::from_str(text) {
        Ok(civil) => Err(without_zone(civil, local)),
        Err(_) => Err(EXPECTED.to_owned()),
    }
}

/// Shows what a time without a zone may mean.
fn without_zone(civil: DateTime, local: &TimeZone) -> String {
    let utc = format!("`{civil}Z` if it is UTC");
    let here: Vec<String> = match local.to_ambiguous_zoned(civil).offset() {
        jiff::tz::AmbiguousOffset::Unambiguous { offset } => vec![offset],
        jiff::tz::AmbiguousOffset::Gap { before, after }
        | jiff::tz::AmbiguousOffset::Fold { before, after } => vec![before, after],
    }
    .into_iter()
    .filter_map(|offset| {
        let zoned: Zoned = offset
            .to_timestamp(civil)
            .ok()?
            .to_zoned(TimeZone::fixed(offset));
        Some(format!("`{}`", zoned.strftime("%Y-%m-%dT%H:%M:%S%.f%:z")))
    })
    .collect();
    let name = local.iana_name().unwrap_or("local time");
    format!(
        "the time has no zone: write {utc}, {} if it is this machine's {name}",
        here.join(" or ")
    )
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("latest", RestoreTarget::Latest)]
    #[case("immediate", RestoreTarget::Immediate)]
    #[case("0/3000148", RestoreTarget::Lsn(Lsn(0x0300_0148)))]
    #[case("xid:771", RestoreTarget::Transaction(771))]
    #[case("name:before the change", RestoreTarget::Name("before the change".to_owned()))]
    fn a_target_is_a_word_a_position_a_transaction_or_a_name(
        #[case] text: &str,
        #[case] expected: RestoreTarget,
    ) {
        assert_eq!(target(text), Ok(expected));
    }

    #[rstest]
    #[case("latest", false)]
    #[case("immediate", false)]
    #[case("name:before", false)]
    #[case("0/3000148", true)]
    #[case("xid:771", true)]
    #[case("2026-11-21T09:30:05Z", true)]
    fn only_what_can_be_left_out_is(#[case] text: &str, #[case] allowed: bool) {
        let refused = refuse_exclusive(&target(text).unwrap());
        assert_eq!(refused.is_ok(), allowed);
        if let Err(error) = refused {
            assert_eq!(error.exit as u8, Exit::Usage as u8);
        }
    }

    #[rstest]
    #[case("2026-11-21T09:30:05Z")]
    #[case("2026-11-21 09:30:05Z")]
    #[case("2026-11-21 11:30:05+02:00")]
    #[case("2026-11-21 11:30:05.000000+02")]
    #[case("2026-11-21T10:30:05[Europe/Berlin]")]
    fn a_time_has_its_zone(#[case] text: &str) {
        let at = "2026-11-21T09:30:05Z".parse().unwrap();
        assert_eq!(target(text), Ok(RestoreTarget::Time(at)));
    }

    #[rstest]
    #[case("yesterday")]
    #[case("xid:0")]
    #[case("xid:")]
    #[case("name:")]
    #[case("2026-11-21")]
    fn anything_else_is_refused(#[case] text: &str) {
        assert!(target(text).is_err());
    }

    #[test]
    fn a_time_without_its_zone_is_refused_with_its_readings() {
        let berlin = TimeZone::get("Europe/Berlin").unwrap();
        let refused = |text: &str| time(text, &berlin).unwrap_err();
        assert_eq!(
            refused("2026-11-21 09:30:05"),
            "the time has no zone: write `2026-11-21T09:30:05Z` if it is UTC, `2026-11-21T09:30:05+01:00` if it is this \
             machine's Europe/Berlin"
        );
        // The night in which the clock is set back has this time twice.
        let twice = refused("2026-10-25T02:30:00");
        assert!(
            twice.contains("+02:00` or `2026-10-25T02:30:00+01:00`"),
            "{twice}"
        );
        assert!(target("2026-10-25T02:30:00[Europe/Berlin]").is_err());
    }

    #[test]
    fn a_timeline_is_a_number_or_a_word() {
        assert_eq!(timeline("2"), Ok(TargetTimeline::Number(TimelineId(2))));
        assert_eq!(timeline("current"), Ok(TargetTimeline::Current));
        assert!(timeline("0").is_err());
    }

    #[test]
    fn a_tablespace_is_a_number_and_a_directory() {
        let place = PathBuf::from("/a=b");
        assert_eq!(tablespace("16400=/a=b"), Ok((16400, place)));
        assert!(tablespace("16400").is_err() && tablespace("fast=/a").is_err());
    }
}
