//! `dr slot`: the slots that the receivers stream from.

use std::path::Path;

use dr_model::ResourceId;
use dr_postgres::Slot;
use serde_json::json;

use crate::error::{CommandError, Result};
use crate::exit::Exit;
use crate::output::{Output, Table, Tone, amount};
use crate::wiring::Setup;

/// Look at the replication slots of the receivers, and drop one that nobody needs
#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum Command {
    List(ListArgs),
    Drop(DropArgs),
}

/// List the slots of the receivers on the primary, with what they keep there
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ListArgs {
    /// The resource, as WORKLOAD/RESOURCE
    #[arg(value_name = "RESOURCE")]
    resource: ResourceId,
}

/// Drop a slot that nobody streams from
///
/// For a region that does not come back, whose slot would fill the primary's disk, or for a slot that
/// was invalidated. A receiver that comes back makes a slot anew; log that it had not taken by then
/// may be gone from the primary.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct DropArgs {
    /// The resource, as WORKLOAD/RESOURCE
    #[arg(value_name = "RESOURCE")]
    resource: ResourceId,
    /// The slot's name
    #[arg(value_name = "SLOT")]
    slot: String,
}

pub(crate) async fn run(command: &Command, config: &Path, output: &Output) -> Result<Exit> {
    let setup = Setup::load(config)?;
    match command {
        Command::List(args) => {
            let slots = setup.postgres(&args.resource)?.slots().await?;
            list(&slots, output)
        }
        Command::Drop(args) => {
            let dropped = setup
                .postgres(&args.resource)?
                .drop_slot(&args.slot)
                .await?;
            if output.json {
                output.json(&json!({ "dropped": dropped }))?;
            }
            output.say(&format!("Slot `{}` is dropped.", dropped.name));
            Ok(Exit::Ok)
        }
    }
}

fn list(slots: &[Slot], output: &Output) -> Result<Exit> {
    let alarms: Vec<String> = slots.iter().filter_map(Slot::alarm).collect();
    if output.json {
        let shown = slots
            .iter()
            .map(|slot| json!({ "slot": slot, "alarm": slot.alarm() }));
        output.json(&json!({ "slots": shown.collect::<Vec<_>>() }))?;
    } else {
        let mut table = Table::new(&["SLOT", "REGION", "STREAMS", "LOG", "KEEPS", "UNTIL LOST"]);
        let bytes =
            |bytes: Option<u64>, other: &str| bytes.map_or_else(|| other.to_owned(), amount);
        for slot in slots {
            let tone = slot.alarm().map(|_| Tone::Bad);
            let region = slot.region.as_ref().map(ToString::to_string);
            table.toned(vec![
                (None, slot.name.clone()),
                (None, region.unwrap_or_else(|| "none".to_owned())),
                (None, if slot.active { "yes" } else { "no" }.to_owned()),
                (
                    tone,
                    slot.wal_status
                        .clone()
                        .unwrap_or_else(|| "nothing".to_owned()),
                ),
                (tone, bytes(slot.kept_bytes, "nothing")),
                (None, bytes(slot.safe_bytes, "no limit")),
            ]);
        }
        output.data(&table.render(output.stdout))?;
    }
    if alarms.is_empty() {
        return Ok(Exit::Ok);
    }
    let mut error = CommandError::new(Exit::Breach, "slots put the primary or the log at risk");
    error.causes = alarms;
    Err(error
        .hint("start the daemon of the slot's region, or drop the slot if that does not come back"))
}
