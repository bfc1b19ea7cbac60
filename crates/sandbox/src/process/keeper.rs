//! The keeper: a process that outlives the program running a sandbox just long enough to end the rest.
//!
//! It reads a pipe that only that program holds open. The end of the file means that the program is gone, by whatever
//! way, and that nothing else will clean up.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Stdio};

use super::{Launcher, end_all};
use crate::{Error, Result};

/// The handle of a running keeper.
#[derive(Debug)]
pub struct Keeper {
    child: Child,
}

impl Keeper {
    /// Starts the keeper of the sandbox in `directory`; `program` is `dr-demo`.
    ///
    /// It keeps this program's rights, because it must be able to end every process that this program can.
    pub fn start(launcher: &Launcher, program: &Path, directory: &Path) -> Result<Self> {
        let mut command = launcher.privileged(program, Path::new("/"));
        command.args(["keeper", "--directory"]).arg(directory);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut awaited = super::reap::awaited();
        let child = command.spawn().map_err(|source| Error::Start {
            program: program.to_owned(),
            source,
        })?;
        awaited.insert(child.id().cast_signed());
        Ok(Self { child })
    }

    /// Returns its process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Sends it away without letting it end anything.
    pub fn dismiss(&mut self) {
        // It may have been killed already, which is as good.
        let _gone = self.child.kill();
        let _gone = self.child.wait();
        super::reap::awaited().remove(&self.pid());
    }
}

/// Does the keeper's work: waits for the end of standard input, then ends all that is left of the sandbox.
pub fn keep(directory: &Path) {
    let mut input = std::io::stdin().lock();
    let mut buffer = [0; 64];
    // An error reading is the end of the pipe as well.
    while matches!(input.read(&mut buffer), Ok(1..)) {}
    end_all(directory, None);
}
