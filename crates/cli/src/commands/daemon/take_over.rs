//! Taking over from the daemon that runs: an upgrade in which commits wait for as long as a receiver needs to connect.
//!
//! A slot has one receiver at a time, so the second cannot stream beside the first. What can be done before, is: the configuration is
//! read, the store looked at, the connections to it made. Then the first daemon ends its jobs while it follows the log, and
//! that last of all. The lock says when it has.

use dr_config::Daemon as Place;
use dr_model::RegionName;
use dr_provider::error::chain;
use dr_server::control::{ClientError, ask_to_leave};

use super::{notify, store};
use crate::error::{CommandError, Result};
use crate::exit::Exit;
use crate::output::Output;
use crate::wiring::Setup;

/// Gets ready, and has the daemon that runs leave; `false` if none runs.
pub(super) async fn prepare(
    setup: &Setup,
    region: &RegionName,
    place: &Place,
    output: &Output,
) -> Result<bool> {
    if !place
        .state_directory
        .join(dr_server::control::SOCKET)
        .exists()
    {
        return Ok(false);
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
    match ask_to_leave(&place.state_directory).await {
        Ok(answer) => {
            let socket = std::env::var_os("NOTIFY_SOCKET");
            if let Some(Err(error)) = socket.map(|socket| notify::main_process(&socket)) {
                tracing::warn!(%error, "systemd is not told which process is the daemon now");
            }
            tracing::info!(%region, process = answer.process, "ready: the daemon that runs leaves");
            Ok(true)
        }
        Err(ClientError::Absent { .. }) => Ok(false),
        Err(error) => Err(CommandError::new(
            Exit::Failed,
            format!("the daemon of `{region}` does not leave"),
        )
        .because(chain(&error))
        .hint("one that does not know the request has to be stopped: start this one without `--take-over` then")),
    }
}
