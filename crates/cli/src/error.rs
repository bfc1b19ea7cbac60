//! What a failed command says: what failed, on what, why, and what to do.

use std::error::Error as StdError;
use std::fmt;
use std::path::Path;

use dr_config::{Problems, Unusable};
use dr_coordination::register::Error as Register;
use dr_model::RunbookName;
use dr_model::document::Severity;
use dr_provider::ErrorKind;
use dr_runbook::Refusal;
use dr_runbook::plan::Class;

use crate::exit::Exit;

/// The result of a command.
pub(crate) type Result<T> = std::result::Result<T, CommandError>;

/// An error as a person reads it.
#[derive(Debug)]
pub(crate) struct CommandError {
    pub(crate) exit: Exit,
    pub(crate) message: String,
    /// What stands before the message, as it is: problems with their places.
    pub(crate) details: Vec<String>,
    pub(crate) causes: Vec<String>,
    pub(crate) hints: Vec<String>,
}

impl CommandError {
    /// Makes an error that ends the program with `exit`.
    pub(crate) fn new(exit: Exit, message: impl fmt::Display) -> Self {
        Self {
            exit,
            message: message.to_string(),
            details: Vec::new(),
            causes: Vec::new(),
            hints: Vec::new(),
        }
    }

    /// Takes over an error and its causes.
    pub(crate) fn from_error(exit: Exit, error: &(dyn StdError + 'static)) -> Self {
        let mut made = Self::new(exit, error);
        let mut next = Some(error);
        while let Some(cause) = next {
            if !std::ptr::eq(cause, error) {
                made.causes.push(cause.to_string());
            }
            if let Some(hint) = hint_of(cause).filter(|hint| !made.hints.contains(hint)) {
                made.hints.push(hint);
            }
            next = cause.source();
        }
        made
    }

    /// Takes over the problems of a configuration.
    pub(crate) fn from_problems(problems: &Problems, path: &Path) -> Self {
        let errors = problems
            .0
            .iter()
            .filter(|problem| problem.severity == Severity::Error)
            .count();
        let count = if errors == 1 {
            "1 error".to_owned()
        } else {
            format!("{errors} errors")
        };
        let message = format!(
            "the configuration in `{}` cannot be used: {count}",
            path.display()
        );
        let mut made = Self::new(Exit::Configuration, message);
        made.details = problems.0.iter().map(ToString::to_string).collect();
        made
    }

    /// Says that a runbook cannot be used because of these files.
    pub(crate) fn from_unusable(name: &RunbookName, files: &[&Unusable]) -> Self {
        let what = match files {
            [file] if file.name.is_none() => format!(
                "the runbook `{name}` cannot be used: it may stand in `{}`, which cannot be read",
                file.file
            ),
            _ => format!("the runbook `{name}` cannot be used"),
        };
        let mut made = Self::new(Exit::Configuration, what);
        let problems = files.iter().flat_map(|file| &file.problems.0);
        made.details = problems.map(ToString::to_string).collect();
        let names: Vec<_> = files
            .iter()
            .map(|file| format!("`{}`", file.file))
            .collect();
        let files = names.join(" and ");
        // Only what is shipped is there without a file.
        made.hint(match dr_config::is_used_unasked(name) {
            true => format!(
                "put {files} right; or move it out of `runbooks/`, if the runbook that is then used will do: `dr runbook show {name}` prints it"
            ),
            false => format!("put {files} right"),
        })
    }

    /// Adds what to do about it.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Adds a cause.
    pub(crate) fn because(mut self, cause: impl fmt::Display) -> Self {
        self.causes.push(cause.to_string());
        self
    }
}

fn hint_of(error: &(dyn StdError + 'static)) -> Option<String> {
    error
        .downcast_ref::<dr_provider::Error>()
        .and_then(|error| error.hint().map(str::to_owned))
}

impl CommandError {
    /// Takes what a daemon answered over its control socket.
    pub(crate) fn from_refusal(refusal: dr_server::control::Refusal) -> Self {
        let exit = match refusal.kind.as_str() {
            "unavailable" | "unknown" => Exit::Unavailable,
            "superseded" => Exit::Busy,
            _ => Exit::Failed,
        };
        let error = Self::new(exit, refusal.message);
        match refusal.hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}

/// Returns how the program ends after an error of this kind.
fn exit_of(kind: ErrorKind) -> Exit {
    match kind {
        ErrorKind::Unavailable | ErrorKind::Unknown => Exit::Unavailable,
        ErrorKind::Superseded => Exit::Busy,
        _ => Exit::Failed,
    }
}

impl From<dr_provider::Error> for CommandError {
    fn from(error: dr_provider::Error) -> Self {
        let exit = match is_register_damaged(&error) {
            true => Exit::Refused,
            false => exit_of(error.kind()),
        };
        Self::from_error(exit, &error)
    }
}

/// Tells whether a register is what is damaged: whatever was to be done by what it says is refused, as a failover is.
fn is_register_damaged(error: &dr_provider::Error) -> bool {
    let mut next = StdError::source(error);
    while let Some(cause) = next {
        if let Some(Register::Damaged { .. }) = cause.downcast_ref::<Register>() {
            return true;
        }
        next = cause.source();
    }
    false
}

impl From<std::io::Error> for CommandError {
    fn from(error: std::io::Error) -> Self {
        Self::from_error(Exit::Failed, &error)
    }
}

impl From<Refusal> for CommandError {
    fn from(refusal: Refusal) -> Self {
        let exit = match refusal.class() {
            Class::Safety => Exit::Refused,
            Class::Busy => Exit::Busy,
            Class::Unavailable => Exit::Unavailable,
            Class::Asked => Exit::Usage,
            Class::Invalid => Exit::Configuration,
        };
        let mut made = Self::from_error(exit, &refusal);
        made.hints.extend(refusal.hint());
        made
    }
}

impl From<dr_runbook::Error> for CommandError {
    fn from(error: dr_runbook::Error) -> Self {
        use dr_runbook::Error;
        let hint = error.hint();
        if let Error::NotResumed { refusal, .. } = error {
            // As the move would have been refused in the first place.
            let mut made = Self::from(*refusal);
            made.hints.extend(hint);
            return made;
        }
        let exit = match &error {
            Error::NotFound { .. } | Error::OtherWorkload { .. } => Exit::Usage,
            Error::NotRunning { .. } | Error::Skip { .. } | Error::Unskip { .. } => Exit::Refused,
            Error::NotSeen { .. } => Exit::Unavailable,
            Error::TakenOver { .. } => Exit::Busy,
            Error::Over { .. } | Error::HasEffects { .. } | Error::NotTakenBack { .. } => {
                Exit::Refused
            }
            Error::NoStore { .. } => Exit::Configuration,
            // What cannot be seen now may allow it later; what is seen forbids it.
            Error::Undo { refusal, .. } => match refusal.class() {
                Class::Unavailable => Exit::Unavailable,
                _ => Exit::Refused,
            },
            Error::NotResumed { .. } => Exit::Refused,
            Error::SecretInPlan => Exit::Failed,
            Error::NotBegun { source, .. } => exit_of(source.kind()),
            Error::Journal { source, .. } => match source.kind() {
                ErrorKind::Corrupt => Exit::Refused,
                // What it has done stands, and nobody can write down more.
                kind => match exit_of(kind) {
                    Exit::Failed => Exit::Stuck,
                    exit => exit,
                },
            },
        };
        let mut made = Self::from_error(exit, &error);
        if let Error::HasEffects { residue, .. } = &error {
            let changed = residue.iter().map(|note| format!("it has changed: {note}"));
            made.causes.extend(changed);
        }
        made.hints.extend(hint);
        made
    }
}

#[cfg(test)]
mod tests {
    use dr_model::StepId;
    use dr_runbook::outcome::State;
    use dr_runbook::plan::Target;
    use rstest::rstest;

    use super::*;

    fn undo(class: Class) -> dr_runbook::Error {
        dr_runbook::Error::Undo {
            execution: "move".parse().unwrap(),
            refusal: Box::new(Refusal::Impossible {
                step: StepId("resume".to_owned()),
                target: Target::Resource("database".parse().unwrap()),
                why: "not seen".to_owned(),
                hint: None,
                class,
            }),
        }
    }

    /// Going forward is no way on where nobody can see whether there is one.
    #[rstest]
    #[case::not_seen(
        Class::Unavailable,
        Exit::Unavailable,
        "`dr execution abort move` again"
    )]
    #[case::forbidden(Class::Safety, Exit::Refused, "`dr execution resume move`")]
    fn what_cannot_be_undone_ends_by_its_cause(
        #[case] class: Class,
        #[case] exit: Exit,
        #[case] hint: &str,
    ) {
        let error = CommandError::from(undo(class));
        assert_eq!(error.exit as u8, exit as u8);
        let [said] = &error.hints[..] else {
            panic!("{error:?}");
        };
        assert!(said.ends_with(hint), "{said}");
    }

    #[test]
    fn what_was_changed_is_told_one_line_each() {
        let error = CommandError::from(dr_runbook::Error::HasEffects {
            execution: "move".parse().unwrap(),
            why: "a point of no return was passed: promoted".to_owned(),
            residue: vec!["seal: sealed".to_owned(), "promote: promoted".to_owned()],
            hint: "go forward".to_owned(),
        });
        assert!(error.message.ends_with("passed: promoted"));
        let lines = [
            "it has changed: seal: sealed",
            "it has changed: promote: promoted",
        ];
        assert_eq!(error.causes, lines);
        assert_eq!(error.hints, ["go forward"]);
    }

    #[test]
    fn what_is_over_can_be_looked_at() {
        let error = CommandError::from(dr_runbook::Error::Over {
            execution: "move".parse().unwrap(),
            state: State::Completed,
        });
        assert_eq!(error.exit as u8, Exit::Refused as u8);
        assert!(error.hints[0].contains("`dr execution show move`"));
    }
}
