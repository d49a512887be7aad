//! How a command ends: its [`Exit`] code, and the [`Failure`] it reports.

use std::io::{self, Write};
use std::process::ExitCode;

use agent_storage::{ConfigError, Error, ErrorKind, HealthStatus};

/// The exit codes, as the help describes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Done; healthy.
    Done = 0,
    /// Degraded; something is left to do; failed.
    Failed = 1,
    /// The command line, the input or the configuration is not valid, or the store cannot be used.
    Unusable = 2,
    /// There is nothing under the key.
    Missing = 3,
    /// A condition did not hold.
    Conflict = 4,
    /// Ended by Ctrl-C: 128 and the number of the signal, as shells count.
    Interrupted = 130,
    /// Ended by SIGTERM.
    Terminated = 143,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl From<HealthStatus> for Exit {
    fn from(status: HealthStatus) -> Self {
        match status {
            HealthStatus::Healthy => Self::Done,
            HealthStatus::Degraded => Self::Failed,
            _ => Self::Unusable,
        }
    }
}

/// Why a command did not do what it was told.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The storage's error.
    Storage(Error),
    /// The configuration file is not valid.
    Config(ConfigError),
    /// What was typed, or what was read as a value, cannot be used.
    Input(String),
    /// The operating system's error.
    System(String),
    /// Nobody reads our output any more, as after `| head`.
    NobodyReads,
}

impl Failure {
    pub(crate) fn system(what: &str, error: &io::Error) -> Self {
        Self::System(format!("{what}: {error}"))
    }

    /// The exit code that stands for it.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Storage(error) => match error.kind() {
                ErrorKind::Conflict => Exit::Conflict,
                ErrorKind::Config
                | ErrorKind::FeatureDisabled
                | ErrorKind::Unavailable
                | ErrorKind::InvalidKey
                | ErrorKind::InvalidValue
                | ErrorKind::TooLarge => Exit::Unusable,
                _ => Exit::Failed,
            },
            Self::Config(_) | Self::Input(_) => Exit::Unusable,
            Self::System(_) => Exit::Failed,
            Self::NobodyReads => Exit::Done,
        }
    }

    /// Writes the reason to standard error, and answers the exit code.
    pub(crate) fn report(&self) -> Exit {
        match self {
            Self::Storage(error) => complain(&format!("error: {error}")),
            // Each line already begins with `file:line:column:`, which editors and CI systems understand.
            Self::Config(error) => complain(&error.to_string()),
            Self::Input(reason) | Self::System(reason) => complain(&format!("error: {reason}")),
            Self::NobodyReads => {}
        }
        self.exit()
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Storage(error)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

/// Writes a line to standard error. If nobody reads that either, there is nobody left to tell.
pub(crate) fn complain(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_and_an_error_have_their_codes() {
        let states = [HealthStatus::Healthy, HealthStatus::Degraded, HealthStatus::Unhealthy];
        assert_eq!(states.map(|state| Exit::from(state) as u8), [0, 1, 2]);
        let errors = [Error::conflict("-"), Error::unavailable("-"), Error::outcome_unknown("-"), Error::corrupt("-")];
        assert_eq!(errors.map(|error| Failure::Storage(error).exit() as u8), [4, 2, 1, 1]);
    }
}
