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
    /// The process that was asked.
    process: u32,
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
    for (name, workload) in setup.workloads_in(region) {
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
            let process = answer.process;
            Ok(Some(Ready { bound, process }))
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

/// Says why the place is not free although the daemon that had it was asked to leave: it has not ended, or somebody else was faster,
/// and then all is well.
pub(super) async fn outrun(
    region: &RegionName,
    place: &Place,
    ready: &Ready,
    error: CommandError,
) -> CommandError {
    match ask_who(&place.state_directory).await {
        Ok(runs) if runs.process != ready.process => {
            let process = runs.process;
            let what =
                format!("the daemon of `{region}` has been replaced by another: process {process}");
            CommandError::new(Exit::Busy, what)
                .hint("that one runs; take over from it in turn if this one is the one to run")
        }
        _ => nobody_runs(region, error),
    }
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use async_trait::async_trait;
    use dr_server::control::{
        Control, LeaveAnswer, PushAnswer, PushRequest, Refusal, RunAnswer, RunRequest, WhoAnswer,
        serve_control,
    };

    use super::*;

    /// A daemon that runs.
    struct Runs(u32);

    #[async_trait]
    impl Control for Runs {
        async fn run_job(&self, _request: RunRequest) -> std::result::Result<RunAnswer, Refusal> {
            unreachable!("nobody asks it for a run")
        }

        async fn push_wal(&self, _: PushRequest) -> std::result::Result<PushAnswer, Refusal> {
            unreachable!("nobody gives it a file")
        }

        async fn who(&self) -> std::result::Result<WhoAnswer, Refusal> {
            Ok(WhoAnswer {
                process: self.0,
                listen: "127.0.0.1:9".parse().unwrap(),
            })
        }

        async fn leave(&self) -> std::result::Result<LeaveAnswer, Refusal> {
            unreachable!("nobody asks it again")
        }
    }

    #[tokio::test]
    async fn who_was_outrun_is_not_told_to_end_the_winner() {
        let directory = tempfile::tempdir().unwrap();
        let region: RegionName = "us-east-1".parse().unwrap();
        let place = Place {
            listen: "127.0.0.1:9".parse().unwrap(),
            state_directory: directory.path().to_owned(),
        };
        let (_stop, stopped) = tokio::sync::watch::channel(false);
        let serving = serve_control(directory.path(), Arc::new(Runs(8)), stopped).unwrap();
        let server = tokio::spawn(serving);
        let busy = || CommandError::new(Exit::Busy, "the daemon of `us-east-1` runs already");
        for (asked, said, hint) in [
            (
                7,
                "has been replaced by another: process 8",
                "that one runs",
            ),
            (
                8,
                "was asked to leave, and has not ended",
                "end it, and then",
            ),
        ] {
            let ready = Ready {
                bound: None,
                process: asked,
            };
            let error = outrun(&region, &place, &ready, busy()).await;
            assert_eq!(error.exit, Exit::Busy);
            assert!(error.message.contains(said), "{error:?}");
            assert!(error.hints[0].contains(hint), "{error:?}");
        }
        server.abort();
    }
}
