//! The writer of a chain: the state machine.
//!
//! Invariants:
//! - the items form one piece from the tail to what was submitted last, and the first begins at the tail;
//! - the tail moves only to the end of a chunk that is known to be stored at the tail's key: ours, or one of the same bytes;
//! - what is acknowledged never exceeds the tail nor what was submitted, and never moves again after a failure.
//!
//! A key that is taken is read. A chunk with the same bytes is adopted, and ours are cut to begin at its end; what was or
//! may still be written at keys inside an adopted chunk hangs on nothing and harms nobody. A seal supersedes for ever. An
//! operation that fails is asked for again without end. An answer to something asked too long ago counts for nothing,
//! because chunks may have been compacted away meanwhile and a create would succeed at a key that is not the tail.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Buf, Bytes};
use dr_model::Lsn;

use super::link::{Link, Reply};
use super::{Chunk, MAX_LOG_BYTES, SealRecord};
use crate::mutation::{Mutation, Rules};

/// What the writer wants done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Task {
    /// Create this chunk at its key.
    Create(Chunk),
    /// Read what stands at this key.
    Read(Lsn),
}

/// A task with what the answer needs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Order {
    /// Names the order when its answer comes.
    pub(crate) id: u64,
    /// How often this was tried before.
    pub(crate) attempt: u32,
    /// When it was given.
    pub(crate) given_at: Duration,
    /// The tail at that moment, for the chunk's header.
    pub(crate) durable_through: Lsn,
    /// What to do.
    pub(crate) task: Task,
}

/// Why a writer has stopped for ever.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Failure {
    /// It met a seal.
    Superseded(Box<SealRecord>),
    /// What is stored is not what was received.
    Corrupt {
        /// Where.
        at: Lsn,
        /// What is wrong.
        why: String,
    },
    /// What it knows of the tail is too old.
    Away,
    /// The caller's chunk does not continue the last one.
    Misplaced {
        /// Its start.
        start: Lsn,
        /// Its end.
        end: Lsn,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum State {
    /// To be created.
    Ready,
    Creating {
        id: u64,
        given_at: Duration,
    },
    /// Its key is taken: to be read.
    Contested,
    Reading {
        id: u64,
        given_at: Duration,
    },
    /// Stored as it is.
    Stored,
    /// Another's log is stored at its key.
    Taken(Bytes),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Item {
    chunk: Chunk,
    state: State,
    attempt: u32,
}

/// The state machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Writer {
    items: VecDeque<Item>,
    tail: Lsn,
    submitted: Lsn,
    acknowledged: Lsn,
    /// Stored log after `submitted`, if another writer is further on.
    ahead: Bytes,
    next_id: u64,
    failure: Option<Failure>,
    /// When the newest order was given whose answer showed the tail.
    confirmed_at: Duration,
    away_limit: Duration,
    rules: Rules,
}

impl Writer {
    /// Starts at `tail`, which was read from the store at `now`. Knowledge older than `away_limit` is not used.
    pub(crate) fn new(tail: Lsn, now: Duration, away_limit: Duration) -> Self {
        Self {
            items: VecDeque::new(),
            tail,
            submitted: tail,
            acknowledged: tail,
            ahead: Bytes::new(),
            next_id: 0,
            failure: None,
            confirmed_at: now,
            away_limit,
            rules: Rules::default(),
        }
    }

    #[cfg(test)]
    pub(crate) fn with_rules(mut self, rules: Rules) -> Self {
        self.rules = rules;
        self
    }

    /// Returns the position up to which everything submitted is stored and hangs together.
    pub(crate) fn acknowledged(&self) -> Lsn {
        self.acknowledged
    }

    /// Returns where the next chunk has to start.
    pub(crate) fn submitted(&self) -> Lsn {
        self.submitted
    }

    /// Returns the number of chunks that are not acknowledged.
    pub(crate) fn in_flight(&self) -> usize {
        self.items.len()
    }

    /// Returns why the writer has stopped.
    pub(crate) fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    /// Takes the next piece of log.
    pub(crate) fn submit(&mut self, mut chunk: Chunk) {
        if self.failure.is_some() {
            return;
        }
        let (start, end) = (chunk.start, chunk.end());
        let length = chunk.log.len() as u64;
        if start != self.submitted || length == 0 || length > MAX_LOG_BYTES {
            self.failure = Some(Failure::Misplaced { start, end });
            return;
        }
        let known = self.ahead.len().min(chunk.log.len());
        if chunk.log[..known] != self.ahead[..known] {
            self.contradiction(start);
            return;
        }
        self.ahead.advance(known);
        self.submitted = end;
        chunk.start = start.advance(known as u64);
        chunk.log.advance(known);
        if !chunk.log.is_empty() {
            self.items.push_back(Item {
                chunk,
                state: State::Ready,
                attempt: 0,
            });
        }
        self.acknowledge();
    }

    /// Returns what is to be done now. Each order is answered by one [`Writer::feed`], in any order.
    pub(crate) fn orders(&mut self, now: Duration) -> Vec<Order> {
        let wanted = |item: &Item| matches!(item.state, State::Ready | State::Contested);
        if self.failure.is_some() || !self.items.iter().any(wanted) {
            return Vec::new();
        }
        if self.too_old(now)(self.confirmed_at) {
            self.failure = Some(Failure::Away);
            return Vec::new();
        }
        let mut orders = Vec::new();
        for item in &mut self.items {
            let id = self.next_id;
            let (state, task) = match item.state {
                State::Ready => (
                    State::Creating { id, given_at: now },
                    Task::Create(item.chunk.clone()),
                ),
                State::Contested => (
                    State::Reading { id, given_at: now },
                    Task::Read(item.chunk.start),
                ),
                _ => continue,
            };
            item.state = state;
            self.next_id += 1;
            orders.push(Order {
                id,
                attempt: item.attempt,
                given_at: now,
                durable_through: self.tail,
                task,
            });
        }
        orders
    }

    /// Takes the answer to order `id`.
    pub(crate) fn feed(&mut self, id: u64, now: Duration, reply: Reply<Bytes>) {
        if self.failure.is_some() {
            return;
        }
        let of_order = |item: &&mut Item| match item.state {
            State::Creating { id: of, .. } | State::Reading { id: of, .. } => of == id,
            _ => false,
        };
        let too_old = self.too_old(now);
        // An order whose chunk was adopted or cut meanwhile has no item any more: its answer means nothing.
        let Some(item) = self.items.iter_mut().find(of_order) else {
            return;
        };
        let (reading, given_at) = match item.state {
            State::Creating { given_at, .. } => (false, given_at),
            State::Reading { given_at, .. } => (true, given_at),
            _ => return,
        };
        if too_old(given_at) {
            self.failure = Some(Failure::Away);
            return;
        }
        let at = item.chunk.start;
        match reply {
            Reply::Created => item.state = State::Stored,
            Reply::Exists if self.rules.break_by(Mutation::TrustTakenKey) => {
                item.state = State::Stored;
            }
            Reply::Exists => item.state = State::Contested,
            Reply::Found(Link::Chunk(log)) => item.state = State::Taken(log),
            Reply::Found(Link::Seal(_)) if self.rules.break_by(Mutation::IgnoreSeal) => {
                item.state = State::Stored;
            }
            Reply::Found(Link::Seal(seal)) => {
                self.failure = Some(Failure::Superseded(seal));
                return;
            }
            Reply::Damaged(why) => {
                self.failure = Some(Failure::Corrupt { at, why });
                return;
            }
            // Taken and then gone, or no answer: created again.
            Reply::Missing => item.state = State::Ready,
            Reply::Failed if reading => item.state = State::Contested,
            Reply::Failed => item.state = State::Ready,
        }
        match item.state {
            State::Stored | State::Taken(_) => {
                item.attempt = 0;
                self.confirmed_at = self.confirmed_at.max(given_at);
            }
            State::Contested if !reading => item.attempt = 0,
            _ => item.attempt += 1,
        }
        self.move_tail();
    }

    fn move_tail(&mut self) {
        while let Some(front) = self.items.front() {
            match &front.state {
                State::Stored => {
                    self.tail = front.chunk.end();
                    self.items.pop_front();
                }
                State::Taken(log) => {
                    let log = log.clone();
                    if !self.adopt(&log) {
                        return;
                    }
                }
                _ => break,
            }
        }
        self.acknowledge();
    }

    /// Moves the tail over `log`, which another writer has stored there, if ours are the same bytes.
    fn adopt(&mut self, log: &Bytes) -> bool {
        let begin = self.tail;
        let end = begin.advance(log.len() as u64);
        let index = |lsn: Lsn| {
            usize::try_from(lsn.bytes_since(begin)).expect("an index within a slice in memory")
        };
        for item in &self.items {
            if item.chunk.start >= end {
                break;
            }
            let theirs = &log[index(item.chunk.start)..index(item.chunk.end().min(end))];
            if theirs != &item.chunk.log[..theirs.len()] {
                let at = item.chunk.start;
                self.contradiction(at);
                return false;
            }
        }
        if end > self.submitted {
            self.ahead = log.slice(index(self.submitted)..);
        }
        while self
            .items
            .front()
            .is_some_and(|item| item.chunk.end() <= end)
        {
            self.items.pop_front();
        }
        if let Some(front) = self.items.front_mut()
            && front.chunk.start < end
        {
            if self.rules.break_by(Mutation::AdoptWithoutCutting) {
                front.state = State::Stored;
                return true;
            }
            let covered = usize::try_from(end.bytes_since(front.chunk.start))
                .expect("less than the length of a slice in memory");
            front.chunk.log.advance(covered);
            front.chunk.start = end;
            front.state = State::Ready;
            front.attempt = 0;
        }
        self.tail = end;
        true
    }

    fn contradiction(&mut self, at: Lsn) {
        self.failure = Some(Failure::Corrupt {
            at,
            why: "another log of the same timeline is stored there".to_owned(),
        });
    }

    fn acknowledge(&mut self) {
        if self.failure.is_some() {
            return;
        }
        self.acknowledged = self.tail.min(self.submitted);
        if self.rules.break_by(Mutation::AcknowledgeNonContiguous) {
            let stored = |item: &&Item| item.state == State::Stored;
            let furthest = self
                .items
                .iter()
                .filter(stored)
                .map(|item| item.chunk.end())
                .max();
            self.acknowledged = self.acknowledged.max(furthest.unwrap_or(Lsn::INVALID));
        }
    }

    /// Returns what tells whether something is known from too long before `now`.
    fn too_old(&self, now: Duration) -> impl Fn(Duration) -> bool + use<> {
        let (limit, rules) = (self.away_limit, self.rules);
        move |since| now.saturating_sub(since) > limit && !rules.break_by(Mutation::UseOldKnowledge)
    }
}
