//! The command `journal`: what the database is owed, as the files in the journal's folder say.

use std::path::Path;
use std::time::Duration;

use agent_storage::chain::{DatabaseChain, JournalContents, JournalFile, JournaledEffect, JournaledOperation};
use agent_storage::contract::Identity;
use agent_storage::{Clock, Format, Stamp, StorageManager, Timestamp, Value};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use comfy_table::{Table, presets};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value as Json, json};

use crate::arguments::{JournalCommand, Until};
use crate::exit::{Exit, Failure, complain};
use crate::output::{Lines, Output};
use crate::reconcile;
use crate::report;

impl JournalCommand {
    pub(crate) async fn run(&self, manager: &StorageManager, output: &Output) -> Result<Exit, Failure> {
        let folder = &manager.config().database.chain.journal.path;
        match self {
            Self::Status { json } => status(folder, &look(folder).await?, *json, output).await,
            Self::Export => export(&look(folder).await?, output).await,
            Self::Retry { stamp, until } => retry(manager, *stamp, until, output).await,
            Self::Drop { stamp } => give_up(manager, *stamp, output).await,
        }
    }
}

async fn look(folder: &Path) -> Result<Vec<JournalFile>, Failure> {
    let journals = JournalFile::list(folder).await?;
    if journals.is_empty() {
        complain(&format!("there is no journal in {}", folder.display()));
    }
    Ok(journals)
}

async fn retry(
    manager: &StorageManager,
    stamp: Option<Stamp>,
    until: &Until,
    output: &Output,
) -> Result<Exit, Failure> {
    let living = Living::look(manager).await?;
    let chain = reconcile::open(manager).await?;
    let only = match stamp {
        None => None,
        Some(stamp) => match find_parked(&chain, stamp).await? {
            Some(operation) => Some(operation.seq),
            None => return living.not_parked(stamp).await,
        },
    };
    let retried = chain.retry_parked(only).await?;
    complain(&format!("{retried} operations wait for the database again"));
    if only.is_none() {
        living.complain();
    }
    until.settled(manager, &chain, None, output).await
}

async fn give_up(manager: &StorageManager, stamp: Stamp, output: &Output) -> Result<Exit, Failure> {
    let living = Living::look(manager).await?;
    let chain = reconcile::open(manager).await?;
    let Some(operation) = find_parked(&chain, stamp).await? else { return living.not_parked(stamp).await };
    // Whoever regrets it finds it in the output, so it is out before it is gone.
    let mut lines = output.lines();
    lines.gather(&line("-", &operation)?);
    if let Err(failure) = lines.finish().await {
        complain("what is to be given up could not be written, so it stays put aside");
        failure.report();
        return Ok(Exit::Failed);
    }
    if chain.drop_parked(operation.seq).await? { Ok(Exit::Done) } else { living.not_parked(stamp).await }
}

/// The operation of a stamp, if it was put aside; one that only waits behind such a one cannot be given up, nor tried again by itself.
async fn find_parked(chain: &DatabaseChain, stamp: Stamp) -> Result<Option<JournaledOperation>, Failure> {
    let mut after = 0;
    loop {
        let operations = chain.journaled(after).await?;
        let Some(last) = operations.last() else { return Ok(None) };
        after = last.seq;
        let found = operations.into_iter().find(|operation| operation.stamp == stamp && operation.parked.is_some());
        if found.is_some() {
            return Ok(found);
        }
    }
}

/// The journals of processes that lived before this one opened its own: what they put aside is theirs to change.
struct Living(Vec<JournalFile>);

impl Living {
    async fn look(manager: &StorageManager) -> Result<Self, Failure> {
        let mut journals = JournalFile::list(&manager.config().database.chain.journal.path).await?;
        journals.retain(|journal| journal.is_owned && journal.contents.as_ref().is_ok_and(|found| found.parked > 0));
        Ok(Self(journals))
    }

    /// Says what was put aside that cannot be reached from here.
    fn complain(&self) {
        for journal in &self.0 {
            let parked = journal.contents.as_ref().map_or(0, |contents| contents.parked);
            complain(&format!("{parked} operations were put aside in {}{HELD}", name(journal)));
        }
    }

    /// Says why there is no operation of this stamp to change.
    async fn not_parked(&self, stamp: Stamp) -> Result<Exit, Failure> {
        for journal in &self.0 {
            if holds(journal, stamp).await? {
                complain(&format!("the operation was put aside in {}{HELD}", name(journal)));
                return Ok(Exit::Failed);
            }
        }
        complain("no operation of this stamp was put aside; see `journal export`");
        Ok(Exit::Missing)
    }
}

/// What helps where a living process has put operations aside.
const HELD: &str = ", which belongs to a living process: have the application call `retry_parked` or `drop_parked` of \
                    `StorageManager::open_database_chain()`, or end it and repeat this command";

async fn holds(journal: &JournalFile, stamp: Stamp) -> Result<bool, Failure> {
    let mut after = 0;
    loop {
        let operations = journal.operations(after).await?;
        let Some(last) = operations.last() else { return Ok(false) };
        after = last.seq;
        if operations.iter().any(|operation| operation.stamp == stamp && operation.parked.is_some()) {
            return Ok(true);
        }
    }
}

async fn status(folder: &Path, journals: &[JournalFile], as_json: bool, output: &Output) -> Result<Exit, Failure> {
    if as_json {
        let report = json!({ "folder": folder, "journals": journals.iter().map(in_json).collect::<Vec<_>>() });
        output.report(format!("{report:#}")).await?;
    } else if !journals.is_empty() {
        output.report(table(journals)).await?;
    }
    Ok(complain_of(journals))
}

/// Says which journals cannot be read.
fn complain_of(journals: &[JournalFile]) -> Exit {
    let mut exit = Exit::Done;
    for journal in journals {
        if let Err(error) = &journal.contents {
            complain(&format!("{}: {}", journal.path.display(), error.message()));
            exit = Exit::Failed;
        }
    }
    exit
}

fn table(journals: &[JournalFile]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED);
    table.set_header(["journal", "owner", "pending", "parked", "oldest", "bytes", "format", "owed to"]);
    for journal in journals {
        let [pending, parked, oldest, format, owed_to] = match &journal.contents {
            Ok(contents) => columns(contents),
            Err(error) => ["-", "-", "-", "-", error.kind().as_str()].map(str::to_owned),
        };
        let bytes = journal.bytes.to_string();
        table.add_row([name(journal), owner(journal).to_owned(), pending, parked, oldest, bytes, format, owed_to]);
    }
    table
}

fn columns(contents: &JournalContents) -> [String; 5] {
    let JournalContents { format, pending, parked, oldest, .. } = contents;
    let oldest = oldest.map_or_else(|| "-".to_owned(), |oldest| format!("{} ago", age(oldest)));
    [pending.to_string(), parked.to_string(), oldest, format.to_string(), owed_to(contents)]
}

/// Where the database is, and the beginning of its identity.
fn owed_to(contents: &JournalContents) -> String {
    let place = contents.owed_to.as_deref().unwrap_or("-");
    match contents.identity {
        Some(identity) => format!("{place} ({:.8})", id(identity)),
        None => place.to_owned(),
    }
}

/// How long ago a moment was, in whole seconds.
fn age(moment: Timestamp) -> humantime::FormattedDuration {
    humantime::format_duration(Duration::from_secs(Clock::system().now().since(moment).as_secs()))
}

const fn owner(journal: &JournalFile) -> &'static str {
    if journal.is_owned { "alive" } else { "dead" }
}

fn name(journal: &JournalFile) -> String {
    journal.path.file_name().unwrap_or(journal.path.as_os_str()).to_string_lossy().into_owned()
}

fn id(identity: Identity) -> String {
    format!("{:032x}", identity.id)
}

fn in_json(journal: &JournalFile) -> Json {
    let contents = journal.contents.as_ref();
    json!({
        "file": name(journal),
        "owner": owner(journal),
        "bytes": journal.bytes,
        "format": contents.ok().map(|contents| contents.format),
        "pending": contents.ok().map(|contents| contents.pending),
        "parked": contents.ok().map(|contents| contents.parked),
        "oldest": contents.ok().and_then(|contents| contents.oldest).map(Timestamp::as_millis),
        "owed_to": contents.ok().and_then(|contents| contents.owed_to.clone()),
        "identity": contents.ok().and_then(|contents| contents.identity).map(identity),
        "error": contents.err().map(report::error),
    })
}

fn identity(identity: Identity) -> Json {
    json!({ "id": id(identity), "canary": identity.canary })
}

async fn export(journals: &[JournalFile], output: &Output) -> Result<Exit, Failure> {
    let mut lines = output.lines();
    let mut exit = complain_of(journals);
    for journal in journals.iter().filter(|journal| journal.contents.is_ok()) {
        if let Err(failure) = export_one(journal, &mut lines).await {
            let Failure::Storage(error) = failure else { return Err(failure) };
            complain(&format!("{}: {}", journal.path.display(), error.message()));
            exit = Exit::Failed;
        }
    }
    lines.finish().await?;
    Ok(exit)
}

async fn export_one(journal: &JournalFile, lines: &mut Lines<'_>) -> Result<(), Failure> {
    let name = name(journal);
    let mut after = 0;
    loop {
        let operations = journal.operations(after).await?;
        let Some(last) = operations.last() else { return Ok(()) };
        after = last.seq;
        for operation in &operations {
            lines.push(&line(&name, operation)?).await?;
        }
    }
}

/// An operation as it is exported. Its keys stay; new ones may come.
#[derive(Debug, Default, Serialize)]
struct Exported<'a> {
    journal: &'a str,
    seq: u64,
    stamp: String,
    operation: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prefix: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    item_id: Option<&'a str>,
    #[serde(flatten)]
    value: Option<ValueInJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<u64>,
    parked: Option<&'a str>,
}

/// A value within JSON: as it was stored if it is JSON, else in Base64.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ValueInJson {
    Value(Box<RawValue>),
    Base64(String),
}

impl From<&Value> for ValueInJson {
    fn from(value: &Value) -> Self {
        // A line break between the parts of JSON may as well be a space, and an object is to be one line.
        let text = match value.format() {
            Format::Json => std::str::from_utf8(value.as_bytes()).ok().map(|text| text.replace(['\n', '\r'], " ")),
            Format::Binary => None,
        };
        let raw = text.and_then(|text| RawValue::from_string(text).ok());
        raw.map_or_else(|| Self::Base64(BASE64.encode(value.as_bytes())), Self::Value)
    }
}

fn line(journal: &str, operation: &JournaledOperation) -> Result<Vec<u8>, Failure> {
    let JournaledOperation { seq, stamp, effect, parked, .. } = operation;
    let mut exported = Exported {
        journal,
        seq: *seq,
        stamp: stamp.to_string(),
        parked: parked.as_deref(),
        operation: "unknown",
        ..Exported::default()
    };
    match effect {
        JournaledEffect::Put { key, value, expires_at } => {
            exported.operation = "put";
            exported.key = Some(key.as_str());
            exported.value = Some(value.into());
            exported.expires_at = expires_at.map(Timestamp::as_millis);
        }
        JournaledEffect::Delete { key } => {
            exported.operation = "delete";
            exported.key = Some(key.as_str());
        }
        JournaledEffect::Append { key, value, item_id } => {
            exported.operation = "append";
            exported.key = Some(key.as_str());
            exported.item_id = Some(item_id.as_str());
            exported.value = Some(value.into());
        }
        JournaledEffect::Clear { prefix } => {
            exported.operation = "clear";
            exported.prefix = Some(prefix.as_str());
        }
        // One of a newer version of the library cannot be met: the program is built with it.
        _ => {}
    }
    serde_json::to_vec(&exported).map_err(|error| Failure::System(format!("an operation cannot be written: {error}")))
}
