//! Letting the instance replay everything up to the seal (PROTOCOL 6, steps 3 and 5).
//!
//! Where the store is ahead of the instance, the rest is served through `restore_command`, with the last segment cut off
//! at the seal; where it is not, nothing is served. The seal may stand inside a record, so what has to be reached is the
//! end of the last record that is complete and has a right checksum.
//!
//! Idempotent because replay only goes forward and the settings are the same however often they are written.

use std::sync::Arc;
use std::time::Duration;

use dr_coordination::chain::{ChainId, ChainReader, Section, find_tail};
use dr_model::{Lsn, RegionName, SegmentSize};
use dr_pgwire::quote_literal;
use dr_provider::driver::{Applied, Fence, Verified};
use dr_provider::{Error, ErrorKind, Result};
use serde_json::json;

use super::Log;
use crate::driver::PostgresDriver;
use crate::instance::{Instance, Position};
use crate::register::patience;
use crate::wait::{Deadline, Standstill};
use crate::wal::{Decoder, Expected};

/// How long replay may stand still before it is given up: a large transaction or a slow disk takes its time.
const STANDSTILL: Duration = Duration::from_secs(60);

/// How long a changed setting may take to be seen.
const RELOAD_LIMIT: Duration = Duration::from_secs(10);

/// How many segments are read backwards for the end of the last record: one record is at most 1 GiB long.
const SEGMENTS_BACK: u64 = 1 << 10;

/// Sessions of a standby that see rows which the log removes: with `max_standby_streaming_delay` off, replay waits for them, and says
/// nothing of it (PostgreSQL manual, 26.4.2).
const HOLDERS: &str = "select string_agg(format('%s of %s since %s', pid, usename, xact_start), ', ') from pg_stat_activity \
                       where backend_type = 'client backend' and pid <> pg_backend_pid() and backend_xmin is not null";

const OPERATION: &str = "replay the log of";

/// What has to be reached, and from where.
struct Tail {
    seal: Lsn,
    needed: Lsn,
    /// Whether the instance has to be served from the store.
    served: bool,
}

impl PostgresDriver {
    pub(super) async fn replay_tail(
        &self,
        region: &RegionName,
        log: Log,
        fence: &Fence,
    ) -> Result<Applied> {
        self.admitted(region, fence).await?;
        let (standby, segment_size) = self.standby_position(region).await?;
        if !standby.in_recovery {
            return Ok(self.replayed(region, &standby, standby.position));
        }
        let tail = self.tail(region, log, &standby, segment_size).await?;
        let mut instance = self.connect(region).await?;
        if tail.served {
            self.serve_tail(&mut instance, region, tail.seal).await?;
        }
        // A person may have paused it; paused, it would wait for ever.
        instance
            .query(
                OPERATION,
                "select pg_wal_replay_resume() where pg_is_wal_replay_paused()",
            )
            .await?;
        let delay = self.end_delay(&mut instance).await?;
        let mut standstill = Standstill::new(self.clock(), STANDSTILL);
        loop {
            let position = instance.position().await?;
            let replayed = position.replayed.unwrap_or_default();
            if !position.in_recovery || replayed >= tail.needed {
                let mut applied = self.replayed(region, &position, tail.needed);
                if let Some(delay) = delay {
                    applied.summary.push_str(&format!(
                        "; `recovery_min_apply_delay` was {delay} and is 0 now"
                    ));
                }
                return Ok(applied);
            }
            if !standstill.pause(Some(replayed)).await {
                let needed = tail.needed;
                let mut why = format!(
                    "the instance in {region} stands still at {replayed} and has to reach {needed}"
                );
                let holds = instance.scalar::<Option<String>>(OPERATION, HOLDERS).await;
                let hint = match holds.ok().flatten() {
                    Some(sessions) => {
                        why.push_str(&format!(
                            "; sessions on it that replay may wait for: {sessions}"
                        ));
                        "end them on that server, by `select pg_terminate_backend(NUMBER)`"
                    }
                    None => "its server log says what it waits for",
                };
                return Err(self.failed(OPERATION, why).with_hint(hint));
            }
        }
    }

    /// Takes back the delay with which a standby is kept behind, which would be waited for with each commit; returns what it was.
    async fn end_delay(&self, instance: &mut Instance) -> Result<Option<String>> {
        const DELAY: &str = "select current_setting('recovery_min_apply_delay')";
        let delay: String = instance.scalar(OPERATION, DELAY).await?;
        if delay == "0" {
            return Ok(None);
        }
        let hint = "take `recovery_min_apply_delay` back, and go on";
        for sql in [
            "alter system set recovery_min_apply_delay = 0",
            "select pg_reload_conf()",
        ] {
            let set = instance.query(OPERATION, sql).await;
            set.map_err(|error| error.with_hint(hint))?;
        }
        // A setting on the command line goes before one in a file. A session hears of the reload between two statements.
        let deadline = Deadline::new(self.clock(), RELOAD_LIMIT);
        while instance.scalar::<String>(OPERATION, DELAY).await? != "0" {
            if !deadline.pause().await {
                let why = format!("`recovery_min_apply_delay` is {delay}, and stays so");
                return Err(self.failed(OPERATION, why).with_hint(hint));
            }
        }
        Ok(Some(delay))
    }

    pub(super) async fn is_tail_replayed(&self, region: &RegionName, log: Log) -> Result<Verified> {
        let (standby, segment_size) = self.standby_position(region).await?;
        if !standby.in_recovery {
            return Ok(Verified::Done(self.replayed(
                region,
                &standby,
                standby.position,
            )));
        }
        let tail = self.tail(region, log, &standby, segment_size).await?;
        let replayed = standby.replayed.unwrap_or_default();
        if replayed >= tail.needed {
            Ok(Verified::Done(self.replayed(region, &standby, tail.needed)))
        } else {
            let seen = format!("replayed {replayed}, {} has to be reached", tail.needed);
            Ok(Verified::NotDone { seen })
        }
    }

    fn replayed(&self, region: &RegionName, position: &Position, needed: Lsn) -> Applied {
        let replayed = position.replayed.unwrap_or(position.position);
        self.applied(
            format!(
                "the instance in {region} has replayed {replayed}; the last record ends at {needed}"
            ),
            json!({ "replayed": replayed, "needed": needed }),
        )
    }

    /// Finds what has to be reached.
    async fn tail(
        &self,
        region: &RegionName,
        log: Log,
        standby: &Position,
        segment_size: SegmentSize,
    ) -> Result<Tail> {
        let store = self.store(region)?;
        let found = find_tail(&**store, &ChainId::from(log), patience()).await?;
        let Some(found) = found.filter(|tail| tail.seal.is_some()) else {
            return Err(self.failed(
                OPERATION,
                format!("epoch {} is not sealed in {region}", log.epoch),
            ));
        };
        // What the instance has beyond the seal could not be archived (the store has a hole); it is promoted all the same.
        let end = standby.position.max(found.end);
        let needed = self
            .last_record_end(region, log, segment_size, standby.position, end)
            .await?
            .unwrap_or_else(|| standby.replayed.unwrap_or_default());
        Ok(Tail {
            seal: found.end,
            needed,
            served: standby.position < found.end,
        })
    }

    /// Returns the end of the last complete record before `end`; `None` if no record begins and ends in what is there.
    async fn last_record_end(
        &self,
        region: &RegionName,
        log: Log,
        segment_size: SegmentSize,
        received: Lsn,
        end: Lsn,
    ) -> Result<Option<Lsn>> {
        let expected = Expected {
            system_identifier: log.system_identifier,
            timeline: log.timeline,
        };
        let mut start = segment_size.start_of(Lsn(end.0.saturating_sub(1)));
        for _ in 0..SEGMENTS_BACK {
            let decoder = Decoder::new(start, segment_size, Some(expected));
            let decoder = match self
                .follow_both(region, log, segment_size, decoder, received, end)
                .await
            {
                Ok(decoder) => decoder,
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error),
            };
            if let Some(valid) = decoder.last_end() {
                return Ok(Some(valid));
            }
            let Some(before) = start.0.checked_sub(segment_size.bytes()) else {
                return Ok(None);
            };
            start = Lsn(before);
        }
        Ok(None)
    }

    /// Follows the log from where `decoder` stands to `end`: what the instance has received from its own files, and only
    /// the rest from the store, where a segment of a quiet database is made of very many chunks.
    async fn follow_both(
        &self,
        region: &RegionName,
        log: Log,
        segment_size: SegmentSize,
        mut decoder: Decoder,
        received: Lsn,
        end: Lsn,
    ) -> Result<Decoder> {
        let mut at = decoder.position();
        // Where the log ends before that, a server would stop as well, and what is behind says nothing.
        let mut follow = |bytes: &[u8]| drop(decoder.feed(bytes, |_| ()));
        while at < received.min(end) {
            match self
                .read_wal(region, log, segment_size, at, received.min(end))
                .await
            {
                Ok(piece) => {
                    at = at.advance(piece.len() as u64);
                    follow(&piece);
                }
                // An instance that was restored keeps no file of what it was served.
                Err(error) if error.kind() == ErrorKind::NotFound && received <= end => break,
                Err(error) => return Err(error),
            }
        }
        if at < end {
            let store = Arc::clone(self.store(region)?);
            let cluster = log.system_identifier;
            let opened = ChainReader::open(
                store,
                Section::new(cluster, log.timeline, at, end),
                patience(),
            );
            let mut reader = opened.await?.with_keys(self.keys());
            while let Some((_, bytes)) = reader.next().await? {
                follow(&bytes);
            }
        }
        Ok(decoder)
    }

    /// Makes the instance fetch from the store, up to the seal.
    async fn serve_tail(
        &self,
        instance: &mut Instance,
        region: &RegionName,
        seal: Lsn,
    ) -> Result<()> {
        let command = quote_literal(&self.restore_command(region, Some(seal))?);
        let operation = "serve the tail to";
        instance
            .query(
                operation,
                &format!("alter system set restore_command = {command}"),
            )
            .await?;
        // The reload wakes the startup process, which otherwise looks again after `wal_retrieve_retry_interval`.
        instance.query(operation, "select pg_reload_conf()").await?;
        Ok(())
    }

    /// Returns the command of a server that is kept as a standby in `region`: it asks again, so that nothing it cannot have now ends
    /// it (ADR 13).
    pub(crate) fn standby_restore_command(&self, region: &RegionName) -> Result<String> {
        Ok(self.restore_command(region, None)? + " --standby")
    }

    /// Returns the command by which a server of `region` fetches WAL, for PostgreSQL to hand to a shell.
    pub(crate) fn restore_command(
        &self,
        region: &RegionName,
        through: Option<Lsn>,
    ) -> Result<String> {
        let mut words = self.parts().program.clone();
        words.extend([
            "wal".to_owned(),
            "fetch".to_owned(),
            self.resource().to_string(),
        ]);
        let mut command = words
            .iter()
            .map(|word| shell_word(word))
            .collect::<Result<Vec<_>>>()?;
        // Replaced by the server: the file's name and where to put it.
        command.extend([
            "%f".to_owned(),
            "%p".to_owned(),
            "--in".to_owned(),
            region.to_string(),
        ]);
        if let Some(through) = through {
            command.extend(["--through".to_owned(), through.to_string()]);
        }
        Ok(command.join(" "))
    }
}

/// Quotes a word for the shell that runs `restore_command`, in which `%` has a meaning of its own.
fn shell_word(word: &str) -> Result<String> {
    if word.contains(['\0', '\n']) {
        return Err(Error::new(ErrorKind::Invalid, "quote for a shell", word)
            .because("it holds a line break"));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:=@,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return Ok(word.to_owned());
    }
    Ok(format!(
        "'{}'",
        word.replace('\'', r"'\''").replace('%', "%%")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_the_shell_and_the_server() {
        assert_eq!(shell_word("/usr/bin/dr").unwrap(), "/usr/bin/dr");
        assert_eq!(shell_word("/a b/100%'s").unwrap(), r"'/a b/100%%'\''s'");
        assert!(shell_word("a\nb").is_err());
    }
}
