//! An agent that remembers: a conversation in the database, and a session in the cache.
//!
//! Run it twice: the second run goes on where the first one ended.
//!
//! ```text
//! cargo run --example quickstart
//! ```
//!
//! It reads the agent.yml of the current folder, or else the repository's own: a memory cache and a SQLite file, no server.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example shows what it does")]

use std::path::Path;
use std::process::ExitCode;

use agent_storage::handle::TimeToLive;
use agent_storage::manager::SideHealth;
use agent_storage::{Error, SetOptions, StorageManager, Ttl, Value};
use serde::{Deserialize, Serialize};

const MESSAGES: &str = "quickstart:messages";
const SESSION: &str = "quickstart:session";

#[derive(Debug, Serialize, Deserialize)]
struct Message {
    role: String,
    text: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Session {
    messages: u64,
    last: Option<Message>,
}

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
    // Validates the file; connects nothing yet.
    let manager = StorageManager::from_file(config_file())?;
    let storage = manager.connect().await?;
    let (cache, database) = (&storage.cache, &storage.database);

    // What an earlier run stored is still there.
    let earlier: Vec<Message> = database.range_json(MESSAGES, 0, -1).await?;
    match earlier.last() {
        Some(last) => println!("restored {} messages, the last: {}", earlier.len(), last.text),
        None => println!("no earlier conversation"),
    }

    // An acknowledged append is on the disk.
    let turn = earlier.len() / 2 + 1;
    let new = [message("user", format!("question {turn}")), message("assistant", format!("answer {turn}"))];
    let new_messages = new.len();
    for message in &new {
        database.append_json(MESSAGES, message).await?;
    }

    // Negative indices count from the end: the last ten.
    for Message { role, text } in database.range_json(MESSAGES, -10, -1).await? {
        println!("  {role:>9}: {text}");
    }

    // What can be had again goes to the cache, for a time.
    let messages = database.length(MESSAGES).await?;
    let session = Session { messages, last: new.into_iter().last() };
    let half_an_hour = SetOptions::new().with_ttl(Ttl::from_secs(30 * 60)?);
    cache.set_with(SESSION, Value::from_json(&session)?, half_an_hour).await?;
    if let (Some(session), TimeToLive::Left(left)) =
        (cache.get_json::<Session>(SESSION).await?, cache.ttl(SESSION).await?)
    {
        println!("session of {} messages cached for {} minutes", session.messages, left.as_secs().div_ceil(60));
    }

    let health = manager.health_check().await;
    show(&health.cache);
    show(&health.database);
    manager.disconnect().await?;
    println!("history: {messages} messages ({new_messages} new)");
    Ok(())
}

fn config_file() -> &'static Path {
    let here = Path::new("agent.yml");
    if here.exists() { here } else { Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/agent.yml")) }
}

fn message(role: &str, text: String) -> Message {
    Message { role: role.to_owned(), text }
}

fn show(health: &SideHealth) {
    for member in &health.members {
        let millis = member.latency.unwrap_or_default().as_secs_f64() * 1000.0;
        println!("{}: {} is {} ({millis:.1} ms)", health.side.as_str(), member.backend, member.status.as_str());
    }
}
