//! One file a step: its verb phrase is the file, the type, the word in a runbook and the span in a trace.

pub mod assess_region;
pub mod await_approval;
pub mod check_data_loss;
pub mod check_health;
pub mod fence_primary;
pub mod follow_primary;
pub mod notify;
pub mod open_epoch;
pub mod promote_database;
pub mod rearm_protection;
pub mod registry;
pub mod restore_database;
pub mod resume_primary;
pub mod seal_wal;
pub mod start_service;
pub mod stop_writes;
pub mod switch_traffic;
pub mod verify_traffic;

pub use assess_region::AssessRegion;
pub use await_approval::AwaitApproval;
pub use check_data_loss::CheckDataLoss;
pub use check_health::CheckHealth;
pub use fence_primary::FencePrimary;
pub use follow_primary::FollowPrimary;
pub use notify::Notify;
pub use open_epoch::OpenEpoch;
pub use promote_database::PromoteDatabase;
pub use rearm_protection::RearmProtection;
pub use restore_database::RestoreDatabase;
pub use resume_primary::ResumePrimary;
pub use seal_wal::SealWal;
pub use start_service::StartService;
pub use stop_writes::StopWrites;
pub use switch_traffic::SwitchTraffic;
pub use verify_traffic::VerifyTraffic;
