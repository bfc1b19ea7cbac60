//! Counting what was committed behind a position: how many transactions, when, and what they changed. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use dr_model::Lsn;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::wal::{Record, Relation, TransactionEnd};

/// What is not known of a divergence, because log could not be read; each with the reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "what", content = "why")]
pub enum Unread {
    /// There may have been more commits, and so more tables.
    Commits(String),
    /// All commits are counted, and they may have changed more tables.
    Tables(String),
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Commits(why) => write!(f, "there may be more commits, and more tables: {why}"),
            Self::Tables(why) => write!(f, "they may have changed more tables: {why}"),
        }
    }
}

/// What a directory has beyond another history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Beyond {
    /// Transactions that committed.
    pub(crate) commits: u64,
    pub(crate) first: Option<Timestamp>,
    pub(crate) last: Option<Timestamp>,
    /// The tables whose rows they changed.
    pub(crate) relations: BTreeSet<Relation>,
    /// The files that went with their commits.
    pub(crate) dropped: BTreeSet<Relation>,
    /// What may be missing here, and why.
    pub(crate) unread: Vec<Unread>,
}

/// The numbers of the transactions that committed, with those of their subtransactions.
#[derive(Debug, Default)]
pub(super) struct Transactions(BTreeSet<u32>);

impl Transactions {
    /// Tells whether what was written under this number has committed.
    pub(super) fn has(&self, transaction: u32) -> bool {
        self.0.contains(&transaction)
    }

    /// Returns the one that began first; numbers go round.
    pub(super) fn oldest(&self) -> Option<u32> {
        let all = self.0.iter().copied();
        all.reduce(|oldest, other| {
            if precedes(other, oldest) {
                other
            } else {
                oldest
            }
        })
    }
}

/// Tells whether one number of a transaction was given out before another (`TransactionIdPrecedes`).
pub(super) fn precedes(one: u32, other: u32) -> bool {
    one != other && other.wrapping_sub(one) < 1 << 31
}

/// Counts what was committed behind a position.
pub(super) struct Counting {
    /// `None` if nothing can be behind it.
    from: Option<Lsn>,
    found: Beyond,
    committed: Transactions,
    changed: BTreeMap<u32, BTreeSet<Relation>>,
}

impl Counting {
    pub(super) fn new(from: Option<Lsn>) -> Self {
        Self {
            from,
            found: Beyond::default(),
            committed: Transactions::default(),
            changed: BTreeMap::new(),
        }
    }

    pub(super) fn take(&mut self, record: &Record) {
        if self.from.is_none_or(|from| record.start < from) {
            return;
        }
        // What belongs to no transaction, as what `vacuum` does, changes nothing that anybody wrote.
        if let Some(relation) = record.relation
            && record.transaction != 0
        {
            self.changed
                .entry(record.transaction)
                .or_default()
                .insert(relation);
        }
        let Some(at) = record.committed_at else {
            return;
        };
        let is_prepared = record.transaction_end() == Some(TransactionEnd::Prepared);
        if record.transaction == 0 && !is_prepared {
            return;
        }
        self.found.commits += 1;
        self.found.first.get_or_insert(at);
        self.found.last = self.found.last.max(Some(at));
        let committed = &mut self.committed.0;
        if !is_prepared {
            committed.insert(record.transaction);
        }
        let Some(ending) = &record.ending else { return };
        committed.extend(ending.children.iter().chain(&ending.prepared));
        self.found.dropped.extend(&ending.dropped);
        if !ending.is_whole {
            let why = format!(
                "the commit at {} names more than is read of one",
                record.start
            );
            self.found.unread.push(Unread::Tables(why));
        }
    }

    /// Returns what was found, and the transactions whose changes before the position are still to be looked for.
    pub(super) fn finish(mut self) -> (Beyond, Transactions) {
        for (transaction, relations) in self.changed {
            if self.committed.has(transaction) {
                self.found.relations.extend(relations);
            }
        }
        (self.found, self.committed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wal::Ending;

    const HEAP: u8 = 10;
    const TRANSACTION: u8 = 1;
    const COMMIT: u8 = 0x00;
    const COMMIT_PREPARED: u8 = 0x30;

    fn table(number: u32) -> Relation {
        Relation {
            tablespace: 1663,
            database: 5,
            number,
        }
    }

    fn record(start: u64, manager: u8, info: u8, transaction: u32) -> Record {
        Record {
            start: Lsn(start),
            end: Lsn(start + 8),
            resource_manager: manager,
            info,
            transaction,
            committed_at: None,
            ending: None,
            next_transaction: None,
            restore_point: None,
            wal_level: None,
            relation: None,
            created_tablespace: None,
        }
    }

    fn change(start: u64, transaction: u32, number: u32) -> Record {
        Record {
            relation: Some(table(number)),
            ..record(start, HEAP, 0, transaction)
        }
    }

    fn commit(start: u64, info: u8, transaction: u32, ending: Option<Ending>) -> Record {
        Record {
            committed_at: Some(Timestamp::from_second(i64::try_from(start).unwrap()).unwrap()),
            ending: ending.map(Box::new),
            ..record(start, TRANSACTION, info, transaction)
        }
    }

    fn counted(records: &[Record]) -> (Beyond, Transactions) {
        let mut counting = Counting::new(Some(Lsn(100)));
        for record in records {
            counting.take(record);
        }
        counting.finish()
    }

    #[test]
    fn only_what_committed_behind_the_position_counts() {
        let records = [
            commit(50, COMMIT, 699, None),
            change(90, 700, 1),
            change(100, 701, 2),
            change(110, 702, 3),
            commit(120, COMMIT, 700, None),
            commit(130, COMMIT, 701, None),
            change(140, 0, 4),
            commit(150, COMMIT, 0, None),
        ];
        let (found, transactions) = counted(&records);
        assert_eq!(found.commits, 2);
        assert_eq!(found.relations, BTreeSet::from([table(2)]));
        // What 700 changed before is looked for in the log before.
        assert_eq!(transactions.oldest(), Some(700));
        assert!(transactions.has(700) && !transactions.has(702) && !transactions.has(0));
        assert_eq!(found.unread, []);
    }

    #[test]
    fn subtransactions_and_prepared_ones_count_with_what_committed_them() {
        let ending = Ending {
            children: vec![711],
            prepared: None,
            dropped: vec![table(9)],
            is_whole: true,
        };
        let prepared = Ending {
            prepared: Some(600),
            is_whole: true,
            ..Ending::default()
        };
        let records = [
            change(100, 711, 1),
            change(105, 712, 2),
            commit(110, COMMIT, 710, Some(ending)),
            commit(120, COMMIT_PREPARED, 0, Some(prepared)),
        ];
        let (found, transactions) = counted(&records);
        assert_eq!(found.commits, 2);
        // 712 was rolled back, with its savepoint or by itself.
        assert_eq!(found.relations, BTreeSet::from([table(1)]));
        assert_eq!(found.dropped, BTreeSet::from([table(9)]));
        assert_eq!(transactions.oldest(), Some(600));
    }

    #[test]
    fn a_commit_that_was_not_read_to_its_end_is_said() {
        let ending = Ending::default();
        let (found, _) = counted(&[commit(110, COMMIT, 710, Some(ending))]);
        let said = found.unread[0].to_string();
        assert!(said.starts_with("they may have changed more tables: the commit at 0/6E"));
    }

    #[test]
    fn numbers_go_round() {
        assert!(precedes(u32::MAX, 3) && !precedes(3, u32::MAX) && !precedes(3, 3));
        let transactions = Transactions(BTreeSet::from([3, u32::MAX]));
        assert_eq!(transactions.oldest(), Some(u32::MAX));
    }
}
