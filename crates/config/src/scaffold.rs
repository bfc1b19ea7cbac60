//! What `dr init` writes: a commented configuration that loads as it is.
//!
//! The runbook and the schedules are those at the root of the repository, embedded: what is shipped, tested and written
//! is one text.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use dr_model::{RegionName, WorkloadName};

const ROOT: &str = include_str!("scaffold/dr.yaml");
const SCHEDULES: &str = include_str!("../../../schedules/orders.yaml");
const RUNBOOK: &str = include_str!("../../../runbooks/failover-region.yaml");

/// What must be known to write a configuration.
#[derive(Clone, Debug)]
pub struct Answers {
    /// The name of the organization.
    pub organization: String,
    /// The workload.
    pub workload: WorkloadName,
    /// A file that holds the password of the role `dr`; `None` if it needs none.
    pub password_file: Option<PathBuf>,
    /// The region where the workload is served.
    pub home: Site,
    /// The region that it can be moved to.
    pub recovery: Site,
    /// Whether a standby streams in the recovery region.
    pub standby: bool,
}

/// One region of the workload.
#[derive(Clone, Debug)]
pub struct Site {
    /// Its name.
    pub region: RegionName,
    /// Its store: a path relative to the configuration, or a location.
    pub store: String,
    /// Where its daemon answers.
    pub listen: SocketAddr,
    /// Where its daemon keeps its state.
    pub state_directory: PathBuf,
    /// The host of the database: `local` or `ssh://user@name`.
    pub host: String,
    /// Where the database is reached, if not by the name of the host: a name, an address or a directory with a socket.
    pub address: Option<String>,
    /// Its port.
    pub port: u16,
    /// Its data directory.
    pub data_directory: PathBuf,
}

/// Nothing can be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file is there already: nothing was written.
    #[error("`{0}` exists already; nothing was written")]
    Exists(PathBuf),
    /// A file or its directory cannot be written.
    #[error("cannot write `{path}`")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Returns the files with their paths relative to the configuration.
#[must_use]
pub fn files(answers: &Answers) -> Vec<(PathBuf, String)> {
    let workload = answers.workload.as_str();
    let schedules = SCHEDULES.replace("orders/database", &format!("{workload}/database"));
    vec![
        (PathBuf::from("dr.yaml"), root(answers)),
        (
            PathBuf::from(format!("schedules/{workload}.yaml")),
            schedules,
        ),
        (
            PathBuf::from("runbooks/failover-region.yaml"),
            RUNBOOK.to_owned(),
        ),
    ]
}

/// Writes the files into `directory` and returns their paths. Nothing that exists is ever overwritten.
pub fn write(directory: &Path, answers: &Answers) -> Result<Vec<PathBuf>, Error> {
    let files = files(answers);
    let place = |name: &Path| directory.join(name);
    if let Some((name, _)) = files.iter().find(|(name, _)| place(name).exists()) {
        return Err(Error::Exists(place(name)));
    }
    let mut written = Vec::new();
    for (name, content) in &files {
        let path = place(name);
        let create = || -> io::Result<()> {
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            // Somebody may have created it since: then it stays as it is.
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(&path)?;
            file.write_all(content.as_bytes())?;
            file.sync_all()
        };
        create().map_err(|source| Error::Write {
            path: path.clone(),
            source,
        })?;
        written.push(path);
    }
    Ok(written)
}

fn root(answers: &Answers) -> String {
    let password = answers.password_file.as_ref().map(|path| {
        let reference = format!("${{file:{}}}", path.display());
        format!("password: {}", quote(&reference))
    });
    let standby = if answers.standby { "warm" } else { "none" };
    let mut values = vec![
        (
            "organization".to_owned(),
            Some(quote(&answers.organization)),
        ),
        ("workload".to_owned(), Some(answers.workload.to_string())),
        ("password".to_owned(), password),
        ("recovery.standby".to_owned(), Some(standby.to_owned())),
    ];
    for (name, site) in [("home", &answers.home), ("recovery", &answers.recovery)] {
        let address = site
            .address
            .as_ref()
            .map(|a| format!("address: {}", quote(a)));
        let own = [
            ("region", Some(site.region.to_string())),
            ("store", Some(quote(&site.store))),
            ("listen", Some(quote(&site.listen.to_string()))),
            (
                "state_directory",
                Some(quote(&site.state_directory.to_string_lossy())),
            ),
            ("host", Some(quote(&site.host))),
            ("address", address),
            ("port", Some(site.port.to_string())),
            (
                "data_directory",
                Some(quote(&site.data_directory.to_string_lossy())),
            ),
        ];
        values.extend(own.map(|(key, value)| (format!("{name}.{key}"), value)));
    }
    ROOT.lines()
        .filter_map(|line| fill(line, &values))
        .collect()
}

/// Fills the `{{…}}` of one line, from left to right, so that what an answer holds is never filled itself. A line with
/// one that has no value is left out.
fn fill(line: &str, values: &[(String, Option<String>)]) -> Option<String> {
    let mut parts = line.split("{{");
    let mut filled = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let known = part.split_once("}}").and_then(|(key, rest)| {
            let (_, value) = values.iter().find(|(k, _)| k == key)?;
            Some((value, rest))
        });
        match known {
            Some((value, rest)) => {
                filled.push_str(value.as_ref()?);
                filled.push_str(rest);
            }
            // Two braces that are YAML's own.
            None => {
                filled.push_str("{{");
                filled.push_str(part);
            }
        }
    }
    filled.push('\n');
    Some(filled)
}

/// Writes text so that YAML reads the same text.
fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
