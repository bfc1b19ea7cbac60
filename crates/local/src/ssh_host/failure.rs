//! What it means that no answer came, by how `ssh` ended and what it said.

use std::process::Output;

use dr_provider::{Error, ErrorKind};

use super::SshHost;

/// The exit status of `ssh` itself; any other is that of the far side.
const SSH_FAILED: i32 = 255;

/// The exit status of a shell that does not find a program.
const NO_SUCH_PROGRAM: i32 = 127;

/// What `ssh` says while nothing has been sent yet: then nothing was done.
const BEFORE: [(&str, ErrorKind); 9] = [
    ("host key verification failed", ErrorKind::Denied),
    ("permission denied", ErrorKind::Denied),
    ("too many authentication failures", ErrorKind::Denied),
    ("connection refused", ErrorKind::Unavailable),
    ("connection timed out", ErrorKind::Unavailable),
    ("no route to host", ErrorKind::Unavailable),
    ("network is unreachable", ErrorKind::Unavailable),
    ("could not resolve hostname", ErrorKind::Unavailable),
    ("kex_exchange_identification", ErrorKind::Unavailable),
];

/// Makes the error of a call that was not answered; `lost` is what it is if it may have been done.
pub(super) fn of(
    host: &SshHost,
    output: &Output,
    lost: ErrorKind,
    error: impl Fn(ErrorKind) -> Error,
) -> Error {
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.trim();
    let last = said.lines().last().unwrap_or_default().trim().to_owned();
    let options = &host.options;
    match output.status.code() {
        Some(SSH_FAILED) => {
            let lower = said.to_lowercase();
            let known = BEFORE.iter().find(|(words, _)| lower.contains(words));
            let Some((words, kind)) = known else {
                return error(lost).because(last);
            };
            let failed = error(*kind);
            match *words {
                "host key verification failed" => {
                    let known_hosts = options.known_hosts.display();
                    let (why, what) = if lower.contains("has changed") {
                        (
                            "it shows another host key than the one that is known",
                            "find out why before anything else; if the machine was replaced, take its old key out of",
                        )
                    } else {
                        (
                            "its host key is not known",
                            "compare it with the machine's own, then add it to",
                        )
                    };
                    failed
                        .because(why)
                        .with_hint(format!("{what} `{known_hosts}`"))
                }
                "permission denied" | "too many authentication failures" => {
                    failed.because(last).with_hint(format!(
                        "the account `{}` there has to accept the key `{}`, which its owner alone may read",
                        host.address.user,
                        options.identity.display()
                    ))
                }
                _ => failed.because(last),
            }
        }
        Some(NO_SUCH_PROGRAM) => error(ErrorKind::NotFound).because(last).with_hint(format!(
            "install `dr` there as `{}`, or say where it is with `ssh.program` of the region",
            options.program
        )),
        _ => {
            let why = match last.as_str() {
                "" => format!("it ended with {} and said nothing", output.status),
                said => said.to_owned(),
            };
            error(lost).because(why)
        }
    }
}
