//! Bringing the schema up to date: a small runner over `migrations/postgres`.
//!
//! A process that finds the schema older than it knows takes an advisory lock and applies what is missing in one transaction,
//! so that of many processes that start at once one migrates and the others find the work done. The lock belongs to the
//! transaction, so it cannot outlive it, and works through a transaction pooler. It is asked for again and again rather than
//! waited for: a waiting session would hold a snapshot that index builds wait for in turn.

use std::time::Duration;

use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Executor};

use crate::error::{Error, Result};

use super::error::{Doubt, column, from_sqlx, is_contention, is_duplicate, is_made_already, replica, silent};
use super::expected::{self, Expected, foreign};
use super::session::unanswered;

/// The migrations in order; their numbers count from 1. `migrations/sqlite` has the same numbers with the same meaning.
const MIGRATIONS: [&str; 5] = [
    include_str!("../../../migrations/postgres/0001_kv.sql"),
    include_str!("../../../migrations/postgres/0002_lists.sql"),
    include_str!("../../../migrations/postgres/0003_meta.sql"),
    include_str!("../../../migrations/postgres/0004_replay.sql"),
    include_str!("../../../migrations/postgres/0005_late.sql"),
];

/// The oldest server that is supported: 12, as the server writes it in `server_version_num`.
const OLDEST_SERVER: i32 = 120_000;

/// How long a question may take whose answer is at hand.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// How often something may be there already before it is nobody's who migrates at this moment.
const MOST_REFUSALS: u32 = 20;

/// How long to wait before asking for the lock again.
const LOCK_INTERVAL: Duration = Duration::from_millis(50);

/// The schema to bring up to date.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// Its name as SQL writes an identifier.
    pub(super) quoted: String,
    /// Its name as it is.
    pub(super) name: String,
}

/// What one look at the schema came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    UpToDate,
    /// Somebody else is at it.
    Busy,
}

impl Target {
    /// Brings the schema up to date, waiting for others who are at it. The caller bounds the time.
    ///
    /// # Errors
    ///
    /// `Config` if server or schema are not for this program; `Unavailable` if the server fails.
    pub(super) async fn migrate(&self, connection: &mut PgConnection, expected: &Expected) -> Result<()> {
        let mut refusals = 0;
        loop {
            run(connection, "BEGIN ISOLATION LEVEL READ COMMITTED".to_owned()).await?;
            let outcome = self.attempt(connection, expected).await;
            let end = if outcome.is_ok() { "COMMIT" } else { "ROLLBACK" };
            let ended = run(connection, end.to_owned()).await;
            match outcome.and_then(|outcome| ended.map(|_| outcome)) {
                Ok(Outcome::UpToDate) => return Ok(()),
                Ok(Outcome::Busy) => tokio::time::sleep(LOCK_INTERVAL).await,
                Err(error) if is_made_already(&error) && refusals == MOST_REFUSALS => {
                    let why = "the schema holds tables or functions of other makers, or a part of ours; name another schema, or bring back \
                               the whole of it";
                    return Err(Error::config(why).with_source(error));
                }
                // Somebody else made the schema between our look and our attempt.
                Err(error) if is_made_already(&error) || is_duplicate(&error) || is_contention(&error) => {
                    refusals += 1;
                    tokio::time::sleep(LOCK_INTERVAL).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn attempt(&self, connection: &mut PgConnection, expected: &Expected) -> Result<Outcome> {
        check_server(connection).await?;
        self.check_identity(connection, expected).await?;
        if self.version(connection).await? == newest() {
            return Ok(Outcome::UpToDate);
        }
        let key = literal(&format!("agent-storage migrate {}", self.name));
        let lock = run(connection, format!("SELECT pg_try_advisory_xact_lock(hashtextextended({key}, 0))")).await?;
        if !column::<bool>(lock.first().ok_or_else(unanswered)?, 0)? {
            return Ok(Outcome::Busy);
        }
        let version = self.version(connection).await?;
        if version == 0 && !self.is_there(connection).await? {
            run(connection, format!("CREATE SCHEMA {}", self.quoted)).await?;
        }
        run(connection, format!("SET LOCAL search_path TO {}", self.quoted)).await?;
        let applied = usize::try_from(version).unwrap_or(usize::MAX);
        for migration in MIGRATIONS.iter().skip(applied) {
            // It takes as long as the tables are large.
            send(connection, (*migration).to_owned()).await?;
        }
        run(connection, format!("UPDATE meta SET schema = {}", newest())).await?;
        tracing::info!(from = version, to = newest(), "migrated the PostgreSQL schema");
        Ok(Outcome::UpToDate)
    }

    /// The number of the newest migration that was applied; 0 if none was. A newer one that lets this program in counts as
    /// the newest that is known here.
    async fn version(&self, connection: &mut PgConnection) -> Result<i32> {
        // Not by `to_regclass`: it may still answer from the cache of a look before the lock was taken.
        let name = literal(&self.name);
        let meta = "SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relname = 'meta'";
        if run(connection, format!("{meta} AND n.nspname = {name}")).await?.is_empty() {
            return Ok(0);
        }
        let rows = run(connection, format!("SELECT schema, min_compatible FROM {}.meta", self.quoted)).await?;
        let row = rows.first().ok_or_else(|| Error::corrupt("the table `meta` of the schema is empty"))?;
        let (schema, min_compatible): (i32, Option<i32>) = (column(row, 0)?, column(row, 1)?);
        match schema - newest() {
            ..=0 => Ok(schema),
            _ if min_compatible.is_some_and(|oldest| oldest <= newest()) => Ok(newest()),
            _ => Err(Error::config(format!(
                "the schema was made by a newer version of this program (migration {schema}, this one knows {}); \
                 update agent-storage, or name another schema",
                newest()
            ))),
        }
    }

    /// Refuses a database that is not the expected one, an empty one too: it is not to be filled with tables.
    async fn check_identity(&self, connection: &mut PgConnection, expected: &Expected) -> Result<()> {
        let Some(expected) = expected.get() else { return Ok(()) };
        if self.version(connection).await? == 0 {
            return Err(foreign());
        }
        let text = format!("SELECT identity, canary, pg_is_in_recovery() FROM {}.meta", self.quoted);
        // Prepared, though only for once: text that is sent as it is has bytes answered as text.
        let query = sqlx::query(AssertSqlSafe(text)).persistent(false);
        let row = tokio::time::timeout(ANSWER_WITHIN, connection.fetch_optional(query));
        let row = row.await.map_err(|_| silent(Doubt::None))?.map_err(|error| from_sqlx(error, Doubt::None))?;
        let row = row.ok_or_else(foreign)?;
        match expected::identity(&row)?.continues(expected) {
            true if column(&row, 2)? => Err(replica()),
            true => Ok(()),
            false => Err(foreign()),
        }
    }

    async fn is_there(&self, connection: &mut PgConnection) -> Result<bool> {
        let name = literal(&self.name);
        let rows = run(connection, format!("SELECT 1 FROM pg_namespace WHERE nspname = {name}")).await?;
        Ok(!rows.is_empty())
    }
}

async fn check_server(connection: &mut PgConnection) -> Result<()> {
    let settings = "SELECT current_setting('server_version_num')::int, current_setting('server_encoding')";
    let rows = run(connection, settings.to_owned()).await?;
    let row = rows.first().ok_or_else(unanswered)?;
    if column::<i32>(row, 0)? < OLDEST_SERVER {
        return Err(Error::config("the server is older than PostgreSQL 12; upgrade it"));
    }
    match column::<&str>(row, 1)? {
        "UTF8" => Ok(()),
        encoding => Err(Error::config(format!("the database's encoding is {encoding}; make one with ENCODING 'UTF8'"))),
    }
}

fn newest() -> i32 {
    i32::try_from(MIGRATIONS.len()).unwrap_or(i32::MAX)
}

/// Runs what is done at once, or never: everybody who starts waits for it, and a connection whose replies are lost must not keep
/// them waiting.
async fn run(connection: &mut PgConnection, text: String) -> Result<Vec<PgRow>> {
    tokio::time::timeout(ANSWER_WITHIN, send(connection, text)).await.map_err(|_| silent(Doubt::None))?
}

/// Sends text as it is, without preparing it, so that it may hold several statements and pass a transaction pooler.
async fn send(connection: &mut PgConnection, text: String) -> Result<Vec<PgRow>> {
    connection.fetch_all(sqlx::raw_sql(AssertSqlSafe(text))).await.map_err(|error| from_sqlx(error, Doubt::None))
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
