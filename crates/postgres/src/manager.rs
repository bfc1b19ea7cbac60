//! Whether somebody else decides which server of a cluster is primary: Patroni does.
//!
//! A standby that is promoted behind its back is demoted again, or two are primaries: Patroni's leader is whoever holds its
//! lock. So nothing is promoted under it but by a command that asks it to (`promote` of the instance).

use std::path::Path;

use dr_model::RegionName;
use dr_provider::host::{Command, PathKind};
use dr_provider::{Error, ErrorKind, Host, Result};

use crate::driver::PostgresDriver;
use crate::wait::Deadline;

/// What Patroni keeps of its configuration in the data directory. Backups of it have it too.
const CONFIGURATION: &str = "patroni.dynamic.json";

/// The words that a server was last started with. Not in backups, and written anew at each start.
const WORDS: &str = "postmaster.opts";

/// A word that Patroni starts its servers with.
const WORD: &str = "--cluster_name=";

/// Bytes of the words that are read.
const SMALL: u64 = 16 << 10;

/// How long the command may take.
const LIMIT: std::time::Duration = std::time::Duration::from_secs(60);

/// Tells whether the server of a data directory was last started by Patroni.
pub(crate) async fn is_managed(host: &dyn Host, directory: &Path) -> Result<bool> {
    if host.kind(&directory.join(CONFIGURATION)).await? != PathKind::File {
        return Ok(false);
    }
    match host.read(&directory.join(WORDS), 0, SMALL).await {
        Ok(words) => Ok(String::from_utf8_lossy(&words).contains(WORD)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

impl PostgresDriver {
    /// Refuses to promote the server in `region` if Patroni decides about it and nobody has said how to ask it.
    pub(crate) fn refuse_managed(
        &self,
        operation: &str,
        region: &RegionName,
        is_managed: bool,
    ) -> Result<()> {
        if !is_managed || self.instance_options(region)?.promote.is_some() {
            return Ok(());
        }
        let why = format!(
            "the server in {region} is Patroni's, which decides who is primary, and the instance has no `promote: [COMMAND, …]` that asks it"
        );
        Err(self.failed(operation, why).with_hint(
            "have Patroni promote it by `patronictl failover --force`, or take it out of Patroni's hands and start it without",
        ))
    }

    /// Has the command promote the server, and waits until it is no standby any more.
    pub(crate) async fn promote_by(
        &self,
        operation: &str,
        region: &RegionName,
        words: &[String],
    ) -> Result<()> {
        let command = Command::new(words.iter().cloned());
        let output = self.host(region)?.run(&command, LIMIT).await?;
        if output.status != Some(0) {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            let ended = output
                .status
                .map_or("a signal".to_owned(), |status| format!("status {status}"));
            let why = format!("`{}` ended with {ended}: {said}", words.join(" "));
            return Err(self.failed(operation, why));
        }
        let deadline = Deadline::new(self.clock(), LIMIT);
        loop {
            // It may be started anew meanwhile.
            let standing = async { self.connect(region).await?.position().await }.await;
            match standing {
                Ok(position) if !position.in_recovery => return Ok(()),
                Err(error) if error.kind() != ErrorKind::Unavailable => return Err(error),
                _ if deadline.pause().await => {}
                Err(error) => return Err(error),
                Ok(_) => {
                    let why = format!(
                        "`{}` has ended, and it is still in recovery after {} s",
                        words.join(" "),
                        LIMIT.as_secs()
                    );
                    let subject = self.resource().to_string();
                    return Err(Error::new(ErrorKind::Unknown, operation, subject).because(why));
                }
            }
        }
    }
}
