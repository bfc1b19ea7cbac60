//! `dr failback`: home again.

use std::path::{Path, PathBuf};

use dr_model::{RunbookName, WorkloadName};

use super::failover;
use crate::error::Result;
use crate::exit::Exit;
use crate::output::Output;
use crate::wiring::Setup;

/// Move a workload back to its home region, without losing a commit
///
/// A planned move: the primary is shut down in good order, and nothing is promoted before the home
/// region is proven to hold everything that it wrote. The home region needs a standby, which
/// `dr standby create` makes after a failover. Who is home is not changed by a failover, and neither
/// by this.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// The workload
    #[arg(value_name = "WORKLOAD")]
    workload: WorkloadName,

    /// Only print the plan; changes nothing, and tries whether the store takes a small object
    #[arg(long)]
    plan: bool,

    #[command(flatten)]
    by_hand: failover::ByHand,

    /// The runbook
    #[arg(long, value_name = "NAME", default_value = "failback-region")]
    runbook: RunbookName,

    /// Your key, which says who asks where the workload wants approvals: `dr approval keygen` made it
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,

    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

pub(crate) async fn run(args: &Args, config: &Path, output: &Output) -> Result<Exit> {
    let setup = Setup::load(config)?;
    let home = setup.workload(&args.workload)?.home.clone();
    let wanted = failover::Args::planned(
        home,
        args.workload.clone(),
        args.runbook.clone(),
        args.plan,
        args.by_hand.clone(),
        args.key.clone(),
        args.yes,
    );
    Box::pin(failover::run_with(&setup, &wanted, output)).await
}
