//! The command `reconcile`: brings the database what it is owed, and accepts another database where somebody says so.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use agent_storage::chain::{AcceptedPrimary, ChainState, ChainStatus, DatabaseChain, JournalFile};
use agent_storage::contract::{ConflictOptions, Identity};
use agent_storage::{Database, StorageManager};
use serde_json::{Value as Json, json};
use tokio::time::{Instant, timeout_at};

use crate::arguments::{Reconcile, Until};
use crate::exit::{Exit, Failure, complain};
use crate::output::Output;

/// How often progress is looked at.
const GLANCE: Duration = Duration::from_millis(100);

/// How often progress is told.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// A moment that is never reached.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

impl Reconcile {
    pub(crate) async fn run(&self, manager: &StorageManager, output: &Output) -> Result<Exit, Failure> {
        let chain = open(manager).await?;
        let folder = &manager.config().database.chain.journal.path;
        let accepted = if self.accept { Some(accept(&chain, folder).await?) } else { None };
        self.until.settled(manager, &chain, accepted, output).await
    }
}

/// The chain of the database.
pub(crate) async fn open(manager: &StorageManager) -> Result<Arc<DatabaseChain>, Failure> {
    let reason = "nothing stands behind the database, so it is brought nothing; set `fallback` for that";
    manager.open_database_chain().await?.ok_or_else(|| Failure::Input(reason.to_owned()))
}

impl Until {
    /// Waits until nothing is owed, or the time is over, and reports.
    pub(crate) async fn settled(
        &self,
        manager: &StorageManager,
        chain: &DatabaseChain,
        accepted: Option<AcceptedPrimary>,
        output: &Output,
    ) -> Result<Exit, Failure> {
        let deadline = Instant::now() + self.timeout.map_or(FOR_EVER, |timeout| timeout.min(FOR_EVER));
        let ended = timeout_at(deadline, settle(chain)).await;
        let report = Report::of(manager, chain, accepted).await?;
        output.report(if self.json { format!("{:#}", report.json()) } else { report.text() }).await?;
        let status = &report.status;
        match ended {
            Ok(Ended::Settled) => Ok(if report.needs_somebody() { Exit::Failed } else { Exit::Done }),
            Ok(Ended::Fenced) => {
                complain(status.reason.as_ref().map_or("another database answers", |reason| reason.message()));
                Ok(Exit::Unusable)
            }
            Err(_) => {
                complain(&format!("the time is over, and {} operations are still owed{}", status.pending, why(status)));
                Ok(Exit::Unusable)
            }
        }
    }
}

/// Says what is known and what answers, and accepts the latter.
async fn accept(chain: &DatabaseChain, folder: &Path) -> Result<AcceptedPrimary, Failure> {
    for journal in JournalFile::list(folder).await? {
        let Ok(contents) = &journal.contents else { continue };
        let name = journal.path.file_name().unwrap_or_default().to_string_lossy();
        let known = contents.identity.map_or_else(|| "no database yet".to_owned(), shown);
        let place = contents.owed_to.as_deref().unwrap_or("-");
        complain(&format!("{name}: {} pending; knows {known} at {place}", contents.pending));
    }
    let accepted = chain.accept_primary().await?;
    complain(&format!("accepted {}; {} other processes were told", shown(accepted.identity), accepted.told));
    Ok(accepted)
}

fn shown(identity: Identity) -> String {
    format!("{:032x} (at {})", identity.id, identity.canary)
}

/// How the replay ended.
enum Ended {
    /// Nothing is owed.
    Settled,
    /// Another database answers.
    Fenced,
}

/// Waits until nothing is owed, and tells how it goes.
async fn settle(chain: &DatabaseChain) -> Ended {
    let mut told = String::new();
    let mut next = Instant::now();
    loop {
        let status = chain.status();
        if status.fenced {
            return Ended::Fenced;
        }
        if status.state == ChainState::Normal {
            return Ended::Settled;
        }
        if Instant::now() >= next {
            let line = format!("{}: {} pending{}", status.state.as_str(), status.pending, why(&status));
            if line != told {
                complain(&line);
                told = line;
                next = Instant::now() + TELL_EVERY;
            }
        }
        tokio::time::sleep(GLANCE).await;
    }
}

fn why(status: &ChainStatus) -> String {
    status.reason.as_ref().map_or_else(String::new, |reason| format!(": {}", reason.message()))
}

/// What there is to say at the end.
struct Report {
    status: ChainStatus,
    /// How many conflicts are kept, those of before too; `None` if the database cannot be asked.
    conflicts: Option<usize>,
    /// How many other processes live that have a journal, and what they owe.
    living: usize,
    owed_by_living: u64,
    accepted: Option<AcceptedPrimary>,
}

impl Report {
    async fn of(
        manager: &StorageManager,
        chain: &DatabaseChain,
        accepted: Option<AcceptedPrimary>,
    ) -> Result<Self, Failure> {
        let folder = &manager.config().database.chain.journal.path;
        let status = chain.status();
        let conflicts = match status.state {
            ChainState::Normal => Some(count_conflicts(&manager.database().await?).await?),
            _ => None,
        };
        // This process's own journal is one of those that are owned.
        let owned = JournalFile::list(folder).await?.into_iter().filter(|journal| journal.is_owned);
        let (mut living, mut owed) = (0_usize, 0);
        for journal in owned {
            living += 1;
            owed += journal.contents.map_or(0, |contents| contents.pending);
        }
        let owed_by_living = owed.saturating_sub(u64::try_from(status.pending).unwrap_or(u64::MAX));
        Ok(Self { status, conflicts, living: living.saturating_sub(1), owed_by_living, accepted })
    }

    /// Whether something is left that goes away by nobody's waiting.
    fn needs_somebody(&self) -> bool {
        self.status.parked > 0 || self.conflicts.is_some_and(|count| count > 0) || !self.status.left_journals.is_empty()
    }

    fn text(&self) -> String {
        let ChainStatus { replayed, pending, parked, left_journals, .. } = &self.status;
        let mut lines = vec![format!("{replayed} operations replayed, {pending} still owed")];
        if *parked > 0 {
            lines.push(format!("{parked} operations put aside: agent-storage journal export says why"));
        }
        match self.conflicts {
            Some(0) => {}
            Some(count) if count >= ConflictOptions::MAX_LIMIT => {
                lines.push(format!("{count} conflicts or more are kept"))
            }
            Some(count) => lines.push(format!("{count} conflicts are kept")),
            None => lines.push("the database cannot be asked for conflicts now".to_owned()),
        }
        lines.extend(left_journals.iter().map(|left| format!("left alone: {left}")));
        if self.living > 0 {
            let (living, owed) = (self.living, self.owed_by_living);
            lines.push(format!(
                "{living} other processes live here and owe {owed} operations, which they replay themselves"
            ));
        }
        lines.join("\n")
    }

    fn json(&self) -> Json {
        let accepted = self.accepted.map(|accepted| {
            let AcceptedPrimary { identity, taken_over, told, .. } = accepted;
            json!({ "identity": format!("{:032x}", identity.id), "taken_over": taken_over, "told": told })
        });
        json!({
            "state": self.status.state.as_str(),
            "fenced": self.status.fenced,
            "replayed": self.status.replayed,
            "pending": self.status.pending,
            "parked": self.status.parked,
            "conflicts": self.conflicts,
            "left_journals": self.status.left_journals,
            "living": { "processes": self.living, "pending": self.owed_by_living },
            "accepted": accepted,
        })
    }
}

/// How many conflicts are kept, up to a page of them.
async fn count_conflicts(database: &Database) -> Result<usize, Failure> {
    let mut kept = database.conflicts();
    let mut count = 0;
    while count < ConflictOptions::MAX_LIMIT
        && let Some(conflict) = kept.next().await
    {
        conflict?;
        count += 1;
    }
    Ok(count)
}
