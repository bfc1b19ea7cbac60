//! An execution: the order of steps of a failover around the shipped state machines.

use std::time::Duration;

use dr_model::{Epoch, ExecutionId, Lsn, TimelineId};

use super::actors::{
    CLUSTER, EAST, ORIGIN, chain, chunk, record, region, region_index, resource, workload,
};
use super::receiver::{carry_out_orders, to_reply};
use super::world::{Asker, FlightId, Promotion, Scenario, World, Wrong};
use crate::chain::internals::{
    Failure, Link, SealEnd, SealTask, Sealer, Walk, WalkEnd, Writer, link_with_log,
};
use crate::chain::{FORMAT_VERSION, SealRecord};
use crate::journal::{Body, Entry};
use crate::operation::{Answer, Operation};
use crate::publish::{Publish, Published};
use crate::register::{self, EpochRecord, WalkEnd as RegisterEnd, next_timeline};
use crate::testing::{actor, at as time};

/// What an executor is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Goal {
    /// Moves the primary to a region; after losing the epoch it tries `again` times with the next one.
    Move { to: usize, again: u8 },
    /// Takes over what executor `of` runs towards a region.
    TakeOver { of: usize, to: usize },
    /// Makes commits on the primary wait for the west, or wait no more.
    Wait(bool),
    /// Gives the newest epoch's place back to the old primary, and fences the host that it named.
    Undo,
    /// Moves the register away from the primary: to a region's store.
    MoveRegister { to: usize },
}

/// Why an executor stopped before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Stop {
    /// Somebody else opened the epoch.
    Lost,
    /// The register did not answer.
    Unreachable,
    /// Somebody took the execution over.
    TakenOver,
    /// A seal, a host or the name service knows a higher epoch.
    Superseded,
    /// There was nothing to do.
    Nothing,
    /// Something contradicts the rules.
    Broken,
}

/// Where the walk to a tail began, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Begun {
    floor: Lsn,
    at: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Idle,
    ReadJournal(u64),
    TakeOver(Publish, u64),
    ReadRegister(register::Walk, Option<register::Ask>),
    /// Creates a record in the store of a region.
    Open(Publish, Box<EpochRecord>, usize),
    Journal(Publish),
    FindTail(Walk, Begun),
    Surplus(Writer, Begun),
    Seal(Sealer, Begun),
    Promote(Lsn),
    Fence(usize),
    ReadName,
    SetName(u64),
    /// To change whom the primary waits for, and to let go of the lock.
    SetWait,
    Done,
    Stopped(Stop),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Executor {
    pub(super) goal: Goal,
    phase: Phase,
    number: u64,
    again: u8,
    sequence: u64,
    /// The epoch that it has opened, and the timeline claimed there.
    pub(super) opened: Option<(Epoch, TimelineId)>,
    promoted: bool,
    surplus_written: bool,
    /// Where the promotion begins, once sealed.
    base: Option<Lsn>,
    /// The host that the newest epoch named before ours.
    fence: Option<usize>,
    /// Whether a commit waited for the region moved to, in the epoch that ends.
    promised: bool,
    /// Whether nothing that was acknowledged is lost, as far as the seal tells.
    proven: bool,
}

impl Executor {
    pub(super) fn new(goal: Goal) -> Self {
        let again = match goal {
            Goal::Move { again, .. } => again,
            Goal::TakeOver { .. } | Goal::Undo | Goal::Wait(_) | Goal::MoveRegister { .. } => 0,
        };
        Self {
            goal,
            phase: Phase::Idle,
            number: 0,
            again,
            sequence: 1,
            opened: None,
            promoted: false,
            surplus_written: false,
            base: None,
            fence: None,
            promised: false,
            proven: false,
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.phase == Phase::Done
    }

    pub(super) fn has_ended(&self) -> bool {
        self.is_done() || self.stopped().is_some()
    }

    pub(super) fn stopped(&self) -> Option<Stop> {
        match self.phase {
            Phase::Stopped(stop) => Some(stop),
            _ => None,
        }
    }

    fn to(&self) -> usize {
        match self.goal {
            Goal::Move { to, .. } | Goal::TakeOver { to, .. } | Goal::MoveRegister { to } => to,
            Goal::Undo | Goal::Wait(_) => EAST,
        }
    }

    /// The name of the execution: executors that take over share it. Another try is another execution.
    pub(super) fn execution(&self, index: usize) -> String {
        match self.goal {
            Goal::TakeOver { of, .. } => format!("x{of}-0"),
            Goal::Move { again, .. } => format!("x{index}-{}", again - self.again),
            Goal::Undo | Goal::Wait(_) | Goal::MoveRegister { .. } => format!("x{index}-0"),
        }
    }

    pub(super) fn can_act(&self, world: &World, scenario: &Scenario) -> bool {
        let unlocked = scenario.is_wrong(Wrong::SyncUnlocked);
        match self.phase {
            Phase::Idle => match self.goal {
                Goal::Wait(_) => world.lock.is_none() || unlocked,
                // There is something to take over, or to undo, only after an epoch was opened.
                Goal::TakeOver { of, .. } => world.executors[of].opened.is_some(),
                Goal::Undo | Goal::MoveRegister { .. } => {
                    world.executors.iter().any(|other| other.opened.is_some())
                }
                Goal::Move { .. } => true,
            },
            Phase::Promote(_)
            | Phase::Fence(_)
            | Phase::ReadName
            | Phase::SetName(_)
            | Phase::SetWait => true,
            _ => false,
        }
    }

    /// Starts, or has an effect outside the stores.
    pub(super) fn act(&mut self, world: &mut World, scenario: &Scenario, index: usize) {
        match self.phase.clone() {
            Phase::Idle => match self.goal {
                Goal::TakeOver { .. } => {
                    self.phase = Phase::ReadJournal(1);
                    self.ask_journal(world, index, 1);
                }
                Goal::Move { .. } | Goal::Undo | Goal::MoveRegister { .. } => {
                    self.read_register(world, index);
                }
                Goal::Wait(on) => {
                    if !scenario.is_wrong(Wrong::SyncUnlocked) {
                        world.lock = Some(index);
                    }
                    if !on && scenario.is_wrong(Wrong::NamesBeforeRecord) {
                        world.waits = false;
                    }
                    // What it reads may be old by the time it writes; that the writes race is what matters.
                    let records = world.records();
                    self.open_wait(world, index, &records, on);
                }
            },
            Phase::SetWait => {
                world.waits = self.goal == Goal::Wait(true);
                world.lock = None;
                self.phase = Phase::Done;
            }
            Phase::Promote(base) => self.promote(world, scenario, index, base),
            Phase::Fence(host) if self.command(world, scenario, host) => {
                self.phase = Phase::ReadName;
            }
            Phase::ReadName => {
                self.phase = if world.name > self.epoch().0 {
                    Phase::Stopped(Stop::Superseded)
                } else {
                    Phase::SetName(world.name)
                };
            }
            Phase::SetName(seen) => {
                let epoch = self.epoch().0;
                if world.name == seen || scenario.is_wrong(Wrong::NamesUnconditional) {
                    world.superseded_effect |= world.name > epoch;
                    world.name = epoch;
                    self.phase = Phase::Done;
                } else {
                    self.phase = Phase::ReadName;
                }
            }
            _ => {}
        }
    }

    fn epoch(&self) -> Epoch {
        self.opened
            .expect("effects come after the epoch was opened")
            .0
    }

    /// Sends a command to a host, which refuses it if it has seen a higher epoch.
    fn command(&mut self, world: &mut World, scenario: &Scenario, host: usize) -> bool {
        let epoch = self.epoch().0;
        let host = &mut world.hosts[host];
        if epoch < host.highest {
            if !scenario.is_wrong(Wrong::HostsIgnoreEpochs) {
                self.phase = Phase::Stopped(Stop::Superseded);
                return false;
            }
            world.superseded_effect = true;
        }
        host.highest = host.highest.max(epoch);
        true
    }

    fn promote(&mut self, world: &mut World, scenario: &Scenario, index: usize, base: Lsn) {
        let (epoch, timeline) = self.opened.expect("promotion comes after the epoch");
        let region = self.to();
        if !self.command(world, scenario, region) {
            return;
        }
        let done = world.hosts[region].promoted == Some((timeline, epoch));
        if !done || scenario.is_wrong(Wrong::PromoteUnobserved) {
            world.hosts[region].promoted = Some((timeline, epoch));
            world.promotions.push(Promotion {
                region,
                timeline,
                base,
                proven: self.proven,
            });
        }
        self.promoted = true;
        if scenario.is_wrong(Wrong::PromoteBeforeSeal) {
            let begun = Begun {
                floor: base,
                at: world.now(),
            };
            self.seal(world, scenario, index, base, begun);
        } else if scenario.commits {
            // What follows is checked where nothing is committed.
            self.phase = Phase::Done;
        } else {
            self.phase = Phase::ReadName;
        }
    }

    pub(super) fn hear(
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
    fn is_promise_kept(&self, world: &World, scenario: &Scenario, seal: Lsn) -> bool {
        let mut promise = None;
        let mut at = world.floor(scenario, self.to());
        while let Some(bytes) = world.store_get(self.to(), &chain().link_key(at)) {
            match link_with_log(bytes, &chain(), at) {
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

    fn ask(&mut self, world: &mut World, index: usize, region: usize, operation: Operation) {
        self.number += 1;
        world.ask((Asker::Executor(index), 0, self.number), region, operation);
    }

    fn ask_journal(&mut self, world: &mut World, index: usize, sequence: u64) {
        let key = Entry::<String>::key(&self.id(index), sequence);
        self.ask(world, index, self.to(), Operation::Get(key));
    }

    fn id(&self, index: usize) -> ExecutionId {
        self.execution(index).parse().unwrap()
    }

    fn process(index: usize) -> u32 {
        u32::try_from(index).unwrap() + 1
    }

    fn entry(&self, index: usize, sequence: u64, body: Body<String>) -> Publish {
        let entry = Entry {
            version: crate::journal::FORMAT_VERSION,
            sequence,
            at: time(0),
            actor: actor(Self::process(index)),
            body,
        };
        let key = Entry::<String>::key(&self.id(index), sequence);
        Publish::new(key, entry.to_bytes().unwrap())
    }

    /// Notes an intent. `sealed_at` is where the promotion will begin, if the seal is in.
    fn write_journal(
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

    fn after_journal(&mut self, world: &mut World, scenario: &Scenario, index: usize) {
        if let Some(base) = self.base {
            self.phase = Phase::Promote(base);
            return;
        }
        self.find_tail(world, scenario, index);
    }

    fn find_tail(&mut self, world: &mut World, scenario: &Scenario, index: usize) {
        let begun = Begun {
            floor: world.floor(scenario, self.to()),
            at: world.now(),
        };
        let walk = Walk::new(begun.floor);
        let first = Operation::Get(chain().link_key(begun.floor));
        self.ask(world, index, self.to(), first);
        self.phase = Phase::FindTail(walk, begun);
    }

    fn read_register(&mut self, world: &mut World, index: usize) {
        let regions = [1, 2].map(region).into();
        let mut walk = register::Walk::new(workload(), region(super::actors::WEST), regions);
        match walk.next() {
            Ok(ask) => {
                let place = region_index(&ask.region);
                self.ask(world, index, place, Operation::Get(ask.key.clone()));
                self.phase = Phase::ReadRegister(walk, Some(ask));
            }
            Err(_) => self.phase = Phase::Stopped(Stop::Unreachable),
        }
    }

    fn hear_register(
        &mut self,
        world: &mut World,
        scenario: &Scenario,
        index: usize,
        (mut walk, ask): (register::Walk, Option<register::Ask>),
        answer: Answer,
    ) {
        let end = ask.and_then(|ask| walk.feed(&ask, answer));
        match end.map_or_else(|| walk.next(), Err) {
            Ok(ask) => {
                let place = region_index(&ask.region);
                self.ask(world, index, place, Operation::Get(ask.key.clone()));
                self.phase = Phase::ReadRegister(walk, Some(ask));
            }
            Err(RegisterEnd::Complete) => self.open(world, scenario, index, walk.records()),
            Err(RegisterEnd::Unreachable { .. }) => self.phase = Phase::Stopped(Stop::Unreachable),
            Err(RegisterEnd::Damaged { .. }) => self.phase = Phase::Stopped(Stop::Broken),
        }
    }

    fn open(
        &mut self,
        world: &mut World,
        scenario: &Scenario,
        index: usize,
        records: &[EpochRecord],
    ) {
        let execution = self.id(index);
        let of_ours = |record: &&EpochRecord| record.execution.as_ref() == Some(&execution);
        if let Some(ours) = records.iter().find(of_ours) {
            self.opened(world, index, ours);
            return;
        }
        let newest = records.last().unwrap();
        let claimed = newest.clusters.values().next().unwrap().timeline;
        let timeline = match self.goal {
            // It leaves the primary where it is.
            Goal::MoveRegister { .. } if newest.register == newest.primary => claimed,
            Goal::TakeOver { .. } | Goal::MoveRegister { .. } => {
                self.phase = Phase::Stopped(Stop::Nothing);
                return;
            }
            Goal::Undo if newest.epoch == Epoch::FIRST => {
                self.phase = Phase::Stopped(Stop::Nothing);
                return;
            }
            Goal::Undo | Goal::Wait(_) => TimelineId(1),
            Goal::Move { .. } if scenario.is_wrong(Wrong::TimelineReused) => TimelineId(2),
            Goal::Move { .. } => next_timeline(records, CLUSTER).unwrap(),
        };
        let id = Some(self.execution(index));
        let process = Self::process(index);
        let moves = matches!(self.goal, Goal::MoveRegister { .. });
        let primary = match self.goal {
            Goal::MoveRegister { .. } => region_index(&newest.primary),
            _ => self.to(),
        };
        let wanted = match self.goal {
            Goal::MoveRegister { to } => EpochRecord {
                created_by: actor(process),
                execution: id.map(|id| id.parse().unwrap()),
                ..newest.with_register(region(to))
            },
            _ => EpochRecord {
                register: newest.register.clone(),
                ..record(newest.epoch.next(), primary, timeline, id, process)
            },
        };
        if !scenario.is_wrong(Wrong::TimelineReused) {
            register::check_claims(records, &wanted).unwrap();
        }
        let key = EpochRecord::key(&workload(), wanted.epoch);
        let publish = Publish::new(key, wanted.to_bytes());
        self.fence = Some(region_index(&newest.primary));
        let place = if moves && scenario.is_wrong(Wrong::RegisterMovedAside) {
            self.to()
        } else {
            region_index(&newest.register)
        };
        self.ask(world, index, place, publish.next());
        self.phase = Phase::Open(publish, Box::new(wanted), place);
    }

    /// Writes a record that changes nothing but whom commits wait for, if the primary is still in the east.
    fn open_wait(&mut self, world: &mut World, index: usize, records: &[EpochRecord], on: bool) {
        let newest = records.last().unwrap();
        if region_index(&newest.primary) != EAST {
            world.lock = None;
            self.phase = Phase::Stopped(Stop::Superseded);
            return;
        }
        let regions = on.then(|| region(super::actors::WEST));
        let regions: Vec<_> = regions.into_iter().collect();
        if newest.synchronous(&resource()) == regions {
            self.phase = Phase::SetWait;
            return;
        }
        let mut wanted = newest.with_synchronous(&resource(), regions, None);
        wanted.created_by = actor(Self::process(index));
        register::check_claims(records, &wanted).unwrap();
        let key = EpochRecord::key(&workload(), wanted.epoch);
        let publish = Publish::new(key, wanted.to_bytes());
        let place = region_index(&newest.register);
        self.ask(world, index, place, publish.next());
        self.phase = Phase::Open(publish, Box::new(wanted), place);
    }

    fn met(&mut self, world: &mut World, index: usize, wanted: &EpochRecord, winner: &EpochRecord) {
        if winner.is_of_same_execution(wanted) {
            self.opened(world, index, winner);
        } else if self.again > 0 {
            self.again -= 1;
            self.read_register(world, index);
        } else {
            if matches!(self.goal, Goal::Wait(_)) {
                world.lock = None;
            }
            self.phase = Phase::Stopped(Stop::Lost);
        }
    }

    /// Notes whether a commit waited for the region moved to in the epoch that `opened` ends.
    fn promised_by(&mut self, world: &World, opened: Epoch) {
        let ended = world
            .records()
            .into_iter()
            .find(|record| record.epoch.next() == opened);
        self.promised = ended
            .is_some_and(|record| record.synchronous(&resource()).contains(&region(self.to())));
    }

    fn opened(&mut self, world: &mut World, index: usize, record: &EpochRecord) {
        self.promised_by(world, record.epoch);
        let timeline = record.clusters.values().next().unwrap().timeline;
        self.opened = Some((record.epoch, timeline));
        match (self.goal, self.fence) {
            (Goal::Wait(_), _) => self.phase = Phase::SetWait,
            (Goal::Undo, Some(host)) => self.phase = Phase::Fence(host),
            (Goal::MoveRegister { .. }, _) => self.phase = Phase::Done,
            _ => self.write_journal(world, index, Body::Record("seal".to_owned()), None),
        }
    }

    fn at_tail(
        &mut self,
        world: &mut World,
        scenario: &Scenario,
        index: usize,
        tail: Lsn,
        begun: Begun,
    ) {
        if scenario.is_wrong(Wrong::PromoteBeforeSeal) {
            self.phase = Phase::Promote(tail);
            return;
        }
        let received = ORIGIN.advance(scenario.standby_bytes);
        if received <= tail || self.surplus_written {
            self.seal(world, scenario, index, tail, begun);
            return;
        }
        let mut writer = Writer::new(tail, begun.at, Duration::from_secs(1));
        writer.submit(chunk(tail, received.bytes_since(tail)));
        self.write_surplus(world, scenario, index, writer, begun);
    }

    /// Appends what the standby has and the chain lacks; seals once it is there.
    fn write_surplus(
        &mut self,
        world: &mut World,
        scenario: &Scenario,
        index: usize,
        mut writer: Writer,
        begun: Begun,
    ) {
        let asker = Asker::Executor(index);
        carry_out_orders(world, asker, 1, self.to(), &mut writer);
        match writer.failure() {
            // Sealed meanwhile, by this execution's other life or by another: the sealer finds out.
            Some(Failure::Superseded(seal)) => {
                let lsn = seal.lsn;
                world.abandon(asker);
                self.seal(world, scenario, index, lsn, begun);
            }
            Some(Failure::Away) => {
                world.abandon(asker);
                self.find_tail(world, scenario, index);
            }
            Some(_) => self.phase = Phase::Stopped(Stop::Broken),
            None if writer.acknowledged() == writer.submitted() => {
                world.abandon(asker);
                self.surplus_written = true;
                if scenario.is_wrong(Wrong::SealOffChain) {
                    self.seal(world, scenario, index, writer.acknowledged(), begun);
                } else {
                    self.find_tail(world, scenario, index);
                }
            }
            None => self.phase = Phase::Surplus(writer, begun),
        }
    }

    fn seal(
        &mut self,
        world: &mut World,
        scenario: &Scenario,
        index: usize,
        from: Lsn,
        begun: Begun,
    ) {
        let seal = SealRecord {
            version: FORMAT_VERSION,
            system_identifier: CLUSTER,
            timeline: TimelineId(1),
            epoch: Epoch::FIRST,
            lsn: from,
            successor: self.epoch(),
            execution: None,
            sealed_by: actor(Self::process(index)),
            sealed_at: time(0),
        };
        let sealer = Sealer::new(seal, None).with_rules(scenario.rules());
        self.ask_seal(world, scenario, index, sealer, begun);
    }

    fn ask_seal(
        &mut self,
        world: &mut World,
        scenario: &Scenario,
        index: usize,
        sealer: Sealer,
        begun: Begun,
    ) {
        let is_old = world.now().saturating_sub(begun.at) > Duration::from_secs(1);
        if is_old && !scenario.is_wrong(Wrong::SealOldTail) {
            self.find_tail(world, scenario, index);
            return;
        }
        let operation = match sealer.next() {
            SealTask::Create(seal) => {
                Operation::Create(chain().link_key(seal.lsn), SealRecord::to_bytes(&seal))
            }
            SealTask::Read(at) => Operation::Get(chain().link_key(at)),
        };
        self.ask(world, index, self.to(), operation);
        self.phase = Phase::Seal(sealer, begun);
    }
}
