//! The account that the servers run under.
//!
//! PostgreSQL refuses root. As root, PostgreSQL, the daemons, the application and every `dr` command run as `postgres`
//! if there is such a user, else as `nobody`; otherwise they run as whoever started the sandbox.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use crate::{Error, Result};

/// An account of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Its name.
    pub name: String,
    /// Its number.
    pub uid: u32,
    /// The number of its group.
    pub gid: u32,
}

/// Returns the account to change to, or `None` if the present one will do.
pub fn unprivileged() -> Result<Option<User>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let path = Path::new("/etc/passwd");
    let accounts = std::fs::read_to_string(path).map_err(Error::file("read", path))?;
    ["postgres", "nobody"]
        .iter()
        .find_map(|name| find(&accounts, name))
        .map(Some)
        .ok_or(Error::NoUser)
}

fn find(accounts: &str, name: &str) -> Option<User> {
    accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next() != Some(name) {
            return None;
        }
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(User {
            name: name.to_owned(),
            uid,
            gid,
        })
    })
}

impl User {
    /// Tells whether this account can pass through every directory above `path`.
    #[must_use]
    pub fn can_reach(&self, path: &Path) -> bool {
        path.ancestors().skip(1).all(|directory| {
            std::fs::metadata(directory).is_ok_and(|metadata| {
                let shift = if metadata.uid() == self.uid {
                    6
                } else if metadata.gid() == self.gid {
                    3
                } else {
                    0
                };
                (metadata.permissions().mode() >> shift) & 1 == 1
            })
        })
    }

    /// Gives a file or directory to this account.
    pub fn own(&self, path: &Path) -> Result<()> {
        std::os::unix::fs::chown(path, Some(self.uid), Some(self.gid))
            .map_err(Error::file("change the owner of", path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_found_by_whole_name() {
        let accounts =
            "root:x:0:0::/root:/bin/sh\npostgresql:x:7:7::/:/x\npostgres:x:101:104:a,b:/v:/b\n";
        let user = find(accounts, "postgres").unwrap();
        assert_eq!((user.uid, user.gid), (101, 104));
        assert_eq!(find(accounts, "nobody"), None);
    }

    #[test]
    fn a_closed_directory_is_out_of_reach() {
        let directory = tempfile::tempdir().unwrap();
        let stranger = User {
            name: "x".into(),
            uid: 54_321,
            gid: 54_321,
        };
        let inside = directory.path().join("a");
        let set = |mode| {
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(directory.path(), mode).unwrap();
        };
        set(0o700);
        assert!(!stranger.can_reach(&inside));
        set(0o755);
        assert!(stranger.can_reach(&inside));
    }
}
