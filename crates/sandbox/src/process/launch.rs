//! Starting programs in the name of a sandbox.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use super::MARK;
use super::reap::awaited;
use crate::machines::Machine;
use crate::user::User;
use crate::{Error, Result};

/// What a program left behind.
#[derive(Clone, Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error; empty where that went to the terminal.
    pub stderr: String,
}

/// Starts programs: marked as the sandbox's, as its user, in a process group of their own so that Ctrl-C reaches only
/// the program that runs the sandbox.
#[derive(Clone, Debug)]
pub struct Launcher {
    directory: PathBuf,
    user: Option<User>,
    environment: BTreeMap<String, String>,
    machine: Option<Machine>,
}

impl Launcher {
    /// Makes a launcher for the sandbox in `directory`.
    #[must_use]
    pub fn new(directory: &Path, user: Option<User>) -> Self {
        Self {
            directory: directory.to_owned(),
            user,
            environment: BTreeMap::new(),
            machine: None,
        }
    }

    /// Adds a variable to the environment of everything that is started.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.insert(name.to_owned(), value.into());
        self
    }

    /// Returns a launcher of programs on that machine; `None` is the one that this program runs on.
    #[must_use]
    pub fn on(&self, machine: Option<Machine>) -> Self {
        Self {
            machine,
            ..self.clone()
        }
    }

    /// Returns the account that programs run under, if it is another than this program's.
    #[must_use]
    pub fn user(&self) -> Option<&User> {
        self.user.as_ref()
    }

    /// Makes a directory with all above it, owned by the sandbox's user.
    pub fn make_directory(&self, path: &Path) -> Result<()> {
        std::fs::create_dir_all(path).map_err(Error::file("create the directory", path))?;
        self.user.as_ref().map_or(Ok(()), |user| user.own(path))
    }

    /// Writes a file, owned by the sandbox's user and readable by nobody else.
    pub fn write_file(&self, path: &Path, content: &str) -> Result<()> {
        use std::io::Write;
        use std::os::unix::fs::OpenOptionsExt;
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        options
            .open(path)
            .and_then(|mut file| file.write_all(content.as_bytes()))
            .map_err(Error::file("write", path))?;
        self.user.as_ref().map_or(Ok(()), |user| user.own(path))
    }

    /// Prepares a program with its working directory. It runs as this program's user, here whatever the machine is.
    #[must_use]
    pub fn privileged(&self, program: &Path, working: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(working)
            .process_group(0)
            .stdin(Stdio::null())
            .env(MARK, &self.directory)
            .envs(&self.environment);
        // What points a person's `psql` somewhere must not point the sandbox there.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PG") {
                command.env_remove(name);
            }
        }
        command
    }

    /// Prepares a program with its working directory. It runs as the sandbox's user.
    #[must_use]
    pub fn command(&self, program: &Path, working: &Path) -> Command {
        let mut command = match (&self.user, self.machine) {
            (None, _) => self.root(program, working),
            (Some(user), None) => {
                let mut command = self.privileged(program, working);
                command.uid(user.uid).gid(user.gid);
                command
            }
            (Some(user), Some(_)) => {
                let mut command = self.root(Path::new("setpriv"), working);
                command
                    .arg(format!("--reuid={}", user.uid))
                    .arg(format!("--regid={}", user.gid))
                    .args(["--clear-groups", "--"])
                    .arg(program);
                command
            }
        };
        if let Some(user) = &self.user {
            command.env("HOME", &self.directory).env("USER", &user.name);
        }
        command
    }

    /// Prepares a program with its working directory. It runs on the machine, as this program's user.
    ///
    /// Every program in between replaces itself by the next, so that the process started is the program's.
    #[must_use]
    pub(crate) fn root(&self, program: &Path, working: &Path) -> Command {
        let Some(machine) = self.machine else {
            return self.privileged(program, working);
        };
        let mut command = self.privileged(Path::new("nsenter"), working);
        // The working directory is left with the mounts that it was found in.
        command
            .args([&machine.target(), "--net", "--mount", "--", "env"])
            .arg(format!("--chdir={}", working.display()))
            .arg(program);
        command
    }

    /// Opens a log for appending, owned by the sandbox's user.
    pub fn log(&self, path: &Path) -> Result<File> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .map_err(Error::file("open", path))?;
        self.user.as_ref().map_or(Ok(()), |user| user.own(path))?;
        Ok(file)
    }

    /// Starts a server whose output goes to a log; returns its process id. Its end is noticed by the reaper.
    pub fn start(&self, mut command: Command, log: &Path) -> Result<i32> {
        let output = self.log(log)?;
        let errors = output.try_clone().map_err(Error::file("open", log))?;
        command.stdout(output).stderr(errors);
        let child = command.spawn().map_err(|source| Error::Start {
            program: command.get_program().into(),
            source,
        })?;
        Ok(child.id().cast_signed())
    }

    /// Runs a program to its end, whatever its status. With `visible` its standard error goes to the terminal.
    ///
    /// Dropping the future leaves the program running; the sandbox's end finds it.
    pub async fn output(&self, mut command: Command, visible: bool) -> Result<Output> {
        command.stdout(Stdio::piped());
        command.stderr(if visible {
            Stdio::inherit()
        } else {
            Stdio::piped()
        });
        let program = command.get_program().to_owned();
        let failed = |source| Error::Start {
            program: (&program).into(),
            source,
        };
        let child = {
            let mut awaited = awaited();
            let child = command.spawn().map_err(failed)?;
            awaited.insert(child.id().cast_signed());
            child
        };
        let pid = child.id().cast_signed();
        let ended = tokio::task::spawn_blocking(move || child.wait_with_output()).await;
        awaited().remove(&pid);
        let ended = match ended {
            Ok(ended) => ended.map_err(failed)?,
            Err(join) => return Err(failed(std::io::Error::other(join))),
        };
        Ok(Output {
            status: ended.status,
            stdout: String::from_utf8_lossy(&ended.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&ended.stderr).into_owned(),
        })
    }

    /// Runs a program that has to succeed.
    pub async fn run(&self, command: Command) -> Result<Output> {
        let words = std::iter::once(command.get_program()).chain(command.get_args().take(2));
        let program = words
            .map(OsStr::to_string_lossy)
            .collect::<Vec<_>>()
            .join(" ");
        let output = self.output(command, false).await?;
        if output.status.success() {
            return Ok(output);
        }
        let said = format!("{}{}", output.stdout, output.stderr);
        let lines: Vec<&str> = said.trim().lines().collect();
        let detail = lines[lines.len().saturating_sub(5)..].join("; ");
        Err(Error::Program {
            program,
            status: output.status.to_string(),
            detail,
        })
    }
}
