//! `dr host serve`.

use std::io::{BufRead, Read};
use std::path::PathBuf;

use dr_local::LocalHost;
use dr_local::remote::serve;

use crate::error::{CommandError, Result};
use crate::exit::Exit;
use crate::output::Output;

/// No request is read that is longer: a small file in Base64.
const LONGEST: u64 = 64 << 20;

/// Answer requests on standard input; run by `dr` elsewhere, over ssh
///
/// A request and its answer are a line of JSON each; the end of input ends it. What it does is done as the account that it
/// runs under; epochs are remembered in the state directory, which has to be that of the region's
/// daemon on this machine, and lower ones refused.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Where epochs are remembered
    #[arg(long, value_name = "DIRECTORY")]
    state_directory: PathBuf,
}

pub(super) async fn run(args: &Args, output: &Output) -> Result<Exit> {
    let host = LocalHost::new(&args.state_directory);
    let mut answered = false;
    loop {
        let line = tokio::task::spawn_blocking(|| {
            let mut line = Vec::new();
            let mut input = std::io::stdin().lock().take(LONGEST);
            input.read_until(b'\n', &mut line).map(|_| line)
        });
        let line = line.await.map_err(|error| {
            CommandError::new(Exit::Failed, "cannot read the request").because(error)
        })??;
        if line.is_empty() {
            break;
        }
        answered = true;
        // A line that is not whole is the last that is answered: what follows it is not a request.
        let is_whole = line.ends_with(b"\n");
        let answer = serve(&host, &line).await;
        let text = serde_json::to_string(&answer).map_err(|error| {
            CommandError::new(Exit::Failed, "cannot write the answer").because(error)
        })?;
        output.data(&text)?;
        if !is_whole {
            break;
        }
    }
    if answered {
        return Ok(Exit::Ok);
    }
    let error = CommandError::new(Exit::Usage, "there is no request on standard input");
    Err(error.hint("`dr` elsewhere runs this over ssh; there is nothing to type"))
}
