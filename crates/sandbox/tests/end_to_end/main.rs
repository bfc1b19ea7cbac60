//! Real regions, real processes, the shipped `dr`, and the ledger as the judge: what must hold when something is lost,
//! killed, stopped or in the way.
//!
//! One theme a module. Every wait is for a condition and has a limit; every test ends with no process left.

#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod approvals;
mod archiver;
mod bad_input;
mod bad_stores;
mod bind;
mod by_hand;
mod crash_matrix;
mod daemon;
mod detection;
mod disk_full;
mod executions;
mod faults;
mod gate;
mod hung_primary;
mod in_place;
mod killed_failover;
mod kit;
mod managed;
mod over_ssh;
mod own_steps;
mod partitions;
mod paused_receiver;
mod planned;
mod promise;
mod promotion;
mod readiness;
mod restore;
mod rivals;
mod s3;
mod s3_faults;
mod second_loss;
mod self_fence;
mod several;
mod sinkholes;
mod standby;
mod supervised;
mod support;
mod two_primaries;
mod unprotected;
