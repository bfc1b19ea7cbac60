//! Putting into the store what the standby has received beyond it (PROTOCOL 6, step 3).
//!
//! The standby usually is ahead of the store. What it has is promoted, so the store has to have it as well, or the next
//! restore would end before the promotion. Bytes come from the standby's `pg_wal`, exactly up to what it has received.
//!
//! Idempotent because chunks are created only at the tail, and the same bytes there are ours.

use std::sync::Arc;

use dr_coordination::chain::{ChainId, ChainWriter, Chunk, Facts, find_tail};
use dr_model::{Lsn, RegionName, SegmentSize};
use dr_provider::driver::{Applied, Fence, Verified};
use dr_provider::{ErrorKind, Result};
use serde_json::json;

use super::Log;
use crate::driver::PostgresDriver;
use crate::instance::Position;
use crate::receiver::FULL_BYTES;
use crate::register::patience;

/// Tries of one chunk, in about seven seconds.
const GIVE_UP_AFTER: u32 = 8;

const OPERATION: &str = "archive what the standby has received of";

impl PostgresDriver {
    pub(super) async fn archive_surplus(
        &self,
        region: &RegionName,
        log: Log,
        fence: &Fence,
    ) -> Result<Applied> {
        self.admitted(region, fence).await?;
        let (standby, segment_size) = self.standby_position(region).await?;
        let store = Arc::clone(self.store(region)?);
        let chain = ChainId::from(log);
        let Some(tail) = find_tail(&*store, &chain, patience()).await? else {
            return Ok(self.no_surplus(format!(
                "the store of {region} holds no log of epoch {}",
                log.epoch
            )));
        };
        if tail.seal.is_some() || standby.timeline != log.timeline || standby.position <= tail.end {
            return Ok(self.no_surplus(format!(
                "nothing to archive: the store of {region} ends at {}, the standby at {}",
                tail.end, standby.position
            )));
        }
        // The report of the newest chunk stays the newest report: what the primary had said then is covered if this
        // reaches it, and nothing is known of later.
        let (received_at, primary_end) = match &tail.last {
            Some(header) => (header.received_at, header.primary_end.max(tail.end)),
            None => (tail.origin.created_at, standby.position),
        };
        let promise = tail.last.as_ref().and_then(|header| header.promise.clone());
        // Somebody waits for it, and has to be told what the store says before the step's limit hides it.
        let options = dr_coordination::chain::Options {
            give_up_after: Some(GIVE_UP_AFTER),
            ..self.chain_options("surplus of the standby")
        };
        let mut writer = ChainWriter::open(store, chain, tail.origin.start_lsn, options).await?;
        let from = writer.end();
        let mut at = from;
        while at < standby.position {
            let bytes = match self
                .read_wal(region, log, segment_size, at, standby.position)
                .await
            {
                Ok(bytes) => bytes,
                // The store is so far behind that the standby has recycled what is between: what is promoted is the
                // standby, so nothing is lost, but the store has a hole that is named here and refused by restores.
                Err(error) if error.kind() == ErrorKind::NotFound && at == from => {
                    return Ok(self.no_surplus(format!(
                        "the standby has no WAL at {at} any more: the store of {region} lacks {at} to {}",
                        standby.position
                    )));
                }
                Err(error) => return Err(error),
            };
            let length = bytes.len() as u64;
            let facts = Facts {
                commits: 0,
                last_commit_at: None,
                received_at,
                primary_end,
                promise: promise.clone(),
            };
            writer
                .push(Chunk {
                    start: at,
                    log: bytes,
                    facts,
                })
                .await?;
            at = at.advance(length);
        }
        let end = writer.flush().await?;
        Ok(self.applied(
            format!(
                "archived {} bytes from the standby in {region}: {from} to {end}",
                end.bytes_since(from)
            ),
            json!({ "from": from, "to": end }),
        ))
    }

    pub(super) async fn is_surplus_archived(
        &self,
        region: &RegionName,
        log: Log,
    ) -> Result<Verified> {
        let (standby, _) = self.standby_position(region).await?;
        let tail = find_tail(&**self.store(region)?, &ChainId::from(log), patience()).await?;
        match tail {
            Some(tail) if tail.seal.is_none() && tail.end < standby.position => {
                Ok(Verified::NotDone {
                    seen: format!(
                        "the store ends at {}, the standby at {}",
                        tail.end, standby.position
                    ),
                })
            }
            _ => Ok(Verified::Done(
                self.no_surplus("nothing is left to archive".to_owned()),
            )),
        }
    }

    fn no_surplus(&self, summary: String) -> Applied {
        self.applied(summary, json!({}))
    }

    /// Asks the instance where it stands and how long its segments are.
    pub(crate) async fn standby_position(
        &self,
        region: &RegionName,
    ) -> Result<(Position, SegmentSize)> {
        let mut instance = self.connect(region).await?;
        let position = instance.position().await?;
        let sql = "select bytes_per_wal_segment from pg_control_init()";
        let bytes: u32 = instance.scalar("read the WAL segment size of", sql).await?;
        let size = SegmentSize::try_from(bytes)
            .map_err(|error| self.failed("read the WAL segment size of", error.to_string()))?;
        Ok((position, size))
    }

    /// Reads WAL from the instance's `pg_wal`: from `at` to the end of its segment, `to`, or a full chunk.
    pub(crate) async fn read_wal(
        &self,
        region: &RegionName,
        log: Log,
        segment_size: SegmentSize,
        at: Lsn,
        to: Lsn,
    ) -> Result<bytes::Bytes> {
        let name = segment_size.file_name(log.timeline, at);
        let path = self
            .instance_options(region)?
            .data_directory
            .join("pg_wal")
            .join(&name);
        let segment_end = segment_size.start_of(at).advance(segment_size.bytes());
        let length = segment_end.min(to).bytes_since(at).min(FULL_BYTES as u64);
        let bytes = self
            .host(region)?
            .read(&path, segment_size.offset_of(at), length)
            .await?;
        if bytes.len() as u64 == length {
            Ok(bytes)
        } else {
            Err(self.failed(
                OPERATION,
                format!("`{}` is shorter than a segment", path.display()),
            ))
        }
    }
}
