//! A walk through directories made by hand; real ones are walked in the tests of whole backups.

use std::os::unix::fs::symlink;

use super::*;

const VERSION: &str = "PG_15_202209061";

/// Makes a data directory out of names, of which those that end in `/` are directories, and walks through it.
fn walk(names: &[&str], prepare: impl FnOnce(&Path)) -> io::Result<(Vec<String>, Walk)> {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("data");
    for name in names.iter().chain(&["pg_tblspc/", "global/pg_control"]) {
        let place = root.join(name);
        if name.ends_with('/') {
            fs::create_dir_all(&place).unwrap();
        } else {
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            fs::write(&place, "x").unwrap();
        }
    }
    prepare(&root);
    let mut walk = Walk::new(&root, 15, 202_209_061)?;
    let mut paths = Vec::new();
    while let Some(items) = walk.next()? {
        for item in items {
            paths.push(match item {
                Item::Directory { path, .. } => format!("{path}/"),
                Item::File(found) => found.path,
            });
        }
    }
    Ok((paths, walk))
}

/// What a server makes anew is no part of a backup (R4).
#[test]
fn what_a_server_makes_anew_is_left_out_and_its_directories_are_kept() {
    let (paths, walk) = walk(
        &[
            "PG_VERSION",
            "postmaster.pid",
            "backup_label.old",
            "pg_wal/000000010000000000000001",
            "pg_replslot/dr/state",
            "pg_xact/0000",
            "base/5/16384",
            "base/5/pg_internal.init",
            "base/5/t3_16390",
            "base/pgsql_tmp/pgsql_tmp7.0",
        ],
        |_| {},
    )
    .unwrap();
    let mut expected = vec![
        "PG_VERSION",
        "base/",
        "global/",
        "pg_replslot/",
        "pg_tblspc/",
        "pg_wal/",
        "pg_wal/archive_status/",
        "pg_xact/",
        "base/5/",
        "base/5/16384",
        "pg_xact/0000",
    ];
    expected.sort_unstable();
    let mut sorted = paths.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, expected);
    assert!(walk.passed_over.is_empty());
    let at = |path| paths.iter().position(|found| found == path).unwrap();
    assert!(at("base/") < at("base/5/") && at("base/5/") < at("base/5/16384"));
}

/// Only an init fork makes a relation unlogged (R4).
#[test]
fn of_an_unlogged_relation_only_the_init_fork_is_kept() {
    let (paths, _) = walk(
        &[
            "base/5/100",
            "base/5/100_fsm",
            "base/5/200",
            "base/5/200.1",
            "base/5/200_vm",
            "base/5/200_init",
            "pg_xact/300_init",
            "pg_xact/300",
        ],
        |_| {},
    )
    .unwrap();
    let files: Vec<_> = paths.iter().filter(|path| path.contains("00")).collect();
    assert_eq!(
        files,
        [
            "base/5/100",
            "base/5/100_fsm",
            "base/5/200_init",
            "pg_xact/300",
            "pg_xact/300_init"
        ]
    );
}

/// Links are followed by their OID (R11).
#[test]
fn tablespaces_are_followed_to_what_is_this_servers() {
    let outside = tempfile::tempdir().unwrap();
    for file in [&format!("{VERSION}/5/16400"), "PG_14_1/5/16400"] {
        let place = outside.path().join(file);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(place, "x").unwrap();
    }
    let (paths, walk) = walk(&[&format!("pg_tblspc/17000/{VERSION}/5/16500")], |root| {
        symlink(outside.path(), root.join("pg_tblspc/16999")).unwrap();
    })
    .unwrap();
    assert!(paths.contains(&format!("pg_tblspc/16999/{VERSION}/5/16400")));
    assert!(paths.contains(&format!("pg_tblspc/17000/{VERSION}/5/16500")));
    assert!(!paths.iter().any(|path| path.contains("PG_14")));
    let place = outside.path().to_str().unwrap().to_owned();
    assert_eq!(walk.tablespaces, BTreeMap::from([(16_999, place)]));
}

/// What lies in the directory already would be there twice (R11).
#[test]
fn links_into_the_directory_itself_are_refused() {
    for target in ["base", "..", "."] {
        let refused = walk(&["base/5/1"], |root| {
            symlink(root.join(target), root.join("pg_tblspc/16999")).unwrap();
        });
        let error = refused.unwrap_err().to_string();
        assert!(
            error.contains("pg_tblspc/16999") && error.contains("itself"),
            "{error}"
        );
    }
}

#[test]
fn a_file_that_was_moved_away_is_kept_as_a_file_and_a_dead_link_is_refused() {
    let outside = tempfile::NamedTempFile::new().unwrap();
    let link = |root: &Path| symlink(outside.path(), root.join("postgresql.conf")).unwrap();
    let (paths, _) = walk(&[], link).unwrap();
    assert!(paths.contains(&"postgresql.conf".to_owned()));
    let dead = walk(&[], |root| {
        symlink("/nowhere/at/all", root.join("pg_hba.conf")).unwrap()
    });
    assert!(dead.unwrap_err().to_string().contains("leads nowhere"));
}

#[test]
fn files_of_pages_are_named_as_the_log_names_them() {
    let root = tempfile::tempdir().unwrap();
    for file in [
        "base/5/16384.1",
        "global/1262",
        "base/5/PG_VERSION",
        "pg_xact/0000",
    ] {
        let place = root.path().join(file);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(place, "x").unwrap();
    }
    let mut walk = Walk::new(root.path(), 15, 1).unwrap();
    let mut found = BTreeMap::new();
    while let Some(items) = walk.next().unwrap() {
        for item in items {
            if let Item::File(file) = item {
                found.insert(
                    file.path,
                    file.pages
                        .map(|pages| (pages.tablespace, pages.database, pages.relation.segment)),
                );
            }
        }
    }
    let expected = [
        ("base/5/16384.1", Some((1663, 5, 1))),
        ("base/5/PG_VERSION", None),
        ("global/1262", Some((1664, 0, 0))),
        ("pg_xact/0000", None),
    ];
    assert_eq!(
        found,
        BTreeMap::from(expected.map(|(path, pages)| (path.to_owned(), pages)))
    );
}
