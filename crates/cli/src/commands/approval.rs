//! `dr approval`: the keys that people approve with.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use dr_coordination::approval::SigningKey;
use serde_json::json;

use crate::error::{CommandError, Result};
use crate::exit::Exit;
use crate::output::Output;

/// Make the keys that people approve with
#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Make the key of an approver, and print its public half for the configuration
    ///
    /// The file is the approver's own: nobody else can approve as that person without it, and
    /// nobody can with the public half.
    Keygen {
        /// Where to write the private half; must not exist
        file: PathBuf,
    },
}

pub(crate) fn run(command: &Command, output: &Output) -> Result<Exit> {
    let Command::Keygen { file } = command;
    let key = SigningKey::generate()
        .ok_or_else(|| CommandError::new(Exit::Failed, "the system gives no random numbers"))?;
    create(file, &key.to_file()).map_err(|error| {
        let what = format!("the key file `{}` cannot be written", file.display());
        CommandError::new(Exit::Failed, what).because(error).hint(
            "a key is never replaced: name a file that does not exist, in a directory that does",
        )
    })?;
    let public = key.public().to_string();
    if output.json {
        output.json(&json!({ "file": file, "key": public }))?;
    } else {
        output.data(&public)?;
    }
    output.say(&format!(
        "The private half is in {}; keep it to yourself. The public half goes into `approval.approvers` of dr.yaml.",
        file.display()
    ));
    Ok(Exit::Ok)
}

/// Writes a file that only its owner can read and that was not there before.
fn create(path: &Path, text: &str) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Reads the key of an approver.
pub(crate) fn read(path: &Path) -> Result<SigningKey> {
    let refuse = |why: String| {
        CommandError::new(
            Exit::Usage,
            format!("the key file `{}` cannot be used: {why}", path.display()),
        )
        .hint("`dr approval keygen` makes one")
    };
    let text = std::fs::read_to_string(path).map_err(|error| refuse(error.to_string()))?;
    SigningKey::parse(&text).map_err(|error| refuse(error.to_string()))
}
