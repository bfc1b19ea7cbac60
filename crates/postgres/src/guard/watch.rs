//! The watcher: PostgreSQL's parent, which stops it when its lease is over or its guard is gone.
//!
//! Once the server runs it does no I/O but on its two pipes and in `/proc`, so that nothing that hangs can keep it from its one duty. It
//! speaks lines: it is told `lease NANOSECONDS`, the CLOCK_BOOTTIME at which the lease ends, and `stop`; it says `server` with the number
//! of the first process, answers each lease with the same line once it is in force, and says `ended` with the outcome when no process of
//! the server is left.
//!
//! If it is killed, the kernel tells the postmaster to shut down immediately: the program in between ([`become_server`]) asks for
//! that and then becomes the postmaster.

use std::io::{BufRead, Write};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use dr_coordination::chain::boot_time;
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use serde::{Deserialize, Serialize};

use super::processes::{Place, Stopping};

/// How often the end of the lease and the server are looked at.
const INTERVAL: Duration = Duration::from_millis(50);

/// Lines that may wait to be read: the guard waits for an answer to each.
const QUEUE: usize = 16;

/// Why the server has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WatchOutcome {
    /// It ended by itself or somebody else stopped it; whether it said that all was well.
    Ended {
        /// Whether its exit status was 0.
        well: bool,
    },
    /// The lease was over.
    Expired,
    /// The guard was gone.
    Orphaned,
    /// None was started: one that is not ours runs in the directory. It was left alone.
    Foreign,
}

/// What the guard tells.
enum Told {
    Lease(Duration),
    Stop,
}

/// Starts the server with `server`, a command that ends in [`become_server`], once a lease is granted, and watches over it until
/// it has ended and no process of it is left. `input` and `output` are the pipes to the guard.
///
/// MUST be called on a thread that lives as long as the process: the end of the thread that starts it stops the server.
pub fn watch(
    directory: &Path,
    server: &[String],
    input: impl BufRead + Send + 'static,
    output: &mut dyn Write,
) -> std::io::Result<WatchOutcome> {
    let told = listen(input);
    let now = boot_time();
    let mut deadline = loop {
        match told.recv() {
            Ok(Told::Lease(until)) if now() < until => break until,
            Ok(Told::Lease(_)) => {}
            Ok(Told::Stop) | Err(_) => return Ok(WatchOutcome::Orphaned),
        }
    };
    let Some((program, arguments)) = server.split_first() else {
        return Err(std::io::Error::other("no server is named"));
    };
    let mut place = Place::find(directory)?;
    // Somebody else's would be stopped, or would not be.
    if !place.processes()?.is_empty() {
        return over(output, WatchOutcome::Foreign);
    }
    let mut child = Command::new(program)
        .args(arguments)
        .env(PARENT, std::process::id().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()?;
    let postmaster = Pid::from_child(&child);
    say(output, &format!("server {postmaster}"))?;
    say(output, &lease(deadline))?;
    let mut asked = false;
    let outcome = loop {
        if let Some(status) = child.try_wait()? {
            break WatchOutcome::Ended {
                well: status.success(),
            };
        }
        place.follow(postmaster);
        if now() >= deadline {
            break WatchOutcome::Expired;
        }
        match told.recv_timeout(INTERVAL) {
            Ok(Told::Lease(until)) => {
                deadline = until;
                say(output, &lease(deadline))?;
            }
            Ok(Told::Stop) => {
                if !std::mem::replace(&mut asked, true) {
                    let _gone = kill_process(postmaster, Signal::INT);
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break WatchOutcome::Orphaned,
        }
    };
    let mut stopping = Stopping::begin(now());
    loop {
        let running = child.try_wait()?.is_none().then_some(postmaster);
        if let Some(postmaster) = running {
            place.follow(postmaster);
        }
        if stopping.go_on(&place, running, now()) && running.is_none() {
            return over(output, outcome);
        }
        // Nobody who speaks here changes anything any more; it is a pause that a closed channel must not cut short.
        let (_never, pause) = sync_channel::<()>(0);
        let _over = pause.recv_timeout(INTERVAL / 2);
    }
}

/// The variable that names the watcher to the program in between.
const PARENT: &str = "DR_GUARD_WATCHER";

/// Becomes the server, whose end is bound to that of the watcher. Returns only if that fails.
pub fn become_server(server: &[String]) -> std::io::Error {
    if let Err(error) = set_parent_process_death_signal(Some(Signal::QUIT)) {
        return error.into();
    }
    // The watcher may have ended before anybody would have been told.
    let parent = std::env::var(PARENT).ok();
    let now = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().to_string());
    if parent.is_none() || parent != now {
        return std::io::Error::other("the process that watches over the server is gone");
    }
    match server.split_first() {
        Some((program, arguments)) => Command::new(program)
            .args(arguments)
            .env_remove(PARENT)
            .exec(),
        None => std::io::Error::other("no server is named"),
    }
}

/// Says how it ended.
fn over(output: &mut dyn Write, outcome: WatchOutcome) -> std::io::Result<WatchOutcome> {
    let text = serde_json::to_string(&outcome).map_err(std::io::Error::other)?;
    say(output, &format!("ended {text}"))?;
    Ok(outcome)
}

fn lease(deadline: Duration) -> String {
    format!("lease {}", deadline.as_nanos())
}

fn say(output: &mut dyn Write, line: &str) -> std::io::Result<()> {
    match writeln!(output, "{line}").and_then(|()| output.flush()) {
        // The other pipe says so too.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Reads lines on a thread of its own; the end of the input closes the channel.
fn listen(input: impl BufRead + Send + 'static) -> Receiver<Told> {
    let (sender, receiver) = sync_channel(QUEUE);
    std::thread::spawn(move || {
        for line in input.lines() {
            let Ok(line) = line else { return };
            let told = match line.split_once(' ') {
                Some(("lease", until)) => until
                    .parse()
                    .ok()
                    .map(|n| Told::Lease(Duration::from_nanos(n))),
                _ if line == "stop" => Some(Told::Stop),
                _ => None,
            };
            // What cannot be understood is from nobody that counts.
            let Some(told) = told else { return };
            if sender.send(told).is_err() {
                return;
            }
        }
    });
    receiver
}

#[cfg(test)]
mod tests;
