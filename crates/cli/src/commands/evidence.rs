//! `dr evidence`.

use std::path::Path;

use clap::Subcommand;
use dr_coordination::evidence::{self, Found, faults, read_all};
use dr_model::{RegionName, WorkloadName};
use futures::future::join_all;
use serde_json::{Value, json};

use crate::error::{CommandError, Result};
use crate::exit::Exit;
use crate::output::{Output, Table, Tone};
use crate::wiring::Setup;

/// Read what came of executions, and see whether any of it was changed
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Command {
    /// List the records in every store
    List(Args),
    /// Print a record
    Show {
        /// The workload
        workload: WorkloadName,
        /// The number of the record
        sequence: u64,
        /// The region whose store is read
        #[arg(long = "in", value_name = "REGION")]
        region: RegionName,
    },
    /// Read every chain, and name what is missing, cannot be read or was changed
    ///
    /// Ends with 1 if there is anything, with 20 if a store cannot be read. Whether the newest records of a chain were taken away is not
    /// seen: keep the newest hash that is printed elsewhere, and compare.
    Verify(Args),
}

/// Which chains.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// The workloads; all of them if none is named
    workloads: Vec<WorkloadName>,
    /// Only the store of this region
    #[arg(long = "in", value_name = "REGION")]
    region: Option<RegionName>,
}

/// The chain of a workload in a region's store, or why it cannot be read.
struct Chain {
    workload: WorkloadName,
    region: RegionName,
    found: Result<evidence::Chain>,
}

pub(crate) async fn run(command: &Command, config: &Path, output: &Output) -> Result<Exit> {
    let setup = Setup::load(config)?;
    match command {
        Command::List(args) => list(&chains(&setup, args).await?, output),
        Command::Verify(args) => verify(&chains(&setup, args).await?, output),
        Command::Show {
            workload,
            sequence,
            region,
        } => {
            setup.workload(workload)?;
            let chain = read(&setup, workload, region).await?;
            show(&chain.records, workload, *sequence, region, output)
        }
    }
}

async fn chains(setup: &Setup, args: &Args) -> Result<Vec<Chain>> {
    let regions = match &args.region {
        Some(region) => {
            setup.region(region)?;
            vec![region.clone()]
        }
        None => setup.config.regions.keys().cloned().collect(),
    };
    let workloads = setup.workloads(&args.workloads)?;
    let chains = workloads.iter().flat_map(|(workload, _)| {
        regions.iter().map(async |region| Chain {
            workload: workload.clone(),
            region: region.clone(),
            found: read(setup, workload, region).await,
        })
    });
    Ok(join_all(chains).await)
}

async fn read(
    setup: &Setup,
    workload: &WorkloadName,
    region: &RegionName,
) -> Result<evidence::Chain> {
    let store = setup.identified(region).await?;
    Ok(read_all(&*store, workload).await?)
}

fn list(chains: &[Chain], output: &Output) -> Result<Exit> {
    let warning = output.stderr.paint(Tone::Warning, "warning:");
    let mut exit = Exit::Ok;
    let mut unseen = Vec::new();
    let mut table = Table::new(&[
        "WORKLOAD", "IN", "RECORD", "OF", "SUBJECT", "STATE", "RECORDED",
    ]);
    let mut all = Vec::new();
    for chain in chains {
        let found = match &chain.found {
            Ok(found) => found,
            Err(error) => {
                exit = exit.worse(error.exit);
                let why = unread(chain, error);
                output.say(&format!("{warning} {why}"));
                unseen.push(why);
                continue;
            }
        };
        for key in &found.strangers {
            exit = exit.worse(Exit::Failed);
            output.say(&format!(
                "{warning} `{key}` in the store of {} is no record",
                chain.region
            ));
        }
        for one in &found.records {
            let (workload, region) = (chain.workload.to_string(), chain.region.to_string());
            let sequence = one.sequence.to_string();
            match &one.record {
                Ok(record) => {
                    table.row([
                        workload,
                        region,
                        sequence,
                        record.kind.clone(),
                        record.subject.clone(),
                        record.state.clone(),
                        format!("{:.0}", record.recorded_at),
                    ]);
                }
                Err(why) => {
                    exit = exit.worse(Exit::Failed);
                    let unknown = || "unknown".to_owned();
                    table.row([
                        workload,
                        region,
                        sequence,
                        unknown(),
                        unknown(),
                        why.clone(),
                        unknown(),
                    ]);
                }
            }
            all.push(document(one, &chain.region));
        }
    }
    if output.json {
        output.json(&json!({ "records": all, "unseen": unseen }))?;
    } else if all.is_empty() {
        output.say(match unseen.is_empty() {
            true => "There is no evidence.",
            false => "There is no evidence in the stores that could be seen.",
        });
    } else {
        output.data(&table.render(output.stdout))?;
    }
    Ok(exit)
}

fn verify(chains: &[Chain], output: &Output) -> Result<Exit> {
    let style = output.stdout;
    let mut exit = Exit::Ok;
    let mut shown = Vec::new();
    for chain in chains {
        let place = format!("{} in {}", chain.workload, chain.region);
        match &chain.found {
            Err(error) => {
                exit = exit.worse(error.exit);
                shown.push(json!({
                    "workload": chain.workload, "region": chain.region, "unread": error.message,
                }));
                if !output.json {
                    let word = style.paint(Tone::Warning, "unknown");
                    output.data(&format!("{word} {}", unread(chain, error)))?;
                }
            }
            Ok(found) => {
                let faults = faults(&chain.workload, found);
                if !faults.is_empty() {
                    exit = exit.worse(Exit::Failed);
                }
                let newest = found.records.last().map(|one| &one.hash);
                let records = found.records.len();
                shown.push(json!({
                    "workload": chain.workload, "region": chain.region, "records": records,
                    "newest": newest, "faults": faults,
                }));
                if output.json {
                    continue;
                }
                for fault in &faults {
                    let word = style.paint(Tone::Bad, "FAILED");
                    output.data(&format!("{word}  {place}: {fault}"))?;
                }
                if faults.is_empty() {
                    let word = style.paint(Tone::Good, "ok");
                    let newest = newest.map_or_else(String::new, |hash| format!(", newest {hash}"));
                    let count = crate::output::counted(records, "record");
                    output.data(&format!("{word}      {place}: {count}{newest}"))?;
                }
            }
        }
    }
    if output.json {
        output.json(&json!({ "chains": shown }))?;
    }
    Ok(exit)
}

fn show(
    chain: &[Found],
    workload: &WorkloadName,
    sequence: u64,
    region: &RegionName,
    output: &Output,
) -> Result<Exit> {
    let found = chain.iter().find(|found| found.sequence == sequence);
    let Some(found) = found else {
        let what = format!("there is no record {sequence} of {workload} in {region}");
        return Err(CommandError::new(Exit::Usage, what).hint("`dr evidence list` has them all"));
    };
    match &found.record {
        Ok(_) => output.json(&document(found, region))?,
        Err(why) => {
            let what = format!("record {sequence} of {workload} in {region} cannot be read");
            return Err(CommandError::new(Exit::Failed, what).because(why));
        }
    }
    Ok(Exit::Ok)
}

fn unread(chain: &Chain, error: &CommandError) -> String {
    let causes = error.causes.iter().map(|cause| format!(": {cause}"));
    format!(
        "{} in {}: {}{}",
        chain.workload,
        chain.region,
        error.message,
        causes.collect::<String>()
    )
}

fn document(found: &Found, region: &RegionName) -> Value {
    match &found.record {
        Ok(record) => json!({ "region": region, "hash": found.hash, "record": record }),
        Err(why) => json!({
            "region": region, "hash": found.hash, "sequence": found.sequence, "unreadable": why,
        }),
    }
}
