//! What is wrong with a configuration: [`ConfigError`], a list of [`Problem`]s.

use std::fmt;

use crate::error::Error;

/// One thing that is wrong with a configuration, or a warning about it.
///
/// Its text never holds a value of the file or of a variable, so that no secret is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// The file, as it was named; empty for a configuration made by hand.
    pub file: String,
    /// The line, counted from 1; 0 where the problem has no place in the text, as with a missing file.
    pub line: u64,
    /// The column in characters, counted from 1; 0 where the line is 0.
    pub column: u64,
    /// Where in the document, as `storage.database.port`; empty where the document itself is meant.
    pub path: String,
    /// What was expected, and what to do about it.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.file.is_empty() {
            f.write_str(&self.file)?;
            if self.line > 0 {
                write!(f, ":{}:{}", self.line, self.column)?;
            }
            f.write_str(": ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

/// Everything that is wrong with a configuration, in the order of the file.
///
/// Its text is one `file:line:column: path: message` a line.
#[derive(Clone, PartialEq, Eq)]
pub struct ConfigError {
    problems: Vec<Problem>,
}

impl ConfigError {
    /// Takes at least one problem; they are put in the order of the file.
    pub(super) fn new(mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| (problem.line, problem.column));
        problems.dedup();
        Self { problems }
    }

    /// The problems, in the order of the file.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Debug for ConfigError {
    /// The problems as they are displayed, so that `unwrap` and `main` show something that can be read.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConfigError\n{self}")
    }
}

impl std::error::Error for ConfigError {}

impl From<ConfigError> for Error {
    /// An [`ErrorKind::Config`](crate::ErrorKind::Config) whose message holds all problems, one a line.
    fn from(error: ConfigError) -> Self {
        Self::config(error.to_string()).with_source(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(line: u64, column: u64) -> Problem {
        Problem { file: "agent.yml".into(), line, column, path: "storage.cache".into(), message: "is odd".into() }
    }

    #[test]
    fn problems_come_in_the_order_of_the_file_and_once() {
        let error = ConfigError::new(vec![problem(3, 1), problem(1, 2), problem(3, 1)]);
        assert_eq!(error.to_string(), "agent.yml:1:2: storage.cache: is odd\nagent.yml:3:1: storage.cache: is odd");
    }

    #[test]
    fn a_problem_without_a_place_names_the_file_alone() {
        let missing = Problem { line: 0, column: 0, path: String::new(), ..problem(0, 0) };
        assert_eq!(missing.to_string(), "agent.yml: is odd");
    }

    #[test]
    fn an_error_carries_all_problems() {
        let error = Error::from(ConfigError::new(vec![problem(1, 1), problem(2, 1)]));
        assert_eq!(error.kind(), crate::ErrorKind::Config);
        assert!(error.message().contains("agent.yml:1:1") && error.message().contains("agent.yml:2:1"));
    }
}
