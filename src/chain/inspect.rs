//! The journals of a folder as somebody from outside sees them: [`JournalFile`].

use std::path::{Path, PathBuf};

use crate::contract::Identity;
use crate::error::{Error, Result};
use crate::stamp::Stamp;
use crate::time::Timestamp;

use super::database::JournaledOperation;
use super::journal::glance::{self, Glance};

/// How many operations, and bytes of their values, are read at once.
const AT_ONCE: usize = 1000;
const AT_ONCE_BYTES: usize = 8 << 20;

/// A journal in a folder, looked at without taking it over: it needs no primary, and is safe while its owner runs.
///
/// # Examples
///
/// ```
/// use agent_storage::chain::JournalFile;
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// for journal in JournalFile::list(".agent-storage/journal-of-nobody").await? {
///     println!("{}: {} bytes", journal.path.display(), journal.bytes);
/// }
/// # Ok::<(), agent_storage::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct JournalFile {
    /// The file.
    pub path: PathBuf,
    /// Whether the process that it belongs to lives. The journal of a dead one is taken over by the next process that uses the
    /// folder.
    pub is_owned: bool,
    /// The bytes of the file and of its log.
    pub bytes: u64,
    /// What it holds, or why that cannot be told.
    pub contents: Result<JournalContents>,
}

/// What a journal holds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct JournalContents {
    /// The form of the file; 0 for one that was only just made.
    pub format: u32,
    /// How many operations wait for the primary.
    pub pending: u64,
    /// How many were put aside, because the primary does not take them.
    pub parked: u64,
    /// When the oldest of both was written.
    pub oldest: Option<Timestamp>,
    /// Where the primary is that they are owed to, without user and password; `None` for one in memory.
    pub owed_to: Option<String>,
    /// Which database the primary was when it was last seen.
    pub identity: Option<Identity>,
}

impl JournalFile {
    /// Looks at the journals of a folder, in the order of their names. A folder that does not exist has none.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) if the folder cannot be read. A journal that cannot be read is none.
    ///
    /// # Cancel safety
    ///
    /// It may be dropped at any point.
    pub async fn list(folder: impl AsRef<Path>) -> Result<Vec<Self>> {
        let folder = folder.as_ref().to_owned();
        blocking(move || glance::list(&folder)?.into_iter().filter_map(|path| Self::look(path).transpose()).collect())
            .await
    }

    /// Reads what it holds, also what was put aside, in its order, from the first after `after` (0 begins), at most 1000 at once. An
    /// empty answer is the end. What is replayed meanwhile is left out.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) if it cannot be read now, or is not there any more;
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if a newer program wrote it;
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) if it is damaged.
    ///
    /// # Cancel safety
    ///
    /// It may be dropped at any point.
    pub async fn operations(&self, after: u64) -> Result<Vec<JournaledOperation>> {
        let path = self.path.clone();
        let exported = blocking(move || glance::export(&path, after, AT_ONCE, AT_ONCE_BYTES)).await?;
        Ok(exported.into_iter().map(JournaledOperation::from).collect())
    }

    /// `None` if it was taken over a moment ago.
    fn look(path: PathBuf) -> Result<Option<Self>> {
        let is_owned = glance::is_owned(&path)?;
        let contents = glance::glance(&path).map(JournalContents::from);
        let bytes = glance::bytes(&path);
        Ok((contents.is_ok() || path.exists()).then_some(Self { path, is_owned, bytes, contents }))
    }
}

impl From<Glance> for JournalContents {
    fn from(glance: Glance) -> Self {
        let Glance { format, pending, parked, oldest, meta } = glance;
        let oldest = oldest.map(Stamp::timestamp);
        Self { format, pending, parked, oldest, owed_to: meta.fingerprint, identity: meta.identity }
    }
}

/// Runs what blocks on a thread for that.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let task = tokio::task::spawn_blocking(work);
    task.await.map_err(|error| Error::internal("looking at the journals panicked").with_source(error))?
}
