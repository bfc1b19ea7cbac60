//! A connection to the far side, over which requests go one after the other.
//!
//! Making one takes half a dozen round trips, and what is done on a host is a dozen small requests. So one that has answered is
//! kept for the next request, for a few seconds: nothing is kept alive longer, and nothing is sent over it by itself.

use std::io;
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::task::JoinHandle;

use crate::remote::Answer;

/// How long a connection may be idle.
const IDLE: Duration = Duration::from_secs(5);

/// A connection that is open, or being made: the first request waits for that.
#[derive(Debug)]
pub(super) struct Connection {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    stderr: JoinHandle<Vec<u8>>,
}

impl Connection {
    /// Runs the client with these words; ended when dropped.
    pub(super) fn open(words: &[String]) -> io::Result<Self> {
        let [program, arguments @ ..] = words else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let mut child = tokio::process::Command::new(program)
            .args(arguments)
            .env_remove("SSH_AUTH_SOCK")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(stdin), Some(stdout), Some(mut stderr)) = pipes else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        let stderr = tokio::spawn(async move {
            let mut said = Vec::new();
            // What was said before it broke is all there is.
            stderr.read_to_end(&mut said).await.ok();
            said
        });
        Ok(Self {
            child,
            stdin,
            stdout: BufReader::new(stdout),
            stderr,
        })
    }

    /// Sends a request, a whole line, and waits for its answer; `None` if the far side ends without one.
    pub(super) async fn ask(&mut self, line: &[u8]) -> Option<Answer> {
        // Whoever cannot read it says why on its way out.
        self.stdin.write_all(line).await.ok();
        self.stdin.flush().await.ok();
        loop {
            let mut line = Vec::new();
            match self.stdout.read_until(b'\n', &mut line).await {
                Ok(0) | Err(_) => return None,
                // A login may greet.
                Ok(_) => {
                    if let Ok(answer) = serde_json::from_slice(&line) {
                        return Some(answer);
                    }
                }
            }
        }
    }

    /// Waits for the client's end, and returns how it ended and what it said.
    pub(super) async fn end(mut self) -> io::Result<Output> {
        drop(self.stdin);
        let status = self.child.wait().await?;
        Ok(Output {
            status,
            stdout: Vec::new(),
            stderr: self.stderr.await.unwrap_or_default(),
        })
    }

    fn is_open(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

/// Connections that wait for the next request.
#[derive(Clone, Debug, Default)]
pub(super) struct Kept(Arc<Mutex<Idle>>);

#[derive(Debug, Default)]
struct Idle {
    /// How many have been put here.
    count: u64,
    /// Each with its number.
    connections: Vec<(u64, Connection)>,
}

impl Kept {
    /// Takes one that is open.
    pub(super) fn take(&self) -> Option<Connection> {
        let mut idle = lock(&self.0);
        while let Some((_, mut connection)) = idle.connections.pop() {
            if connection.is_open() {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps one that has answered.
    pub(super) fn put(&self, connection: Connection) {
        let number = {
            let mut idle = lock(&self.0);
            idle.count += 1;
            let number = idle.count;
            idle.connections.push((number, connection));
            number
        };
        // Who holds the host holds the connections; this alone does not.
        let kept = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            tokio::time::sleep(IDLE).await;
            if let Some(kept) = kept.upgrade() {
                lock(&kept)
                    .connections
                    .retain(|(other, _)| *other != number);
            }
        });
    }
}

fn lock(idle: &Mutex<Idle>) -> MutexGuard<'_, Idle> {
    idle.lock().unwrap_or_else(PoisonError::into_inner)
}
