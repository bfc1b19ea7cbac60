//! Region failover: a plan that is a value, and an execution that can be killed anywhere and resumed.
//!
//! [`world::observe`] looks, [`plan::plan`] decides, [`execute()`] does what was decided and journals intent before and
//! outcome after, [`resume()`] goes on where another process stopped. Steps stand in [`steps`], one file each; they know a
//! resource only through its driver. Nothing here prints: progress goes to a [`Monitor`].

mod abort;
mod arm_self_fence;
pub mod check;
mod come_back;
mod come_up;
pub mod events;
mod evidence;
pub mod execute;
pub mod executions;
pub mod history;
mod move_register;
mod old_primary;
pub mod outcome;
pub mod past;
pub mod plan;
mod poll;
pub mod proof;
pub mod record;
mod redact;
mod report;
pub mod request;
mod residual;
mod resource_goal;
pub mod resume;
mod sight;
pub mod site;
pub mod step;
pub mod steps;
mod waits;
pub mod world;

pub use abort::{Aborted, abort, take_back};
pub use arm_self_fence::{Armed, arm_self_fence};
pub use events::{Event, Monitor, Silent};
pub use evidence::record_divergence;
pub use execute::{Error, execute};
pub use history::History;
pub use move_register::{Placed, move_register};
pub use outcome::{Report, State};
pub use plan::{Class, ExpectedProof, Mode, Plan, Refusal, plan};
pub use request::{Disruption, Request, Rung, Statement};
pub use resume::{Decided, pause, resume, resume_with};
pub use sight::{NotSeen, Sight};
pub use site::{ServiceSite, Site};
pub use world::{World, observe, observe_to_execute, unfinished};

#[cfg(test)]
mod tests;
