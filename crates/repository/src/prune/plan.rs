//! What will be deleted, decided from facts alone.

use std::collections::BTreeSet;
use std::fmt;

use dr_provider::Key;
use jiff::{SignedDuration, Timestamp};

use super::{PruneFacts, PruneOptions};
use crate::Label;

/// What pruning will do, which can be shown without doing it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrunePlan {
    /// To be given a tombstone.
    pub mark: Vec<Label>,
    /// To lose theirs, since they are held.
    pub unmark: Vec<Label>,
    /// To be deleted.
    pub sweep: Vec<Sweep>,
    /// Leases that have long ended, and are removed.
    pub ended: Vec<Key>,
    /// What would have been marked or deleted, and why it is not.
    pub kept: Vec<(Label, Kept)>,
}

/// What is deleted of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sweep {
    /// The backup.
    pub label: Label,
    /// Whether its manifest stands there still.
    pub has_manifest: bool,
    /// Its tree, and the packs that no other manifest names.
    pub objects: Vec<Key>,
    /// Its packs that stay, because younger backups refer to them.
    pub kept_packs: usize,
}

/// Why something is not deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Somebody holds it.
    Held,
    /// It is the newest backup.
    Newest,
    /// Its tombstone is younger than the grace time.
    Waiting {
        /// When that ends.
        until: Timestamp,
    },
    /// It is being read.
    Leased {
        /// Until when at the latest.
        until: Timestamp,
    },
    /// A manifest cannot be read, and may name its packs.
    Unreadable {
        /// Whose.
        manifest: Label,
    },
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held => f.write_str("it is held"),
            Self::Newest => f.write_str("it is the newest backup"),
            Self::Waiting { until } => write!(f, "it is marked, and stays until {until}"),
            Self::Leased { until } => write!(f, "it is being read, until {until} at the latest"),
            Self::Unreadable { manifest } => {
                write!(
                    f,
                    "the manifest of {manifest} cannot be read, and may name its packs"
                )
            }
        }
    }
}

impl PrunePlan {
    /// Plans: `expired` are the backups that retention has chosen.
    #[must_use]
    pub fn new(
        facts: &PruneFacts,
        expired: &[Label],
        options: PruneOptions,
        now: Timestamp,
    ) -> Self {
        let mut plan = Self::default();
        let after = |time: Timestamp, wait| {
            let wait = SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX);
            time.saturating_add(wait).unwrap_or(Timestamp::MAX)
        };
        let mut due = BTreeSet::new();
        for (label, marked_at) in &facts.tombstones {
            let ends = after(*marked_at, options.grace);
            let lease = facts.leases.get(label).filter(|until| **until > now);
            let stands = facts.backups.contains_key(label) || facts.unreadable.contains(label);
            if facts.holds.contains(label) && stands {
                // Nothing of it has been deleted: its manifest goes first.
                plan.unmark.push(label.clone());
            } else if now < ends {
                plan.keep(label, Kept::Waiting { until: ends });
            } else if let Some(until) = lease {
                plan.keep(label, Kept::Leased { until: *until });
            } else if let Some(manifest) = facts.unreadable.iter().find(|other| *other != label) {
                let manifest = manifest.clone();
                plan.keep(label, Kept::Unreadable { manifest });
            } else {
                due.insert(label);
            }
        }
        let live: BTreeSet<&(Label, u32)> = facts
            .backups
            .iter()
            .filter(|(label, _)| !due.contains(label))
            .flat_map(|(_, packs)| packs)
            .collect();
        for label in due {
            let objects = facts.objects.get(label).map_or(&[][..], Vec::as_slice);
            let (stay, go): (Vec<_>, Vec<_>) = objects.iter().partition(|(_, pack)| {
                pack.is_some_and(|number| live.contains(&(label.clone(), number)))
            });
            plan.sweep.push(Sweep {
                label: label.clone(),
                has_manifest: facts.backups.contains_key(label) || facts.unreadable.contains(label),
                objects: go.into_iter().map(|(key, _)| key.clone()).collect(),
                kept_packs: stay.len(),
            });
        }
        let ended = facts.lease_keys.iter();
        let ended = ended.filter(|(_, until)| now >= after(*until, options.grace));
        plan.ended = ended.map(|(key, _)| key.clone()).collect();
        plan.mark_new(facts, expired, &live, after, options, now);
        plan
    }

    fn mark_new(
        &mut self,
        facts: &PruneFacts,
        expired: &[Label],
        live: &BTreeSet<&(Label, u32)>,
        after: impl Fn(Timestamp, std::time::Duration) -> Timestamp,
        options: PruneOptions,
        now: Timestamp,
    ) {
        let unmarked = |label: &Label| !facts.tombstones.contains_key(label);
        let newest = facts.backups.keys().rfind(|label| unmarked(label));
        for label in expired.iter().filter(|label| unmarked(label)) {
            if !facts.backups.contains_key(label) && !facts.unreadable.contains(label) {
                continue;
            }
            if facts.holds.contains(label) {
                self.keep(label, Kept::Held);
            } else if newest == Some(label) {
                self.keep(label, Kept::Newest);
            } else {
                self.mark.push(label.clone());
            }
        }
        // What failed backups left, and packs that outlived their manifests and that nobody names any more.
        for (label, objects) in facts.objects.iter().filter(|(label, _)| unmarked(label)) {
            let has_manifest =
                facts.backups.contains_key(label) || facts.unreadable.contains(label);
            let wanted = |(_, pack): &(Key, Option<u32>)| {
                pack.is_some_and(|number| live.contains(&(label.clone(), number)))
            };
            let old = label
                .begun_at()
                .is_some_and(|begun| now >= after(begun, options.abandoned_after));
            // Somebody may be copying an old backup here, whose manifest comes last.
            let arriving = facts.leases.get(label).is_some_and(|until| *until > now);
            if !has_manifest && old && !arriving && !objects.iter().all(wanted) {
                self.mark.push(label.clone());
            }
        }
    }

    fn keep(&mut self, label: &Label, why: Kept) {
        self.kept.push((label.clone(), why));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(number: i64) -> Label {
        Label::new(time(number * 3600), 7)
    }

    fn time(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn pack(number: i64) -> (Key, Option<u32>) {
        let key = Key::new(format!("a/backup/{}/packs/000000", label(number)));
        (key.unwrap(), Some(0))
    }

    /// Three backups, the second on the first; the first has been marked at the tenth hour.
    fn facts() -> PruneFacts {
        let of = |numbers: &[i64]| numbers.iter().map(|number| (label(*number), 0)).collect();
        PruneFacts {
            backups: [
                (label(1), of(&[1])),
                (label(2), of(&[1, 2])),
                (label(3), of(&[3])),
            ]
            .into(),
            tombstones: [(label(1), time(36_000))].into(),
            objects: [1, 2, 3]
                .map(|number| (label(number), vec![pack(number)]))
                .into(),
            ..PruneFacts::default()
        }
    }

    fn plan(facts: &PruneFacts, expired: &[i64], hour: i64) -> PrunePlan {
        let expired: Vec<Label> = expired.iter().copied().map(label).collect();
        PrunePlan::new(facts, &expired, PruneOptions::default(), time(hour * 3600))
    }

    #[test]
    fn a_pack_that_a_manifest_names_stays() {
        let planned = plan(&facts(), &[], 34);
        let [sweep] = planned.sweep.as_slice() else {
            panic!("{planned:?}");
        };
        assert_eq!((sweep.kept_packs, sweep.objects.len()), (1, 0));
        let mut facts = facts();
        facts.backups.remove(&label(2));
        assert_eq!(plan(&facts, &[], 34).sweep[0].objects, [pack(1).0]);
    }

    #[test]
    fn nothing_goes_before_its_time() {
        let until = time(34 * 3600);
        let waiting = plan(&facts(), &[], 33);
        assert_eq!(waiting.kept, [(label(1), Kept::Waiting { until })]);
        let mut leased = facts();
        let until = time(40 * 3600);
        leased.leases.insert(label(1), until);
        assert_eq!(
            plan(&leased, &[], 39).kept,
            [(label(1), Kept::Leased { until })]
        );
        assert_eq!(plan(&leased, &[], 40).sweep.len(), 1);
        let mut unreadable = facts();
        unreadable.unreadable.push(label(4));
        let manifest = label(4);
        let kept = plan(&unreadable, &[], 34);
        assert_eq!(kept.kept, [(label(1), Kept::Unreadable { manifest })]);
        assert_eq!(kept.sweep, []);
    }

    #[test]
    fn holds_and_the_newest_stay() {
        let mut held = facts();
        held.holds = [label(1), label(2)].into();
        let planned = plan(&held, &[2, 3], 34);
        assert_eq!(planned.unmark, [label(1)]);
        assert_eq!(planned.mark, []);
        let kept = [(label(2), Kept::Held), (label(3), Kept::Newest)];
        assert_eq!(planned.kept, kept);
        assert_eq!(plan(&facts(), &[2, 3], 12).mark, [label(2)]);
    }

    #[test]
    fn what_failed_backups_left_is_marked_when_it_is_old() {
        let mut facts = facts();
        facts.backups.remove(&label(3));
        assert_eq!(plan(&facts, &[], 8 * 24).mark, [label(3)]);
        assert_eq!(plan(&facts, &[], 6 * 24).mark, []);
    }
}
