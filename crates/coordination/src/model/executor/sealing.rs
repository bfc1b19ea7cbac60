//! The end of the old log: finding its tail, adding what the standby has beyond it, sealing it.

use std::time::Duration;

use dr_model::{Epoch, Lsn, TimelineId};

use super::super::actors::{CLUSTER, ORIGIN, chain, chunk};
use super::super::receiver::carry_out_orders;
use super::super::world::{Asker, Scenario, World, Wrong};
use super::{Begun, Executor, Phase, Stop};
use crate::chain::internals::{Failure, SealTask, Sealer, Walk, Writer};
use crate::chain::{FORMAT_VERSION, SealRecord};
use crate::operation::Operation;
use crate::testing::{actor, at as time};

impl Executor {
    pub(super) fn find_tail(&mut self, world: &mut World, scenario: &Scenario, index: usize) {
        let begun = Begun {
            floor: world.floor(scenario, self.to()),
            at: world.now(),
        };
        let walk = Walk::new(begun.floor);
        let first = Operation::Get(chain().link_key(begun.floor));
        self.ask(world, index, self.to(), first);
        self.phase = Phase::FindTail(walk, begun);
    }

    pub(super) fn at_tail(
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
    pub(super) fn write_surplus(
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

    pub(super) fn seal(
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

    pub(super) fn ask_seal(
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
