//! `dr recovery-point`.

mod expire;
mod hold;
mod list;
mod show;
mod verify;

use std::path::Path;

use dr_provider::driver::{Proof, Proofs};

use crate::error::Result;
use crate::exit::Exit;
use crate::output::Output;

/// Look at recovery points, prove them, and let them expire
#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum Command {
    Expire(expire::Args),
    Hold(hold::HoldArgs),
    List(list::Args),
    Release(hold::ReleaseArgs),
    Show(show::Args),
    Verify(verify::Args),
}

pub(crate) async fn run(command: &Command, config: &Path, output: &Output) -> Result<Exit> {
    match command {
        Command::Expire(args) => expire::run(args, config, output).await,
        Command::Hold(args) => hold::hold(args, config, output).await,
        Command::Release(args) => hold::release(args, config, output).await,
        Command::List(args) => list::run(args, config, output).await,
        Command::Show(args) => show::run(args, config, output).await,
        Command::Verify(args) => verify::run(args, config, output).await,
    }
}

/// Returns the word for what is known of a recovery point.
fn word(proofs: Option<&Proofs>) -> &'static str {
    let Some(proofs) = proofs else {
        return "committed";
    };
    match proofs.proof() {
        _ if proofs.failed() => "FAILED",
        Proof::Committed => "committed",
        Proof::Hashed => "hashed",
        Proof::Booted => "booted",
    }
}
