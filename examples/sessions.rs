//! Sessions the usual way: the cache is asked first, then the database, and whoever changes a session changes both.
//!
//! ```text
//! cargo run --example sessions
//! ```
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example shows what it does")]

use std::process::ExitCode;

use agent_storage::{Cache, Database, Error, StorageManager, Ttl};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Session {
    user: String,
    visits: u64,
}

/// Where sessions are kept.
#[derive(Clone, Debug)]
struct Sessions {
    cache: Cache,
    database: Database,
    lifetime: Ttl,
}

impl Sessions {
    /// Reads a session: from the cache, or else from the database into the cache. However many ask at once, the database is
    /// read once.
    async fn load(&self, id: &str) -> Result<Session, Error> {
        let (database, key) = (self.database.clone(), id.to_owned());
        let load = || async move {
            println!("  {key}: read from the database");
            Ok(database.get_json(&key).await?.unwrap_or_default())
        };
        self.cache.get_or_load_json(id, Some(self.lifetime), load).await
    }

    /// Changes a session in the database, where nobody's change is lost, and takes the old one out of the cache.
    async fn change(&self, id: &str, change: impl Fn(&mut Session) + Sync) -> Result<(), Error> {
        let changed = |old: Option<Session>| {
            let mut session = old.unwrap_or_default();
            change(&mut session);
            Ok(session)
        };
        self.database.update_json(id, changed).await?;
        self.cache.delete(id).await?;
        Ok(())
    }
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
    // Both in memory here; with `StorageManager::from_file("agent.yml")` the rest stays the same.
    let manager = StorageManager::in_memory();
    let storage = manager.connect().await?;
    // Each handle sees only its own keys, so other parts of the application cannot get in the way.
    let sessions = Sessions {
        cache: storage.cache.prefixed("session:")?,
        database: storage.database.prefixed("session:")?,
        lifetime: Ttl::from_secs(15 * 60)?,
    };

    sessions.change("42", |session| session.user = "ada".to_owned()).await?;
    println!("ten readers at once:");
    let readers = (0..10).map(|_| sessions.load("42"));
    for session in futures_util::future::join_all(readers).await {
        assert_eq!(session?.user, "ada");
    }

    println!("three visits at once:");
    let visits = (0..3).map(|_| sessions.change("42", |session| session.visits += 1));
    futures_util::future::try_join_all(visits).await?;
    let session = sessions.load("42").await?;
    println!("{} came {} times", session.user, session.visits);
    manager.disconnect().await
}
