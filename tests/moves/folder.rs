//! The folder of the journals, looked at from outside.

use std::path::{Path, PathBuf};

use agent_storage::chain::{JournalContents, JournalFile};
use tokio::runtime::Handle;

use crate::files::{Address, Files};

/// A journal as `agent-storage journal status` shows it.
#[derive(Clone, Debug)]
pub(crate) struct Journal {
    file: JournalFile,
    pub(crate) is_owned: bool,
    /// How many operations it holds.
    pub(crate) operations: u64,
    pub(crate) parked: u64,
    /// At which address its process was.
    pub(crate) address: Option<Address>,
    /// Which database that was, and its number.
    pub(crate) identity: Option<(String, u64)>,
}

/// All journals of the folder.
pub(crate) fn journals(files: &Files, folder: &Path) -> Vec<Journal> {
    let found = Handle::current().block_on(JournalFile::list(folder)).unwrap();
    found.into_iter().map(|file| Journal::new(files, file)).collect()
}

impl Journal {
    fn new(files: &Files, file: JournalFile) -> Self {
        let contents = file.contents.clone().unwrap_or_else(|error| panic!("{}: {error}", file.path.display()));
        let JournalContents { pending, parked, owed_to, identity, .. } = contents;
        let is_at = |address: &Address| {
            owed_to.as_ref().is_some_and(|owed_to| owed_to.ends_with(files.path(*address).to_str().unwrap()))
        };
        Self {
            is_owned: file.is_owned,
            operations: pending + parked,
            parked,
            address: Address::ALL.into_iter().find(is_at),
            identity: identity.map(|identity| (format!("{:032x}", identity.id), identity.canary)),
            file,
        }
    }

    /// The key and the value of each of its operations; a delete has no value.
    pub(crate) fn owed(&self) -> Vec<(Option<String>, Option<i64>)> {
        let operations = Handle::current().block_on(self.file.operations(0)).unwrap();
        operations.into_iter().map(crate::history::of_journal).collect()
    }
}

/// Copies a folder whose processes all stand still.
pub(crate) fn copy(from: &Path, to: &Path) -> PathBuf {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
    to.to_owned()
}
