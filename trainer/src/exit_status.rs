use std::process::ExitCode;

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExitStatus {
    /// What was asked for is done.
    Success,
    /// Something that the user can fix.
    Failure,
    /// A gate that was asked for did not hold.
    GateFailed,
    /// Training was asked to stop; it has saved, and can go on. As a shell reports a program that ctrl-C ended, so
    /// that `trainer fit … && exporter …` stops there too. (2, wrong usage, is clap's.)
    Interrupted,
}

impl ExitStatus {
    /// The number that the shell sees.
    pub(crate) fn code(self) -> u8 {
        match self {
            ExitStatus::Success => 0,
            ExitStatus::Failure => 1,
            ExitStatus::GateFailed => 3,
            ExitStatus::Interrupted => 130,
        }
    }
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        ExitCode::from(status.code())
    }
}
