//! Cleaning up in the background: tombstones, expired values and trimmed ids that are old enough, and idle connections.
//!
//! Of all processes one sweeps at a time. What is removed is older than the retention by its stamp, so a statement that could
//! still run into it would have to land that late. `gc_floor` is raised before anything goes, so that whoever replays old
//! operations knows from where on they are no longer guarded.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::PostgresConfig;
use crate::error::Result;
use crate::stamp::Stamp;

use super::batch::distinct;
use super::error::column;
use super::pool::Pool;
use super::session::{Session, Shared, Statement, unanswered};
use super::sql::Text;

/// How many positions of a list are cleaned by one statement, so that none holds its locks for long. The
/// sweeper does the rest.
const CLEAN_BATCH: i64 = 5000;

/// How many rows one statement removes at most, so that none holds its locks for long.
const BATCH: i64 = 1000;

/// How many lists are cleaned in one round.
const LISTS: i64 = 50;

/// How long one round may take.
const ROUND_WITHIN: Duration = Duration::from_secs(20);

/// The longest pause between two rounds.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The shortest pause between two rounds.
const SHORTEST_PAUSE: Duration = Duration::from_millis(200);

/// What to sweep, and how often.
#[derive(Clone, Debug)]
pub(super) struct Sweeper {
    retention: Duration,
    lock: String,
}

impl Sweeper {
    pub(super) fn new(config: &PostgresConfig) -> Self {
        let lock = format!("agent-storage sweep {}", config.schema);
        Self { retention: config.tombstone_retention, lock }
    }

    fn pause(&self) -> Duration {
        (self.retention / 4).clamp(SHORTEST_PAUSE, LONGEST_PAUSE)
    }

    /// For how long after a sweep, whoever made it, nobody sweeps: it passes everything that is kept for the retention.
    fn rest(&self) -> Duration {
        (self.pause() / 2).max(self.retention / 200)
    }
}

/// Sweeps and tends the pool until the task is aborted.
pub(super) async fn run(sweeper: Sweeper, pool: Arc<Pool>, shared: Shared) {
    let mut sweeping = tokio::time::interval(sweeper.pause());
    let mut tending = tokio::time::interval(pool.tending_interval());
    for ticks in [&mut sweeping, &mut tending] {
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    }
    // The first tick is at once, and there is nothing to sweep yet.
    sweeping.tick().await;
    // What the last round left over is swept without a rest.
    let mut left_over = false;
    loop {
        tokio::select! {
            _ = sweeping.tick() => {
                let outcome = round(&sweeper, &pool, &shared, left_over).await;
                left_over = outcome.is_err();
                if let Err(error) = outcome {
                    tracing::debug!(%error, "a sweep of the PostgreSQL database failed");
                }
            }
            _ = tending.tick() => pool.tend(Instant::now() + ROUND_WITHIN).await,
        }
    }
}

async fn round(sweeper: &Sweeper, pool: &Arc<Pool>, shared: &Shared, left_over: bool) -> Result<()> {
    let deadline = Instant::now() + ROUND_WITHIN;
    let mut session = Session::new(pool.lease(deadline).await?, shared.clone(), [Instant::now(), deadline]);
    let outcome = sweep(sweeper, &mut session, left_over).await;
    session.rollback().await;
    session.end();
    outcome
}

async fn sweep(sweeper: &Sweeper, session: &mut Session, left_over: bool) -> Result<()> {
    let sql = Arc::clone(&session.sql);
    clean_lists(session).await?;
    let Some(oldest) = raise_floor(sweeper, session, left_over).await? else { return Ok(()) };
    for text in [&sql.sweep_tombstones, &sql.sweep_expired, &sql.sweep_items, &sql.sweep_lists] {
        while remove(sweeper, session, text, oldest).await? {
            session.check_deadline()?;
        }
    }
    Ok(())
}

/// Raises `gc_floor`; answers to where. Nothing newer may be removed in this round. `None` if another one sweeps, or did just now, unless
/// something is left over.
async fn raise_floor(sweeper: &Sweeper, session: &mut Session, left_over: bool) -> Result<Option<Stamp>> {
    let sql = Arc::clone(&session.sql);
    let Some(now) = look_alone(sweeper, session).await? else { return Ok(None) };
    let oldest = oldest_kept(now, sweeper.retention);
    let rest = if left_over { Duration::ZERO } else { sweeper.rest() };
    let due = oldest_kept(now, sweeper.retention.saturating_add(rest));
    let bind = |statement: Statement| statement.bind(oldest.to_bytes()).bind(due.to_bytes());
    let raised = session.write(&sql.raise_gc_floor, bind).await?;
    Ok((left_over || !raised.is_empty()).then_some(oldest))
}

/// Removes what is older, as much as one statement may, as the only sweeper; says whether there may be more.
async fn remove(sweeper: &Sweeper, session: &mut Session, text: &Text, oldest: Stamp) -> Result<bool> {
    session.begin().await?;
    if look_alone(sweeper, session).await?.is_none() {
        session.rollback().await;
        return Ok(false);
    }
    let bind = |statement: Statement| statement.bind(oldest.to_bytes()).bind(BATCH);
    let removed = session.write(text, bind).await?.len();
    session.commit().await?;
    Ok(i64::try_from(removed).is_ok_and(|removed| removed == BATCH))
}

/// The server's time, or `None` if another one sweeps. In a transaction this is the only one until its end.
async fn look_alone(sweeper: &Sweeper, session: &mut Session) -> Result<Option<i64>> {
    let sql = Arc::clone(&session.sql);
    let rows = session.read(&sql.sweep_lock, |statement| statement.bind(sweeper.lock.clone())).await?;
    let row = rows.first().ok_or_else(unanswered)?;
    let (alone, now): (bool, i64) = (column(row, 0)?, column(row, 1)?);
    Ok(alone.then_some(now))
}

async fn clean_lists(session: &mut Session) -> Result<()> {
    let sql = Arc::clone(&session.sql);
    let rows = session.read(&sql.unclean, |statement| statement.bind(LISTS)).await?;
    for row in &rows {
        // As it stands: a text that is no valid key must not stay for ever and keep the place of others.
        clean(session, &[column(row, 0)?]).await?;
    }
    Ok(())
}

/// Takes the payload of the removed items of lists, as much as one statement may.
async fn clean(session: &mut Session, keys: &[&str]) -> Result<()> {
    let sql = Arc::clone(&session.sql);
    session.read(&sql.clean, |statement| statement.bind(keys).bind(CLEAN_BATCH)).await.map(drop)
}

/// Cleans the lists that a call left unclean. What fails is left to the sweeper.
pub(super) async fn clean_up(session: &mut Session) {
    let keys = session.take_unclean();
    if keys.is_empty() || !session.is_usable() || session.in_transaction() {
        return;
    }
    if let Err(error) = clean(session, &distinct(&keys)).await {
        tracing::debug!(%error, "removed items keep their payload until the next sweep");
    }
}

/// The stamp of a write at the beginning of the retention.
fn oldest_kept(now_millis: i64, retention: Duration) -> Stamp {
    let retention = i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
    let begin = u64::try_from(now_millis.saturating_sub(retention)).unwrap_or(0);
    Stamp::from_bytes((u128::from(begin) << 80).to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_for_long_is_passed_seldom() {
        let rest = |retention: u64| {
            let mut config = PostgresConfig::new("db", 1);
            config.tombstone_retention = Duration::from_secs(retention);
            Sweeper::new(&config).rest()
        };
        assert_eq!(rest(1), Duration::from_millis(125));
        assert_eq!(rest(900), Duration::from_secs(30));
        assert_eq!(rest(48 * 3600), Duration::from_secs(864));
    }

    #[test]
    fn the_oldest_kept_stamp_is_of_its_moment() {
        let oldest = oldest_kept(1_700_000_900_000, Duration::from_secs(900));
        assert_eq!(oldest.timestamp().as_millis(), 1_700_000_000_000);
        assert_eq!(oldest_kept(5, Duration::MAX), Stamp::MIN);
    }
}
