//! Where a recovery ends: the target, looked for in the log itself where no header tells.
//!
//! What is found is proven, and so is what is not there: PostgreSQL would find that out only after hours of replay, and
//! then stop. Where looking would cost too much, it is left to find it out, and that is said.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use dr_model::{Lsn, TimelineId};
use dr_provider::driver::{LogStretch, RestoreRequest, RestoreTarget, TargetAction};
use dr_provider::error::chain;
use dr_provider::{Error, Result};
use jiff::Timestamp;

use super::log::{Log, Readable, is_locked, part_from, part_to};
use super::settings::{Ending, Stop};
use super::target::{LogTimes, covered_at};
use crate::archive::Reach;
use crate::backup::Base;
use crate::wal::{Record, TransactionEnd};

/// Log that is searched at most for what stands in no header.
pub(super) const SEARCH_BYTES: u64 = 16 << 30;

/// Where a recovery ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct End {
    pub(super) ending: Ending,
    /// In words.
    pub(super) said: String,
    /// The log that is needed goes to here at most.
    pub(super) needed: Lsn,
    /// Whether it was found in the log.
    pub(super) proven: bool,
    pub(super) notes: Vec<String>,
}

/// The log does not reach the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Short {
    pub(super) why: String,
    /// What can be reached, in words.
    pub(super) newest: Option<String>,
}

impl From<String> for Short {
    fn from(why: String) -> Self {
        Self { why, newest: None }
    }
}

/// Finds the end of a recovery for one recovery point after the other, newest first, reading no log twice.
#[derive(Debug)]
pub(super) struct Ends<'a> {
    request: &'a RestoreRequest,
    /// From where on the log of a timeline was searched.
    searched: BTreeMap<TimelineId, Lsn>,
    searched_bytes: u64,
}

/// Something that was searched for.
#[derive(Clone, Debug)]
struct Hit {
    start: Lsn,
    end: Lsn,
    at: Option<Timestamp>,
    aborted: bool,
}

impl<'a> Ends<'a> {
    pub(super) fn new(request: &'a RestoreRequest) -> Self {
        Self {
            request,
            searched: BTreeMap::new(),
            searched_bytes: 0,
        }
    }

    /// Finds where a recovery from `base` along `log`, which hangs together, ends.
    pub(super) async fn find(
        &mut self,
        log: &Log,
        whole: &[LogStretch],
        base: &Base,
        reach: &Reach,
    ) -> Result<std::result::Result<End, Short>> {
        let after = |end: String| match &reach.hole {
            Some(hole) => hole.to_string(),
            None => end,
        };
        let stopped = |stop, said: String| End {
            ending: self.ending(reach.end, stop),
            said,
            needed: reach.end,
            proven: true,
            notes: Vec::new(),
        };
        match &self.request.target {
            RestoreTarget::Latest => match &reach.hole {
                Some(hole) => Ok(Err(Short {
                    why: hole.to_string(),
                    newest: Some(format!(
                        "the log before the hole can be restored with `--at {}`",
                        reach.end
                    )),
                })),
                None => {
                    let stop = self.at_the_end(log, whole).await?;
                    let said = format!("at the end of the log, {}", reach.end);
                    Ok(Ok(stopped(stop, said)))
                }
            },
            RestoreTarget::Immediate => {
                let stop = base.source.stop;
                let said = format!("as soon as the files are consistent, at {stop}");
                let needed = stop;
                Ok(Ok(End {
                    needed,
                    ..stopped(Stop::Consistent, said)
                }))
            }
            RestoreTarget::Lsn(lsn) if *lsn > reach.end => Ok(Err(Short {
                why: after(format!("the log ends at {}, before {lsn}", reach.end)),
                newest: Some(format!("the newest position is {}", reach.end)),
            })),
            RestoreTarget::Lsn(lsn) => {
                let said = |how: &str| format!("{how} {lsn}");
                Ok(Ok(match log.first_at(whole, *lsn).await? {
                    Some(record) if self.request.exclusive => End {
                        needed: record.end,
                        ..stopped(Stop::Position(*lsn), said("before the record at"))
                    },
                    Some(record) => End {
                        needed: record.end,
                        ..stopped(Stop::Position(*lsn), said("after the record at"))
                    },
                    // The log ends there: the server would not find a record to stop at.
                    None => {
                        let stop = self.at_the_end(log, &part_to(whole, *lsn)).await?;
                        let ending = self.ending(*lsn, stop);
                        let said = said("at the end of the log,");
                        let stopped = stopped(Stop::EndOfLog, said);
                        End { ending, ..stopped }
                    }
                }))
            }
            RestoreTarget::Time(at) => {
                let last = match log.last(whole, true).await {
                    Err(locked) if is_locked(&locked) => {
                        return self.time_before(&locked, log, whole, base, *at).await;
                    }
                    last => last?,
                };
                let times = LogTimes {
                    last_commit_at: last.commit_at,
                    covered_at: match reach.hole {
                        None => covered_at(&log.store, log.cluster, reach).await?,
                        Some(_) => None,
                    },
                };
                let newest = times.newest().map(|at| match &reach.hole {
                    Some(_) => format!("the newest moment before the hole is {at}"),
                    None => format!("the newest moment is {at}"),
                });
                Ok(match times.stop(*at, !self.request.exclusive) {
                    Some(Stop::EndOfLog) => {
                        let stop = self.at_the_end(log, whole).await?;
                        let said = format!(
                            "at the end of the log, {}: there is no later commit",
                            reach.end
                        );
                        Ok(stopped(stop, said))
                    }
                    Some(stop) => {
                        let which = if self.request.exclusive {
                            "at or after"
                        } else {
                            "after"
                        };
                        Ok(stopped(
                            stop,
                            format!("before the first commit {which} {at}"),
                        ))
                    }
                    None => {
                        let end = format!(
                            "the log ends at {}, {}; {at} is later",
                            reach.end,
                            times.describe()
                        );
                        Err(Short {
                            why: match &reach.hole {
                                Some(hole) => format!("{hole}; before that, {}", times.describe()),
                                None => end,
                            },
                            newest,
                        })
                    }
                })
            }
            RestoreTarget::Transaction(number) => {
                let name = format!("transaction {number}");
                self.search(log, whole, base, reach, &name, Stop::Transaction(*number))
                    .await
            }
            RestoreTarget::Name(text) => {
                let name = format!("restore point `{text}`");
                self.search(log, whole, base, reach, &name, Stop::Name(text.clone()))
                    .await
            }
        }
    }

    /// Finds the end of a recovery to a time in what of the log can be read before what is `locked`.
    async fn time_before(
        &self,
        locked: &Error,
        log: &Log,
        whole: &[LogStretch],
        base: &Base,
        at: Timestamp,
    ) -> Result<std::result::Result<End, Short>> {
        let (from, exclusive) = (base.source.stop, self.request.exclusive);
        let (mut readable, mut later) = (Readable::default(), None);
        let part = part_from(whole, from, log.size);
        let read = log.read(&part, |record| {
            if record.start < from {
                return ControlFlow::Continue(());
            }
            let is_later = |commit: Timestamp| commit > at || (exclusive && commit == at);
            if record.committed_at.is_some_and(is_later) {
                later = Some(record.end);
                return ControlFlow::Break(());
            }
            readable.see(record);
            match record.start.bytes_since(from) > SEARCH_BYTES {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        });
        match read.await {
            Err(error) if !is_locked(&error) => return Err(error),
            _ => {}
        }
        let Some(end) = later else {
            let why = format!("no commit after {at} is in the log that can be read");
            return Ok(Err(Short {
                why: format!("{why}: {}", chain(locked)),
                newest: Some(readable.hint(locked)),
            }));
        };
        let which = match exclusive {
            true => "at or after",
            false => "after",
        };
        Ok(Ok(End {
            ending: self.ending(end, Stop::Time(at)),
            said: format!("before the first commit {which} {at}"),
            needed: end,
            proven: true,
            notes: Vec::new(),
        }))
    }

    fn ending(&self, through: Lsn, stop: Stop) -> Ending {
        Ending::Target {
            through,
            stop,
            inclusive: !self.request.exclusive,
            action: self.request.action,
        }
    }

    /// Returns what makes the server come to the end of `log` and then do what was asked for: without a target it can only
    /// promote.
    async fn at_the_end(&self, log: &Log, whole: &[LogStretch]) -> Result<Stop> {
        if self.request.action == TargetAction::Promote {
            return Ok(Stop::EndOfLog);
        }
        let last = log.last(whole, false).await?;
        Ok(last.record.map_or(Stop::Consistent, Stop::Position))
    }

    /// Searches what of the log was not searched yet, from where `base` is consistent.
    async fn search(
        &mut self,
        log: &Log,
        whole: &[LogStretch],
        base: &Base,
        reach: &Reach,
        name: &str,
        stop: Stop,
    ) -> Result<std::result::Result<End, Short>> {
        let from = base.source.stop;
        // What was searched began with a segment: a record that began before it may end in it.
        let to = match self.searched.get(&reach.timeline) {
            Some(searched) => log
                .size
                .start_of(*searched)
                .advance(log.size.bytes())
                .min(reach.end),
            None => reach.end,
        };
        let part = part_to(&part_from(whole, from, log.size), to);
        let bytes: u64 = part.iter().map(|one| one.to.bytes_since(one.from)).sum();
        let ending = self.ending(reach.end, stop.clone());
        let unproven = |why: String| End {
            ending: ending.clone(),
            said: format!("at {name}"),
            needed: reach.end,
            proven: false,
            notes: vec![format!(
                "{why}: PostgreSQL stops without starting up if {name} is not in the log"
            )],
        };
        // Which recovery point to begin with can only be said by who knows about when it was.
        let unknown = |why: String| match self.request.recovery_point {
            Some(_) => Ok(unproven(why)),
            None => Err(Short {
                why,
                newest: Some(
                    "name the recovery point before it with `--recovery-point`".to_owned(),
                ),
            }),
        };
        if self.searched_bytes.saturating_add(bytes) > SEARCH_BYTES {
            return Ok(unknown(format!(
                "{} GiB of log are too much to search for {name}",
                (self.searched_bytes + bytes) >> 30
            )));
        }
        let (mut first, mut again, mut unread) = (None, None, false);
        let mut readable = Readable::default();
        let read = log.read(&part, |record| {
            if record.start < from {
                return ControlFlow::Continue(());
            }
            readable.see(record);
            unread |= record.transaction_end().is_some() && transaction(record).is_none();
            match (hit(record, &stop), &first) {
                (Some(found), None) => first = Some(found),
                (Some(found), Some(_)) => {
                    again = Some(found);
                    return ControlFlow::Break(());
                }
                (None, _) => {}
            }
            ControlFlow::Continue(())
        });
        // What was found before counts all the same.
        let locked = match read.await {
            Err(error) if is_locked(&error) => Some(error),
            read => {
                read?;
                None
            }
        };
        self.searched_bytes += bytes;
        self.searched.insert(reach.timeline, from);
        let Some(first) = first else {
            if let Some(locked) = locked {
                let why = format!("{name} is not in the log from {from} on that can be read");
                return Ok(Err(Short {
                    why: format!("{why}: {}", chain(&locked)),
                    newest: Some(readable.hint(&locked)),
                }));
            }
            if unread && matches!(stop, Stop::Transaction(_)) {
                let why = "a prepared transaction ended with more than is read of one record";
                return Ok(unknown(why.to_owned()));
            }
            let why = format!("{name} is not in the log from {from} to {to}");
            return Ok(Err(Short {
                why: match &reach.hole {
                    Some(hole) => format!("{why}, and {hole}"),
                    None => why,
                },
                newest: None,
            }));
        };
        let mut notes = Vec::new();
        if first.aborted {
            notes.push(format!("{name} was rolled back"));
        }
        if let Some(again) = again {
            notes.push(format!(
                "{name} is there again at {}; recovery ends at the first",
                again.start
            ));
        }
        if let Some(locked) = locked {
            let why = chain(&locked);
            notes.push(format!("whether {name} is there again is not known: {why}"));
        }
        let side = if self.request.exclusive && matches!(stop, Stop::Transaction(_)) {
            "before"
        } else {
            "after"
        };
        let when = first.at.map_or_else(String::new, |at| format!(" of {at}"));
        Ok(Ok(End {
            ending,
            said: format!("{side} {name}{when}, at {}", first.end),
            needed: first.end,
            proven: true,
            notes,
        }))
    }
}

/// Tells whether a record is what recovery stops at.
fn hit(record: &Record, stop: &Stop) -> Option<Hit> {
    let hit = |at, aborted| Hit {
        start: record.start,
        end: record.end,
        at,
        aborted,
    };
    match stop {
        Stop::Name(name) => {
            let point = record
                .restore_point
                .as_ref()
                .filter(|point| point.name == *name)?;
            Some(hit(Some(point.at), false))
        }
        Stop::Transaction(number) => {
            // The server compares the lower half, which is all that the log has.
            let ended = transaction(record).filter(|_| record.transaction_end().is_some())?;
            (u64::from(ended) == *number & u64::from(u32::MAX))
                .then(|| hit(record.committed_at, record.committed_at.is_none()))
        }
        _ => None,
    }
}

/// Returns the number of the transaction that a record ends, as the server does which looks for it (`recoveryStopsBefore`); `None` of a
/// prepared one that is not read so far.
fn transaction(record: &Record) -> Option<u32> {
    match record.transaction_end() {
        Some(TransactionEnd::Prepared) => record.ending.as_ref()?.prepared,
        _ => Some(record.transaction),
    }
}
