//! The address that the daemon answers HTTP on.
//!
//! A daemon that starts takes it or says who is in the way, before anything is written. One that takes over takes it before the one
//! that runs is asked to leave, unless that one has it; then it is tried for until it is free: by then nobody else protects this
//! region, and what follows the log does not wait for an address.

use std::net::SocketAddr;
use std::time::Duration;

use dr_jobs::engine::{Board, Condition};
use dr_model::RegionName;
use dr_provider::error::chain;
use dr_server::Bound;
use tokio::sync::watch;

use crate::error::{CommandError, Result};
use crate::exit::Exit;

/// The line on the board of an address that could not be had at once.
const TASK: &str = "listen";

/// How often a taken address is tried again.
const AGAIN: Duration = Duration::from_millis(200);

/// Takes the address, or says why it cannot be had.
pub(super) async fn take(address: SocketAddr, region: &RegionName) -> Result<Bound> {
    dr_server::bind(address).await.map_err(|error| {
        CommandError::from_error(Exit::Failed, &error).hint(format!(
            "see what listens there, or change `regions.{region}.daemon.listen`"
        ))
    })
}

/// Takes the address as soon as it is free; `None` if `stop` turns true before.
pub(super) async fn take_when_free(
    address: SocketAddr,
    board: &Board,
    mut stop: watch::Receiver<bool>,
) -> Option<Bound> {
    let mut waited = false;
    loop {
        match dr_server::bind(address).await {
            Ok(bound) => {
                if waited {
                    board.set(TASK, Condition::Good(format!("answers on {address}")));
                }
                return Some(bound);
            }
            Err(error) => {
                waited = true;
                let why = format!(
                    "nobody can ask this daemon how it is, it is tried again until the address is free: {}",
                    chain(&error)
                );
                board.set(TASK, Condition::Bad(why));
            }
        }
        tokio::select! {
            () = tokio::time::sleep(AGAIN) => {}
            _stopped = stop.wait_for(|stop| *stop) => return None,
        }
    }
}

/// Tells whether whoever listens on `held` keeps everybody else from `wanted`.
pub(super) fn overlap(held: SocketAddr, wanted: SocketAddr) -> bool {
    let same_address = held.ip() == wanted.ip();
    held.port() == wanted.port()
        && (same_address || held.ip().is_unspecified() || wanted.ip().is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_taken_address_is_had_once_it_is_free() {
        let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap();
        let board = Board::default();
        let (stop, stopped) = watch::channel(false);
        let mut waiting = std::pin::pin!(take_when_free(address, &board, stopped.clone()));
        // One try, and then it waits.
        assert!(futures::poll!(&mut waiting).is_pending());
        while board.conditions().is_empty() {
            tokio::select! {
                _bound = &mut waiting => panic!("the address is taken"),
                () = tokio::task::yield_now() => {}
            }
        }
        assert!(
            matches!(&board.conditions()[TASK], Condition::Bad(why) if why.contains("cannot listen on"))
        );
        drop(taken);
        assert!(waiting.await.is_some());
        assert!(matches!(board.conditions()[TASK], Condition::Good(_)));

        let again = tokio::net::TcpListener::bind(address).await.unwrap();
        stop.send_replace(true);
        assert!(take_when_free(address, &board, stopped).await.is_none());
        drop(again);
    }

    #[test]
    fn an_address_of_all_interfaces_is_in_the_way_of_each() {
        let address = |text: &str| -> SocketAddr { text.parse().unwrap() };
        for (held, wanted, expected) in [
            ("127.0.0.1:8421", "127.0.0.1:8421", true),
            ("0.0.0.0:8421", "127.0.0.1:8421", true),
            ("127.0.0.1:8421", "0.0.0.0:8421", true),
            ("127.0.0.1:8421", "127.0.0.1:8422", false),
            ("127.0.0.1:8421", "127.0.0.2:8421", false),
        ] {
            assert_eq!(
                overlap(address(held), address(wanted)),
                expected,
                "{held} {wanted}"
            );
        }
    }
}
