//! Exit codes: part of the public face, documented in `docs/exit-codes.md`.

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Everything that was asked for is done.
    Ok = 0,
    /// It was tried and did not work.
    Failed = 1,
    /// An objective is breached, or an execution completed with exceptions.
    Breach = 10,
    /// It cannot be told whether an objective is met.
    Unknown = 11,
    /// A safety rule forbids it: no proof of a fence, a loss beyond the budget, a target that is
    /// the primary.
    Refused = 12,
    /// Another execution is under way, has won the epoch or has taken over, or another daemon of the
    /// region runs.
    Busy = 13,
    /// An execution needs a person before it can go on.
    Stuck = 14,
    /// A store or a server that is needed does not answer.
    Unavailable = 20,
    /// The command line is wrong (`EX_USAGE`).
    Usage = 64,
    /// The configuration is wrong (`EX_DATAERR`).
    Configuration = 65,
    /// It was interrupted by a signal (128 + SIGINT).
    Interrupted = 130,
    /// `dr wal fetch` could not do its work, for whatever reason but a file that is proven not to
    /// exist, and not for a standby, which asks again (ADR 13). A code above 125 makes PostgreSQL stop recovery instead of ending it early (PROTOCOL
    /// 6, R26).
    FetchAborted = 255,
}

impl Exit {
    /// Returns the graver of two ends: a failure before a breach, and a breach before what is not
    /// known.
    pub(crate) fn worse(self, other: Self) -> Self {
        let gravity = |exit: Self| match exit {
            Self::Ok => 0,
            Self::Unknown => 1,
            Self::Breach => 2,
            Self::Unavailable => 3,
            Self::Interrupted => 4,
            Self::Busy => 5,
            Self::Refused => 6,
            Self::Failed => 7,
            Self::Stuck => 8,
            Self::Usage | Self::Configuration | Self::FetchAborted => 9,
        };
        if gravity(other) > gravity(self) {
            other
        } else {
            self
        }
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
