//! An execution: the order of steps of a failover around the shipped state machines.

use std::time::Duration;

use dr_model::{Epoch, ExecutionId, Lsn, TimelineId};

use super::actors::EAST;
use super::world::{Promotion, Scenario, World, Wrong};
use crate::chain::internals::{Sealer, Walk, Writer};
use crate::publish::Publish;
use crate::register::{self, EpochRecord};

mod hearing;
mod opening;
mod sealing;

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

    fn id(&self, index: usize) -> ExecutionId {
        self.execution(index).parse().unwrap()
    }

    fn process(index: usize) -> u32 {
        u32::try_from(index).unwrap() + 1
    }
}
