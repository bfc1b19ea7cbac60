//! What an execution makes of each answer, and what it writes into its journal.

use dr_encryption::Keys;
use dr_model::{Epoch, Lsn};

use super::super::actors::{ORIGIN, chain, workload};
use super::super::receiver::to_reply;
use super::super::world::{Asker, FlightId, Scenario, World, Wrong};
use super::{Executor, Phase, Stop};
use crate::chain::internals::{Link, SealEnd, WalkEnd, link_with_log};
use crate::journal::{Body, Entry};
use crate::operation::{Answer, Operation};
use crate::publish::{Publish, Published};
use crate::register::EpochRecord;
use crate::testing::{actor, at as time};

impl Executor {
    pub(in crate::model) fn hear(
        &mut self,
        world: &mut World,
        scenario: &Scenario,
        index: usize,
        id: FlightId,
        at: Lsn,
        answer: Answer,
    ) {
        match self.phase.clone() {
            Phase::ReadJournal(sequence) => match answer {
                Answer::Found(_) => {
                    self.phase = Phase::ReadJournal(sequence + 1);
                    self.ask_journal(world, index, sequence + 1);
                }
                Answer::Missing => {
                    let body = Body::Takeover {
                        reason: String::new(),
                    };
                    let publish = self.entry(index, sequence, body);
                    self.phase = Phase::TakeOver(publish.clone(), sequence);
                    self.ask(world, index, self.to(), publish.next());
                }
                _ => self.ask_journal(world, index, sequence),
            },
            Phase::TakeOver(mut publish, sequence) => match publish.feed(answer) {
                None => {
                    self.ask(world, index, self.to(), publish.next());
                    self.phase = Phase::TakeOver(publish, sequence);
                }
                Some(Published::Ours) => {
                    self.sequence = sequence + 1;
                    self.read_register(world, index);
                }
                // The execution still goes on: read on.
                Some(Published::Theirs(_)) => {
                    self.phase = Phase::ReadJournal(sequence + 1);
                    self.ask_journal(world, index, sequence + 1);
                }
            },
            Phase::ReadRegister(walk, ask) => {
                self.hear_register(world, scenario, index, (walk, ask), answer)
            }
            Phase::Open(mut publish, record, place) => match publish.feed(answer) {
                None => {
                    self.ask(world, index, place, publish.next());
                    self.phase = Phase::Open(publish, record, place);
                }
                Some(Published::Ours) => self.opened(world, index, &record),
                Some(Published::Theirs(bytes)) => {
                    let winner =
                        EpochRecord::from_bytes(&bytes, &workload(), record.epoch).unwrap();
                    self.met(world, index, &record, &winner);
                }
            },
            Phase::Journal(mut publish) => match publish.feed(answer) {
                None => {
                    self.ask(world, index, self.to(), publish.next());
                    self.phase = Phase::Journal(publish);
                }
                Some(Published::Theirs(_)) => self.phase = Phase::Stopped(Stop::TakenOver),
                Some(Published::Ours) => {
                    self.sequence += 1;
                    self.after_journal(world, scenario, index);
                }
            },
            Phase::FindTail(mut walk, begun) => {
                match walk.feed(to_reply(answer, at, |(header, _)| header)) {
                    None => {
                        let next = Operation::Get(chain().link_key(walk.at));
                        self.ask(world, index, self.to(), next);
                        self.phase = Phase::FindTail(walk, begun);
                    }
                    Some(_) if world.floor(scenario, self.to()) > begun.floor => {
                        self.find_tail(world, scenario, index);
                    }
                    Some(WalkEnd::Damaged(_)) => self.phase = Phase::Stopped(Stop::Broken),
                    Some(WalkEnd::Sealed(_)) => self.seal(world, scenario, index, walk.at, begun),
                    Some(WalkEnd::Open) => self.at_tail(world, scenario, index, walk.at, begun),
                }
            }
            Phase::Surplus(mut writer, begun) => {
                if id.1 == 1 {
                    writer.feed(id.2, world.now(), to_reply(answer, at, |(_, log)| log));
                }
                self.write_surplus(world, scenario, index, writer, begun);
            }
            Phase::Seal(mut sealer, begun) => {
                match sealer.feed(to_reply(answer, at, |(header, _)| header)) {
                    None => self.ask_seal(world, scenario, index, sealer, begun),
                    Some(SealEnd::Damaged { .. }) => self.phase = Phase::Stopped(Stop::Broken),
                    Some(SealEnd::Superseded(_)) => self.phase = Phase::Stopped(Stop::Superseded),
                    Some(SealEnd::Sealed(_))
                        if world.floor(scenario, self.to()) > begun.floor
                            && !scenario.is_wrong(Wrong::SealOldTail) =>
                    {
                        self.find_tail(world, scenario, index);
                    }
                    Some(SealEnd::Sealed(_)) if self.promoted => self.phase = Phase::ReadName,
                    Some(SealEnd::Sealed(seal)) => {
                        self.proven =
                            self.promised && self.is_promise_kept(world, scenario, seal.lsn);
                        if scenario.commits {
                            self.phase = Phase::Promote(seal.lsn);
                            return;
                        }
                        let body = Body::Record(format!("promote {}", seal.lsn));
                        self.write_journal(world, index, body, Some(seal.lsn));
                    }
                }
            }
            _ => {}
        }
    }

    /// Looks at the promise that the newest link before the seal tells of.
    pub(super) fn is_promise_kept(&self, world: &World, scenario: &Scenario, seal: Lsn) -> bool {
        let mut promise = None;
        let mut at = world.floor(scenario, self.to());
        while let Some(bytes) = world.store_get(self.to(), &chain().link_key(at)) {
            match link_with_log(bytes, &chain(), at, &Keys::default()) {
                Ok(Link::Chunk((header, _))) => {
                    at = header.end;
                    promise = header.promise.or(promise);
                }
                _ => break,
            }
        }
        let Some(mut promise) = promise else {
            return false;
        };
        let Epoch(opened) = self.epoch();
        let ended = Epoch(opened - 1);
        if scenario.is_wrong(Wrong::PromiseOfAnyEpoch) {
            promise.epoch = Some(ended);
        }
        if scenario.is_wrong(Wrong::PromiseFromAnywhere) && promise.held {
            promise.from = Some(ORIGIN);
        }
        promise.covers(chain().epoch, ended, seal)
    }

    pub(super) fn ask(
        &mut self,
        world: &mut World,
        index: usize,
        region: usize,
        operation: Operation,
    ) {
        self.number += 1;
        world.ask((Asker::Executor(index), 0, self.number), region, operation);
    }

    pub(super) fn ask_journal(&mut self, world: &mut World, index: usize, sequence: u64) {
        let key = Entry::<String>::key(&self.id(index), sequence);
        self.ask(world, index, self.to(), Operation::Get(key));
    }

    pub(super) fn entry(&self, index: usize, sequence: u64, body: Body<String>) -> Publish {
        let entry = Entry {
            version: crate::journal::FORMAT_VERSION,
            sequence,
            at: time(0),
            previous: None,
            actor: actor(Self::process(index)),
            body,
        };
        let key = Entry::<String>::key(&self.id(index), sequence);
        Publish::new(key, entry.to_bytes().unwrap())
    }

    /// Notes an intent. `sealed_at` is where the promotion will begin, if the seal is in.
    pub(super) fn write_journal(
        &mut self,
        world: &mut World,
        index: usize,
        body: Body<String>,
        sealed_at: Option<Lsn>,
    ) {
        let publish = self.entry(index, self.sequence, body);
        self.ask(world, index, self.to(), publish.next());
        self.base = sealed_at;
        self.phase = Phase::Journal(publish);
    }

    pub(super) fn after_journal(&mut self, world: &mut World, scenario: &Scenario, index: usize) {
        if let Some(base) = self.base {
            self.phase = Phase::Promote(base);
            return;
        }
        self.find_tail(world, scenario, index);
    }
}
