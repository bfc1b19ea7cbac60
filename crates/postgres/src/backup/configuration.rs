//! Configuration files that stand outside the data directory, as Debian has them in `/etc/postgresql`.
//!
//! A restored directory cannot start without them, so they go where a server looks for them by itself: into the data
//! directory. `postgresql.conf` is written anew from the settings that came from files, without those that name places:
//! as it stands it names the old data directory, and a server started in the restored one would open that. The others
//! are kept word for word.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use dr_pgwire::quote_literal;
use dr_provider::Result;
use dr_provider::error::chain;
use dr_repository::BackupWriter;

use super::base::ReadBy;
use super::local::add_file;
use super::take::Taken;
use crate::driver::PostgresDriver;
use crate::instance::{Instance, translate};

const OPERATION: &str = "read the configuration of";

/// Mode of the files.
const FILE_MODE: u32 = 0o600;

/// Settings that name configuration files, and what a server calls the files in its data directory.
pub(super) const FILES: [(&str, &str); 3] = [
    ("config_file", "postgresql.conf"),
    ("hba_file", "pg_hba.conf"),
    ("ident_file", "pg_ident.conf"),
];

/// Settings of which each server writes its own.
const PLACES: [&str; 5] = [
    "data_directory",
    "config_file",
    "hba_file",
    "ident_file",
    "external_pid_file",
];

impl PostgresDriver {
    /// Adds the files that stand elsewhere; `taken` gets their places, and what an operator should know.
    pub(super) async fn add_configuration(
        &self,
        instance: &mut Instance,
        taken: &mut Taken,
        writer: &mut BackupWriter,
    ) -> Result<()> {
        let sql = "select name, setting from pg_settings \
                   where name in ('data_directory', 'config_file', 'hba_file', 'ident_file')";
        let places = pairs(instance, sql).await?;
        let Some(directory) = places.get("data_directory") else {
            let remark = "the role may not see where the configuration files are, so that it is not known whether all of \
                          them are in this backup: it lacks `pg_read_all_settings`";
            taken.remarks.push(remark.to_owned());
            return Ok(());
        };
        for (setting, name) in FILES {
            let Some(place) = places.get(setting).filter(|place| !place.is_empty()) else {
                continue;
            };
            if Path::new(place) == Path::new(directory).join(name) {
                continue;
            }
            if taken.present.contains(name) {
                taken.remarks.push(format!(
                    "the server uses `{place}`, and not the `{name}` that is in this backup"
                ));
                continue;
            }
            let content = if setting == "config_file" {
                settings(instance).await
            } else {
                read(instance, place, taken.read_by).await
            };
            match content {
                Ok(content) => {
                    add_file(writer, name, FILE_MODE, content.into()).await?;
                    taken.configuration.insert(name.to_owned(), place.clone());
                }
                Err(error) => taken.remarks.push(format!(
                    "`{place}` cannot be read and is not in this backup; a restored server needs a `{name}`: {}",
                    chain(&error)
                )),
            }
        }
        Ok(())
    }
}

/// Returns the names of configuration files that are in a data directory.
pub(super) fn present(directory: &Path) -> BTreeSet<String> {
    let names = FILES.iter().map(|(_, name)| *name);
    names
        .filter(|name| directory.join(name).exists())
        .map(str::to_owned)
        .collect()
}

/// Reads a file, here if the server is here.
async fn read(instance: &mut Instance, place: &str, read_by: ReadBy) -> Result<String> {
    if read_by == ReadBy::Agent
        && let Ok(content) = tokio::fs::read_to_string(place).await
    {
        return Ok(content);
    }
    instance
        .scalar(
            OPERATION,
            &format!("select pg_read_file({})", quote_literal(place)),
        )
        .await
}

/// Writes what the server read from its own configuration files, apart from `ALTER SYSTEM`.
async fn settings(instance: &mut Instance) -> Result<String> {
    let sql = "select name, setting from pg_settings where source = 'configuration file' \
               and sourcefile not like '%postgresql.auto.conf' order by name";
    Ok(render(&pairs(instance, sql).await?))
}

fn render(settings: &BTreeMap<String, String>) -> String {
    let mut text = "# The settings that this server had from files outside its data directory when it was backed up.\n".to_owned();
    for (name, value) in settings {
        if !PLACES.contains(&name.as_str()) {
            let value = value
                .replace('\\', "\\\\")
                .replace('\'', "''")
                .replace('\n', "\\n");
            writeln!(text, "{name} = '{value}'").expect("writing to a string cannot fail");
        }
    }
    text
}

async fn pairs(instance: &mut Instance, sql: &str) -> Result<BTreeMap<String, String>> {
    let rows = instance.query(OPERATION, sql).await?;
    let pair = |row: &dr_pgwire::Row| {
        Ok((
            row.get(0)?,
            row.get::<Option<String>>(1)?.unwrap_or_default(),
        ))
    };
    let pairs: std::result::Result<_, _> = rows.iter().map(pair).collect();
    pairs.map_err(|error| translate(OPERATION, instance.subject(), error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_left_out_and_values_are_quoted() {
        let settings = [
            ("data_directory", "/var/lib/postgresql/15/main"),
            ("search_path", "\"$user\", public"),
            ("shared_buffers", "16384"),
            ("archive_command", "cp '%p' \\x"),
        ];
        let text = render(
            &settings
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
        );
        let lines: Vec<&str> = text.lines().skip(1).collect();
        assert_eq!(
            lines,
            [
                "archive_command = 'cp ''%p'' \\\\x'",
                "search_path = '\"$user\", public'",
                "shared_buffers = '16384'",
            ]
        );
    }
}
