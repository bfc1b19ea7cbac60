//! The guard: renews the lease of the server in a region, and sees to it that the watcher does its part.
//!
//! A lease counts from when the look that renews it *began*: a look that began after a newer epoch was created finds it, so
//! the old primary has stopped a lease later, wherever the answer was held up (the arithmetic is
//! [`Guard::stopped_after`](dr_coordination::register::Guard::stopped_after)). A standby needs nobody's leave; it becomes subject to
//! the register with its promotion, and counts as guarded only when it was seen to be so afterwards.

use std::process::Stdio;
use std::time::Duration;

use dr_coordination::chain::boot_time;
use dr_coordination::register::EpochRecord;
use dr_model::RegionName;
use dr_provider::error::chain;
use dr_provider::{Error, ErrorKind, Result};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::{mpsc, watch};

use super::lease::{Look, interval, judge, silence};
use super::processes::{Place, Stopping};
use super::{SETTING, WatchOutcome};
use crate::data_directory::DataDirectory;
use crate::driver::PostgresDriver;
use crate::options::GuardOptions;

const OPERATION: &str = "guard";

/// How often what has to end is looked at.
const INTERVAL: Duration = Duration::from_millis(50);

/// What a guard keeps.
#[derive(Clone, Debug)]
pub struct GuardRequest {
    /// The region whose server it is; on this machine.
    pub region: RegionName,
    /// The workload's home region, whose primary runs before there is an epoch.
    pub home: RegionName,
    /// The beginning of the command that is the watcher: behind it stand the data directory, `--`, and the server's command.
    pub watcher: Vec<String>,
}

/// How guarding ended. But for [`Guarded::Foreign`] the server has stopped.
#[derive(Clone, Debug, PartialEq)]
pub enum Guarded {
    /// It ended by itself or somebody stopped it; whether it said that all was well.
    Ended {
        /// Whether its exit status was 0.
        well: bool,
    },
    /// It was stopped because the lease could not be renewed; what the last look said.
    Expired(String),
    /// Another region has the primary: it was stopped, or not started.
    Superseded(Box<EpochRecord>),
    /// The watcher ended or did not answer, and the server was stopped without it.
    Unwatched(String),
    /// A server that this guard has not started runs there; it was left alone.
    Foreign,
}

/// What a guard has to say while it works.
type Said = mpsc::Sender<String>;

/// The watcher as its guard sees it.
struct Watcher {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    /// Leases that it was told and has not answered: when it was told the oldest, and the end of the newest.
    unanswered: Option<(Duration, Duration)>,
    /// The first process of the server, once it has said which.
    server: Option<Pid>,
}

impl Watcher {
    /// Takes a line of the watcher; returns how the server ended if it says so.
    fn heard(&mut self, line: &str) -> Option<WatchOutcome> {
        if let Some(server) = line.strip_prefix("server ") {
            self.server = server.parse().ok().and_then(Pid::from_raw);
            return None;
        }
        if let Some(until) = line.strip_prefix("lease ") {
            let until = until.parse().ok().map(Duration::from_nanos);
            if self.unanswered.map(|(_, newest)| newest) == until {
                self.unanswered = None;
            }
            return None;
        }
        let outcome = line.strip_prefix("ended ")?;
        serde_json::from_str(outcome).ok()
    }

    /// Kills it, whatever it does, and returns what it had to say of the server's end: what was said counts, also if it was not read before
    /// something else failed.
    async fn kill(&mut self) -> Option<WatchOutcome> {
        // One that has ended has no process any more.
        if let Some(pid) = self
            .child
            .id()
            .and_then(|id| Pid::from_raw(id.cast_signed()))
        {
            let _gone = kill_process(pid, Signal::KILL);
        }
        let _status = self.child.wait().await;
        // What it wrote is there. Only somebody else who has the pipe keeps it from ending.
        while let Ok(Ok(Some(line))) = tokio::time::timeout(INTERVAL, self.output.next_line()).await
        {
            if let Some(outcome) = self.heard(&line) {
                return Some(outcome);
            }
        }
        None
    }
}

/// What is known of the server between two looks.
#[derive(Default)]
struct Knowledge {
    /// Whether it was started as a standby that has not been seen to be one yet.
    starting: bool,
}

impl PostgresDriver {
    /// Starts the server of a region once it may run, keeps its lease, and returns when it has stopped. Once `stop` turns true the
    /// server is shut down in good order. `started` turns true when the server has been started, and its value is touched
    /// whenever all is well after that.
    ///
    /// # Errors
    ///
    /// Only if it could not be started: no guard is configured, the host is another machine. That a server runs there already is
    /// [`Guarded::Foreign`].
    pub async fn guard(
        &self,
        request: &GuardRequest,
        said: Said,
        started: watch::Sender<bool>,
        mut stop: watch::Receiver<bool>,
    ) -> Result<Guarded> {
        let instance = self.instance_options(&request.region)?.clone();
        let options = instance.guard.ok_or_else(|| {
            let why = format!("no guard is configured in `{}`", request.region);
            self.invalid(OPERATION, why)
                .with_hint("add `guard: { lease: 10s }` to the instance")
        })?;
        if !self.host(&request.region)?.is_local() {
            let why = format!("its host in `{}` is another machine", request.region);
            return Err(self
                .invalid(OPERATION, why)
                .with_hint("run the guard on the machine of the server"));
        }
        let now = boot_time();
        let mut knowledge = Knowledge {
            starting: self.is_to_be_standby(&instance.data_directory).await?,
        };
        let mut before = None;
        let granted = loop {
            let asked = now();
            match self.look(request, &mut knowledge).await {
                Look::Granted => break asked + options.lease,
                Look::Superseded(record) => return Ok(Guarded::Superseded(record)),
                Look::Withheld(why) => tell(&said, &mut before, why),
            }
            tokio::select! {
                () = tokio::time::sleep(interval(options.lease)) => {}
                _stopped = stop.wait_for(|stop| *stop) => return Ok(Guarded::Ended { well: true }),
            }
        };
        let place = Place::find(&instance.data_directory)
            .map_err(|error| self.failed("find the data directory of", error.to_string()))?;
        let watcher = self.start_watcher(request, &instance.data_directory, &options)?;
        let mut keeper = Keeper {
            driver: self,
            request,
            lease: options.lease,
            place,
            watcher,
            knowledge,
            withheld: None,
            superseded: None,
            said,
        };
        keeper.keep(granted, &started, stop).await
    }

    /// Tells whether the server is going to start as a standby.
    async fn is_to_be_standby(&self, directory: &std::path::Path) -> Result<bool> {
        let signal = directory.join("standby.signal");
        tokio::fs::try_exists(&signal).await.map_err(|error| {
            Error::new(ErrorKind::Failed, "look at", signal.display().to_string()).because(error)
        })
    }

    fn start_watcher(
        &self,
        request: &GuardRequest,
        directory: &std::path::Path,
        options: &GuardOptions,
    ) -> Result<Watcher> {
        let failed = |why: String| self.failed("start the watcher of", why);
        let (program, arguments) = request
            .watcher
            .split_first()
            .ok_or_else(|| failed("no program is named".to_owned()))?;
        let server = self.parts().binaries.join("postgres");
        let setting = format!("{SETTING}={}", options.lease.as_secs());
        let mut child = Command::new(program)
            .args(arguments)
            .arg(directory)
            .arg("--")
            .arg(server)
            .arg("-D")
            .arg(directory)
            .args(["-c", &setting])
            .args(&options.arguments)
            // A signal to the guard's terminal is for the guard.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| failed(error.to_string()))?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(failed("it has no pipes".to_owned()));
        };
        Ok(Watcher {
            child,
            input,
            output: BufReader::new(output).lines(),
            unanswered: None,
            server: None,
        })
    }

    /// Looks whether the server may run for another lease.
    async fn look(&self, request: &GuardRequest, knowledge: &mut Knowledge) -> Look {
        let host = match self.host(&request.region) {
            Ok(host) => host,
            Err(error) => return Look::Withheld(chain(&error)),
        };
        let Ok(instance) = self.instance_options(&request.region) else {
            return Look::Withheld("its instance is not configured".to_owned());
        };
        let directory = &instance.data_directory;
        let found = match DataDirectory::look(&**host, &self.parts().binaries, directory).await {
            Ok(found) => found,
            Err(error) => return Look::Withheld(chain(&error)),
        };
        // A standby that was killed leaves this state behind; without the file it would be started as a primary.
        let recovers = found.state == "in archive recovery";
        // Until recovery begins the control file says what it said before; a promotion takes the file away.
        if recovers || knowledge.starting {
            match self.is_to_be_standby(directory).await {
                Ok(is_standby) => {
                    knowledge.starting = is_standby && !recovers;
                    if is_standby {
                        return Look::Granted;
                    }
                }
                Err(error) => return Look::Withheld(chain(&error)),
            }
        }
        let newest = match self.parts().register.follow().await {
            // A register that ends before an epoch that this machine has acted for is not whole.
            Ok(Some(record)) => match host.admit(&record.workload, record.epoch).await {
                Err(error) if error.kind() == ErrorKind::Superseded => Err(chain(&error)),
                _ => Ok(Some(record)),
            },
            Ok(None) => Ok(None),
            Err(error) => Err(chain(&Error::from(error))),
        };
        judge(newest, &request.region, &request.home)
    }
}

/// A guard at work.
struct Keeper<'a> {
    driver: &'a PostgresDriver,
    request: &'a GuardRequest,
    lease: Duration,
    place: Place,
    watcher: Watcher,
    knowledge: Knowledge,
    withheld: Option<String>,
    superseded: Option<Box<EpochRecord>>,
    said: Said,
}

impl Keeper<'_> {
    async fn keep(
        &mut self,
        granted: Duration,
        started: &watch::Sender<bool>,
        mut stop: watch::Receiver<bool>,
    ) -> Result<Guarded> {
        let now = boot_time();
        let mut stopping = false;
        if let Err(why) = self.grant(granted, now()).await {
            return Ok(self.end_without(why).await);
        }
        let mut next = now() + interval(self.lease);
        loop {
            if let Some(server) = self.watcher.server {
                self.place.follow(server);
            }
            // What the watcher has said comes before what it is thought of.
            let line = tokio::select! {
                biased;
                line = self.watcher.output.next_line() => Some(line),
                _stopped = stop.wait_for(|stop| *stop), if !stopping => {
                    stopping = true;
                    // If it does not take it, the lease ends it.
                    let _told = self.tell_watcher("stop\n").await;
                    None
                }
                () = tokio::time::sleep(INTERVAL) => None,
            };
            match line {
                Some(Ok(Some(line))) => {
                    if let Some(outcome) = self.watcher.heard(&line) {
                        return Ok(self.ended(outcome).await);
                    }
                    started.send_replace(true);
                }
                Some(Ok(None) | Err(_)) => {
                    return Ok(self.end_without("the watcher has ended".to_owned()).await);
                }
                None => {
                    let late = |since: Duration| now().saturating_sub(since) > silence(self.lease);
                    if self
                        .watcher
                        .unanswered
                        .is_some_and(|(since, _)| late(since))
                    {
                        let why = "the watcher does not answer".to_owned();
                        return Ok(self.end_without(why).await);
                    }
                }
            }
            if now() < next {
                continue;
            }
            next = now() + interval(self.lease);
            if let Err(why) = self.renew().await {
                return Ok(self.end_without(why).await);
            }
        }
    }

    /// Looks once, and grants what the look allows.
    async fn renew(&mut self) -> std::result::Result<(), String> {
        let now = boot_time();
        let asked = now();
        let look = self.driver.look(self.request, &mut self.knowledge);
        // A look that hangs is given up before the watcher is taken for dead over it.
        let look = tokio::time::timeout(silence(self.lease) / 2, look).await;
        match look
            .unwrap_or_else(|_| Look::Withheld("the register did not answer in time".to_owned()))
        {
            Look::Granted => {
                self.withheld = None;
                self.grant(asked + self.lease, now()).await
            }
            Look::Withheld(why) => {
                tell(&self.said, &mut self.withheld, why);
                Ok(())
            }
            Look::Superseded(record) => {
                if self.superseded.is_none() {
                    let to = &record.primary;
                    let why = format!(
                        "epoch {} has its primary in {to}: the server is stopped",
                        record.epoch
                    );
                    self.superseded = Some(record);
                    tell(&self.said, &mut self.withheld, why);
                    // In good order, so that whoever streams gets the last of it; the end of the lease cuts it short.
                    self.tell_watcher("stop\n").await?;
                }
                Ok(())
            }
        }
    }

    async fn grant(&mut self, until: Duration, now: Duration) -> std::result::Result<(), String> {
        if self.superseded.is_some() {
            return Ok(());
        }
        let since = self.watcher.unanswered.map_or(now, |(since, _)| since);
        self.watcher.unanswered = Some((since, until));
        self.tell_watcher(&format!("lease {}\n", until.as_nanos()))
            .await
    }

    async fn tell_watcher(&mut self, line: &str) -> std::result::Result<(), String> {
        let gone = |error: std::io::Error| format!("the watcher cannot be told: {error}");
        // A pipe that is full has a reader that has stopped.
        match tokio::time::timeout(
            silence(self.lease),
            self.watcher.input.write_all(line.as_bytes()),
        )
        .await
        {
            Ok(written) => written.map_err(gone),
            Err(_) => Err("the watcher does not read".to_owned()),
        }
    }

    async fn ended(&mut self, outcome: WatchOutcome) -> Guarded {
        let _status = self.watcher.child.wait().await;
        match (self.superseded.take(), outcome) {
            (Some(record), _) => Guarded::Superseded(record),
            (None, WatchOutcome::Ended { well }) => Guarded::Ended { well },
            (None, WatchOutcome::Expired) => {
                let why = self.withheld.take();
                Guarded::Expired(
                    why.unwrap_or_else(|| "the guard was not at work in time".to_owned()),
                )
            }
            (None, WatchOutcome::Orphaned) => {
                Guarded::Unwatched("the watcher took the guard for gone".to_owned())
            }
            (None, WatchOutcome::Foreign) => Guarded::Foreign,
        }
    }

    /// Stops the server without the watcher, which is killed first: that alone makes the postmaster stop. One that has said how the server
    /// ended is taken at its word, and a server that is somebody else's is left alone.
    async fn end_without(&mut self, why: String) -> Guarded {
        if let Some(outcome) = self.watcher.kill().await {
            return self.ended(outcome).await;
        }
        let now = boot_time();
        let mut stopping = Stopping::begin(now());
        while !stopping.go_on(&self.place, None, now()) {
            tokio::time::sleep(INTERVAL).await;
        }
        match self.superseded.take() {
            Some(record) => Guarded::Superseded(record),
            None => Guarded::Unwatched(why),
        }
    }
}

/// Says why the lease is not renewed, once. Nobody needs to listen, and nothing waits for whoever does not.
fn tell(said: &Said, before: &mut Option<String>, why: String) {
    if before.as_ref() != Some(&why) {
        let _lost = said.try_send(why.clone());
        *before = Some(why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Starts a watcher that says something, and waits until it has.
    async fn ended_watcher(lines: &str) -> Watcher {
        let mut child = Command::new("printf")
            .arg(lines)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        child.wait().await.unwrap();
        Watcher {
            child,
            input,
            output: BufReader::new(output).lines(),
            unanswered: None,
            server: None,
        }
    }

    #[tokio::test]
    async fn what_the_watcher_has_said_counts_after_its_end() {
        let mut foreign = ended_watcher("ended \"foreign\"\n").await;
        // Telling it anything fails now, which is no reason to end the server that it has seen.
        foreign.input.write_all(b"lease 1\n").await.unwrap_err();
        assert_eq!(foreign.kill().await, Some(WatchOutcome::Foreign));

        let ended = ended_watcher("server 7\nlease 5\nended {\"ended\":{\"well\":true}}\n");
        let mut ended = ended.await;
        ended.unanswered = Some((Duration::ZERO, Duration::from_nanos(5)));
        assert_eq!(ended.kill().await, Some(WatchOutcome::Ended { well: true }));
        assert_eq!(ended.server, Pid::from_raw(7));
        assert_eq!(ended.unanswered, None);

        let mut silent = ended_watcher("server 7\n").await;
        assert_eq!(silent.kill().await, None);
    }
}
