//! Starting, stopping and checking a region's application, as its service manager would.

use std::time::Duration;

use dr_model::RegionName;
use rustix::process::{Pid, Signal, kill_process};

use crate::layout::Layout;
use crate::process::{Launcher, Process, Table, end, members};
use crate::{Error, Result, http, wait};

const LIMIT: Duration = Duration::from_secs(10);

/// Starts the application and leaves it running; does nothing if it runs already.
///
/// It is there when it answers at all: whether its database accepts writes is the question of [`check`].
pub async fn start(layout: &Layout, region: &RegionName, launcher: &Launcher) -> Result<()> {
    let place = layout.place(region)?;
    if http::get(place.service(), "/live").await.is_ok() {
        return Ok(());
    }
    let mut command = launcher.command(&layout.demo, &place.app());
    command.arg("app").arg("--directory").arg(&layout.directory);
    command.args(["--region", region.as_str()]);
    launcher.start(command, &place.log("app"))?;
    let what = format!(
        "the application of `{region}` answering on {}",
        place.service()
    );
    wait::until(&what, LIMIT, async || {
        http::get(place.service(), "/live").await
    })
    .await?;
    Ok(())
}

/// Stops the application; does nothing if it is stopped.
pub fn stop(layout: &Layout, region: &RegionName) -> Result<()> {
    let working = layout.place(region)?.app();
    let running = |table: &Table| -> Vec<Process> {
        let found = members(table, &layout.directory).into_iter();
        found
            .filter(|process| process.directory.as_deref() == Some(&working))
            .collect()
    };
    for process in running(&Table::read()) {
        if let Some(pid) = Pid::from_raw(process.pid) {
            // Gone in between is what is wanted.
            let _gone = kill_process(pid, Signal::TERM);
        }
    }
    let gone = wait::until_blocking(Duration::from_secs(3), || {
        running(&Table::read()).is_empty()
    });
    if gone || end(running) {
        return Ok(());
    }
    let what = format!("the end of the application of `{region}`");
    Err(Error::Late {
        what,
        limit: LIMIT,
        last: "it is still there".to_owned(),
    })
}

/// Succeeds if the application answers and its database accepts writes.
pub async fn check(layout: &Layout, region: &RegionName) -> Result<()> {
    let place = layout.place(region)?;
    match http::get(place.service(), "/health").await {
        Ok(_) => Ok(()),
        Err(detail) => Err(Error::Program {
            program: format!("the application of {region}"),
            status: "unhealthy".to_owned(),
            detail,
        }),
    }
}
