//! Taking over from the daemon that runs: an upgrade in which commits wait for as long as a receiver needs to connect.
//!
//! A slot has one receiver at a time, so the second cannot stream beside the first. What can be done before, is: the configuration is
//! read, the store looked at, the connections to it made, the address taken, or the daemon that runs is known to have it. Then that one
//! ends its jobs while it follows the log, and that last of all. The lock says when it has.
//!
//! Whoever cannot take the place leaves the one that runs alone. From the moment on at which that one was asked to leave, a failure says
//! that nobody runs.

use dr_config::Daemon as Place;
use dr_model::RegionName;
use dr_provider::error::chain;
use dr_server::Bound;
use dr_server::control::{ClientError, ask_to_leave, ask_who};

use super::{listen, notify, store};
use crate::error::{CommandError, Result};
use crate::exit::Exit;
use crate::output::Output;
use crate::wiring::Setup;

/// What is ready when the daemon that ran has been asked to leave.
pub(super) struct Ready {
    /// The address to answer on; `None` if the one that leaves has it.
    pub(super) bound: Option<Bound>,
}

/// Gets ready, and has the daemon that runs leave; `None` if none runs.
pub(super) async fn prepare(
    setup: &Setup,
    region: &RegionName,
    place: &Place,
    output: &Output,
) -> Result<Option<Ready>> {
    if !place
        .state_directory
        .join(dr_server::control::SOCKET)
        .exists()
    {
        return Ok(None);
    }
    store::prepare(setup, region, &place.state_directory, output).await?;
    for (name, workload) in &setup.config.workloads {
        if workload.home != *region && !workload.recovery.contains(region) {
            continue;
        }
        // Read again afterwards: this makes the connections.
        if let Err(error) = setup.workload_site(name, workload)?.register.read().await {
            let error: dr_provider::Error = error.into();
            return Err(CommandError::from(error).hint(format!(
                "the daemon that runs goes on; the register of `{name}` has to be readable before it is replaced"
            )));
        }
    }
    let bound = match address(region, place).await {
        Err(ClientError::Absent { .. }) => return Ok(None),
        Err(error) => return Err(does_not_leave(region, &error)),
        Ok(taken) => taken?,
    };
    match ask_to_leave(&place.state_directory).await {
        Ok(answer) => {
            let socket = std::env::var_os("NOTIFY_SOCKET");
            if let Some(Err(error)) = socket.map(|socket| notify::main_process(&socket)) {
                tracing::warn!(%error, "systemd is not told which process is the daemon now");
            }
            tracing::info!(%region, process = answer.process, "ready: the daemon that runs leaves");
            Ok(Some(Ready { bound }))
        }
        Err(ClientError::Absent { .. }) => Ok(None),
        Err(error) => Err(does_not_leave(region, &error)),
    }
}

/// Takes the address, if it is not that of the daemon that runs: then it can only be had afterwards.
async fn address(
    region: &RegionName,
    place: &Place,
) -> std::result::Result<Result<Option<Bound>>, ClientError> {
    let taken = match listen::take(place.listen, region).await {
        Ok(bound) => return Ok(Ok(Some(bound))),
        Err(error) => error,
    };
    let runs = ask_who(&place.state_directory).await?;
    if listen::overlap(runs.listen, place.listen) {
        return Ok(Ok(None));
    }
    let runs = format!(
        "the daemon that runs, process {}, listens on {} and goes on",
        runs.process, runs.listen
    );
    Ok(Err(taken.hint(runs)))
}

fn does_not_leave(region: &RegionName, error: &ClientError) -> CommandError {
    CommandError::new(
        Exit::Failed,
        format!("the daemon of `{region}` does not leave"),
    )
    .because(chain(error))
    .hint("one that does not know the request has to be stopped: start this one without `--take-over` then")
}

/// Says that the daemon that ran was asked to leave, and that this one does not take its place.
pub(super) fn nobody_runs(region: &RegionName, error: CommandError) -> CommandError {
    let message = match error.exit {
        // It has the lock, and so it is still there.
        Exit::Busy => format!("the daemon of `{region}` was asked to leave, and has not ended"),
        _ => format!(
            "NO DAEMON OF `{region}` RUNS NOW: the one that ran has left, and this one cannot take its place"
        ),
    };
    let mut made = CommandError::new(error.exit, message).because(error.message);
    made.causes.extend(error.causes);
    made.hints = match error.exit {
        Exit::Busy => vec![format!(
            "see what it still does, end it, and then: `dr daemon --region {region}`"
        )],
        _ => error.hints,
    };
    made.hint(format!(
        "until `dr daemon --region {region}` runs again, nothing protects what is in it"
    ))
}
