//! Physical replication against real servers.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod support;

use dr_model::{Clock, Lsn, SegmentSize, SystemClock, TimelineId};
use dr_pgwire::{Connection, Error, ReplicationEvent, StandbyStatus, sql_state};
use support::{Cluster, PATIENCE};

fn status(lsn: Lsn) -> StandbyStatus {
    let sent_at = SystemClock::new().now();
    StandbyStatus {
        write: lsn,
        flush: lsn,
        apply: Lsn::INVALID,
        sent_at,
        reply_requested: false,
    }
}

async fn insert_lsn(connection: &mut Connection) -> Lsn {
    let rows = connection
        .query("select pg_current_wal_insert_lsn()")
        .await
        .unwrap();
    rows.only().unwrap().get(0).unwrap()
}

#[tokio::test]
async fn the_server_and_its_slots_are_described() {
    let cluster = Cluster::start(&[], &[]).await;
    let mut connection = cluster.connect_replication().await;
    let system = connection.identify_system().await.unwrap();
    let mut sql = cluster.connect().await;
    let rows = sql
        .query("select system_identifier from pg_control_system()")
        .await
        .unwrap();
    assert_eq!(
        rows.only().unwrap().get::<u64>(0).unwrap(),
        system.system_identifier.0
    );
    assert_eq!((system.timeline, system.database), (TimelineId(1), None));
    assert_eq!(connection.show("wal_segment_size").await.unwrap(), "16MB");
    assert_eq!(sql.show("wal_segment_size").await.unwrap(), "16MB");

    assert_eq!(connection.read_slot("dr_test").await.unwrap(), None);
    let slot = connection
        .create_physical_slot("dr_test", true)
        .await
        .unwrap();
    assert_eq!(slot.name, "dr_test");
    let error = connection
        .create_physical_slot("dr_test", true)
        .await
        .unwrap_err();
    assert_eq!(error.sql_state(), Some(sql_state::DUPLICATE_OBJECT));
    let state = connection.read_slot("dr_test").await.unwrap().unwrap();
    assert!(
        state
            .restart_lsn
            .is_some_and(|lsn| lsn <= system.flush_lsn.advance(1 << 20))
    );
    assert_eq!(state.restart_timeline, Some(TimelineId(1)));
    connection
        .create_physical_slot("dr_later", false)
        .await
        .unwrap();
    let state = connection.read_slot("dr_later").await.unwrap().unwrap();
    assert_eq!(state.restart_lsn, None);
    connection.drop_slot("dr_test").await.unwrap();
    let error = connection.drop_slot("dr_test").await.unwrap_err();
    assert_eq!(error.sql_state(), Some(sql_state::UNDEFINED_OBJECT));
    let error = connection
        .timeline_history(TimelineId(7))
        .await
        .unwrap_err();
    assert_eq!(error.sql_state(), Some(sql_state::UNDEFINED_FILE));
    let error = connection.query("select oops(").await.unwrap_err();
    assert!(error.sql_state().is_some());
}

#[tokio::test]
async fn wal_arrives_without_gaps_and_status_is_seen() {
    let cluster = Cluster::start(&[], &[]).await;
    let mut connection = cluster.connect_replication().await;
    let system = connection.identify_system().await.unwrap();
    connection
        .create_physical_slot("dr_test", true)
        .await
        .unwrap();
    let start = SegmentSize::DEFAULT.start_of(system.flush_lsn);
    let stream = connection
        .start_physical_replication(Some("dr_test"), start, system.timeline)
        .await
        .unwrap();
    let (mut reader, writer) = stream.split();

    let mut sql = cluster.connect().await;
    let end = {
        sql.execute("create table t (n int, filler text)")
            .await
            .unwrap();
        for _ in 0..50 {
            let insert = "insert into t select n, repeat('x', 200) from generate_series(1, 2000) n";
            sql.execute(insert).await.unwrap();
        }
        sql.execute("select pg_switch_wal()").await.unwrap();
        sql.execute("insert into t values (0, 'last')")
            .await
            .unwrap();
        insert_lsn(&mut sql).await
    };

    let mut position = start;
    let mut wal = Vec::new();
    while position < end {
        let event = tokio::time::timeout(PATIENCE, reader.next())
            .await
            .unwrap()
            .unwrap();
        match event {
            ReplicationEvent::Wal {
                start,
                server_wal_end,
                sent_at,
                data,
            } => {
                assert_eq!(start, position);
                assert!(server_wal_end >= start);
                assert!(
                    sent_at
                        .duration_until(SystemClock::new().now())
                        .as_secs()
                        .abs()
                        < 60
                );
                position = start.advance(data.len() as u64);
                wal.extend_from_slice(&data);
            }
            ReplicationEvent::KeepAlive { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(wal.len() > 32 << 20);

    // The bytes are those of the server's own files.
    let segment = SegmentSize::DEFAULT;
    for (number, chunk) in wal.chunks(segment.bytes() as usize).enumerate() {
        let name = segment.file_name(
            system.timeline,
            start.advance(number as u64 * segment.bytes()),
        );
        let file = std::fs::read(cluster.data().join("pg_wal").join(&name)).unwrap();
        assert!(chunk == &file[..chunk.len()], "{name}");
    }

    writer
        .send(&StandbyStatus {
            reply_requested: true,
            ..status(position)
        })
        .await
        .unwrap();
    loop {
        let event = tokio::time::timeout(PATIENCE, reader.next())
            .await
            .unwrap()
            .unwrap();
        if let ReplicationEvent::KeepAlive { server_wal_end, .. } = event {
            assert!(server_wal_end >= position);
            break;
        }
    }
    let rows = sql
        .query("select write_lsn, flush_lsn, replay_lsn, application_name from pg_stat_replication")
        .await
        .unwrap();
    let row = rows.only().unwrap();
    assert_eq!(row.get::<Lsn>("write_lsn").unwrap(), position);
    assert_eq!(row.get::<Lsn>("flush_lsn").unwrap(), position);
    assert_eq!(row.get::<Option<Lsn>>("replay_lsn").unwrap(), None);
    assert_eq!(row.get::<String>("application_name").unwrap(), "dr");
    let rows = sql
        .query("select restart_lsn from pg_replication_slots")
        .await
        .unwrap();
    assert_eq!(rows.only().unwrap().get::<Lsn>(0).unwrap(), position);

    // Ending it from our side leaves a session that can run commands.
    writer.finish().await.unwrap();
    loop {
        match tokio::time::timeout(PATIENCE, reader.next())
            .await
            .unwrap()
            .unwrap()
        {
            ReplicationEvent::End { next_timeline } => break assert_eq!(next_timeline, None),
            ReplicationEvent::ServerStopped => panic!("the server stopped"),
            _ => {}
        }
    }
    assert!(matches!(
        reader.next().await,
        Err(Error::StreamState { .. })
    ));
    let mut connection = reader.into_connection(writer).unwrap();
    assert_eq!(
        connection.identify_system().await.unwrap().timeline,
        TimelineId(1)
    );
}

#[tokio::test]
async fn a_timeline_ends_where_the_next_forks_off() {
    let primary = Cluster::start(&[], &[]).await;
    let standby = primary.standby().await;
    let mut sql = standby.connect().await;
    let mut connection = standby.connect_replication().await;
    let system = connection.identify_system().await.unwrap();
    let start = SegmentSize::DEFAULT.start_of(system.flush_lsn);
    let mut stream = connection
        .start_physical_replication(None, start, system.timeline)
        .await
        .unwrap();

    let promoted = sql.query("select pg_promote(true, 30)").await.unwrap();
    assert!(promoted.only().unwrap().get::<bool>(0).unwrap());
    let mut position = start;
    let (timeline, fork) = loop {
        match tokio::time::timeout(PATIENCE, stream.next())
            .await
            .unwrap()
            .unwrap()
        {
            ReplicationEvent::Wal { start, data, .. } => {
                assert_eq!(start, position);
                position = start.advance(data.len() as u64);
            }
            ReplicationEvent::KeepAlive { .. } => {
                stream.send_status(&status(position)).await.unwrap()
            }
            ReplicationEvent::End { next_timeline } => break next_timeline.unwrap(),
            ReplicationEvent::ServerStopped => panic!("the server stopped"),
        }
    };
    assert_eq!((timeline, fork), (TimelineId(2), position));

    let mut connection = stream.into_connection().unwrap();
    let history = connection.timeline_history(timeline).await.unwrap();
    assert_eq!(history.file_name, "00000002.history");
    let text = std::str::from_utf8(&history.content).unwrap();
    assert!(text.contains(&fork.to_string()), "{text}");

    // Asking for the old timeline from its very end gives its end at once.
    let mut stream = connection
        .start_physical_replication(None, fork, TimelineId(1))
        .await
        .unwrap();
    stream.send_status(&status(fork)).await.unwrap();
    let event = stream.next().await.unwrap();
    assert_eq!(
        event,
        ReplicationEvent::End {
            next_timeline: Some((timeline, fork))
        }
    );

    // The new one goes on from there.
    let connection = stream.into_connection().unwrap();
    let mut stream = connection
        .start_physical_replication(None, fork, timeline)
        .await
        .unwrap();
    sql.execute("create table after_promotion ()")
        .await
        .unwrap();
    let event = tokio::time::timeout(PATIENCE, stream.next())
        .await
        .unwrap()
        .unwrap();
    assert!(
        matches!(event, ReplicationEvent::Wal { start, .. } if start == fork),
        "{event:?}"
    );
}

#[tokio::test]
async fn a_server_that_stops_sends_everything_first() {
    let cluster = Cluster::start(&[], &[]).await;
    let mut connection = cluster.connect_replication().await;
    let system = connection.identify_system().await.unwrap();
    let start = SegmentSize::DEFAULT.start_of(system.flush_lsn);
    let mut stream = connection
        .start_physical_replication(None, start, system.timeline)
        .await
        .unwrap();
    let mut position = start;
    cluster.begin_stop();
    loop {
        match tokio::time::timeout(PATIENCE, stream.next())
            .await
            .unwrap()
            .unwrap()
        {
            ReplicationEvent::Wal { start, data, .. } => {
                assert_eq!(start, position);
                position = start.advance(data.len() as u64);
                // It may have closed its end already; what it sent before is still there to be read.
                let _closed = stream.send_status(&status(position)).await;
            }
            ReplicationEvent::KeepAlive { .. } => {
                let _closed = stream.send_status(&status(position)).await;
            }
            ReplicationEvent::ServerStopped => break,
            ReplicationEvent::End { .. } => panic!("the timeline ended"),
        }
    }
    assert!(position >= system.flush_lsn);
    assert!(matches!(
        stream.into_connection(),
        Err(Error::StreamState { .. })
    ));
}

/// Starts streaming and returns the refusal, which the server may send before or after it has
/// agreed to stream.
async fn refusal(
    connection: Connection,
    slot: Option<&str>,
    start: Lsn,
    timeline: TimelineId,
) -> Error {
    let starting = connection.start_physical_replication(slot, start, timeline);
    match starting.await {
        Err(error) => error,
        Ok(mut stream) => {
            let next = tokio::time::timeout(PATIENCE, stream.next()).await.unwrap();
            next.unwrap_err()
        }
    }
}

#[tokio::test]
async fn refusals_come_as_the_server_said_them() {
    let cluster = Cluster::start(&[], &[]).await;
    let mut connection = cluster.connect_replication().await;
    let system = connection.identify_system().await.unwrap();
    let (timeline, far) = (system.timeline, system.flush_lsn.advance(1 << 40));
    let error = refusal(connection, None, far, timeline).await;
    let message = &error.server().unwrap().message;
    assert!(
        message.contains("ahead of the WAL flush position"),
        "{error:?}"
    );

    // WAL that is gone.
    let mut sql = cluster.connect().await;
    for _ in 0..3 {
        let write = "create table if not exists t (n int); insert into t values (1)";
        sql.execute(write).await.unwrap();
        sql.execute("select pg_switch_wal()").await.unwrap();
        sql.execute("checkpoint").await.unwrap();
    }
    let old = SegmentSize::DEFAULT.start_of(system.flush_lsn);
    let error = refusal(cluster.connect_replication().await, None, old, timeline).await;
    assert_eq!(
        error.sql_state(),
        Some(sql_state::UNDEFINED_FILE),
        "{error:?}"
    );

    // A slot that somebody else streams from, and one that does not exist.
    let mut first = cluster.connect_replication().await;
    first.create_physical_slot("busy", true).await.unwrap();
    let at = first.identify_system().await.unwrap().flush_lsn;
    let _stream = first
        .start_physical_replication(Some("busy"), at, timeline)
        .await
        .unwrap();
    let error = refusal(
        cluster.connect_replication().await,
        Some("busy"),
        at,
        timeline,
    )
    .await;
    assert_eq!(
        error.sql_state(),
        Some(sql_state::OBJECT_IN_USE),
        "{error:?}"
    );
    let error = refusal(
        cluster.connect_replication().await,
        Some("none"),
        at,
        timeline,
    )
    .await;
    assert_eq!(
        error.sql_state(),
        Some(sql_state::UNDEFINED_OBJECT),
        "{error:?}"
    );
}
