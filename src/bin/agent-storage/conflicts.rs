//! The command `conflicts`: writes that were acknowledged and lost against newer ones.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use agent_storage::contract::{ConflictRecord, LostOperation};
use agent_storage::{Clock, Database, Error, ErrorKind, Revision, SetOptions, Stamp, Timestamp, Ttl};
use serde::Serialize;

use crate::arguments::{Conflict, ConflictsCommand, Taken};
use crate::exit::{Exit, Failure, complain};
use crate::journal::ValueInJson;
use crate::output::Output;

impl ConflictsCommand {
    pub(crate) async fn run(self, database: &Database, output: &Output) -> Result<Exit, Failure> {
        match self {
            Self::List { limit, after, json } => list(database, limit.into(), after, json, output).await,
            Self::Show(conflict) => show(database, &conflict, output).await,
            Self::Resolve { conflict, take, force } => match take {
                Taken::Winner => forget(database, &conflict).await,
                Taken::Loser => write_again(database, &conflict, force).await,
            },
        }
    }
}

async fn list(
    database: &Database,
    limit: u64,
    after: Option<Vec<String>>,
    as_json: bool,
    output: &Output,
) -> Result<Exit, Failure> {
    let mut conflicts = match after.as_deref() {
        Some([stamp, key]) => database.conflicts_after(stamp.parse::<Stamp>()?, key.as_str())?,
        _ => database.conflicts(),
    };
    let mut lines = output.lines();
    let mut left = limit;
    while let Some(conflict) = conflicts.next().await {
        let conflict = conflict?;
        let line = if as_json { in_json(&Shown::without_value(&conflict))? } else { in_a_line(&conflict) };
        lines.push(line.as_bytes()).await?;
        left -= 1;
        if left == 0 {
            // As a shell takes it, whatever is in the key.
            let (stamp, key) = (conflict.stamp, conflict.key.as_str().replace('\'', "'\\''"));
            complain(&format!("there may be more, after: --after {stamp} '{key}'"));
            break;
        }
    }
    lines.finish().await?;
    Ok(Exit::Done)
}

fn in_a_line(conflict: &ConflictRecord) -> String {
    let ConflictRecord { key, stamp, operation, at, .. } = conflict;
    let at = at.as_millis();
    let moment = UNIX_EPOCH.checked_add(Duration::from_millis(at)).unwrap_or(SystemTime::UNIX_EPOCH);
    format!("{stamp} {:6} {} {key}", operation.as_str(), humantime::format_rfc3339_seconds(moment))
}

async fn show(database: &Database, named: &Conflict, output: &Output) -> Result<Exit, Failure> {
    let Some(conflict) = find(database, named).await? else { return Ok(unknown()) };
    let mut shown = Shown::without_value(&conflict);
    match &conflict.operation {
        LostOperation::Put { value, .. } | LostOperation::Append { value, .. } => shown.value = Some(value.into()),
        _ => {}
    }
    if !matches!(conflict.operation, LostOperation::Append { .. }) {
        let standing = database.lookup(&conflict.key).await?.into_entry();
        shown.standing = standing.map(|entry| Standing {
            is_the_winner: entry.revision == Revision::from_stamp(conflict.winner),
            revision: entry.revision.to_string(),
            value: (&entry.value).into(),
        });
    }
    output.line(in_json(&shown)?).await?;
    Ok(Exit::Done)
}

/// A conflict as it is printed. Its keys stay; new ones may come.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    key: &'a str,
    stamp: String,
    operation: &'static str,
    winner: String,
    at: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    item_id: Option<&'a str>,
    #[serde(flatten)]
    value: Option<ValueInJson>,
    /// The value that stands under the key now.
    #[serde(skip_serializing_if = "Option::is_none")]
    standing: Option<Standing>,
}

#[derive(Debug, Serialize)]
struct Standing {
    revision: String,
    is_the_winner: bool,
    #[serde(flatten)]
    value: ValueInJson,
}

impl<'a> Shown<'a> {
    fn without_value(conflict: &'a ConflictRecord) -> Self {
        let ConflictRecord { key, stamp, operation, winner, at, .. } = conflict;
        let (expires_at, item_id) = match operation {
            LostOperation::Put { expires_at, .. } => (expires_at.map(Timestamp::as_millis), None),
            LostOperation::Append { item_id, .. } => (None, Some(item_id.as_str())),
            _ => (None, None),
        };
        Self {
            key: key.as_str(),
            stamp: stamp.to_string(),
            operation: operation.as_str(),
            winner: winner.to_string(),
            at: at.as_millis(),
            expires_at,
            item_id,
            value: None,
            standing: None,
        }
    }
}

fn in_json(shown: &Shown<'_>) -> Result<String, Failure> {
    serde_json::to_string(shown).map_err(|error| Failure::System(format!("a conflict cannot be written: {error}")))
}

async fn find(database: &Database, named: &Conflict) -> Result<Option<ConflictRecord>, Failure> {
    Ok(database.conflict(&named.key, named.stamp).await?)
}

fn unknown() -> Exit {
    complain("there is no conflict of this key and stamp");
    Exit::Missing
}

async fn forget(database: &Database, named: &Conflict) -> Result<Exit, Failure> {
    let was_there = database.forget_conflict(&named.key, named.stamp).await?;
    Ok(if was_there { Exit::Done } else { unknown() })
}

/// Writes what lost as a new write, and forgets the conflict then. Broken off between the two, it can be done again.
async fn write_again(database: &Database, named: &Conflict, force: bool) -> Result<Exit, Failure> {
    let Some(conflict) = find(database, named).await? else { return Ok(unknown()) };
    let ConflictRecord { key, operation, winner, .. } = conflict;
    let winner = Revision::from_stamp(winner);
    let written = match operation {
        LostOperation::Put { value, expires_at } => {
            let mut options = SetOptions::new();
            options.ttl = expires_at.map(left).transpose()?;
            if !force {
                options = if database.exists(&key).await? { options.if_revision(winner) } else { options.if_absent() };
            }
            database.set_with(key, value, options).await.map(drop)
        }
        LostOperation::Delete if force => database.delete(key).await.map(drop),
        LostOperation::Delete => database.delete_if(key, winner).await.map(drop),
        // An item takes nothing away, and has its name so that it is there once.
        LostOperation::Append { value, item_id } => database.append_with_id(key, value, item_id).await.map(drop),
        _ => return Err(Failure::System("this version cannot write such an operation again".to_owned())),
    };
    written.map_err(|error| match error.kind() {
        ErrorKind::Conflict => Error::conflict(
            "what won does not stand there any more, so a still newer write would be overwritten: see `conflicts show`, and \
             --force to do so all the same",
        ),
        _ => error,
    })?;
    forget(database, named).await
}

/// How long a value would still have lived.
fn left(expires_at: Timestamp) -> Result<Ttl, Failure> {
    Ttl::new(expires_at.since(Clock::system().now()))
        .map_err(|_| Failure::Input("the value that lost would have ended by now; --take winner forgets it".to_owned()))
}
