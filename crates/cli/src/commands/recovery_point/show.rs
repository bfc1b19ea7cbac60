//! `dr recovery-point show`.

use std::path::Path;

use dr_model::{RegionName, ResourceId};
use dr_provider::driver::{RecoveryPoint, VerifyMeans, VerifyRecord};
use dr_provider::{Error, ErrorKind};
use serde_json::json;

use super::list::{held, listed};
use super::verify::{role, sentence};
use crate::error::{CommandError, Result};
use crate::exit::Exit;
use crate::output::{Output, amount};
use crate::wiring::Setup;

/// Show a recovery point, and what was proven of it
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// The resource, as WORKLOAD/RESOURCE
    resource: ResourceId,
    /// The recovery point
    label: String,
    /// The region whose store is read
    #[arg(long = "in", value_name = "REGION")]
    region: RegionName,
}

pub(super) async fn run(args: &Args, config: &Path, output: &Output) -> Result<Exit> {
    let setup = Setup::load(config)?;
    let driver = setup.driver(&args.resource)?;
    let store = setup.identified(&args.region).await?;
    let missing = |kind, why: String| {
        CommandError::from(Error::new(kind, "show", args.label.clone()).because(why))
    };
    let Some(backup) = driver.backup() else {
        let why = format!("kind `{}` takes no backups", driver.kind());
        return Err(missing(ErrorKind::Unsupported, why));
    };
    let (points, given_up) = listed(backup, &store).await?;
    let is_it = |point: &RecoveryPoint| point.label == args.label;
    let is_given_up = given_up.iter().any(is_it);
    let no_key = points.no_key.get(&args.label).cloned();
    let mut all = points.complete.into_iter().chain(given_up);
    let Some(point) = all.find(is_it) else {
        let mut damaged = points.damaged.into_iter();
        let damaged = damaged.find(|what| what.starts_with(&args.label));
        let nothing = format!("{} holds no recovery point of this name", store.location());
        let kind = damaged
            .as_ref()
            .map_or(ErrorKind::NotFound, |_| ErrorKind::Corrupt);
        return Err(missing(kind, damaged.unwrap_or(nothing)));
    };
    let records = role(&*driver, &args.resource)?
        .proof_records(&store, &args.label)
        .await?;
    let note = match driver.expire_role() {
        Some(expire) => expire.holds(&store).await?.remove(&args.label),
        None => None,
    };
    if output.json {
        let shown = json!({
            "recovery_point": point,
            "given_up": is_given_up,
            "held": note,
            "no_key": no_key,
            "proofs": records,
        });
        output.json(&shown)?;
        return Ok(Exit::Ok);
    }
    output.data(&describe(&point).join("\n"))?;
    if let Some(why) = no_key {
        output.data(&format!("no key      {why}"))?;
    }
    if let Some(note) = &note {
        output.data(&format!("held        {}", held(note)))?;
    }
    if is_given_up {
        let how = format!(
            "given up    it is going to be deleted; `dr recovery-point hold {} {}` keeps it, from the next run of `expire-recovery-points` on",
            args.resource, args.label
        );
        output.data(&how)?;
    }
    if records.is_empty() {
        output.data("proven      nothing yet: see `dr recovery-point verify`")?;
    }
    for record in &records {
        output.data(&proof(record))?;
    }
    Ok(Exit::Ok)
}

fn describe(point: &RecoveryPoint) -> Vec<String> {
    let taken = &point.taken;
    let mut lines = vec![
        format!("recovery point {}", point.label),
        format!(
            "cluster     {}, timeline {}",
            point.system_identifier, point.timeline
        ),
        format!("begun       {}", point.started_at),
        format!("complete    {}", point.stopped_at),
        format!(
            "log         from {}, consistent from {}",
            point.start, point.stop
        ),
        format!(
            "size        {} of files, {} stored for it",
            amount(point.database_bytes),
            amount(point.stored_bytes)
        ),
    ];
    if let Some(parent) = &taken.parent {
        lines.push(format!(
            "changed     {} since {parent}",
            amount(taken.changed_bytes)
        ));
    }
    lines.extend(
        taken
            .damaged
            .iter()
            .map(|page| format!("damaged     {page}")),
    );
    lines.extend(
        taken
            .remarks
            .iter()
            .map(|remark| format!("remark      {remark}")),
    );
    lines
}

fn proof(record: &VerifyRecord) -> String {
    let at = format!("{:.0}", record.began_at);
    match &record.failure {
        Some(failure) => {
            let means = match record.means {
                VerifyMeans::Boot => "booting",
                VerifyMeans::Hash => "reading",
                VerifyMeans::Sample => "sampling",
            };
            format!("FAILED      {at}, {means} it, by {}: {failure}", record.by)
        }
        None => {
            let mut text = format!("proven      {at}, by {}: {}", record.by, sentence(record));
            for check in &record.checks {
                text.push_str("\n            ");
                text.push_str(check);
            }
            text
        }
    }
}
