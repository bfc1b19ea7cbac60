//! What makes a server follow the primary of another region.

use std::fmt::Write as _;
use std::path::Path;

use dr_model::RegionName;
use dr_pgwire::{Host as Address, TlsMode};
use dr_provider::{Host, Result};

use crate::driver::PostgresDriver;
use crate::options::Options;
use crate::restore::quoted;

/// The file with the password, in the data directory, readable by its owner only.
pub(super) const PASSWORD_FILE: &str = "dr-standby.pgpass";

/// The settings that the server itself writes; the last of several values counts.
pub(super) const AUTO_CONF: &str = "postgresql.auto.conf";

/// Bytes of a configuration file that are read.
const CONF_BYTES: u64 = 1 << 22;

impl Options {
    /// Returns the name under which the standby of `region` streams: its slot and its `application_name`.
    #[must_use]
    pub fn standby_name(region: &RegionName) -> String {
        format!("dr_standby_{}", region.to_identifier())
    }
}

impl PostgresDriver {
    /// Returns how the standby in `region` connects to the primary, without the password, which stands in a file in
    /// `directory`.
    pub(crate) fn standby_conninfo(
        &self,
        region: &RegionName,
        primary: &RegionName,
        directory: &Path,
    ) -> Result<String> {
        let mut text = self.conninfo(primary)?;
        let name = Options::standby_name(region);
        push(&mut text, "application_name", &name);
        if self.options().password.is_some() {
            let file = directory.join(PASSWORD_FILE);
            push(&mut text, "passfile", &file.display().to_string());
        }
        Ok(text)
    }

    /// Returns how PostgreSQL's own programs connect to the instance in `region`, without the password.
    pub(crate) fn conninfo(&self, region: &RegionName) -> Result<String> {
        let instance = self.instance_options(region)?;
        let options = self.options();
        let mut text = String::new();
        let host = match &instance.address {
            Address::Tcp(name) => name.clone(),
            Address::Unix(directory) => directory.display().to_string(),
        };
        push(&mut text, "host", &host);
        push(&mut text, "port", &instance.port.to_string());
        push(&mut text, "user", &options.user);
        match &options.tls {
            TlsMode::Disable => push(&mut text, "sslmode", "disable"),
            TlsMode::Prefer => push(&mut text, "sslmode", "prefer"),
            TlsMode::Require => push(&mut text, "sslmode", "require"),
            TlsMode::VerifyFull { ca_file } => {
                push(&mut text, "sslmode", "verify-full");
                push(&mut text, "sslrootcert", &ca_file.display().to_string());
            }
        }
        Ok(text)
    }

    /// Returns the password that PostgreSQL's own programs are given in their environment.
    pub(super) fn password_environment(&self) -> Result<Vec<(String, String)>> {
        let Some(reference) = &self.options().password else {
            return Ok(Vec::new());
        };
        let secret = self.secrets().resolve(reference)?;
        Ok(vec![("PGPASSWORD".to_owned(), secret.expose().to_owned())])
    }

    /// Writes the file with the password that the standby logs in with.
    pub(crate) async fn write_password_file(
        &self,
        region: &RegionName,
        directory: &Path,
    ) -> Result<()> {
        let Some(reference) = &self.options().password else {
            return Ok(());
        };
        let secret = self.secrets().resolve(reference)?;
        let escaped = |text: &str| text.replace('\\', r"\\").replace(':', r"\:");
        let line = format!(
            "*:*:*:{}:{}\n",
            escaped(&self.options().user),
            escaped(secret.expose())
        );
        self.host(region)?
            .write(&directory.join(PASSWORD_FILE), line.as_bytes())
            .await
    }

    /// Returns the settings of a standby in `region`, to be added to `postgresql.auto.conf`.
    pub(super) fn standby_settings(
        &self,
        region: &RegionName,
        primary: &RegionName,
    ) -> Result<String> {
        let instance = self.instance_options(region)?;
        let conninfo = self.standby_conninfo(region, primary, &instance.data_directory)?;
        let mut all: Vec<(&str, String)> = vec![
            ("primary_conninfo", conninfo),
            ("primary_slot_name", Options::standby_name(region)),
            ("restore_command", self.standby_restore_command(region)?),
            ("recovery_target_timeline", "latest".to_owned()),
            ("recovery_min_apply_delay", "0".to_owned()),
            ("hot_standby", "on".to_owned()),
        ];
        // A file that was copied may hold the end of an earlier recovery, or whom another primary waited for.
        for name in [
            "recovery_target",
            "recovery_target_lsn",
            "recovery_target_name",
            "recovery_target_time",
            "recovery_target_xid",
            "recovery_end_command",
            "archive_cleanup_command",
            "synchronous_standby_names",
        ] {
            all.push((name, String::new()));
        }
        for (name, value) in &instance.settings {
            all.push((name, value.clone()));
        }
        all.push(("port", instance.port.to_string()));
        Ok(text(
            &format!("Written by dr: a standby of the primary in {primary}."),
            &all,
        ))
    }
}

/// Writes settings as the configuration file's reader takes them.
pub(super) fn text(remark: &str, settings: &[(&str, String)]) -> String {
    let mut text = format!("\n# {remark}\n");
    for (name, value) in settings {
        writeln!(text, "{name} = '{}'", quoted(value)).expect("writing to a string cannot fail");
    }
    text
}

/// What a fenced primary shows may never have been acknowledged, and is no part of what is served now (PROTOCOL 5): whatever starts its
/// server as a standby starts one that answers nobody.
const QUARANTINE: &str = "\n# Written by dr: left by a failover, it shows nothing until it is a standby of the new primary.\nhot_standby = 'off'\n";

/// Keeps the server of a directory from being read once it is started as a standby.
pub(crate) async fn quarantine(host: &dyn Host, directory: &Path) -> Result<()> {
    let content = read(host, directory).await?;
    match content.ends_with(QUARANTINE.as_bytes()) {
        true => Ok(()),
        false => append(host, directory, QUARANTINE).await,
    }
}

/// Takes that back.
pub(crate) async fn end_quarantine(host: &dyn Host, directory: &Path) -> Result<()> {
    let content = read(host, directory).await?;
    // Nobody else writes between the lines of ours; a setting that somebody added is kept.
    let Some(text) = std::str::from_utf8(&content)
        .ok()
        .filter(|text| text.contains(QUARANTINE))
    else {
        return Ok(());
    };
    let without = text.replace(QUARANTINE, "");
    host.write(&directory.join(AUTO_CONF), without.as_bytes())
        .await
}

async fn read(host: &dyn Host, directory: &Path) -> Result<Vec<u8>> {
    match host.read(&directory.join(AUTO_CONF), 0, CONF_BYTES).await {
        Ok(content) => Ok(content.to_vec()),
        Err(error) if error.kind() == dr_provider::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Adds settings at the end of the file in which the last of several values counts.
pub(super) async fn append(host: &dyn Host, directory: &Path, added: &str) -> Result<()> {
    let mut content = read(host, directory).await?;
    content.extend_from_slice(added.as_bytes());
    host.write(&directory.join(AUTO_CONF), &content).await
}

/// Adds a parameter as libpq reads it.
fn push(text: &mut String, name: &str, value: &str) {
    if !text.is_empty() {
        text.push(' ');
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:".contains(c);
    if !value.is_empty() && value.chars().all(plain) {
        write!(text, "{name}={value}").expect("writing to a string cannot fail");
    } else {
        let value = value.replace('\\', r"\\").replace('\'', r"\'");
        write!(text, "{name}='{value}'").expect("writing to a string cannot fail");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_quoted_for_libpq() {
        let mut text = String::new();
        push(&mut text, "host", "/run/a b");
        push(&mut text, "user", r"o'\n");
        push(&mut text, "port", "5432");
        assert_eq!(text, r"host='/run/a b' user='o\'\\n' port=5432");
    }
}
