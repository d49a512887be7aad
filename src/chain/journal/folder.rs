//! The folder of the journals: [`JournalFolder`]. Each process has a file of its own in it, and takes over those of the dead.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;

use crate::chain::folder::{create_folder, sync_folder};
use crate::contract::Identity;
use crate::error::{Error, Result};

use super::acceptance::{self, Word};
use super::candidate::Candidate;
use super::disk::{DiskJournal, patiently};
use super::episode;
use super::files;
use super::found::{Found, LeftFile, LeftReason, Moved};
use super::glance;
use super::import::{self, Known};
use super::lock::OwnerLock;
use super::operation::Meta;
use super::shared::Shared;
use super::store::Journal as _;
use super::survey::{Survey, Surveyed};
use super::table;

/// Where the journals of the processes on this machine are.
#[derive(Debug)]
pub(crate) struct JournalFolder {
    path: PathBuf,
    /// Which primary the configuration names. A journal of another one is left alone.
    fingerprint: Option<String>,
    max_bytes: u64,
    /// Who gives the stamps of this process.
    writer: u64,
    /// The files that were left alone.
    left: Mutex<BTreeMap<PathBuf, Left>>,
    /// After which operation those were put that were taken over, where the chain does not know yet that they are owed.
    news: Mutex<Option<u64>>,
    turn: tokio::sync::Mutex<()>,
}

/// What is known of a file that was left alone.
#[derive(Debug)]
struct Left {
    told: String,
    /// Whether it stays as it is, so that it need not be read again and again.
    stays: bool,
    moved: Option<Moved>,
}

impl JournalFolder {
    /// Names a folder, the primary of the configuration without its secrets, the bytes that this process's journal may hold, and who
    /// gives its stamps.
    pub(crate) fn new(path: impl Into<PathBuf>, fingerprint: Option<String>, max_bytes: u64, writer: u64) -> Self {
        let (left, news, turn) = (Mutex::default(), Mutex::default(), tokio::sync::Mutex::default());
        Self { path: path.into(), fingerprint, max_bytes, writer, left, news, turn }
    }

    /// Waits until nobody else of this process decides what becomes of the files in the folder.
    pub(crate) async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// Opens this process's journal: that of a dead process if there is one, else a new one. What other dead processes have left is
    /// copied into it.
    ///
    /// # Errors
    ///
    /// `Unavailable` if the folder or the file cannot be used, `permanent` where waiting does not help.
    pub(crate) async fn open(&self) -> Result<(DiskJournal, Found)> {
        let (path, survey) = (self.path.clone(), self.survey(HashSet::new(), None));
        let surveyed = blocking(move || {
            create_folder(&path)?;
            survey.run()
        });
        let Surveyed { mut ours, left, known_by_others: known, gone: _ } = surveyed.await?;
        let mut found = Found::default();
        self.leave_all(left, &mut found);
        // What the own file says is newer where its process was told, and died before it heard.
        let (journal, known, word) = match largest(&ours) {
            Some(index) => {
                let Candidate { path, lock, connection, meta, word, .. } = ours.swap_remove(index);
                drop(connection);
                (DiskJournal::open(path, lock, self.max_bytes).await?, import::newest(meta.identity, known), word)
            }
            None => (self.create().await?, known, None),
        };
        found.predecessors.extend(self.sign(&journal, known).await?);
        if let Some(word) = word {
            // Now it is written down, and counts once.
            let path = journal.path().to_owned();
            blocking(move || {
                acceptance::forget_this(&path, &word);
                Ok(())
            })
            .await?;
        }
        self.import(&journal, ours, Known::Newest, &mut found).await;
        // Whoever opens it reads all of it.
        self.take_news();
        // Last: whatever others take over meanwhile was to be seen before.
        let path = self.path.clone();
        let (newest, reserve) = blocking(move || Ok(glance::newest_stamps(&path))).await?;
        (found.newest_of_others, found.reserve_of_others) = (newest, reserve);
        Ok((journal, found))
    }

    async fn create(&self) -> Result<DiskJournal> {
        let folder = self.path.clone();
        let (path, lock) = blocking(move || files::create_journal(&folder)).await?;
        let journal = DiskJournal::open(path, lock, self.max_bytes).await?;
        let folder = self.path.clone();
        blocking(move || sync_folder(&folder)).await?;
        Ok(journal)
    }

    /// Takes over what processes have left that died since. What was left alone before is not told again.
    ///
    /// # Errors
    ///
    /// `Unavailable` if the folder cannot be read.
    pub(crate) async fn adopt(&self, journal: &DiskJournal) -> Result<Found> {
        self.adopt_of(journal, None).await
    }

    /// As [`JournalFolder::adopt`], where `answered` is the database that answers if none is known, and what was left alone before is
    /// looked at again. What was owed elsewhere and cannot be read now still is.
    ///
    /// # Errors
    ///
    /// `Unavailable` if the folder cannot be read.
    pub(crate) async fn look_again(&self, journal: &DiskJournal, answered: Option<Identity>) -> Result<Found> {
        let before = std::mem::take(&mut *self.lock_left());
        let found = self.adopt_of(journal, answered).await;
        let mut left = self.lock_left();
        let Ok(mut found) = found else {
            *left = before;
            return found;
        };
        for file in found.left.iter_mut().filter(|file| matches!(file.reason, LeftReason::Unreadable(_))) {
            file.moved = before.get(&file.path).and_then(|before| before.moved);
            left.entry(file.path.clone()).and_modify(|left| left.moved = file.moved);
        }
        Ok(found)
    }

    async fn adopt_of(&self, journal: &DiskJournal, answered: Option<Identity>) -> Result<Found> {
        // A failure that passes is tried again.
        self.lock_left().retain(|_, left| left.stays);
        let skipped = self.lock_left().keys().cloned().chain([journal.path().to_owned()]).collect();
        let known = journal.meta().await?.identity;
        let survey = self.survey(skipped, known.or(answered));
        let Surveyed { ours, left, known_by_others, gone } = blocking(move || survey.run()).await?;
        self.lock_left().retain(|path, _| !gone.contains(path));
        // Whoever recognised it at this address does so for those that could not yet, unless another one answers these.
        let is_it = |theirs: &Identity| known.is_none() && answered.is_none_or(|answered| answered.id == theirs.id);
        let mut found = Found { known: known_by_others.filter(is_it), ..Found::default() };
        self.leave_all(left, &mut found);
        self.import(journal, ours, Known::Newest, &mut found).await;
        Ok(found)
    }

    fn survey(&self, skipped: HashSet<PathBuf>, known: Option<Identity>) -> Survey {
        Survey { folder: self.path.clone(), address: self.fingerprint.clone(), skipped, known, takes_all: false }
    }

    /// Takes over what all dead processes have left, whichever database it is owed to: somebody has decided that it is owed to ours.
    ///
    /// # Errors
    ///
    /// `Unavailable` if the folder cannot be read.
    pub(crate) async fn adopt_all(&self, journal: &DiskJournal) -> Result<Found> {
        let skipped = HashSet::from([journal.path().to_owned()]);
        let survey = Survey { takes_all: true, ..self.survey(skipped, None) };
        let Surveyed { ours, left, .. } = blocking(move || survey.run()).await?;
        let mut found = Found::default();
        self.lock_left().clear();
        self.leave_all(left, &mut found);
        self.import(journal, ours, Known::Ours, &mut found).await;
        Ok(found)
    }

    /// Tells the living processes which database is to be taken for the known one, and whoever takes over what others leave; answers how
    /// many live.
    ///
    /// # Errors
    ///
    /// `Unavailable` if the folder cannot be read or written.
    pub(crate) async fn announce(&self, journal: &DiskJournal, accepted: Identity) -> Result<usize> {
        let (folder, ours) = (self.path.clone(), journal.path().to_owned());
        let word = Word { identity: accepted, address: self.fingerprint.clone() };
        blocking(move || {
            let mut told = 0;
            for path in files::list(&folder)?.0.iter().filter(|path| **path != ours) {
                let is_alive = glance::is_owned(path)?;
                acceptance::announce(path, &word)?;
                told += usize::from(is_alive);
            }
            Ok(told)
        })
        .await
    }

    /// After which operation of the journal those are that were taken over since this was asked last, if any were: the journal holds
    /// more than the chain knows.
    pub(crate) fn take_news(&self) -> Option<u64> {
        self.lock_news().take()
    }

    /// What was put there could not be read yet.
    pub(crate) fn put_news_back(&self, after: u64) {
        let mut news = self.lock_news();
        *news = Some(news.map_or(after, |earlier| earlier.min(after)));
    }

    fn lock_news(&self) -> MutexGuard<'_, Option<u64>> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The files that are left alone now, and why.
    pub(crate) fn left(&self) -> Vec<String> {
        self.lock_left().values().map(|left| left.told.clone()).collect()
    }

    fn lock_left(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Left>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves files as they are, and says so.
    fn leave_all(&self, files: Vec<LeftFile>, found: &mut Found) {
        for file in files {
            let path = file.path.display();
            let stays = match &file.reason {
                LeftReason::Unreadable(error) => {
                    tracing::error!(%path, %error, "a journal of a dead process was left alone");
                    !error.is_transient()
                }
                LeftReason::OwedElsewhere { operations, .. } => {
                    tracing::warn!(
                        %path,
                        operations,
                        "a journal of a dead process is owed to another database than the one that is configured"
                    );
                    true
                }
            };
            let left = Left { told: file.to_string(), stays, moved: file.moved };
            self.lock_left().insert(file.path.clone(), left);
            found.left.push(file);
        }
    }

    /// Writes down which primary the journal is owed to, which database others know it to be, and who writes from now on, before the
    /// first operation is kept. Answers who wrote before.
    async fn sign(&self, journal: &DiskJournal, known: Option<Identity>) -> Result<Option<u64>> {
        let folder = self.path.clone();
        let (fingerprint, writer) = (self.fingerprint.clone(), self.writer);
        let sign = move |connection: &Connection, _: &Shared| {
            let before = table::meta(connection)?;
            let identity = known.or(before.identity);
            let meta = Meta { fingerprint: fingerprint.clone(), identity, clock_reserve: before.clock_reserve };
            if meta != before {
                table::set_meta(connection, &meta)?;
            }
            let predecessor = table::writer(connection)?;
            table::set_writer(connection, writer)?;
            episode::end_if_settled(connection)?;
            episode::bound_succession(connection, episode::MOST_SUCCESSIONS)?;
            import::forget(connection, |name| !folder.join(name).exists())?;
            Ok(predecessor)
        };
        journal.change(patiently(), sign).await
    }

    /// Copies journals into ours and removes them. One that cannot be copied now stays.
    async fn import(&self, journal: &DiskJournal, dead: Vec<Candidate>, known: Known, found: &mut Found) {
        for candidate in dead {
            let path = candidate.path.clone();
            let (reserve, writer) = (candidate.meta.clock_reserve, candidate.writer);
            let theirs = candidate.meta.identity.filter(|_| known == Known::Newest);
            match self.import_one(journal, candidate, known).await {
                Ok(count) => {
                    found.imported += count;
                    found.reserve_of_others = found.reserve_of_others.max(reserve);
                    found.predecessors.extend(writer);
                    found.known = import::newest(found.known, theirs);
                }
                Err(error) => self.leave_all(vec![LeftFile::unreadable(path, error)], found),
            }
        }
    }

    async fn import_one(&self, journal: &DiskJournal, candidate: Candidate, known: Known) -> Result<u64> {
        let mark = candidate.mark();
        let Candidate { path, lock, connection, meta, .. } = candidate;
        let name = file_name(&path);
        let source = Arc::new(Source { connection: Mutex::new(Some(connection)), lock });
        let copy = {
            let source = Arc::clone(&source);
            move |target: &Connection, shared: &Shared| {
                let source = source.connection.lock().unwrap_or_else(PoisonError::into_inner);
                let Some(source) = &*source else { return Err(Error::internal("a journal was copied twice").into()) };
                let count = import::copy(source, &mark, &meta, target, known, || shared.next_seq())?;
                shared.measure(target)?;
                Ok(count)
            }
        };
        let last = journal.last_seq();
        let copied = journal.change(patiently(), copy).await;
        // Where nothing was copied now it may have been before, by one that was broken off, nobody knows to which place.
        self.put_news_back(if matches!(copied, Ok(1..)) { last } else { 0 });
        let count = copied?;
        // From here on the source is not needed any more; should it not be removed now, it is not copied again.
        let folder = self.path.clone();
        let removed = blocking(move || {
            source.connection.lock().unwrap_or_else(PoisonError::into_inner).take();
            files::remove_journal(&path, &source.lock)?;
            // Before its mark goes the disk must know that it is gone.
            sync_folder(&folder)
        });
        let forgotten = match removed.await {
            Ok(()) => {
                journal.change(patiently(), move |connection, _| import::forget(connection, |gone| gone == name)).await
            }
            removed => removed,
        };
        if let Err(error) = forgotten {
            tracing::warn!(%error, "a journal that was taken over could not be removed; it is tried again at the next start");
        }
        Ok(count)
    }
}

/// Which of the journals holds the most. One that was copied into another may hold what was settled since.
fn largest(ours: &[Candidate]) -> Option<usize> {
    let copied: HashSet<&String> = ours.iter().flat_map(|candidate| &candidate.copied).collect();
    let whole = ours.iter().enumerate().filter(|(_, candidate)| !copied.contains(&candidate.mark()));
    whole.max_by_key(|(_, candidate)| candidate.operations).map(|(index, _)| index)
}

/// A journal that is copied. The copy holds its lock, also if nobody waits for it any more.
struct Source {
    /// The writer's thread reads from it; nobody else does.
    connection: Mutex<Option<Connection>>,
    // Given back last.
    lock: OwnerLock,
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Runs what blocks on a thread for that.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let task = tokio::task::spawn_blocking(work);
    task.await.map_err(|error| Error::internal("looking through the journals panicked").with_source(error))?
}
