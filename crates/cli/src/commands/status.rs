//! `dr status`.

mod daemons;
mod judge;
mod look;
mod text;
mod view;

use std::path::Path;

use dr_model::WorkloadName;
use futures::future::{join, join_all};

use crate::error::Result;
use crate::exit::Exit;
use crate::output::Output;
use crate::wiring::Setup;
use view::StatusView;

pub(crate) use daemons::{daemons, log_received_at, took_log_at};
pub(crate) use view::Verdict;

/// Show objectives against what is measured, by region
///
/// Read from the stores and the instances themselves; changes nothing. Ends with 0 if every
/// objective is met, 10 if one is breached, a workload is unprotected or a daemon says that
/// something fails, and 11 if that cannot be told, or nothing shows that a daemon runs.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// The workloads; all of them if none is named
    #[arg(value_name = "WORKLOAD")]
    workloads: Vec<WorkloadName>,
}

pub(crate) async fn run(args: &Args, config: &Path, output: &Output) -> Result<Exit> {
    let setup = Setup::load(config)?;
    let workloads = setup.workloads(&args.workloads)?;
    let looks = workloads
        .into_iter()
        .map(|(name, workload)| look::look(&setup, name, workload));
    let (found, mut daemons) = join(join_all(looks), daemons(&setup)).await;
    let workloads = found.into_iter().collect::<Result<Vec<_>>>()?;
    let observed_at = setup.clock.now();
    let took_log_at = look::took_log_at(&workloads);
    for daemon in &mut daemons {
        daemon.took_log_at = took_log_at.get(&daemon.region).copied();
    }
    let workloads: Vec<_> = workloads
        .into_iter()
        .map(|workload| workload.with_daemons(&daemons, observed_at))
        .collect();
    let verdict = workloads.iter().map(|workload| workload.verdict).max();
    let verdict = verdict.unwrap_or(Verdict::Unknown);
    // Each workload counts the daemons of its own regions; those of others are not a matter of whoever names some.
    let verdict = match args.workloads.is_empty() {
        true => verdict.max(judge::daemons(&daemons, observed_at).verdict),
        false => verdict,
    };
    let view = StatusView {
        observed_at,
        verdict,
        workloads,
        daemons,
    };
    if output.json {
        output.json(&view)?;
    } else {
        output.data(&text::render(&view, output.stdout))?;
    }
    Ok(match verdict {
        Verdict::Ok => Exit::Ok,
        Verdict::Unknown => Exit::Unknown,
        Verdict::Breach => Exit::Breach,
    })
}
