//! Deciding which recovery points expire, from facts alone.

use std::collections::{BTreeMap, BTreeSet};

use dr_model::{Lsn, Retention};
use dr_provider::driver::{Judged, LogReach, Proof};
use dr_provider::error::chain;
use dr_repository::{Hold, Label};
use jiff::{SignedDuration, Timestamp};

use crate::backup::{Base, Bases};

/// How far ahead of this machine's clock a recovery point may have been begun.
const CLOCKS_DIFFER: SignedDuration = SignedDuration::from_hours(1);

/// What was decided.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    /// Why nothing may go.
    pub(super) blocked: Vec<String>,
    /// Newest first.
    pub(super) kept: Vec<Judged>,
    pub(super) expired: BTreeSet<Label>,
}

/// How far the log behind each recovery point goes, by label. One that is not here has not even the log that it needs itself.
pub(super) type Reaches = BTreeMap<Label, LogReach>;

/// Decides; `explicit` are to go whatever the rule says.
pub(super) fn judge(
    (bases, reaches): (&Bases, &Reaches),
    held: &BTreeMap<Label, Hold>,
    retention: &Retention,
    explicit: &BTreeSet<Label>,
    now: Timestamp,
) -> Verdict {
    let mut verdict = Verdict::default();
    for (label, error) in &bases.unusable {
        if !explicit.contains(label) {
            verdict.blocked.push(format!(
                "{label} cannot be read, and nobody knows what it needs: {}",
                chain(error)
            ));
        }
    }
    for base in &bases.usable {
        let at = base.source.started_at;
        if at.duration_since(now) > CLOCKS_DIFFER {
            verdict.blocked.push(format!(
                "{} was begun at {at}, and it is {now} here: one of the clocks is wrong",
                base.label
            ));
        }
    }
    let times: Vec<Timestamp> = bases
        .usable
        .iter()
        .map(|base| base.source.started_at)
        .collect();
    let by_rule = retention.decide(&times, now);
    let known = |base: &Base| bases.proofs.get(base.label.as_str());
    let undamaged = |base: &Base| base.source.damaged_pages.is_empty() && base.failure.is_none();
    let proven = |base: &Base| {
        let known = known(base).is_some_and(|known| known.proof() > Proof::Committed);
        known && base.failure.is_none()
    };
    let newest_that = |is: &dyn Fn(&Base) -> bool| {
        let mut all = bases.usable.iter();
        all.find(|base| is(base)).map(|base| &base.label)
    };
    let always = [
        (newest_that(&|_| true), "the newest"),
        (newest_that(&undamaged), "the newest without damage"),
        (newest_that(&proven), "the newest that was proven"),
    ];
    let needed = log_needs(bases, reaches, retention, now);
    for (base, by_rule) in bases.usable.iter().zip(by_rule) {
        let label = &base.label;
        let mut why = Vec::new();
        if let Some(hold) = held.get(label) {
            why.push(format!("held by {}: {}", hold.by, hold.reason));
        }
        let always = always.iter().filter(|(of, _)| *of == Some(label));
        why.extend(always.map(|(_, why)| (*why).to_owned()));
        if !explicit.contains(label) {
            why.extend(by_rule.iter().map(ToString::to_string));
            if needed.contains(label) {
                why.push("the log is kept from it on".to_owned());
            }
        }
        if why.is_empty() {
            verdict.expired.insert(label.clone());
        } else {
            verdict.kept.push(Judged {
                label: label.to_string(),
                why,
            });
        }
    }
    // Those that cannot be read go only if somebody names them.
    let unusable = bases.unusable.iter().map(|(label, _)| label);
    let named = unusable.filter(|label| explicit.contains(label) && !held.contains_key(label));
    verdict.expired.extend(named.cloned());
    verdict
}

/// Returns the recovery points with which any moment of the time that the log is kept for can be restored, as far as there is log of it: the
/// newest that was complete before it and, as long as none is that old, the oldest of all, so that the earliest moment never comes nearer; and
/// where its log ends in a hole, the first one from which the log goes on behind it.
fn log_needs<'a>(
    bases: &'a Bases,
    reaches: &Reaches,
    retention: &Retention,
    now: Timestamp,
) -> BTreeSet<&'a Label> {
    let mut needed = BTreeSet::new();
    let Some(since) = retention.log_since(now) else {
        return needed;
    };
    let sound = bases.usable.iter().filter(|base| base.is_sound());
    let before = sound.clone().find(|base| base.source.stopped_at <= since);
    let mut next = before.or_else(|| sound.clone().next_back());
    while let Some(base) = next {
        needed.insert(&base.label);
        let ends = reaches
            .get(&base.label)
            .filter(|reach| reach.hole.is_some())
            .map(|reach| reach.end);
        let goes_on = |end: Lsn| {
            let mut oldest_first = sound.clone().rev();
            oldest_first.find(|later| {
                let reaches_on = reaches
                    .get(&later.label)
                    .is_some_and(|reach| reach.end > end);
                reaches_on && later.source.stopped_at > base.source.stopped_at
            })
        };
        next = ends.and_then(goes_on);
    }
    needed
}

#[cfg(test)]
mod tests {
    use dr_model::{Lsn, TimelineId};
    use dr_provider::driver::{Proofs, VerifyMark, VerifyMeans};
    use dr_provider::{Error, ErrorKind};

    use super::*;

    const NOW: i64 = 1000;

    fn at(hour: i64) -> Timestamp {
        Timestamp::from_second(hour * 3600).unwrap()
    }

    fn base(hour: i64) -> Base {
        Base::for_tests(TimelineId(1), [Lsn(40), Lsn(1000)], at(hour))
    }

    /// Recovery points of these hours, newest first as they are listed.
    fn bases(hours: &[i64]) -> Bases {
        let mut hours = hours.to_vec();
        hours.sort_unstable_by_key(|hour| std::cmp::Reverse(*hour));
        Bases {
            usable: hours.into_iter().map(base).collect(),
            ..Bases::default()
        }
    }

    fn passed(hour: i64) -> (String, Proofs) {
        let mark = VerifyMark {
            at: at(NOW),
            means: VerifyMeans::Hash,
            passed: true,
        };
        (base(hour).label.to_string(), Proofs { marks: vec![mark] })
    }

    struct Case {
        bases: Bases,
        reaches: Reaches,
        held: BTreeMap<Label, Hold>,
        explicit: BTreeSet<Label>,
    }

    fn case(hours: &[i64]) -> Case {
        Case {
            bases: bases(hours),
            reaches: Reaches::new(),
            held: BTreeMap::new(),
            explicit: BTreeSet::new(),
        }
    }

    impl Case {
        fn judge(&self) -> Verdict {
            let retention = Retention {
                last: 2,
                ..Retention::NOTHING
            };
            let now = at(NOW);
            let facts = (&self.bases, &self.reaches);
            judge(facts, &self.held, &retention, &self.explicit, now)
        }

        /// Returns the hours of what expires.
        fn expired(&self) -> Vec<i64> {
            let expired = self.judge().expired;
            let hour = |label: &Label| label.begun_at().unwrap().as_second() / 3600;
            expired.iter().map(hour).collect()
        }
    }

    #[test]
    fn the_rule_decides_unless_somebody_holds_it() {
        let mut case = case(&[1, 2, 3, 4]);
        assert_eq!(case.expired(), [1, 2]);
        let hold = Hold {
            by: "ann@host".to_owned(),
            reason: "audit".to_owned(),
            since: at(5),
        };
        case.held.insert(base(1).label, hold);
        assert_eq!(case.expired(), [2]);
        let kept = case.judge().kept;
        assert_eq!(kept.last().unwrap().why, ["held by ann@host: audit"]);
    }

    /// What says that any moment of some days can be restored keeps what that takes, whatever else is kept.
    #[test]
    fn the_earliest_moment_comes_no_nearer_than_the_log_is_kept() {
        let kept = |hours: &[i64], log: i64, ends: &[(i64, u64)]| {
            let retention = Retention {
                last: 1,
                log: Some(std::time::Duration::from_secs(log.unsigned_abs() * 3600)),
                ..Retention::NOTHING
            };
            let mut case = case(hours);
            // All of them to the end of the log, but those that are said to break off.
            for hour in hours {
                let broken = ends.iter().find(|(at, _)| at == hour);
                let reach = LogReach {
                    end: Lsn(broken.map_or(9000, |(_, end)| *end)),
                    hole: broken.map(|_| "some log is missing".to_owned()),
                };
                case.reaches.insert(base(*hour).label, reach);
            }
            let (held, explicit) = (&case.held, &case.explicit);
            let facts = (&case.bases, &case.reaches);
            let verdict = judge(facts, held, &retention, explicit, at(NOW));
            let label = |one: Judged| one.label.parse::<Label>().unwrap();
            let hour = |one| label(one).begun_at().unwrap().as_second() / 3600;
            verdict.kept.into_iter().map(hour).collect::<Vec<i64>>()
        };
        // The first day: all that there is of it.
        assert_eq!(kept(&[996, 997, 998, 999], 24, &[]), [999, 996]);
        // Later the newest before the window, and nothing older.
        assert_eq!(kept(&[900, 950, 970, 980, 999], 24, &[]), [999, 970]);
        assert_eq!(kept(&[900, 999], 1, &[]), [999]);
        // Where its log breaks off, the first one behind each hole as well, or what comes after it could not be restored.
        let broken = [(970, 2000), (980, 2000)];
        assert_eq!(
            kept(&[950, 970, 980, 985, 990, 999], 24, &broken),
            [999, 985, 970]
        );
        let twice = [(970, 2000), (980, 3000), (985, 3000)];
        assert_eq!(
            kept(&[950, 970, 980, 985, 990, 999], 24, &twice),
            [999, 990, 980, 970]
        );
        // Nothing is behind the last one yet.
        assert_eq!(
            kept(&[970, 999], 24, &[(970, 2000), (999, 2000)]),
            [999, 970]
        );
    }

    #[test]
    fn the_last_good_ones_stay() {
        let mut case = case(&[1, 2, 3, 4]);
        // The two newest cannot be relied on, and the oldest is the only one that was proven.
        for base in &mut case.bases.usable[..2] {
            base.failure = Some("it refers to a damaged pack".to_owned());
        }
        case.bases.proofs = [passed(3), passed(1)].into();
        assert_eq!(case.expired(), Vec::<i64>::new());
        case.bases.proofs = [passed(3), passed(2)].into();
        assert_eq!(case.expired(), [1]);
        // Not even by name.
        case.explicit = [base(2).label, base(4).label, base(3).label].into();
        assert_eq!(case.expired(), [1, 3]);
    }

    #[test]
    fn whatever_cannot_be_judged_stops_it() {
        let mut case = case(&[1, 2, 3, NOW + 2]);
        let blocked = case.judge().blocked;
        assert!(
            blocked[0].contains("one of the clocks is wrong"),
            "{blocked:?}"
        );
        case.bases = bases(&[1, 2, 3]);
        let error = Error::new(ErrorKind::Corrupt, "read", "its manifest");
        case.bases.unusable.push((base(9).label, error));
        let verdict = case.judge();
        assert!(
            verdict.blocked[0].contains("cannot be read"),
            "{:?}",
            verdict.blocked
        );
        // Unless somebody says that it is to go.
        case.explicit.insert(base(9).label);
        assert_eq!(case.judge().blocked, Vec::<String>::new());
        assert_eq!(case.expired(), [1, 9]);
    }

    #[test]
    fn without_any_there_is_nothing_to_decide() {
        let verdict = case(&[]).judge();
        assert!(verdict.expired.is_empty() && verdict.kept.is_empty());
    }
}
