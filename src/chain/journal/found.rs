//! What was found in the folder of the journals: [`Found`].

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use crate::chain::elsewhere::OwedElsewhere;
use crate::contract::Identity;
use crate::error::{Error, ErrorKind};
use crate::stamp::Stamp;
use crate::time::Timestamp;

use super::glance::check;

/// What was found in the folder beside this process's own file and those of other living ones.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// How many operations were taken over from dead processes; they are the newest of the journal.
    pub(crate) imported: u64,
    /// The files that were left alone.
    pub(crate) left: Vec<LeftFile>,
    /// The newest stamp of what others owe, if it was looked for.
    pub(crate) newest_of_others: Option<Stamp>,
    /// The latest moment that others have written down as the end of their stamps, those that were taken over among them.
    pub(crate) reserve_of_others: Option<Timestamp>,
    /// Who gave the stamps of the dead processes whose journals are this one's now.
    pub(crate) predecessors: BTreeSet<u64>,
    /// The newest state of our database that one of them knew.
    pub(crate) known: Option<Identity>,
}

/// A file of a dead process that was left as it is.
#[derive(Debug)]
pub(crate) struct LeftFile {
    /// The file.
    pub(crate) path: PathBuf,
    /// Why it was left.
    pub(crate) reason: LeftReason,
    /// Whether it is owed to a database at another address, or was when it was read last.
    pub(crate) moved: Option<Moved>,
}

/// Why a file was left as it is.
#[derive(Debug)]
pub(crate) enum LeftReason {
    /// It cannot be read: it is damaged, of a newer program, no journal, or cannot be taken over now.
    Unreadable(Error),
    /// What it holds is owed to another database than ours.
    OwedElsewhere {
        /// How many operations, if they can be counted.
        operations: Option<u64>,
        place: Option<String>,
    },
}

/// The database at another address as it was known last, if it is known which one it is.
pub(crate) type Moved = Option<Identity>;

impl LeftFile {
    pub(super) const fn unreadable(path: PathBuf, error: Error) -> Self {
        Self { path, reason: LeftReason::Unreadable(error), moved: None }
    }

    /// Counts what it holds, for people. One that is damaged is told as that: nobody can bring it anywhere.
    pub(super) fn count(&mut self) {
        let LeftReason::OwedElsewhere { operations, .. } = &mut self.reason else { return };
        match check(&self.path) {
            Ok(count) => *operations = Some(count),
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                (self.reason, self.moved) = (LeftReason::Unreadable(error), None);
            }
            Err(error) => tracing::debug!(%error, "it cannot be counted what a journal holds"),
        }
    }
}

impl fmt::Display for LeftFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.reason {
            LeftReason::Unreadable(error) => write!(f, "{path}: {error}"),
            LeftReason::OwedElsewhere { operations, place } => {
                let place = place.as_deref().unwrap_or("at an unknown place");
                let count = operations.map(|operations| format!("{operations} ")).unwrap_or_default();
                write!(f, "{path}: {count}operations owed to another database ({place})")
            }
        }
    }
}

impl Found {
    /// What is owed to a database at another address than the configured one, if anything is.
    pub(crate) fn owed_elsewhere(&self) -> Option<OwedElsewhere> {
        let mut moved = self.left.iter().filter_map(|left| Some((left, left.moved?)));
        let (first, database) = moved.next()?;
        let database = moved.fold(database, |newest, (_, other)| {
            let (newest, other) = newest.zip(other).filter(|(newest, other)| newest.id == other.id)?;
            Some(if other.continues(newest) { other } else { newest })
        });
        Some(OwedElsewhere { told: first.to_string(), database })
    }
}
