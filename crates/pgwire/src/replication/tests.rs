//! The stream against a scripted server on an in-memory pipe, for what a real server can't be made
//! to do on demand.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use dr_model::{Lsn, TimelineId};
use jiff::Timestamp;
use rstest::rstest;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::{ReplicationEvent, ReplicationStream, StandbyStatus};
use crate::config::Config;
use crate::connection::Connection;
use crate::error::Error;
use crate::session::Session;
use crate::transport::Transport;

/// A repeatable sequence of odd numbers to vary sizes and moments by.
struct Sequence(u64);

impl Sequence {
    fn below(&mut self, limit: u64) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((self.0 >> 33) % limit).unwrap()
    }
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![tag];
    message.put_u32(u32::try_from(body.len() + 4).unwrap());
    message.extend_from_slice(body);
    message
}

fn wal_message(start: u64, data: &[u8]) -> Vec<u8> {
    let mut body = vec![b'w'];
    body.put_u64(start);
    body.put_u64(start + data.len() as u64);
    body.put_i64(0);
    body.extend_from_slice(data);
    message(b'd', &body)
}

fn connection(pipe: DuplexStream) -> Connection {
    let transport = Transport {
        stream: Box::new(pipe),
        confidential: true,
        channel_binding: None,
    };
    let (reader, writer) = transport.split();
    let mut session = Session::new(Arc::new(Config::new("fake", 1, "dr")));
    session.finish(b'I');
    Connection {
        reader,
        writer,
        session,
    }
}

/// Starts streaming from a server that answers the command with `answer`.
async fn stream(
    mut server: DuplexStream,
    client: DuplexStream,
    answer: &[u8],
) -> (DuplexStream, Result<ReplicationStream, Error>) {
    let command = async {
        assert_eq!(server.read_u8().await.unwrap(), b'Q');
        let length = server.read_u32().await.unwrap() as usize - 4;
        let mut command = vec![0; length];
        server.read_exact(&mut command).await.unwrap();
        assert_eq!(command, b"START_REPLICATION PHYSICAL 0/1000 TIMELINE 1\0");
        server.write_all(answer).await.unwrap();
        server
    };
    let starting = connection(client).start_physical_replication(None, Lsn(0x1000), TimelineId(1));
    tokio::join!(command, starting)
}

const COPY_BOTH: &[u8] = b"W\0\0\0\x07\0\0\0";

#[rstest]
#[tokio::test]
async fn nothing_is_lost_when_calls_are_cancelled(#[values(7, 64)] pipe_bytes: usize) {
    const MESSAGES: u64 = 3000;
    let (server, client) = tokio::io::duplex(pipe_bytes);
    let (server, stream) = stream(server, client, COPY_BOTH).await;
    let (mut reader, writer) = stream.unwrap().split();
    let (mut from_client, mut to_client) = tokio::io::split(server);

    let sender = tokio::spawn(async move {
        let mut sizes = Sequence(1);
        let mut start = 0x1000;
        for number in 0..MESSAGES {
            let data = vec![number.to_le_bytes()[0]; sizes.below(300)];
            to_client
                .write_all(&wal_message(start, &data))
                .await
                .unwrap();
            start += data.len() as u64;
        }
        to_client.write_all(&message(b'c', b"")).await.unwrap();
        for part in [message(b'C', b"START_STREAMING\0"), message(b'Z', b"I")] {
            to_client.write_all(&part).await.unwrap();
        }
        start
    });
    let receiver = tokio::spawn(async move {
        let mut received = Vec::new();
        from_client.read_to_end(&mut received).await.unwrap();
        received
    });

    let mut moments = Sequence(2);
    let mut position = Lsn(0x1000);
    let (mut messages, mut cancelled_reads, mut statuses) = (0, 0, 0_u64);
    loop {
        let pause = moments.below(3);
        tokio::select! {
            biased;
            () = yields(pause) => cancelled_reads += 1,
            event = reader.next() => match event.unwrap() {
                ReplicationEvent::Wal { start, data, .. } => {
                    assert_eq!(start, position);
                    let expected = u64::to_le_bytes(messages)[0];
                    assert!(data.iter().all(|byte| *byte == expected), "message {messages}");
                    messages += 1;
                    position = start.advance(data.len() as u64);
                }
                ReplicationEvent::End { next_timeline } => break assert_eq!(next_timeline, None),
                other => panic!("{other:?}"),
            },
        }
        // A status may be cancelled while it waits for the pipe; the stream of messages must stay
        // whole.
        let pause = moments.below(4);
        let status = StandbyStatus {
            write: position,
            flush: position,
            apply: Lsn::INVALID,
            sent_at: Timestamp::UNIX_EPOCH,
            reply_requested: true,
        };
        tokio::select! {
            biased;
            () = yields(pause) => {}
            sent = writer.send(&status) => { sent.unwrap(); statuses += 1; }
        }
    }
    assert_eq!((messages, position), (MESSAGES, Lsn(sender.await.unwrap())));
    assert!(cancelled_reads > 1000, "{cancelled_reads}");

    reader
        .into_connection(writer)
        .unwrap()
        .close()
        .await
        .unwrap();
    let mut received = Bytes::from(receiver.await.unwrap());
    let (mut seen, mut last) = (0, Lsn(0));
    while received[0] == b'd' {
        let mut status = received.split_to(39);
        assert_eq!(&status[..6], b"d\0\0\0\x26r");
        status.advance(6);
        let write = Lsn(status.get_u64());
        assert!(write >= last);
        (seen, last) = (seen + 1, write);
    }
    assert!(seen >= statuses, "{seen} of {statuses}");
    assert_eq!(received.as_ref(), b"c\0\0\0\x04X\0\0\0\x04");
}

/// Lets others run some times; never ready at once.
async fn yields(times: usize) {
    for _ in 0..=times {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn feedback_goes_out_while_nobody_reads() {
    let (server, client) = tokio::io::duplex(4096);
    let (mut server, stream) = stream(server, client, COPY_BOTH).await;
    let (mut reader, writer) = stream.unwrap().split();
    // A reader that waits in its own task holds no lock that a status needs.
    let waiting = tokio::spawn(async move { reader.next().await });
    tokio::task::yield_now().await;
    let status = StandbyStatus {
        write: Lsn(3),
        flush: Lsn(2),
        apply: Lsn(1),
        sent_at: "2000-01-01T00:00:01Z".parse().unwrap(),
        reply_requested: false,
    };
    writer.send(&status).await.unwrap();
    let mut sent = [0; 39];
    server.read_exact(&mut sent).await.unwrap();
    let mut expected = BytesMut::from(&b"d\0\0\0\x26r"[..]);
    for number in [3, 2, 1, 1_000_000] {
        expected.put_u64(number);
    }
    expected.put_u8(0);
    assert_eq!(sent.as_slice(), &expected[..]);

    let mut keepalive = vec![b'k'];
    keepalive.put_u64(9);
    keepalive.put_i64(2_000_000);
    keepalive.put_u8(1);
    server.write_all(&message(b'd', &keepalive)).await.unwrap();
    let event = waiting.await.unwrap().unwrap();
    let sent_at = "2000-01-01T00:00:02Z".parse().unwrap();
    let expected = ReplicationEvent::KeepAlive {
        server_wal_end: Lsn(9),
        sent_at,
        reply_requested: true,
    };
    assert_eq!(event, expected);
}

#[rstest]
#[case::unknown_kind(&message(b'd', b"?"))]
#[case::empty(&message(b'd', b""))]
#[case::short_wal(&message(b'd', b"w\0\0\0"))]
#[case::short_keepalive(&message(b'd', &[b'k', 0, 0, 0, 0, 0, 0, 0, 1]))]
#[case::time_out_of_range(&message(b'd', &[b"k", &[0xff; 8][..], &[0x7f; 8], &[0]].concat()))]
#[case::unknown_tag(&message(b'?', b""))]
#[case::negative_length(b"d\xff\xff\xff\xff")]
#[case::huge_length(b"d\x7f\xff\xff\xff")]
#[case::out_of_place(&message(b'1', b""))]
#[tokio::test]
async fn nonsense_ends_the_stream(#[case] nonsense: &[u8]) {
    let (server, client) = tokio::io::duplex(4096);
    let (mut server, stream) = stream(server, client, COPY_BOTH).await;
    let mut stream = stream.unwrap();
    server.write_all(nonsense).await.unwrap();
    let error = stream.next().await.unwrap_err();
    assert!(matches!(error, Error::Protocol { .. }), "{error:?}");
    assert!(matches!(
        stream.next().await,
        Err(Error::StreamState { .. })
    ));
}

#[tokio::test]
async fn a_lost_connection_is_not_an_end() {
    for cut in [&b""[..], &wal_message(0x1000, b"abc")[..10]] {
        let (server, client) = tokio::io::duplex(4096);
        let (mut server, stream) = stream(server, client, COPY_BOTH).await;
        let mut stream = stream.unwrap();
        server.write_all(cut).await.unwrap();
        drop(server);
        let error = stream.next().await.unwrap_err();
        assert!(
            matches!(error, Error::Closed { .. } | Error::Io { .. }),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn a_start_that_is_not_one_is_refused() {
    let (server, client) = tokio::io::duplex(4096);
    let (_server, stream) = stream(server, client, &message(b'C', b"SELECT 1\0")).await;
    assert!(matches!(stream.unwrap_err(), Error::Protocol { .. }));
}
