//! Another machine as a [`Host`], by the system's own `ssh` client and `dr` on the far side.
//!
//! Nothing is taken from the account's own SSH configuration, known hosts or agent: which key is shown and which host keys are
//! believed stands in the configuration. A host key that is not known, or another, ends every call. A connection is used for the
//! calls that follow each other within seconds, and for one at a time.

mod address;
mod connection;
mod failure;

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dr_model::{Epoch, WorkloadName};
use dr_provider::host::{Command, Output, PathKind};
use dr_provider::{Error, ErrorKind, Host, Result};

use crate::remote::{Answer, Call, Reply, Request, VERSION, decode, encode, kind_of, limit_of};
pub use address::{InvalidAddress, SshAddress};
use connection::{Connection, Kept};

/// How much longer than its own limit a call may take, connecting apart.
const MARGIN: Duration = Duration::from_secs(2);

/// How a host is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshOptions {
    /// The private key that is shown, in a file that its owner alone may read.
    pub identity: PathBuf,
    /// The file with the host keys that are believed.
    pub known_hosts: PathBuf,
    /// `dr` on the far side.
    pub program: String,
    /// Where the far side remembers epochs: that of its region's daemon.
    pub state_directory: String,
    /// How long connecting may take.
    pub connect_timeout: Duration,
}

/// Runs commands and touches files on another machine, as the user in its address.
#[derive(Clone, Debug)]
pub struct SshHost {
    address: SshAddress,
    name: String,
    options: SshOptions,
    kept: Kept,
}

impl SshHost {
    /// Makes the host; connects to nothing.
    #[must_use]
    pub fn new(address: SshAddress, options: SshOptions) -> Self {
        Self {
            name: address.to_string(),
            address,
            options,
            kept: Kept::default(),
        }
    }

    /// Returns the words of the command that connects and runs the far side.
    fn command_line(&self) -> Vec<String> {
        let options = &self.options;
        let seconds = options.connect_timeout.as_secs().max(1);
        let settings = [
            "BatchMode=yes".to_owned(),
            "StrictHostKeyChecking=yes".to_owned(),
            format!("UserKnownHostsFile={}", quoted(&options.known_hosts)),
            "GlobalKnownHostsFile=/dev/null".to_owned(),
            format!("IdentityFile={}", quoted(&options.identity)),
            "IdentitiesOnly=yes".to_owned(),
            "IdentityAgent=none".to_owned(),
            "PreferredAuthentications=publickey".to_owned(),
            "UpdateHostKeys=no".to_owned(),
            "ClearAllForwardings=yes".to_owned(),
            "ControlPath=none".to_owned(),
            "EscapeChar=none".to_owned(),
            "LogLevel=ERROR".to_owned(),
            format!("ConnectTimeout={seconds}"),
            "ServerAliveInterval=5".to_owned(),
            "ServerAliveCountMax=2".to_owned(),
        ];
        // Nothing of what the account has configured for itself counts.
        let mut words = vec![
            "ssh".to_owned(),
            "-F".to_owned(),
            "none".to_owned(),
            "-T".to_owned(),
        ];
        for setting in settings {
            words.extend(["-o".to_owned(), setting]);
        }
        words.extend(["-p".to_owned(), self.address.port.to_string()]);
        words.extend(["-l".to_owned(), self.address.user.clone()]);
        words.extend(["--".to_owned(), self.address.host.clone()]);
        // A shell on the far side reads the rest.
        let far = [
            options.program.as_str(),
            "host",
            "serve",
            "--state-directory",
            options.state_directory.as_str(),
        ];
        words.extend(far.map(for_shell));
        words
    }

    /// Asks the far side, and waits for as long as the call may take there.
    async fn call(&self, operation: &str, subject: String, call: Call) -> Result<Reply> {
        let subject = format!("{subject} on {}", self.name);
        // Whether a change was made is not known if no answer comes.
        let lost = match call.changes() {
            true => ErrorKind::Unknown,
            false => ErrorKind::Unavailable,
        };
        let limit = self.options.connect_timeout + limit_of(&call) + MARGIN;
        let request = Request {
            version: VERSION,
            call,
        };
        let mut line = serde_json::to_vec(&request)
            .map_err(|why| Error::new(ErrorKind::Invalid, operation, &subject).because(why))?;
        line.push(b'\n');
        let error = |kind| Error::new(kind, operation, &subject);
        let may_repeat = !matches!(request.call, Call::Run { .. });
        // All that is tried is one call.
        let exchange = self.exchange(&line, may_repeat, lost, error);
        let silent = || error(lost).because(format!("no answer within {limit:?}"));
        let answer = tokio::time::timeout(limit, exchange).await;
        let result = answer.map_err(|_| silent())??.result;
        result.map_err(|failure| failure.into_error(&self.name))
    }

    /// Sends a request over a connection that is kept, or a new one, and returns the answer.
    async fn exchange(
        &self,
        line: &[u8],
        may_repeat: bool,
        lost: ErrorKind,
        error: impl Fn(ErrorKind) -> Error,
    ) -> Result<Answer> {
        let mut kept = self.kept.take();
        loop {
            let is_kept = kept.is_some();
            let mut connection = match kept.take() {
                Some(connection) => connection,
                None => Connection::open(&self.command_line()).map_err(|why| {
                    let kind = match why.kind() {
                        std::io::ErrorKind::NotFound => ErrorKind::NotFound,
                        _ => ErrorKind::Failed,
                    };
                    error(kind).because(why).with_hint(
                        "`ssh` hosts need the system's ssh client (Debian: openssh-client)",
                    )
                })?,
            };
            if let Some(answer) = connection.ask(line).await {
                self.kept.put(connection);
                return Ok(answer);
            }
            let ended = connection.end().await;
            // Broken since it was last used; what may be done twice is asked for over another.
            if is_kept && may_repeat {
                continue;
            }
            let output = ended.map_err(|why| error(lost).because(why))?;
            if is_kept {
                // Whatever the client says of a network that broke, the request may have been on its way.
                let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                return Err(error(lost).because(said));
            }
            return Err(failure::of(self, &output, lost, error));
        }
    }

    fn unexpected(&self, operation: &str, reply: &Reply) -> Error {
        Error::new(ErrorKind::Unknown, operation, &self.name)
            .because(format!("the far side answered {reply:?}"))
    }
}

/// Quotes a path for a setting of `ssh_config(5)`.
fn quoted(path: &Path) -> String {
    // `%` begins a token there.
    format!("\"{}\"", path.display().to_string().replace('%', "%%"))
}

/// Quotes a word for a shell.
fn for_shell(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,@".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn text(operation: &str, path: &Path) -> Result<String> {
    path.to_str().map(str::to_owned).ok_or_else(|| {
        Error::new(
            ErrorKind::Unsupported,
            operation,
            path.display().to_string(),
        )
        .because("the path is not UTF-8")
    })
}

#[async_trait]
impl Host for SshHost {
    fn name(&self) -> &str {
        &self.name
    }

    fn is_local(&self) -> bool {
        false
    }

    async fn run(&self, command: &Command, limit: Duration) -> Result<Output> {
        const OPERATION: &str = "run command";
        // Arguments may hold secrets.
        let program = command.argv.first().cloned().unwrap_or_default();
        let call = Call::Run {
            argv: command.argv.clone(),
            environment: command.environment.clone(),
            limit_seconds: limit.as_secs_f64(),
        };
        match self.call(OPERATION, program, call).await? {
            Reply::Ran {
                status,
                stdout,
                stderr,
            } => {
                let decoded = |text: String| {
                    decode(&text).map(Bytes::from).ok_or_else(|| {
                        Error::new(ErrorKind::Unknown, OPERATION, &self.name)
                            .because("its output is not Base64")
                    })
                };
                Ok(Output {
                    status,
                    stdout: decoded(stdout)?,
                    stderr: decoded(stderr)?,
                })
            }
            other => Err(self.unexpected(OPERATION, &other)),
        }
    }

    async fn read(&self, path: &Path, offset: u64, length: u64) -> Result<Bytes> {
        const OPERATION: &str = "read file";
        let path = text(OPERATION, path)?;
        let call = Call::Read {
            path: path.clone(),
            offset,
            length,
        };
        match self.call(OPERATION, path, call).await? {
            Reply::Content(content) => decode(&content).map(Bytes::from).ok_or_else(|| {
                Error::new(ErrorKind::Corrupt, OPERATION, &self.name).because("it is not Base64")
            }),
            other => Err(self.unexpected(OPERATION, &other)),
        }
    }

    async fn write(&self, path: &Path, content: &[u8]) -> Result<()> {
        const OPERATION: &str = "write file";
        let path = text(OPERATION, path)?;
        let call = Call::Write {
            path: path.clone(),
            content: encode(content),
        };
        self.done(OPERATION, path, call).await
    }

    async fn remove(&self, path: &Path) -> Result<()> {
        const OPERATION: &str = "remove file";
        let path = text(OPERATION, path)?;
        let call = Call::Remove { path: path.clone() };
        self.done(OPERATION, path, call).await
    }

    async fn kind(&self, path: &Path) -> Result<PathKind> {
        const OPERATION: &str = "look at";
        let path = text(OPERATION, path)?;
        let call = Call::Kind { path: path.clone() };
        match self.call(OPERATION, path, call).await? {
            Reply::Kind(word) => kind_of(&word).ok_or_else(|| {
                Error::new(ErrorKind::Unavailable, OPERATION, &self.name)
                    .because(format!("`{word}` is no kind that is known"))
            }),
            other => Err(self.unexpected(OPERATION, &other)),
        }
    }

    async fn list(&self, path: &Path) -> Result<Vec<PathBuf>> {
        const OPERATION: &str = "list directory";
        let path = text(OPERATION, path)?;
        let call = Call::List { path: path.clone() };
        match self.call(OPERATION, path, call).await? {
            Reply::Names(names) => Ok(names.into_iter().map(PathBuf::from).collect()),
            other => Err(self.unexpected(OPERATION, &other)),
        }
    }

    async fn admit(&self, workload: &WorkloadName, epoch: Epoch) -> Result<()> {
        let call = Call::Admit {
            workload: workload.clone(),
            epoch,
        };
        let subject = format!("epoch {epoch} of {workload}");
        self.done("act for", subject, call).await
    }
}

impl SshHost {
    async fn done(&self, operation: &str, subject: String, call: Call) -> Result<()> {
        match self.call(operation, subject, call).await? {
            Reply::Done => Ok(()),
            other => Err(self.unexpected(operation, &other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_the_account_counts_and_no_shell_splits_a_word() {
        let options = SshOptions {
            identity: "/etc/dr/key".into(),
            known_hosts: "/etc/dr/50%/known hosts".into(),
            program: "/opt/d r/dr".to_owned(),
            state_directory: "/var/lib/dr/it's".to_owned(),
            connect_timeout: Duration::from_secs(3),
        };
        let address = "ssh://postgres@10.0.0.1:2222".parse().unwrap();
        let words = SshHost::new(address, options).command_line();
        let line = words.join(" ");
        for expected in [
            "ssh -F none -T -o BatchMode=yes -o StrictHostKeyChecking=yes",
            "-o UserKnownHostsFile=\"/etc/dr/50%%/known hosts\"",
            "-o IdentityFile=\"/etc/dr/key\" -o IdentitiesOnly=yes -o IdentityAgent=none",
            "-o ConnectTimeout=3",
            "-p 2222 -l postgres -- 10.0.0.1 '/opt/d r/dr' host serve --state-directory '/var/lib/dr/it'\\''s'",
        ] {
            assert!(line.contains(expected), "{expected} in {line}");
        }
    }

    /// What greets, answers twice and ends is asked twice over one connection, and over another after that.
    #[tokio::test]
    async fn a_greeting_is_passed_over_and_a_connection_used_again() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let far = r#"echo begun >>"$0"; echo Welcome; for i in 1 2; do read -r line || exit; echo "$line" >>"$0"; echo '{"version":1,"result":{"Ok":"done"}}'; done"#;
        let words = ["sh", "-c", far, &log.display().to_string()].map(str::to_owned);
        let kept = Kept::default();
        for _ in 0..4 {
            let mut connection = match kept.take() {
                Some(connection) => connection,
                None => Connection::open(&words).unwrap(),
            };
            if connection.ask(b"{}\n").await.is_none() {
                assert!(connection.end().await.unwrap().status.success());
                connection = Connection::open(&words).unwrap();
                assert!(connection.ask(b"{}\n").await.is_some());
            }
            kept.put(connection);
        }
        let log = std::fs::read_to_string(log).unwrap();
        assert_eq!(log.matches("begun").count(), 2, "{log}");
        assert_eq!(log.matches("{}").count(), 4, "{log}");
    }
}
