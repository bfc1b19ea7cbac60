//! The world: its state, what can happen next, and the stores.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dr_encryption::Keys;
use dr_model::{Epoch, Lsn, TimelineId};
use dr_provider::{ErrorKind, Key};
use stateright::{Model, Property};

use super::actors::{
    EAST, ORIGIN, REGIONS, SOUTH, WEST, chain, origin, record, region, resource, workload,
};
use super::executor::{Executor, Goal};
use super::invariants;
use super::receiver::Receiver;
use crate::chain::internals::{Link, link_with_log};
use crate::mutation::{Mutation, Rules};
use crate::operation::{Answer, Operation};
use crate::register::EpochRecord;

/// The grace time, in moments: twice what the shipped state machines take for too old.
const GRACE: u8 = 2;

/// A wrong rule outside the shipped state machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Wrong {
    /// A seal is written without the condition that its key is free: a check and then a write.
    SealOverwrites,
    /// An epoch record is written so.
    RegisterOverwrites,
    /// Every failover claims timeline 2.
    TimelineReused,
    /// A database is promoted at the tail as last seen, before the seal.
    PromoteBeforeSeal,
    /// Hosts take commands of any epoch.
    HostsIgnoreEpochs,
    /// The name service is updated without a condition on its previous value.
    NamesUnconditional,
    /// A seal is tried first where a writer's own log ends, which need not be the end of a chunk.
    SealOffChain,
    /// A move of the register creates its record where the register moves to.
    RegisterMovedAside,
    /// Whoever takes an execution over repeats its promotion without looking.
    PromoteUnobserved,
    /// Links are removed without waiting.
    RemoveEarly,
    /// Whoever follows a chain begins at its origin, whatever the floor.
    IgnoreFloor,
    /// A seal is created at a tail however old, and the floor is not looked at again.
    SealOldTail,
    /// Commits stop waiting before a record says so.
    NamesBeforeRecord,
    /// Whom commits wait for is changed without a lock on the primary.
    SyncUnlocked,
    /// A promise counts for the sync set of any epoch.
    PromiseOfAnyEpoch,
    /// A promise counts although what was acknowledged before it held may be missing.
    PromiseFromAnywhere,
}

/// A scenario: who is there, how much may happen, and what is wrong.
#[derive(Clone, Debug, Default)]
pub(super) struct Scenario {
    /// Regions of the receivers, with the lengths that each may cut its chunks to.
    pub(super) receivers: Vec<(usize, Vec<u64>)>,
    /// Executors.
    pub(super) executors: Vec<Goal>,
    /// Bytes of log that the old primary ever writes.
    pub(super) log_bytes: u64,
    /// Faults of answers that may happen.
    pub(super) faults: u8,
    /// Deaths of receivers that may happen.
    pub(super) deaths: u8,
    /// Whether the answer to a read may be old when it arrives.
    pub(super) old_reads: bool,
    /// Bytes that the standbys have received.
    pub(super) standby_bytes: u64,
    /// Moments after the first that there may be: half of the grace time lies between two.
    pub(super) moments: u8,
    /// Stores whose links may be removed, once.
    pub(super) compacted: Vec<usize>,
    /// Whether clients commit on the old primary, which waits for the west at first, and receivers look at the conditions.
    pub(super) commits: bool,
    /// Whether an executor starts only when those before it have ended.
    pub(super) in_order: bool,
    /// A wrong rule in a shipped state machine.
    pub(super) mutation: Option<Mutation>,
    /// A wrong rule around them.
    pub(super) wrong: Option<Wrong>,
}

impl Scenario {
    pub(super) fn rules(&self) -> Rules {
        Rules {
            broken: self.mutation,
        }
    }

    pub(super) fn is_wrong(&self, wrong: Wrong) -> bool {
        self.wrong == Some(wrong)
    }
}

/// Who asked for an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Asker {
    Receiver(usize),
    Executor(usize),
}

/// Names an operation under way: who asked, in which life, and which of its operations.
pub(super) type FlightId = (Asker, u8, u64);

/// An operation under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Flight {
    pub(super) region: usize,
    pub(super) operation: Operation,
    /// What the store said, once the operation has landed.
    pub(super) answer: Option<Answer>,
    /// Nobody waits for the answer any more; it may still land.
    pub(super) abandoned: bool,
}

/// A host and its database.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Host {
    /// The highest epoch that it has seen.
    pub(super) highest: u64,
    /// The timeline that its database runs on since its promotion, and the epoch that did it.
    pub(super) promoted: Option<(TimelineId, Epoch)>,
}

/// Something that was done and cannot be taken back.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Promotion {
    pub(super) region: usize,
    pub(super) timeline: TimelineId,
    pub(super) base: Lsn,
    /// Whether it was said that nothing acknowledged is lost.
    pub(super) proven: bool,
}

/// The state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct World {
    pub(super) stores: [Arc<BTreeMap<Key, Bytes>>; 3],
    pub(super) flights: BTreeMap<FlightId, Arc<Flight>>,
    pub(super) receivers: Vec<Arc<Receiver>>,
    pub(super) executors: Vec<Arc<Executor>>,
    pub(super) hosts: [Host; 3],
    /// The epoch in the name service's TXT record.
    pub(super) name: u64,
    pub(super) faults: u8,
    pub(super) deaths: u8,
    pub(super) promotions: Vec<Promotion>,
    /// Whether commits on the old primary wait for the receiver in the west: its `synchronous_standby_names`.
    pub(super) waits: bool,
    /// Who holds the lock under which that is changed.
    pub(super) lock: Option<usize>,
    /// The furthest commit that the old primary has acknowledged to a client.
    pub(super) committed: Lsn,
    /// An effect of an epoch was applied where a higher one had been.
    pub(super) superseded_effect: bool,
    /// The time.
    pub(super) moment: u8,
    /// What was ever created in each store first, whether or not it is still there.
    pub(super) ever: [Arc<BTreeMap<Key, Bytes>>; 3],
    /// Where pieces were seen to hold a chain, by store: the floor to be, and since when.
    pub(super) marks: [Option<(u8, Lsn)>; 3],
    /// The floor of the chain in each store.
    pub(super) floors: [Lsn; 3],
}

/// What happens next.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Event {
    /// An operation reaches its store.
    Land(FlightId),
    /// The answer reaches who asked.
    Hear(FlightId),
    /// The answer is lost; the operation itself is not.
    Lose(FlightId),
    /// The operation landed twice and the second answer is heard.
    HearSecond(FlightId),
    /// A receiver closes a chunk of some bytes.
    Cut(usize, u64),
    /// A receiver dies and starts again.
    Die(usize),
    /// A receiver reads the newest epoch, or compares the primary with the one that it has read.
    Check(usize),
    /// The old primary acknowledges a commit at a position.
    Commit(Lsn),
    /// An executor does what needs no store: starts, or has an effect.
    Act(usize),
    /// Half of the grace time passes.
    Pass,
    /// Pieces hold the chain of a store; all but its newest chunk may go after the grace time.
    Mark(usize),
    /// What was marked goes, after a floor was written.
    Remove(usize),
}

impl World {
    /// Returns the time as the shipped state machines take it: what is older than a second is too old for them.
    pub(super) fn now(&self) -> Duration {
        Duration::from_secs(u64::from(self.moment))
    }

    /// Returns where the chain of a store is followed from.
    pub(super) fn floor(&self, scenario: &Scenario, region: usize) -> Lsn {
        if scenario.is_wrong(Wrong::IgnoreFloor) {
            ORIGIN
        } else {
            self.floors[region]
        }
    }

    /// Returns the newest chunk on the chain of a store, behind the floor.
    fn newest_chunk(&self, region: usize) -> Option<Lsn> {
        let mut at = self.floors[region];
        let mut newest = None;
        while let Some(bytes) = self.ever[region].get(&chain().link_key(at)) {
            match link_with_log(bytes, &chain(), at, &Keys::default()) {
                Ok(Link::Chunk((header, _))) => {
                    newest = Some(at);
                    at = header.end;
                }
                _ => break,
            }
        }
        newest.filter(|newest| *newest > self.floors[region])
    }

    fn remove(&mut self, region: usize) {
        let Some((_, floor)) = self.marks[region] else {
            return;
        };
        self.floors[region] = floor;
        let origin = chain().origin_key();
        let prefix = chain().prefix();
        Arc::make_mut(&mut self.stores[region]).retain(|key, _| {
            let is_link = key.as_str().starts_with(&prefix) && *key != origin;
            !is_link || Lsn::from_key(key.file_name()).is_none_or(|lsn| lsn >= floor)
        });
    }

    pub(super) fn store_get(&self, region: usize, key: &Key) -> Option<&Bytes> {
        self.stores[region].get(key)
    }

    /// Returns all epoch records, as somebody who reads the register now sees them.
    pub(super) fn records(&self) -> Vec<EpochRecord> {
        let mut records = Vec::new();
        let mut epoch = Epoch::FIRST;
        while let Some(bytes) = self.store_get(WEST, &EpochRecord::key(&workload(), epoch)) {
            records.push(EpochRecord::from_bytes(bytes, &workload(), epoch).unwrap());
            epoch = epoch.next();
        }
        records
    }

    /// Returns the furthest position that the receivers of a region have acknowledged.
    pub(super) fn acknowledged_in(&self, region: usize) -> Lsn {
        let there = self.receivers.iter().filter(|r| r.region == region);
        there.map(|r| r.acknowledged).max().unwrap_or(ORIGIN)
    }

    /// Puts an operation under way.
    pub(super) fn ask(&mut self, id: FlightId, region: usize, operation: Operation) {
        let flight = Flight {
            region,
            operation,
            answer: None,
            abandoned: false,
        };
        let before = self.flights.insert(id, Arc::new(flight));
        assert!(before.is_none(), "an operation is asked for once");
    }

    /// Leaves everything that a dead process has asked for to land or not.
    pub(super) fn abandon(&mut self, asker: Asker) {
        self.flights.retain(|id, flight| {
            let landed = flight.answer.is_some() || matches!(flight.operation, Operation::Get(_));
            id.0 != asker || !landed
        });
        for (id, flight) in &mut self.flights {
            if id.0 == asker {
                Arc::make_mut(flight).abandoned = true;
            }
        }
    }

    fn land(&mut self, scenario: &Scenario, id: FlightId) {
        let Some(flight) = self.flights.get(&id).cloned() else {
            return;
        };
        let answer = match &flight.operation {
            Operation::Get(key) => match self.store_get(flight.region, key) {
                Some(bytes) => Answer::Found(bytes.clone()),
                None => Answer::Missing,
            },
            Operation::Create(key, body) => {
                let overwrites = overwrites(scenario, id.0, key);
                let store = Arc::make_mut(&mut self.stores[flight.region]);
                if store.contains_key(key) && !overwrites {
                    Answer::Exists
                } else {
                    let first = Arc::make_mut(&mut self.ever[flight.region]);
                    if store.insert(key.clone(), body.clone()).is_some() {
                        first.insert(key.clone(), body.clone());
                    } else {
                        first.entry(key.clone()).or_insert_with(|| body.clone());
                    }
                    Answer::Created
                }
            }
        };
        if flight.abandoned {
            self.flights.remove(&id);
        } else if let Some(flight) = self.flights.get_mut(&id) {
            Arc::make_mut(flight).answer = Some(answer);
        }
    }

    fn hear(&mut self, scenario: &Scenario, id: FlightId, operation: &Operation, answer: Answer) {
        let (Operation::Get(key) | Operation::Create(key, _)) = operation;
        let at = Lsn::from_key(key.file_name()).unwrap_or(Lsn::INVALID);
        match id.0 {
            Asker::Receiver(index) => {
                let mut receiver = Arc::unwrap_or_clone(self.receivers[index].clone());
                receiver.hear(self, scenario, index, id.2, at, answer);
                self.receivers[index] = Arc::new(receiver);
            }
            Asker::Executor(index) => {
                let mut executor = Arc::unwrap_or_clone(self.executors[index].clone());
                executor.hear(self, scenario, index, id, at, answer);
                self.executors[index] = Arc::new(executor);
            }
        }
    }

    /// Takes an operation that has landed, or lands it now, out of the air.
    fn take_answered(&mut self, scenario: &Scenario, id: FlightId) -> Option<(Operation, Answer)> {
        if self.flights.get(&id)?.answer.is_none() {
            self.land(scenario, id);
        }
        let flight = Arc::unwrap_or_clone(self.flights.remove(&id)?);
        Some((flight.operation, flight.answer?))
    }
}

impl Scenario {
    /// Adds what the passing of time brings.
    fn removals(&self, world: &World, events: &mut Vec<Event>) {
        if world.moment < self.moments {
            events.push(Event::Pass);
        }
        for region in self.compacted.iter().copied() {
            match world.marks[region] {
                None if world.newest_chunk(region).is_some() => events.push(Event::Mark(region)),
                Some((since, floor))
                    if world.floors[region] < floor
                        && (world.moment - since > GRACE || self.is_wrong(Wrong::RemoveEarly)) =>
                {
                    events.push(Event::Remove(region));
                }
                _ => {}
            }
        }
    }
}

fn overwrites(scenario: &Scenario, asker: Asker, key: &Key) -> bool {
    let by_executor = matches!(asker, Asker::Executor(_));
    let is_register = key.as_str().starts_with("register/");
    let is_link = key.as_str().starts_with("postgres/");
    by_executor
        && (is_link && scenario.is_wrong(Wrong::SealOverwrites)
            || is_register && scenario.is_wrong(Wrong::RegisterOverwrites))
}

impl Model for Scenario {
    type State = World;
    type Action = Event;

    fn init_states(&self) -> Vec<World> {
        let mut stores = REGIONS.map(|_| BTreeMap::new());
        for store in [WEST, SOUTH] {
            stores[store].insert(
                chain().origin_key(),
                crate::chain::Origin::to_bytes(&origin()),
            );
        }
        let mut first = record(Epoch::FIRST, EAST, TimelineId(1), None, 0);
        if self.commits {
            first.sync.insert(resource(), vec![region(WEST)]);
        }
        let key = EpochRecord::key(&first.workload, Epoch::FIRST);
        stores[WEST].insert(key, first.to_bytes());
        let mut hosts = REGIONS.map(|_| Host::default());
        hosts[EAST].highest = 1;
        let receiver = |(region, cuts): &(usize, Vec<u64>)| Receiver::new(*region, cuts.clone());
        let stores = stores.map(Arc::new);
        let mut world = World {
            ever: stores.clone(),
            stores,
            moment: 0,
            marks: [None; 3],
            floors: [ORIGIN; 3],
            flights: BTreeMap::new(),
            receivers: self.receivers.iter().map(receiver).map(Arc::new).collect(),
            executors: (self.executors.iter())
                .map(|goal| Arc::new(Executor::new(*goal)))
                .collect(),
            hosts,
            name: 1,
            faults: self.faults,
            deaths: self.deaths,
            promotions: Vec::new(),
            waits: self.commits,
            lock: None,
            committed: ORIGIN,
            superseded_effect: false,
        };
        for index in 0..world.receivers.len() {
            let mut receiver = Arc::unwrap_or_clone(world.receivers[index].clone());
            receiver.start(&mut world, self, index);
            world.receivers[index] = Arc::new(receiver);
        }
        vec![world]
    }

    fn actions(&self, world: &World, events: &mut Vec<Event>) {
        for (id, flight) in &world.flights {
            let is_read = matches!(flight.operation, Operation::Get(_));
            if flight.answer.is_none() {
                if !is_read || self.old_reads {
                    events.push(Event::Land(*id));
                }
                if is_read {
                    events.push(Event::Hear(*id));
                }
            } else {
                events.push(Event::Hear(*id));
            }
            if world.faults > 0 && !flight.abandoned {
                events.push(Event::Lose(*id));
                if flight.answer == Some(Answer::Created) {
                    events.push(Event::HearSecond(*id));
                }
            }
        }
        for (index, receiver) in world.receivers.iter().enumerate() {
            for bytes in receiver.possible_cuts(self) {
                events.push(Event::Cut(index, bytes));
            }
            if world.deaths > 0 {
                events.push(Event::Die(index));
            }
            if self.commits && receiver.can_check(world) {
                events.push(Event::Check(index));
            }
        }
        if self.commits {
            let to = match world.waits {
                true => world.acknowledged_in(WEST),
                false => ORIGIN.advance(self.log_bytes),
            };
            if to > world.committed {
                events.push(Event::Commit(to));
            }
        }
        for (index, executor) in world.executors.iter().enumerate() {
            let before = world.executors[..index].iter();
            let turn = !self.in_order || before.into_iter().all(|other| other.has_ended());
            if turn && executor.can_act(world, self) {
                events.push(Event::Act(index));
            }
        }
        self.removals(world, events);
    }

    fn next_state(&self, last: &World, event: Event) -> Option<World> {
        let mut world = last.clone();
        match event {
            Event::Land(id) => world.land(self, id),
            Event::Hear(id) => {
                let (operation, answer) = world.take_answered(self, id)?;
                world.hear(self, id, &operation, answer);
            }
            Event::Lose(id) => {
                world.faults -= 1;
                let mut flight = Arc::unwrap_or_clone(world.flights.remove(&id)?);
                let operation = flight.operation.clone();
                let is_create = matches!(operation, Operation::Create(..));
                if flight.answer.is_none() && is_create {
                    flight.abandoned = true;
                    // Kept under a name that the same asker does not use again.
                    world
                        .flights
                        .insert((id.0, id.1, id.2 + (1 << 32)), Arc::new(flight));
                }
                world.hear(self, id, &operation, Answer::Failed(ErrorKind::Unknown));
            }
            Event::HearSecond(id) => {
                world.faults -= 1;
                let flight = world.flights.remove(&id)?;
                world.hear(self, id, &flight.operation, Answer::Exists);
            }
            Event::Cut(index, bytes) => {
                let mut receiver = Arc::unwrap_or_clone(world.receivers[index].clone());
                receiver.cut(&mut world, self, index, bytes);
                world.receivers[index] = Arc::new(receiver);
            }
            Event::Die(index) => {
                world.deaths -= 1;
                world.abandon(Asker::Receiver(index));
                let mut receiver = Arc::unwrap_or_clone(world.receivers[index].clone());
                receiver.start(&mut world, self, index);
                world.receivers[index] = Arc::new(receiver);
            }
            Event::Check(index) => {
                let mut receiver = Arc::unwrap_or_clone(world.receivers[index].clone());
                receiver.check(&world);
                world.receivers[index] = Arc::new(receiver);
            }
            Event::Commit(to) => world.committed = to,
            Event::Pass => world.moment += 1,
            Event::Mark(region) => {
                let floor = world.newest_chunk(region)?;
                world.marks[region] = Some((world.moment, floor));
            }
            Event::Remove(region) => world.remove(region),
            Event::Act(index) => {
                let mut executor = Arc::unwrap_or_clone(world.executors[index].clone());
                executor.act(&mut world, self, index);
                world.executors[index] = Arc::new(executor);
            }
        }
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        invariants::all()
    }
}
