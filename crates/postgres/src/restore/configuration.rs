//! Configuration files that a backup lacks, because they stood outside the data directory when it was taken.
//!
//! A server does not start without them, and in recovery it stops if it allows fewer connections than the one that wrote
//! the log: those settings are in the control file.

use std::fmt::Write as _;
use std::path::Path;
use std::{fs, io};

use dr_provider::Result;
use dr_repository::BackupReader;

/// The files in the order in which they are named, and whether a server starts without.
const FILES: [&str; 3] = ["postgresql.conf", "pg_hba.conf", "pg_ident.conf"];

/// Settings that must not be smaller than they were, with their places in the control file. The same in versions 13 to 18
/// (`ControlFileData` in `catalog/pg_control.h`, control file versions 1300 and 1800).
const LEAST: [(&str, usize); 5] = [
    ("max_connections", 180),
    ("max_worker_processes", 184),
    ("max_wal_senders", 188),
    ("max_prepared_transactions", 192),
    ("max_locks_per_transaction", 196),
];

const KNOWN_VERSIONS: [u32; 2] = [1300, 1800];

/// Returns the names of the files that a backup lacks.
pub(super) async fn missing(reader: &BackupReader) -> Result<Vec<&'static str>> {
    let mut missing = Vec::new();
    for name in FILES {
        if reader.file(name).await?.is_none() {
            missing.push(name);
        }
    }
    Ok(missing)
}

/// Returns what to write into a file that is missing, given the control file that was restored.
pub(crate) fn substitute(name: &str, control_file: &Path) -> io::Result<String> {
    let mut text =
        "# Written by dr: the backup has no such file, which was not in the data directory.\n"
            .to_owned();
    match name {
        "postgresql.conf" => {
            let control = fs::read(control_file)?;
            let word = |at: usize| {
                let bytes = control.get(at..at + 4)?.try_into().ok()?;
                Some(u32::from_le_bytes(bytes))
            };
            if word(8).is_some_and(|version| KNOWN_VERSIONS.contains(&version)) {
                for (setting, at) in LEAST {
                    if let Some(value) = word(at) {
                        writeln!(text, "{setting} = {value}").expect("a string takes any text");
                    }
                }
            }
        }
        "pg_hba.conf" => text.push_str(
            "local all all peer\nhost all all 127.0.0.1/32 scram-sha-256\nhost all all ::1/128 scram-sha-256\n",
        ),
        _ => {}
    }
    Ok(text)
}
