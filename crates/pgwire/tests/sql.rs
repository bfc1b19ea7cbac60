//! Plain SQL against a real server.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod support;

use std::time::Duration;

use dr_pgwire::{Connection, Error, TransactionStatus, quote_identifier, quote_literal, sql_state};
use support::Cluster;

#[tokio::test]
async fn values_errors_and_transactions() {
    let cluster = Cluster::start(&[], &[]).await;
    let mut connection = cluster.connect().await;

    assert_eq!(connection.server_version().unwrap().major(), 15);
    assert_eq!(connection.parameter("in_hot_standby"), Some("off"));

    // Values and NULL, by name and by number.
    let rows = connection
        .query("select 1 as one, null as nothing, 'naïve' as text, true as yes, now() as time")
        .await
        .unwrap();
    assert_eq!(rows.columns(), ["one", "nothing", "text", "yes", "time"]);
    let row = rows.only().unwrap();
    assert_eq!(row.get::<i32>("one").unwrap(), 1);
    assert_eq!(row.get::<Option<i32>>(1).unwrap(), None);
    assert_eq!(row.text("text").unwrap().as_deref(), Some("naïve"));
    assert!(row.get::<bool>("yes").unwrap());
    row.get::<jiff::Timestamp>("time").unwrap();
    let error = row.get::<String>("nothing").unwrap_err();
    assert_eq!(
        error.to_string(),
        "column `nothing` holds NULL, which is not a text"
    );
    let error = row.get::<i32>("text").unwrap_err();
    assert_eq!(
        error.to_string(),
        "column `text` holds `naïve`, which is not a 32-bit integer"
    );
    assert!(matches!(row.get::<i32>("two"), Err(Error::Missing(_))));
    assert!(matches!(row.get::<i32>(9), Err(Error::Missing(_))));

    // Several statements in one text.
    let results = connection
        .query_each("create table t (n int primary key); insert into t values (1), (2); table t")
        .await
        .unwrap();
    let tags: Vec<&str> = results.iter().map(dr_pgwire::Rows::tag).collect();
    assert_eq!(tags, ["CREATE TABLE", "INSERT 0 2", "SELECT 2"]);
    assert_eq!(
        connection.execute("update t set n = n + 10").await.unwrap(),
        2
    );
    assert!(connection.query("").await.unwrap().is_empty());

    // Errors carry their fields, and the connection goes on.
    let error = connection.query("select 1; select oops").await.unwrap_err();
    assert_eq!(error.sql_state(), Some("42703"));
    assert_eq!(error.server().unwrap().position, Some(18));
    let error = connection
        .execute("insert into t values (11)")
        .await
        .unwrap_err();
    let server = error.server().unwrap();
    assert_eq!(
        (server.severity.as_str(), server.code.as_str()),
        ("ERROR", "23505")
    );
    assert_eq!(server.constraint.as_deref(), Some("t_pkey"));
    assert_eq!(
        server.detail.as_deref(),
        Some("Key (n)=(11) already exists.")
    );
    let error = connection.query("copy t from stdin").await.unwrap_err();
    assert!(matches!(error, Error::Protocol { .. }), "{error:?}");
    let error = connection.query("copy t to stdout").await.unwrap_err();
    assert!(matches!(error, Error::Protocol { .. }), "{error:?}");
    let error = connection.query("select '\0'").await.unwrap_err();
    assert!(matches!(error, Error::NulInText), "{error:?}");

    // Transactions and notices.
    assert_eq!(connection.transaction_status(), TransactionStatus::Idle);
    connection.execute("begin").await.unwrap();
    assert_eq!(connection.transaction_status(), TransactionStatus::Open);
    connection.execute("select 1/0").await.unwrap_err();
    assert_eq!(connection.transaction_status(), TransactionStatus::Failed);
    connection.execute("rollback").await.unwrap();
    connection.execute("rollback").await.unwrap();
    let [notice] = connection.notices() else {
        panic!("{:?}", connection.notices())
    };
    assert_eq!(
        (notice.severity.as_str(), notice.code.as_str()),
        ("WARNING", "25P01")
    );
    connection.query("select 1").await.unwrap();
    assert!(connection.notices().is_empty());

    // Quoting survives the server, whatever it thinks of backslashes.
    let odd = r#"it's a "\" \\ ünd $1"#;
    for setting in ["on", "off"] {
        connection
            .execute(&format!("set standard_conforming_strings = {setting}"))
            .await
            .unwrap();
        let (literal, name) = (quote_literal(odd), quote_identifier(odd));
        let rows = connection
            .query(&format!("select {literal} as {name}"))
            .await
            .unwrap();
        assert_eq!(rows.only().unwrap().get::<String>(odd).unwrap(), odd);
    }
    connection.close().await.unwrap();
}

#[tokio::test]
async fn a_cancelled_call_makes_the_connection_unusable() {
    let cluster = Cluster::start(&[], &[]).await;
    let mut connection = cluster.connect().await;
    let call = connection.query("select pg_sleep(60)");
    tokio::time::timeout(Duration::from_millis(100), call)
        .await
        .unwrap_err();
    assert!(!connection.is_usable());
    let error = connection.query("select 1").await.unwrap_err();
    assert!(
        matches!(error, Error::Unusable { call: "query", .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_statement_is_cancelled_from_outside() {
    let cluster = Cluster::start(&[], &[]).await;
    let mut connection = cluster.connect().await;
    let handle = connection.cancel_handle();
    let pid = connection.backend_pid().unwrap();
    let mut other = cluster.connect().await;
    let canceller = async {
        let asleep =
            format!("select 1 from pg_stat_activity where pid = {pid} and wait_event = 'PgSleep'");
        while other.query(&asleep).await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        handle.cancel().await.unwrap();
    };
    let (slept, ()) = tokio::join!(connection.query("select pg_sleep(60)"), canceller);
    assert_eq!(
        slept.unwrap_err().sql_state(),
        Some(sql_state::QUERY_CANCELED)
    );
    connection.query("select 1").await.unwrap();
}

#[tokio::test]
async fn a_commit_that_stopped_waiting_for_its_standby_is_noticed() {
    let settings = [("synchronous_standby_names", "nobody")];
    let cluster = Cluster::start(&settings, &[]).await;
    let mut connection = cluster.connect().await;
    let handle = connection.cancel_handle();
    let mut other = cluster.connect().await;
    let canceller = async {
        let waiting = "select 1 from pg_stat_activity where wait_event = 'SyncRep'";
        while other.query(waiting).await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        handle.cancel().await.unwrap();
    };
    let (committed, ()) = tokio::join!(connection.query("create table t ()"), canceller);
    assert_eq!(committed.unwrap().tag(), "CREATE TABLE");
    let [notice] = connection.notices() else {
        panic!("{:?}", connection.notices())
    };
    assert_eq!(notice.severity, "WARNING");
    assert!(
        notice
            .message
            .contains("canceling wait for synchronous replication")
    );
}

#[tokio::test]
async fn the_end_of_a_session_is_reported_as_the_server_said_it() {
    let cluster = Cluster::start(&[], &[]).await;
    let mut connection = cluster.connect().await;
    let pid = connection.backend_pid().unwrap();
    let mut other = cluster.connect().await;
    other
        .query(&format!("select pg_terminate_backend({pid}, 10000)"))
        .await
        .unwrap();
    let error = connection.query("select 1").await.unwrap_err();
    assert_eq!(
        error.sql_state(),
        Some(sql_state::ADMIN_SHUTDOWN),
        "{error:?}"
    );
    assert!(error.server().unwrap().is_fatal());
    let error = connection.query("select 1").await.unwrap_err();
    assert!(matches!(error, Error::Unusable { .. }), "{error:?}");
}

#[tokio::test]
async fn a_server_that_says_nothing_does_not_hold_us() {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let mut config =
        dr_pgwire::Config::new("127.0.0.1", listener.local_addr().unwrap().port(), "x");
    config.connect_timeout = Duration::from_millis(100);
    let error = Connection::connect(&config).await.unwrap_err();
    assert!(matches!(error, Error::ConnectTimeout { .. }), "{error:?}");

    let closed = listener.local_addr().unwrap().port();
    drop(listener);
    let error = Connection::connect(&dr_pgwire::Config::new("127.0.0.1", closed, "x")).await;
    assert!(matches!(error, Err(Error::Connect { .. })), "{error:?}");
}
