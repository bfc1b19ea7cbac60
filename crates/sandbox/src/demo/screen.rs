//! What the person sees. The story goes to standard error, the result to standard output.

use std::io::{IsTerminal, Write, stderr, stdout};

/// A terminal, or what stands in its place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Screen {
    coloured: bool,
}

/// The colours of a terminal that the story uses.
#[derive(Clone, Copy, Debug)]
pub(super) enum Colour {
    Bold,
    Dim,
    Red,
    Green,
    Cyan,
}

impl Screen {
    /// Looks at what standard error is. `NO_COLOR` with any value means no colours (no-color.org).
    pub(super) fn new() -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            coloured: stderr().is_terminal() && !unwanted,
        }
    }

    pub(super) fn paint(self, colour: Colour, text: &str) -> String {
        let code = match colour {
            Colour::Bold => "1",
            Colour::Dim => "2",
            Colour::Red => "1;31",
            Colour::Green => "1;32",
            Colour::Cyan => "1;36",
        };
        if self.coloured {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    /// Begins a chapter.
    pub(super) fn chapter(self, word: &str, text: &str) {
        self.line(&format!(
            "\n{} {text}",
            self.paint(Colour::Cyan, &word.to_uppercase())
        ));
    }

    /// Tells one thing that happened.
    pub(super) fn tell(self, text: &str) {
        self.line(&format!("  {text}"));
    }

    /// Shows a command as it is run.
    pub(super) fn command(self, text: &str) {
        self.line(&format!(
            "  {}",
            self.paint(Colour::Bold, &format!("$ {text}"))
        ));
    }

    /// Shows the output of a command.
    pub(super) fn quote(self, text: &str) {
        for line in text.trim_end().lines() {
            self.line(&format!("  {} {line}", self.paint(Colour::Dim, "│")));
        }
    }

    /// Adds a remark.
    pub(super) fn note(self, text: &str) {
        self.line(&self.paint(Colour::Dim, text));
    }

    /// Says what failed, and what can be done.
    pub(super) fn error(self, text: &str, hint: Option<&str>) {
        self.line(&format!("{} {text}", self.paint(Colour::Red, "error:")));
        if let Some(hint) = hint {
            self.line(&format!("{} {hint}", self.paint(Colour::Cyan, "hint:")));
        }
    }

    /// Writes the result to standard output.
    pub(super) fn result(self, text: &str) {
        // A reader that has gone has seen enough.
        let _gone = writeln!(stdout(), "{text}");
    }

    pub(super) fn line(self, text: &str) {
        let _gone = writeln!(stderr(), "{text}");
    }
}
