//! A long history: named items that are appended once however often they are sent, read page by page, and cut.
//!
//! ```text
//! cargo run --example history
//! ```
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example shows what it does")]

use std::process::ExitCode;

use agent_storage::contract::ItemId;
use agent_storage::{Database, Error, StorageManager, Value};

const EVENTS: &str = "events:42";
const PAGE: u64 = 100;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Error> {
    // In memory here; with `StorageManager::from_file("agent.yml")` the rest stays the same.
    let manager = StorageManager::in_memory();
    let database = manager.database().await?;

    // A sender that does not know whether its events arrived sends them again. The names make that harmless.
    for attempt in 1..=2 {
        let added = send(&database, 250).await?;
        println!("attempt {attempt}: {added} of 250 events were new");
    }

    // Page by page from the beginning, so that memory does not grow with the history.
    let mut pages = 0;
    let mut next = 0;
    loop {
        let events = database.range(EVENTS, next, next + PAGE as i64 - 1).await?;
        let (Some(first), Some(last)) = (events.first(), events.last()) else { break };
        println!("page {pages}: {} to {}", first.id, last.id);
        next += events.len() as i64;
        pages += 1;
    }

    // Only the newest stay. Their positions do not move, and none is used twice.
    let removed = database.trim(EVENTS, 50).await?;
    let oldest = database.range(EVENTS, 0, 0).await?;
    let position = oldest.first().map_or(0, |event| event.position);
    println!("trimmed {removed} events; the oldest is at position {position} still");
    manager.disconnect().await
}

/// Appends events under names of their own, and says how many were not there yet.
async fn send(database: &Database, events: u64) -> Result<u64, Error> {
    let mut added = 0;
    for number in 0..events {
        let event = Value::from_json(&serde_json::json!({ "event": number }))?;
        let ack = database.append_with_id(EVENTS, event, ItemId::parse(format!("event-{number}"))?).await?;
        added += u64::from(ack.existed == Some(false));
    }
    Ok(added)
}
