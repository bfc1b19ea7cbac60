//! Reading the register, and opening an epoch there.

use dr_model::{Epoch, TimelineId};

use super::super::actors::{CLUSTER, EAST, WEST, record, region, region_index, resource, workload};
use super::super::world::{Scenario, World, Wrong};
use super::{Executor, Goal, Phase, Stop};
use crate::journal::Body;
use crate::operation::{Answer, Operation};
use crate::publish::Publish;
use crate::register::{self, EpochRecord, WalkEnd as RegisterEnd, next_timeline};
use crate::testing::actor;

impl Executor {
    pub(super) fn read_register(&mut self, world: &mut World, index: usize) {
        let regions = [1, 2].map(region).into();
        let mut walk = register::Walk::new(workload(), region(WEST), regions);
        match walk.next() {
            Ok(ask) => {
                let place = region_index(&ask.region);
                self.ask(world, index, place, Operation::Get(ask.key.clone()));
                self.phase = Phase::ReadRegister(walk, Some(ask));
            }
            Err(_) => self.phase = Phase::Stopped(Stop::Unreachable),
        }
    }

    pub(super) fn hear_register(
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

    pub(super) fn open(
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
    pub(super) fn open_wait(
        &mut self,
        world: &mut World,
        index: usize,
        records: &[EpochRecord],
        on: bool,
    ) {
        let newest = records.last().unwrap();
        if region_index(&newest.primary) != EAST {
            world.lock = None;
            self.phase = Phase::Stopped(Stop::Superseded);
            return;
        }
        let regions = on.then(|| region(WEST));
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

    pub(super) fn met(
        &mut self,
        world: &mut World,
        index: usize,
        wanted: &EpochRecord,
        winner: &EpochRecord,
    ) {
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
    pub(super) fn promised_by(&mut self, world: &World, opened: Epoch) {
        let ended = world
            .records()
            .into_iter()
            .find(|record| record.epoch.next() == opened);
        self.promised = ended
            .is_some_and(|record| record.synchronous(&resource()).contains(&region(self.to())));
    }

    pub(super) fn opened(&mut self, world: &mut World, index: usize, record: &EpochRecord) {
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
}
