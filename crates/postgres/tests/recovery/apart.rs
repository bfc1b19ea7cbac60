//! Disks of a test's own: the test once more in a process with mounts of its own, which end with it.

use std::fs;
use std::path::Path;
use std::process::Command;

use dr_provider::conformance::{Missing, skipped};

use crate::server::{give_to_postgres, run};

/// Set in the copy of this program that has mounts of its own.
const APART: &str = "DR_TEST_OWN_MOUNTS";

/// Tells whether this process has mounts of its own. If not, runs the named test once more where it has, and says so if
/// that is not allowed here; the test is done then.
pub(crate) fn is_apart(test: &str) -> bool {
    if std::env::var_os(APART).is_some() {
        return true;
    }
    let may = Command::new("unshare").args(["--mount", "true"]).output();
    if !may.is_ok_and(|output| output.status.success()) {
        let why = "a disk of its own needs the right to mount one";
        skipped(Missing::Right, why);
        return false;
    }
    let mut again = Command::new("unshare");
    again.arg("--mount").arg(std::env::current_exe().unwrap());
    run(again
        .args(["--exact", test, "--nocapture"])
        .env(APART, "yes"));
    false
}

/// Mounts a disk of so many MiB, which the servers' user owns.
pub(crate) fn mount_disk(place: &Path, mebibytes: u32) {
    fs::create_dir_all(place).unwrap();
    resize_disk(place, &format!("size={mebibytes}m"));
    give_to_postgres(place);
}

/// Mounts, or mounts anew, as the options say.
pub(crate) fn resize_disk(place: &Path, options: &str) {
    let mut mount = Command::new("mount");
    run(mount
        .args(["-t", "tmpfs", "-o", options, "tmpfs"])
        .arg(place));
}
