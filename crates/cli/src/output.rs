//! The one place that writes to the terminal: data to stdout, everything else to stderr.

mod style;
mod table;
mod units;

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use clap::ValueEnum;
use serde::Serialize;
use serde_json::json;

use crate::error::CommandError;
use crate::exit::Exit;

pub(crate) use style::{Style, Tone};
pub(crate) use table::Table;
pub(crate) use units::{amount, counted, seconds, took};

/// Whether the one JSON object of this process is on stdout already.
static ANSWERED: AtomicBool = AtomicBool::new(false);

/// When to use colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Where and how to write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    pub(crate) json: bool,
    pub(crate) stdout: Style,
    pub(crate) stderr: Style,
}

impl Output {
    /// Decides by the options, the environment and what the streams are.
    pub(crate) fn new(color: Color, json: bool) -> Self {
        let style = |terminal: bool| {
            Style::new(match color {
                Color::Always => true,
                Color::Never => false,
                Color::Auto => {
                    terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
                }
            })
        };
        Self {
            json,
            stdout: style(io::stdout().is_terminal()),
            stderr: style(io::stderr().is_terminal()),
        }
    }

    /// Tells whether somebody is looking at what is said.
    #[expect(clippy::unused_self, reason = "what is said goes through here")]
    pub(crate) fn is_terminal(&self) -> bool {
        io::stderr().is_terminal()
    }

    /// Writes a value as JSON, indented, to stdout.
    pub(crate) fn json<T: Serialize>(&self, value: &T) -> Result<(), CommandError> {
        let mut text = serde_json::to_string_pretty(value).map_err(io::Error::other)?;
        text.push('\n');
        ANSWERED.store(true, Ordering::Relaxed);
        write_all(io::stdout().lock(), &text)
    }

    /// Writes text to stdout.
    pub(crate) fn data(&self, text: &str) -> Result<(), CommandError> {
        write_all(io::stdout().lock(), &format!("{text}\n"))
    }

    /// Writes a line for people to stderr. That nobody reads it is no reason to stop.
    pub(crate) fn say(&self, text: &str) {
        let _gone = writeln!(io::stderr().lock(), "{text}");
    }

    /// Writes a question to stderr and leaves the cursor behind it.
    pub(crate) fn ask(&self, text: &str) {
        let mut stderr = io::stderr().lock();
        let _gone = write!(stderr, "{text}").and_then(|()| stderr.flush());
    }

    /// Writes a failure: what, why, and what to do. With `--json` it is the answer on stdout as well, unless a command has
    /// answered before it failed: there is one object, never two.
    pub(crate) fn error(&self, error: &CommandError, exit: Exit) {
        if self.json && !ANSWERED.load(Ordering::Relaxed) {
            let hint = (!error.hints.is_empty()).then(|| error.hints.join("; "));
            // Who reads nothing is told on stderr.
            let _gone = self.json(&json!({
                "error": error.message,
                "details": error.details,
                "because": error.causes,
                "hint": hint,
                "exit_code": exit as u8,
            }));
        }
        self.complain(error);
    }

    /// Writes a failure for people: of one part of a command that goes on with the others.
    pub(crate) fn complain(&self, error: &CommandError) {
        let style = self.stderr;
        for detail in &error.details {
            self.say(detail);
        }
        self.say(&format!(
            "{} {}",
            style.paint(Tone::Bad, "error:"),
            error.message
        ));
        for cause in &error.causes {
            self.say(&format!(
                "  {} {cause}",
                style.paint(Tone::Faint, "because:")
            ));
        }
        for hint in &error.hints {
            self.say(&format!("  {} {hint}", style.paint(Tone::Good, "hint:")));
        }
    }
}

/// A reader that has gone away, as `head` does, ends the program quietly.
fn write_all(mut stream: impl Write, text: &str) -> Result<(), CommandError> {
    match stream
        .write_all(text.as_bytes())
        .and_then(|()| stream.flush())
    {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(CommandError::from),
    }
}
