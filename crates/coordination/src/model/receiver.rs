//! A receiver: opens the chain with the shipped walk and writes it with the shipped writer.

use std::time::Duration;

use bytes::Bytes;
use dr_encryption::Keys;
use dr_model::{Epoch, Lsn};

use super::actors::{ORIGIN, chain, chunk, region, resource};
use super::world::{Asker, Scenario, World};
use crate::chain::internals::{
    Failure, Link, Reply, Walk, WalkEnd, Writer, WriterTask, link_with_log,
};
use crate::chain::{ChunkHeader, Promise, encode};
use crate::operation::{Answer, Operation};
use crate::register::EpochRecord;
use crate::testing::at;

const IN_FLIGHT: usize = 2;
const AWAY_LIMIT: Duration = Duration::from_secs(1);

/// Turns a store's answer into a link's, with as much of a chunk as is wanted.
pub(super) fn to_reply<C>(
    answer: Answer,
    at: Lsn,
    wanted: impl Fn((ChunkHeader, Bytes)) -> C,
) -> Reply<C> {
    match answer {
        Answer::Created => Reply::Created,
        Answer::Exists => Reply::Exists,
        Answer::Missing => Reply::Missing,
        Answer::Failed(_) => Reply::Failed,
        Answer::Found(bytes) => match link_with_log(&bytes, &chain(), at, &Keys::default()) {
            Ok(Link::Chunk(chunk)) => Reply::Found(Link::Chunk(wanted(chunk))),
            Ok(Link::Seal(seal)) => Reply::Found(Link::Seal(seal)),
            Err(why) => Reply::Damaged(why.to_string()),
        },
    }
}

/// Puts everything that a writer orders under way.
pub(super) fn carry_out_orders(
    world: &mut World,
    asker: Asker,
    life: u8,
    region: usize,
    writer: &mut Writer,
) {
    for order in writer.orders(world.now()) {
        let operation = match order.task {
            WriterTask::Create(chunk) => Operation::Create(
                chain().link_key(chunk.start),
                encode(&chain(), &chunk, order.durable_through, "", None),
            ),
            WriterTask::Read(at) => Operation::Get(chain().link_key(at)),
        };
        world.ask((asker, life, order.id), region, operation);
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    /// Follows the chain, from the floor, since a moment.
    Opening(Walk, Lsn, Duration),
    Writing(Writer),
    /// Met a seal, or something worse.
    Stopped {
        superseded: bool,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Receiver {
    pub(super) region: usize,
    cuts: Vec<u64>,
    life: u8,
    phase: Phase,
    /// The epoch that it compares the primary with, and whether commits wait for it there.
    view: Option<(Epoch, bool)>,
    promise: Option<Promise>,
    /// The furthest position that it ever acknowledged, in any life.
    pub(super) acknowledged: Lsn,
}

impl Receiver {
    pub(super) fn new(region: usize, cuts: Vec<u64>) -> Self {
        Self {
            region,
            cuts,
            life: 0,
            phase: Phase::Stopped { superseded: false },
            view: None,
            promise: None,
            acknowledged: ORIGIN,
        }
    }

    pub(super) fn is_superseded(&self) -> bool {
        self.phase == Phase::Stopped { superseded: true }
    }

    pub(super) fn is_corrupt(&self) -> bool {
        self.life > 0 && self.phase == Phase::Stopped { superseded: false }
    }

    pub(super) fn start(&mut self, world: &mut World, scenario: &Scenario, index: usize) {
        self.life += 1;
        self.view = None;
        self.promise = None;
        let floor = world.floor(scenario, self.region);
        self.phase = Phase::Opening(Walk::new(floor), floor, world.now());
        self.read(world, index, 0, floor);
    }

    fn read(&self, world: &mut World, index: usize, number: u64, at: Lsn) {
        let id = (Asker::Receiver(index), self.life, number);
        world.ask(id, self.region, Operation::Get(chain().link_key(at)));
    }

    /// Tells whether looking at the register or at the primary would change what it knows.
    pub(super) fn can_check(&self, world: &World) -> bool {
        let mut after = self.clone();
        after.check(world);
        after != *self
    }

    /// Reads the newest epoch, or, having read it, compares the primary with it. The two are apart: anything may happen
    /// between them.
    pub(super) fn check(&mut self, world: &World) {
        if !matches!(self.phase, Phase::Writing(_)) {
            return;
        }
        let newest = world.records().pop().expect("record 1 is there");
        let waits_for_it = |record: &EpochRecord| {
            record
                .synchronous(&resource())
                .contains(&region(self.region))
        };
        match self.view {
            Some((epoch, _)) if epoch == newest.epoch || self.promise.is_none() => {}
            _ => {
                self.view = Some((newest.epoch, waits_for_it(&newest)));
                self.promise = None;
                return;
            }
        }
        let Some((epoch, true)) = self.view else {
            return;
        };
        let before = self.promise.take().and_then(|promise| promise.from);
        self.promise = Some(Promise {
            held: world.waits,
            checked_at: at(0),
            reasons: Vec::new(),
            epoch: (epoch != Epoch::FIRST).then_some(epoch),
            from: world.waits.then(|| before.unwrap_or(world.committed)),
        });
    }

    pub(super) fn possible_cuts(&self, scenario: &Scenario) -> Vec<u64> {
        let Phase::Writing(writer) = &self.phase else {
            return Vec::new();
        };
        let left = ORIGIN
            .advance(scenario.log_bytes)
            .bytes_since(writer.submitted());
        if writer.in_flight() >= IN_FLIGHT {
            return Vec::new();
        }
        self.cuts
            .iter()
            .copied()
            .filter(|bytes| *bytes <= left)
            .collect()
    }

    pub(super) fn cut(&mut self, world: &mut World, scenario: &Scenario, index: usize, bytes: u64) {
        if let Phase::Writing(writer) = &mut self.phase {
            let mut chunk = chunk(writer.submitted(), bytes);
            chunk.facts.promise = self.promise.clone();
            writer.submit(chunk);
        }
        self.go_on(world, scenario, index);
    }

    pub(super) fn hear(
        &mut self,
        world: &mut World,
        scenario: &Scenario,
        index: usize,
        number: u64,
        at: Lsn,
        answer: Answer,
    ) {
        match &mut self.phase {
            Phase::Opening(walk, floor, since) => {
                let reply = to_reply(answer, at, |(header, _)| header);
                match walk.feed(reply) {
                    None => {
                        let at = walk.at;
                        self.read(world, index, number + 1, at);
                    }
                    // Something was removed from where the walk began.
                    Some(_) if world.floor(scenario, self.region) > *floor => {
                        self.start(world, scenario, index);
                    }
                    Some(WalkEnd::Open) => {
                        let writer = Writer::new(walk.at, *since, AWAY_LIMIT);
                        self.phase = Phase::Writing(writer.with_rules(scenario.rules()));
                    }
                    Some(WalkEnd::Sealed(_)) => self.phase = Phase::Stopped { superseded: true },
                    Some(WalkEnd::Damaged(_)) => self.phase = Phase::Stopped { superseded: false },
                }
            }
            Phase::Writing(writer) => {
                writer.feed(number, world.now(), to_reply(answer, at, |(_, log)| log));
                self.go_on(world, scenario, index);
            }
            Phase::Stopped { .. } => {}
        }
    }

    fn go_on(&mut self, world: &mut World, scenario: &Scenario, index: usize) {
        let Phase::Writing(writer) = &mut self.phase else {
            return;
        };
        let asker = Asker::Receiver(index);
        carry_out_orders(world, asker, self.life, self.region, writer);
        self.acknowledged = self.acknowledged.max(writer.acknowledged());
        if writer.failure() == Some(&Failure::Away) {
            world.abandon(asker);
            self.start(world, scenario, index);
        } else if let Some(failure) = writer.failure() {
            let superseded = matches!(failure, Failure::Superseded(_));
            world.abandon(asker);
            self.phase = Phase::Stopped { superseded };
        }
    }
}
