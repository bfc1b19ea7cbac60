//! What the names in a data directory mean: what is left out of a backup, and which files consist of pages (R4).

/// Directories whose content a server makes anew; they are kept, empty.
const EMPTIED: [&str; 8] = [
    "pg_dynshmem",
    "pg_notify",
    "pg_replslot",
    "pg_serial",
    "pg_snapshots",
    "pg_stat_tmp",
    "pg_subtrans",
    "pg_wal",
];

/// Files of the data directory itself that belong to a running server, to a recovery or to another backup.
const LEFT_OUT: [&str; 14] = [
    "backup_label",
    "backup_label.old",
    "backup_manifest",
    "current_logfiles",
    "current_logfiles.tmp",
    "postgresql.auto.conf.tmp",
    "postmaster.opts",
    "postmaster.pid",
    "recovery.conf",
    "recovery.done",
    "recovery.signal",
    "standby.signal",
    "tablespace_map",
    "tablespace_map.old",
];

/// A fork of a relation: one of the files that together hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Fork {
    Main,
    FreeSpace,
    Visibility,
    Init,
}

/// A file of a relation, as its name says: `16384_fsm.2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Relation {
    /// Its file number, which all its forks share.
    pub(crate) number: u32,
    pub(crate) fork: Fork,
    /// Which of the fork's files it is, from zero.
    pub(crate) segment: u32,
}

/// Tells whether the content of a directory of the data directory is left out.
pub(crate) fn is_emptied(name: &str) -> bool {
    EMPTIED.contains(&name)
}

/// Tells whether a file or directory called `name` is left out; `top` says that it stands in the data directory itself.
pub(crate) fn is_left_out(name: &str, top: bool) -> bool {
    name.starts_with("pgsql_tmp")
        || name.starts_with("pg_internal.init")
        || is_temporary_relation(name)
        || (top && LEFT_OUT.contains(&name))
}

/// Tells whether a name is that of a temporary table's file: `t3_16384`, whatever its fork and segment.
fn is_temporary_relation(name: &str) -> bool {
    let Some((backend, relation)) = name.strip_prefix('t').and_then(|rest| rest.split_once('_'))
    else {
        return false;
    };
    !backend.is_empty()
        && backend.bytes().all(|byte| byte.is_ascii_digit())
        && Relation::parse(relation).is_some()
}

impl Relation {
    /// Reads a file's name; `None` if it is not that of a relation. Such names stand only in the directories of
    /// databases and in `global`.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let (name, segment) = match name.split_once('.') {
            // The first file of a fork has no number, so that none is called `.0`.
            Some((name, segment)) => (name, number(segment).filter(|segment| *segment > 0)?),
            None => (name, 0),
        };
        let (digits, fork) = match name.split_once('_') {
            None => (name, Fork::Main),
            Some((digits, "fsm")) => (digits, Fork::FreeSpace),
            Some((digits, "vm")) => (digits, Fork::Visibility),
            Some((digits, "init")) => (digits, Fork::Init),
            Some(_) => return None,
        };
        Some(Self {
            number: number(digits)?,
            fork,
            segment,
        })
    }
}

fn number(digits: &str) -> Option<u32> {
    let plain = !digits.is_empty()
        && !digits.starts_with('0')
        && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("16384", Some((16_384, Fork::Main, 0)))]
    #[case("16384.12", Some((16_384, Fork::Main, 12)))]
    #[case("16384_fsm", Some((16_384, Fork::FreeSpace, 0)))]
    #[case("16384_vm.1", Some((16_384, Fork::Visibility, 1)))]
    #[case("16384_init", Some((16_384, Fork::Init, 0)))]
    #[case("16384.0", None)]
    #[case("016384", None)]
    #[case("16384_toast", None)]
    #[case("t3_16384", None)]
    #[case("pg_filenode.map", None)]
    #[case("PG_VERSION", None)]
    #[case("99999999999", None)]
    #[case("", None)]
    fn relations(#[case] name: &str, #[case] expected: Option<(u32, Fork, u32)>) {
        let found = Relation::parse(name).map(|found| (found.number, found.fork, found.segment));
        assert_eq!(found, expected);
    }

    #[rstest]
    #[case("t3_16384", false, true)]
    #[case("t3_16384_fsm.1", false, true)]
    #[case("t_16384", false, false)]
    #[case("table_1", false, false)]
    #[case("pgsql_tmp", false, true)]
    #[case("pgsql_tmp123.4", false, true)]
    #[case("pg_internal.init.77", false, true)]
    #[case("postmaster.pid", true, true)]
    #[case("postmaster.pid", false, false)]
    #[case("backup_label", true, true)]
    #[case("pg_control", false, false)]
    #[case("PG_VERSION", true, false)]
    fn what_is_left_out(#[case] name: &str, #[case] top: bool, #[case] expected: bool) {
        assert_eq!(is_left_out(name, top), expected);
    }
}
