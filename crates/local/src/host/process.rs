//! Commands on this machine.

use std::io::ErrorKind as IoErrorKind;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use dr_provider::host::{Command, Output};
use dr_provider::{Error, ErrorKind, Result};
use rustix::process::{Pid, Signal};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, ChildStderr, ChildStdout};

use crate::errno::io_kind;

/// The variables that a command inherits; everything else is cleared, so that neither `PGPASSWORD`
/// nor `LD_PRELOAD` of whoever started `dr` reaches it.
pub const INHERITED_ENVIRONMENT: [&str; 10] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "LC_MESSAGES",
    "TMPDIR",
    "TZ",
];

/// Bytes kept of each of standard output and standard error; the rest is read and dropped.
const OUTPUT_LIMIT: usize = 8 << 20;

/// Runs a command to its end in a process group of its own.
///
/// When the limit passes, or the future is dropped, the whole group is killed; what has left the
/// group (a daemon that called `setsid`, such as the postmaster under `pg_ctl`) lives on, and a
/// pipe that it keeps open is not waited for.
pub(super) async fn run(command: &Command, limit: Duration) -> Result<Output> {
    let (mut child, group) = start(command)?;
    let mut stdout = Capture::new(child.stdout.take());
    let mut stderr = Capture::new(child.stderr.take());
    let ended = async {
        tokio::select! {
            biased;
            status = child.wait() => status,
            // Somebody has to read, or the command would wait for room in its pipes; the end of
            // both is not its own.
            status = async {
                tokio::join!(stdout.fill(), stderr.fill());
                std::future::pending().await
            } => status,
        }
    };
    let outcome = tokio::time::timeout(limit, ended).await;
    let error = |kind| Error::new(kind, "run command", shown(command));
    match outcome {
        Ok(Ok(status)) => {
            group.release();
            Ok(Output {
                status: status.code(),
                stdout: stdout.finish(ChildStdout::into_owned_fd),
                stderr: stderr.finish(ChildStderr::into_owned_fd),
            })
        }
        Ok(Err(source)) => Err(error(ErrorKind::Unknown).because(source)),
        Err(_) => {
            let why = format!("it was still running after {limit:?} and has been killed");
            Err(error(ErrorKind::Unknown).because(why))
        }
    }
}

fn start(command: &Command) -> Result<(Child, Group)> {
    let error = |kind| Error::new(kind, "run command", shown(command));
    let Some((program, arguments)) = command.argv.split_first() else {
        return Err(error(ErrorKind::Invalid).because("the command is empty"));
    };
    let inherited = INHERITED_ENVIRONMENT
        .iter()
        .filter_map(|name| Some((name, std::env::var_os(name)?)));
    let child = tokio::process::Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(inherited)
        .envs(
            command
                .environment
                .iter()
                .map(|(name, value)| (name, value)),
        )
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| match source.kind() {
            IoErrorKind::NotFound => error(ErrorKind::NotFound)
                .because(source)
                .with_hint("write the whole path of the program, or add its directory to PATH"),
            _ => error(io_kind(&source)).because(source),
        })?;
    let group = Group(child.id().and_then(|id| Pid::from_raw(id.cast_signed())));
    Ok((child, group))
}

/// The program's name alone, because arguments may hold what is not to be shown.
fn shown(command: &Command) -> &str {
    command.argv.first().map_or("", String::as_str)
}

/// Kills a process group when dropped, unless it was released.
///
/// Must be dropped before the child is waited for elsewhere, so that the number still is its own.
#[derive(Debug)]
struct Group(Option<Pid>);

impl Group {
    fn release(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // It fails only if nobody is left in the group.
            rustix::process::kill_process_group(leader, Signal::KILL).ok();
        }
    }
}

/// What a pipe has given so far.
#[derive(Debug)]
struct Capture<P> {
    pipe: Option<P>,
    content: Vec<u8>,
}

impl<P: AsyncRead + Unpin> Capture<P> {
    fn new(pipe: Option<P>) -> Self {
        Self {
            pipe,
            content: Vec::new(),
        }
    }

    /// Reads until the pipe's end.
    async fn fill(&mut self) {
        let mut buffer = vec![0; 16 << 10];
        while let Some(pipe) = &mut self.pipe {
            match pipe.read(&mut buffer).await {
                Ok(0) | Err(_) => self.pipe = None,
                Ok(count) => self.keep(&buffer[..count]),
            }
        }
    }

    /// Takes what the command wrote before it ended, without waiting for others that hold the pipe.
    fn finish(mut self, into_fd: impl FnOnce(P) -> std::io::Result<OwnedFd>) -> Bytes {
        if let Some(pipe) = self.pipe.take().and_then(|pipe| into_fd(pipe).ok())
            && rustix::io::ioctl_fionbio(&pipe, true).is_ok()
        {
            let mut buffer = vec![0; 16 << 10];
            while let Ok(count @ 1..) = rustix::io::read(&pipe, &mut buffer[..]) {
                self.keep(&buffer[..count]);
            }
        }
        self.content.into()
    }

    fn keep(&mut self, read: &[u8]) {
        let room = OUTPUT_LIMIT - self.content.len();
        self.content
            .extend_from_slice(&read[..read.len().min(room)]);
    }
}
