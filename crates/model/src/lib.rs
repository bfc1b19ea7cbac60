//! Nouns, typed ids, the clock and the pure rules of `dr`.
//!
//! Nothing here does I/O or knows an async runtime: what stands in this crate can be tested with values alone and is
//! shared by every other crate. See `docs/glossary.md` for the words.

pub mod approval;
pub mod clock;
pub mod detection;
pub mod document;
pub mod epoch;
pub mod execution;
pub mod loss;
pub mod lsn;
pub mod name;
pub mod retention;
pub mod wal;

pub use approval::{ApprovalPolicy, Approver, ApproverKey};
pub use clock::{Clock, ManualClock, SystemClock};
pub use epoch::Epoch;
pub use execution::{ExecutionId, StepId};
pub use lsn::Lsn;
pub use name::{
    ApproverName, RegionName, ResourceId, ResourceName, RunbookName, ScheduleName, ServiceName,
    WorkloadName,
};
pub use retention::Retention;
pub use wal::{SegmentSize, SystemIdentifier, TimelineId};
