//! The [`DatabaseChain`]: a database, and a journal of what it is owed while it is away.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::config::{DatabaseChainConfig, DatabaseFallback};
use crate::contract::{
    Append, AppendAck, Attempt, Capabilities, ConflictOptions, ConflictRecord, Context, DatabaseBackend, Durability,
    GetOptions, Identity, Item, KeyPage, ListOptions, ListRange, Lookup, Ping, ReplayOptions, ReplayOutcome, Step,
    StepAck, Store, ToEnd, Write, WriteAck,
};
use crate::error::{Error, Result};
use crate::key::{Key, KeyPrefix};
use crate::stamp::{HybridClock, Stamp};
use crate::time::{Clock, Ttl};

use crate::chain::core::{Core, Parts, Settings};
use crate::chain::elsewhere::OwedElsewhere;
use crate::chain::inherit::inherit;
use crate::chain::journal::{Header, Journal, VolatileJournal, each_header};
use crate::chain::owed::Owed;
use crate::chain::status::ChainStatus;
use crate::chain::{reconcile, watch as watching};

#[cfg(feature = "sqlite")]
use crate::chain::adoption;
#[cfg(feature = "sqlite")]
use crate::chain::journal::{DiskJournal, JournalFolder};

use super::entry::JournaledOperation;
use super::{aside, batch, closing, guarded, read};

/// How many operations, and bytes of their values, are exported at once.
const EXPORTED: usize = 1000;
const EXPORTED_BYTES: usize = 8 << 20;

/// A database with a journal behind it.
///
/// While the primary is away, unconditional writes are kept in the journal and acknowledged with the durability they have there;
/// reads of their keys are answered from it, and all others are unavailable, never missing. When the primary is back, the
/// journal is replayed.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
///
/// use agent_storage::backend::memory::MemoryDatabase;
/// use agent_storage::chain::{ChainOptions, ChainState, DatabaseChain};
/// use agent_storage::config::{DatabaseChainConfig, DatabaseFallback, MemoryDatabaseConfig};
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let primary = Arc::new(MemoryDatabase::new(&MemoryDatabaseConfig::default()));
/// let (config, options) = (DatabaseChainConfig::default(), ChainOptions::new(Duration::from_secs(5)));
/// let chain = DatabaseChain::open(primary, DatabaseFallback::Memory, &config, options).await?;
/// assert_eq!(chain.status().state, ChainState::Normal);
/// # Ok::<(), agent_storage::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug)]
pub struct DatabaseChain {
    pub(super) core: Arc<Core>,
    tasks: Vec<JoinHandle<()>>,
    timeout: Duration,
    #[cfg(feature = "sqlite")]
    on_disk: Option<OnDisk>,
}

/// The journal of this process, and the folder in which those of others are.
#[cfg(feature = "sqlite")]
#[derive(Clone, Debug)]
struct OnDisk {
    folder: Arc<JournalFolder>,
    journal: Arc<DiskJournal>,
}

/// What was accepted by [`DatabaseChain::accept_primary`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AcceptedPrimary {
    /// The database that is the known one from now on.
    pub identity: Identity,
    /// How many operations were taken over from the journals of dead processes, which were owed to another database or address.
    pub taken_over: u64,
    /// How many other living processes were told. Those that find another database than the known one take this for it.
    pub told: usize,
}

/// What a chain needs beside its primary and its configuration.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ChainOptions {
    /// How long the calls to the chain may take; from it follows how soon a primary that does not answer is suspected.
    pub timeout: Duration,
    /// Names the configured primary, without secrets: operations that were journaled for another one are not replayed to this one. A
    /// database in memory has no name where it ends with its process: each start expects another one then.
    pub fingerprint: Option<String>,
    /// What all keys begin with that come to the chain of a cache: where too many of them are dirty, everything that begins so is
    /// cleared. Everything by default. A database's chain does not use it.
    pub scope: KeyPrefix,
    /// How long a cache's primary keeps an entry that was given no TTL, so that what stands in does the same. For ever by default. A
    /// database's chain does not use it.
    pub default_ttl: Option<Ttl>,
    /// The wall clock.
    pub clock: Clock,
    /// The clock of the stamps, by default that of the process. The primary may have another one: this one is shown what is read, and
    /// what stands in the way of a write.
    pub stamps: Arc<HybridClock>,
}

impl ChainOptions {
    /// Makes options with the process's clocks.
    #[must_use]
    pub fn new(timeout: Duration) -> Self {
        Self {
            timeout,
            fingerprint: None,
            scope: KeyPrefix::empty(),
            default_ttl: None,
            clock: Clock::system(),
            stamps: HybridClock::process(),
        }
    }
}

/// What was before a chain.
#[derive(Debug, Default)]
struct Before {
    /// Who had its journal.
    predecessors: BTreeSet<u64>,
    /// What is owed to a database at another address.
    owed_elsewhere: Option<OwedElsewhere>,
}

impl DatabaseChain {
    /// Opens a chain: finds or makes its journal, rebuilds what is owed, and asks the primary whether it is there. One that is not
    /// is no error: the chain begins degraded.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if the primary cannot replay;
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) if the journal cannot be opened;
    /// [`ErrorKind::FeatureDisabled`](crate::ErrorKind::FeatureDisabled) if it is to be on disk, and SQLite is not compiled in.
    ///
    /// # Cancel safety
    ///
    /// It may be dropped at any point; a journal that was made by then is found by the next one.
    pub async fn open(
        primary: Arc<dyn DatabaseBackend>,
        fallback: DatabaseFallback,
        config: &DatabaseChainConfig,
        options: ChainOptions,
    ) -> Result<Self> {
        if !primary.capabilities().replay {
            return Err(Error::unsupported("this database cannot have a fallback, because it cannot replay a journal"));
        }
        match fallback {
            DatabaseFallback::Memory => {
                let journal = Arc::new(VolatileJournal::new(config.journal.max_bytes));
                Self::over(primary, Some(journal), Before::default(), config, options).await
            }
            #[cfg(feature = "sqlite")]
            DatabaseFallback::Sqlite => Self::on_disk(primary, config, options).await,
            #[cfg(not(feature = "sqlite"))]
            DatabaseFallback::Sqlite => Err(Error::feature_disabled("sqlite")),
        }
    }

    #[cfg(feature = "sqlite")]
    async fn on_disk(
        primary: Arc<dyn DatabaseBackend>,
        config: &DatabaseChainConfig,
        options: ChainOptions,
    ) -> Result<Self> {
        let settings = &config.journal;
        let (fingerprint, writer) = (options.fingerprint.clone(), options.stamps.writer());
        let folder = Arc::new(JournalFolder::new(&settings.path, fingerprint, settings.max_bytes, writer));
        let (journal, mut found) = folder.open().await?;
        let predecessors = std::mem::take(&mut found.predecessors);
        let journal = Arc::new(journal);
        adoption::follow_others(&options.stamps, options.clock.now(), &found);
        let before = Before { predecessors, owed_elsewhere: found.owed_elsewhere() };
        let is_moved = before.owed_elsewhere.is_some();
        let mut chain = Self::over(primary, Some(journal.clone()), before, config, options).await?;
        chain.core.set_left_journals(folder.left());
        if is_moved {
            // By now the primary may have said which database it is.
            adoption::look_again(&chain.core, &folder, &journal, adoption::Readers::NotYet).await;
        }
        let run = adoption::run(Arc::clone(&chain.core), Arc::clone(&folder), Arc::clone(&journal));
        chain.tasks.push(tokio::spawn(run));
        chain.on_disk = Some(OnDisk { folder, journal });
        Ok(chain)
    }

    /// Opens a chain over a journal that is open already: rebuilds what is owed, and asks the primary whether it is there.
    async fn over(
        primary: Arc<dyn DatabaseBackend>,
        journal: Option<Arc<dyn Journal>>,
        before: Before,
        config: &DatabaseChainConfig,
        options: ChainOptions,
    ) -> Result<Self> {
        let ChainOptions { timeout, fingerprint, scope: _, default_ttl: _, clock, stamps } = options;
        let (mut owed, mut known) = (Owed::default(), None);
        if let Some(journal) = &journal {
            let meta = journal.meta().await?;
            if let Some(reserve) = meta.clock_reserve {
                stamps.observe(Stamp::earliest(reserve));
            }
            owed = read_owed(&**journal, &stamps).await?;
            inherit(&**journal, &before.predecessors | &owed.writers(), &stamps).await?;
            // Without an address, what ends with its process is another one each time.
            let is_new = fingerprint.is_none() && primary.capabilities().durability == Durability::Volatile;
            known = meta.identity.filter(|_| !is_new);
        }
        primary.expect(known)?;
        let settings = Settings::new(config, timeout, fingerprint);
        let core = Core::new(Parts { primary, journal, config: config.clone(), settings, clock, stamps, owed, known });
        // Nothing may go to a database before it is known that nothing is owed to another one.
        core.set_owed_elsewhere(before.owed_elsewhere)?;
        watching::keep(&core).await;
        watching::probe(&core).await;
        watching::keep(&core).await;
        core.announce(None);
        let tasks =
            vec![tokio::spawn(watching::run(Arc::clone(&core))), tokio::spawn(reconcile::run(Arc::clone(&core)))];
        Ok(Self {
            core,
            tasks,
            timeout,
            #[cfg(feature = "sqlite")]
            on_disk: None,
        })
    }

    /// Ends the probes and the replay. What is owed stays in the journal.
    pub(crate) fn stop(&self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }

    /// How the chain is now.
    #[must_use]
    pub fn status(&self) -> ChainStatus {
        self.core.current_status()
    }

    /// Lists what is in the journal, also what was put aside, in its order, from the first after `after` (0 begins), at most 1000 at
    /// once. An empty answer is the end.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) if the journal cannot be read.
    ///
    /// # Cancel safety
    ///
    /// It may be dropped at any point.
    pub async fn journaled(&self, after: u64) -> Result<Vec<JournaledOperation>> {
        let Some(journal) = &self.core.journal else { return Ok(Vec::new()) };
        let exported = journal.export(after, EXPORTED, EXPORTED_BYTES).await?;
        let owed = self.core.owed();
        let mut operations: Vec<_> = exported.into_iter().map(JournaledOperation::from).collect();
        for operation in &mut operations {
            operation.waits_behind = owed.waits_behind(operation.seq);
        }
        Ok(operations)
    }

    /// Has operations wait for the primary again that were put aside, and with them what waits behind them: the one with the number
    /// `only`, or all. It says how many were put aside. One that the primary still does not take is put aside again.
    ///
    /// What others wrote since counts as written meanwhile from the moment on at which the oldest of them was written.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) if the journal cannot be written; nothing changed then.
    ///
    /// # Cancel safety
    ///
    /// Once polled it runs to its end, though it is dropped.
    pub async fn retry_parked(&self, only: Option<u64>) -> Result<usize> {
        aside::retry(&self.core, only).await
    }

    /// Gives up an operation that was put aside, as [`DatabaseChain::journaled`] numbers it: **what it wrote is lost**. What waited
    /// behind it in its list goes on. `false` if it was not put aside, or is not there any more.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) if the journal cannot be written; nothing changed then.
    ///
    /// # Cancel safety
    ///
    /// Once polled it runs to its end, though it is dropped.
    pub async fn drop_parked(&self, seq: u64) -> Result<bool> {
        aside::give_up(&self.core, seq).await
    }

    /// Which database the primary is that is known, if one was seen yet. Another one is not used.
    #[must_use]
    pub fn known_primary(&self) -> Option<Identity> {
        *self.core.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the database that answers now for the known one, whichever it is: an operator's decision, after a backup was restored or
    /// the server was moved. What is owed is replayed to it; what only the former database had is not there. Tables are made in an
    /// empty one.
    ///
    /// It holds for all that is in the folder of the journal: what dead processes have left is taken over, also where it is owed to
    /// another address, and living processes that are fenced off accept the same database with their next probe.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) if no database answers, which changes nothing; or if the folder of
    /// the journal cannot be read or written, and then it is to be called again.
    ///
    /// # Cancel safety
    ///
    /// It goes on in a task of its own if it is dropped; calling it again is harmless.
    pub async fn accept_primary(&self) -> Result<AcceptedPrimary> {
        #[cfg(feature = "sqlite")]
        let on_disk = self.on_disk.clone();
        let (core, timeout) = (Arc::clone(&self.core), self.timeout);
        // What is taken over must be known here, and the primary be told which database to be, though the caller goes away.
        ToEnd::new(async move {
            // Whoever looks through the folder meanwhile must not say again, by what it saw before, that something is owed elsewhere.
            #[cfg(feature = "sqlite")]
            let _turn = match &on_disk {
                Some(OnDisk { folder, .. }) => Some(folder.turn().await),
                None => None,
            };
            let cx = Context::with_timeout(timeout);
            core.admit(&cx)?;
            let identity = watching::accept(&core, &cx).await?;
            let accepted = AcceptedPrimary { identity, taken_over: 0, told: 0 };
            #[cfg(feature = "sqlite")]
            if let Some(OnDisk { folder, journal }) = &on_disk {
                let spread = adoption::spread(&core, folder, journal, identity).await?;
                return Ok(AcceptedPrimary { taken_over: spread.taken_over, told: spread.told, ..accepted });
            }
            Ok(accepted)
        })
        .await
    }

    /// Tells each change of the chain's state. A watcher that is slow sees the latest.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<ChainStatus> {
        self.core.watch()
    }
}

/// What a journal says is owed.
async fn read_owed(journal: &dyn Journal, stamps: &HybridClock) -> Result<Owed> {
    let mut owed = Owed::default();
    let mut add = |header: Header| {
        stamps.observe(header.stamp);
        owed.add(header);
    };
    each_header(journal, 0, |headers| headers.into_iter().for_each(&mut add)).await?;
    Ok(owed)
}

impl Drop for DatabaseChain {
    fn drop(&mut self) {
        self.stop();
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Store for DatabaseChain {
    async fn get(&self, key: &Key, options: &GetOptions, cx: &Context) -> Result<Lookup> {
        read::get(&self.core, key, options, cx).await
    }

    async fn get_many(&self, keys: &[Key], options: &GetOptions, cx: &Context) -> Vec<Result<Lookup>> {
        read::get_many(&self.core, keys, options, cx).await
    }

    async fn exists(&self, keys: &[Key], cx: &Context) -> Vec<Result<bool>> {
        read::exists(&self.core, keys, cx).await
    }

    async fn write(&self, write: Write, cx: &Context) -> Result<WriteAck> {
        let answer = batch::send(&self.core, vec![write], cx).await.pop();
        answer.unwrap_or_else(|| Err(Error::internal("a write was not answered")))
    }

    async fn write_many(&self, writes: Vec<Write>, cx: &Context) -> Vec<Result<WriteAck>> {
        batch::send(&self.core, writes, cx).await
    }

    async fn list(&self, prefix: &KeyPrefix, options: &ListOptions, cx: &Context) -> Result<KeyPage> {
        read::list(&self.core, prefix, options, cx).await
    }

    async fn count(&self, prefix: &KeyPrefix, cx: &Context) -> Result<u64> {
        read::count(&self.core, prefix, cx).await
    }

    async fn clear(&self, prefix: &KeyPrefix, stamp: Stamp, attempt: Attempt, cx: &Context) -> Result<Option<u64>> {
        guarded::clear(&self.core, prefix, stamp, attempt, cx).await
    }

    /// Asks the primary, also while the breaker is open.
    async fn ping(&self, cx: &Context) -> Result<Ping> {
        self.core.admit(cx)?;
        let ping = self.core.primary.ping(cx).await?;
        ping.identity.into_iter().for_each(|raised| watching::note_ping(&self.core, raised));
        Ok(ping)
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = self.core.primary.capabilities();
        capabilities.replay = false;
        // A write gets its stamp here, when its turn has come: the same write sent twice is two.
        capabilities.stamp_guard = false;
        capabilities
    }

    /// What is still owed stays in a journal on disk, for the next start; one in memory ends here.
    async fn close(&self, cx: &Context) -> Result<()> {
        let is_first = self.core.close();
        if is_first {
            self.stop();
        }
        // At once, so that a primary that hangs does not keep the journal from the next one.
        let (primary, journal) =
            tokio::join!(self.core.primary.close(cx), closing::close_journal(&self.core, is_first, cx));
        primary.and(journal)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl DatabaseBackend for DatabaseChain {
    async fn append_many(&self, items: Vec<Append>, cx: &Context) -> Vec<Result<AppendAck>> {
        batch::send(&self.core, items, cx).await
    }

    async fn range(&self, key: &Key, range: ListRange, cx: &Context) -> Result<Vec<Item>> {
        read::range(&self.core, key, range, cx).await
    }

    async fn length(&self, key: &Key, cx: &Context) -> Result<u64> {
        read::length(&self.core, key, cx).await
    }

    async fn trim(&self, key: &Key, keep_last: u64, cx: &Context) -> Result<u64> {
        guarded::trim(&self.core, key, keep_last, cx).await
    }

    async fn apply(&self, steps: Vec<Step>, cx: &Context) -> Result<Vec<StepAck>> {
        guarded::apply(&self.core, steps, cx).await
    }

    async fn replay(&self, steps: Vec<Step>, options: &ReplayOptions, cx: &Context) -> Vec<Result<ReplayOutcome>> {
        let _ = (options, cx);
        steps.into_iter().map(|_| Err(own_affair())).collect()
    }

    async fn identity(&self, cx: &Context) -> Result<Identity> {
        self.core.admit(cx)?;
        self.core.primary.identity(cx).await
    }

    async fn stamps(&self, keys: &[Key], cx: &Context) -> Result<Vec<Option<Stamp>>> {
        self.core.admit(cx)?;
        read::read(&self.core, self.core.primary.stamps(keys, cx)).await
    }

    async fn conflicts(&self, options: &ConflictOptions, cx: &Context) -> Result<Vec<ConflictRecord>> {
        self.core.admit(cx)?;
        read::read(&self.core, self.core.primary.conflicts(options, cx)).await
    }

    async fn forget_conflict(&self, key: &Key, stamp: Stamp, cx: &Context) -> Result<bool> {
        self.core.admit(cx)?;
        guarded::ask(&self.core, self.core.primary.forget_conflict(key, stamp, cx)).await
    }

    fn expect(&self, identity: Option<Identity>) -> Result<()> {
        let _ = identity;
        Err(own_affair())
    }
}

fn own_affair() -> Error {
    Error::unsupported("a chain replays its own journal, and sees to it itself which database answers")
}
