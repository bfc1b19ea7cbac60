//! What `dr init --sql` prints, tried on a real PostgreSQL.

#[path = "support/postgres.rs"]
mod postgres;

use dr_config::sql::{Options, PRIVILEGES, Peer, hba, script};
use postgres::Cluster;

fn options() -> Options {
    let peer = |name: &str, address: &str| Peer {
        name: name.into(),
        address: address.into(),
    };
    Options {
        role: "dr".into(),
        database: "postgres".into(),
        peers: vec![
            peer("us-east-1", "10.0.1.10/32"),
            peer("us-west-2", "2001:db8::10/128"),
        ],
    }
}

#[test]
fn the_role_can_do_what_it_must_and_no_more() {
    let cluster = Cluster::start();
    cluster
        .query(
            "postgres",
            "CREATE TABLE ledger (id int); INSERT INTO ledger VALUES (1)",
        )
        .unwrap();

    cluster.query("postgres", "CREATE ROLE dr LOGIN").unwrap();
    for privilege in PRIVILEGES {
        let has = cluster.query("dr", privilege.test_sql);
        assert_eq!(has.as_deref(), Ok("f"), "a bare role: {}", privilege.what);
    }
    for privilege in PRIVILEGES {
        cluster
            .query("postgres", &privilege.statement("dr"))
            .unwrap();
        let has = cluster.query("dr", privilege.test_sql);
        assert_eq!(
            has.as_deref(),
            Ok("t"),
            "after its statement: {}",
            privilege.what
        );
    }
    cluster
        .query(
            "postgres",
            "DROP OWNED BY dr; DROP ROLE dr; DROP SCHEMA dr CASCADE",
        )
        .unwrap();

    let script = script(&options());
    // What the server has more of, for something else, stays: with less it would not even start.
    let set = |name: &str| cluster.query("postgres", &format!("SHOW {name}")).unwrap();
    for more in [
        "wal_level = 'logical'",
        "max_wal_senders = 33",
        "max_slot_wal_keep_size = '2GB'",
    ] {
        let statement = format!("ALTER SYSTEM SET {more}");
        cluster.query("postgres", &statement).unwrap();
    }
    cluster
        .query("postgres", "ALTER SYSTEM SET max_replication_slots = 3")
        .unwrap();
    cluster.script(&script).unwrap();
    cluster.script(&script).expect("it can be run again");
    cluster.control(&["restart", "--mode=fast"]);
    let now = [
        "wal_level",
        "max_wal_senders",
        "max_slot_wal_keep_size",
        "max_replication_slots",
    ];
    assert_eq!(now.map(set), ["logical", "33", "2GB", "10"]);
    for privilege in PRIVILEGES {
        let has = cluster.query("dr", privilege.test_sql);
        assert_eq!(
            has.as_deref(),
            Ok("t"),
            "after the script: {}",
            privilege.what
        );
    }

    for statement in [
        "SELECT pg_backup_start('dr', true); SELECT lsn FROM pg_backup_stop(false)",
        "SELECT pg_switch_wal()",
        "SELECT pg_create_restore_point('before-migration')",
        "SELECT count(*) FROM pg_ls_waldir()",
        "SELECT sent_lsn, application_name FROM pg_stat_replication",
        "SELECT system_identifier FROM pg_control_system()",
        "SELECT pg_current_wal_flush_lsn()",
        "SELECT setdatabase, setrole, setconfig FROM pg_db_role_setting",
        "SHOW primary_conninfo",
        "SHOW synchronous_standby_names",
        "SHOW data_directory",
        "ALTER SYSTEM SET primary_conninfo = ''",
        "ALTER SYSTEM SET primary_slot_name = ''",
        "ALTER SYSTEM SET restore_command = 'false'",
        "ALTER SYSTEM SET recovery_min_apply_delay = 0",
        "ALTER SYSTEM SET synchronous_standby_names = ''",
        "ALTER SYSTEM RESET restore_command",
        "ALTER SYSTEM SET recovery_target = ''",
        "ALTER SYSTEM SET recovery_target_lsn = ''",
        "ALTER SYSTEM SET recovery_target_name = ''",
        "ALTER SYSTEM SET recovery_target_time = ''",
        "ALTER SYSTEM SET recovery_target_timeline = 'latest'",
        "ALTER SYSTEM SET recovery_target_xid = ''",
        "SELECT name, setting, seqno FROM pg_file_settings",
        "SELECT pg_reload_conf()",
        "INSERT INTO dr.heartbeat VALUES (1, now(), 1, 1, 'us-east-1') \
         ON CONFLICT (id) DO UPDATE SET at = now(), sequence = dr.heartbeat.sequence + 1",
        "UPDATE dr.heartbeat SET sequence = 2 WHERE id = 1",
        "SELECT at, sequence, epoch, writer FROM dr.heartbeat",
        "SELECT pg_create_physical_replication_slot('dr_us_west_2', true)",
        "SELECT slot_name, wal_status, safe_wal_size FROM pg_replication_slots",
        "SELECT pg_drop_replication_slot('dr_us_west_2')",
    ] {
        let done = cluster.query("dr", statement);
        assert!(done.is_ok(), "{statement}: {done:?}");
    }
    assert!(cluster.replication("dr", "IDENTIFY_SYSTEM").is_ok());
    assert!(cluster.replication("dr", "SHOW wal_segment_size").is_ok());
    let promoted = cluster
        .query("dr", "SELECT pg_promote(false, 1)")
        .unwrap_err();
    assert!(
        promoted.contains("recovery is not in progress"),
        "it may, but here is no standby"
    );

    for statement in [
        "SELECT * FROM ledger",
        "DELETE FROM dr.heartbeat",
        "DROP TABLE dr.heartbeat",
        "CREATE TABLE dr.other (id int)",
        "CREATE TABLE public.other (id int)",
        "CREATE ROLE other",
        "CREATE DATABASE other",
        "ALTER ROLE dr SUPERUSER",
        "ALTER SYSTEM SET archive_command = 'false'",
        "ALTER SYSTEM SET max_slot_wal_keep_size = '1GB'",
        "SELECT pg_read_file('postgresql.conf')",
        // For `pg_rewind` it may read files of the data directory, and no others.
        "SELECT pg_read_binary_file('/etc/hostname')",
        "SELECT pg_read_binary_file('../outside')",
        "COPY (SELECT 1) TO PROGRAM 'true'",
        "COPY (SELECT 1) TO '/tmp/dr'",
    ] {
        let refused = cluster.query("dr", statement).expect_err(statement);
        let known = [
            "permission denied",
            "must be owner",
            "must be superuser",
            "must be member",
            "absolute path not allowed",
            "must be in or below the",
        ];
        assert!(
            known.iter().any(|why| refused.contains(why)),
            "{statement}: {refused}"
        );
    }
}

#[test]
fn the_role_can_move_a_standby() {
    let primary = Cluster::start();
    primary.script(&script(&options())).unwrap();
    primary.control(&["restart", "--mode=fast"]);
    let standby = Cluster::standby(&primary, "dr");
    for statement in [
        "ALTER SYSTEM SET primary_conninfo = ''",
        "ALTER SYSTEM SET restore_command = 'exit 1'",
        "SELECT pg_reload_conf()",
        "SELECT pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()",
        "SELECT flushed_lsn FROM pg_stat_wal_receiver",
        "SELECT pg_wal_replay_resume()",
        "SELECT pg_create_physical_replication_slot('dr_us_east_1', true)",
    ] {
        let done = standby.query("dr", statement);
        assert!(done.is_ok(), "{statement}: {done:?}");
    }
    assert_eq!(
        standby
            .query("dr", "SELECT pg_promote(true, 30)")
            .as_deref(),
        Ok("t")
    );
    assert_eq!(
        standby.query("dr", "SELECT pg_is_in_recovery()").as_deref(),
        Ok("f")
    );
    let heartbeat = "INSERT INTO dr.heartbeat VALUES (1, now(), 1, 2, 'us-west-2')";
    assert!(standby.query("dr", heartbeat).is_ok());
}

#[test]
fn the_lines_for_pg_hba_are_understood() {
    let cluster = Cluster::start();
    let path = cluster.data().join("pg_hba.conf");
    let mut text = std::fs::read_to_string(&path).unwrap();
    text.push_str(&hba(&options()).join("\n"));
    text.push('\n');
    std::fs::write(&path, text).unwrap();
    let sql = "SELECT count(*) FILTER (WHERE error IS NOT NULL), \
               count(*) FILTER (WHERE 'dr' = ANY (user_name)) FROM pg_hba_file_rules";
    assert_eq!(cluster.query("postgres", sql).as_deref(), Ok("0|4"));
}

#[test]
fn the_role_may_have_any_name() {
    let cluster = Cluster::start();
    let role = "o'dr \"x\"";
    cluster
        .script(&script(&Options {
            role: role.into(),
            ..options()
        }))
        .unwrap();
    let name = cluster.query(
        "postgres",
        "SELECT rolname FROM pg_roles WHERE rolname LIKE 'o%'",
    );
    assert_eq!(name.as_deref(), Ok(role));
}
