//! A store, and what is known of the log in it.

use std::collections::BTreeMap;
use std::sync::Arc;

use dr_coordination::chain::{ChainId, ChainWriter, Compactor};
use dr_model::{Lsn, TimelineId};
use dr_provider::ObjectStore;
use dr_provider::decorate::Faulty;
use dr_provider::store::MemoryStore;

use crate::spans::Spans;

/// What a store is known to hold of a timeline.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    /// Where its log began.
    pub(crate) begin: Lsn,
    /// Everything before this was acknowledged.
    pub(crate) acknowledged: Lsn,
    /// What the chain passed over, because nobody had it any more.
    pub(crate) lost: Spans,
    /// What may have been given up.
    pub(crate) given_up: Spans,
}

impl Known {
    /// Returns what has to be there.
    pub(crate) fn promised(&self) -> Spans {
        Spans::of(self.begin, self.acknowledged)
            .without(&self.lost)
            .without(&self.given_up)
    }
}

pub(crate) struct Place {
    pub(crate) name: &'static str,
    /// What is asked by the test.
    pub(crate) inner: Arc<dyn ObjectStore>,
    /// The same, failing when it is told to.
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) faults: Arc<Faulty>,
    pub(crate) compactor: Compactor,
    /// A writer that sleeps, of whatever chain was the newest when it was opened.
    pub(crate) sleeper: Option<ChainWriter>,
    pub(crate) known: BTreeMap<TimelineId, Known>,
    /// Where chains were sealed.
    pub(crate) sealed: BTreeMap<ChainId, Lsn>,
}

impl Place {
    pub(crate) fn new(name: &'static str) -> Self {
        let inner: Arc<dyn ObjectStore> = Arc::new(MemoryStore::new(name));
        let faults = Arc::new(Faulty::scripted(Arc::clone(&inner), Vec::new()));
        Self {
            name,
            inner,
            store: faults.clone(),
            faults,
            compactor: Compactor::default(),
            sleeper: None,
            known: BTreeMap::new(),
            sealed: BTreeMap::new(),
        }
    }

    /// Notes that a timeline's log was begun at `begin`, and that all of it up to `to` was acknowledged.
    pub(crate) fn acknowledge(&mut self, timeline: TimelineId, begin: Lsn, to: Lsn) {
        let known = self.known.entry(timeline).or_insert_with(|| Known {
            begin,
            acknowledged: begin,
            lost: Spans::default(),
            given_up: Spans::default(),
        });
        known.acknowledged = known.acknowledged.max(to);
    }
}
