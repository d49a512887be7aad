//! One use of a connection, for one call, under its deadline: the [`Session`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Executor, Postgres};

use crate::error::{Error, Outage, Result};
use crate::key::Key;
use crate::stamp::HybridClock;

use super::error::{Doubt, from_sqlx, is_answer, is_contention, is_late, lacks_tables, silent, timed_out};
use super::expected::{self, Expected};
use super::options::milliseconds;
use super::pool::Lease;
use super::server_clock::ServerClock;
use super::sql::{Sql, Text};

/// How often a statement that collided with others is sent again before the caller hears of it.
const CONTENTION_ATTEMPTS: u32 = 20;

/// From when on a statement without an answer says something of the server, and not only of the time that was left for it.
const PATIENCE: Duration = Duration::from_millis(500);

/// From how long a transaction on it may be ended by limits that are the server's own.
const LIMITS_OF_THE_SERVER: Duration = Duration::from_secs(10);

/// Sets them aside until the transaction ends.
const OUTLAST_LIMITS: &str =
    "SELECT set_config('statement_timeout', $1, true), set_config('idle_in_transaction_session_timeout', $1, true)";

/// A statement with its arguments.
pub(super) type Statement = Query<'static, Postgres, PgArguments>;

/// One call's use of a connection.
///
/// It never outlives its deadline in a request. A request that failed other than by an answer of the server, or that came
/// too late, leaves the connection broken: it is then closed and never used again.
#[derive(Debug)]
pub(super) struct Session {
    lease: Lease,
    pub(super) sql: Arc<Sql>,
    pub(super) clock: Arc<HybridClock>,
    expected: Arc<Expected>,
    pub(super) server_clock: Arc<ServerClock>,
    /// What begins a transaction.
    begin: Text,
    /// Whether each request must be a transaction, because a pooler deals the server's sessions out by transaction.
    wrap: bool,
    shortest_limit: Duration,
    began: Instant,
    deadline: Instant,
    /// How long the server must have said nothing for its silence to count.
    patience: Duration,
    in_transaction: bool,
    unclean: Vec<Key>,
}

/// What all sessions of a backend share.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub(super) sql: Arc<Sql>,
    pub(super) clock: Arc<HybridClock>,
    pub(super) expected: Arc<Expected>,
    pub(super) server_clock: Arc<ServerClock>,
    pub(super) begin: Text,
    pub(super) wrap: bool,
    /// After what time the server may end a transaction because of its limits.
    pub(super) shortest_limit: Duration,
}

impl Session {
    /// Makes one for a call that began and must have ended then.
    pub(super) fn new(lease: Lease, shared: Shared, [began, deadline]: [Instant; 2]) -> Self {
        let Shared { sql, clock, expected, server_clock, begin, wrap, shortest_limit } = shared;
        Self {
            lease,
            sql,
            clock,
            expected,
            server_clock,
            begin,
            wrap,
            shortest_limit,
            began,
            deadline,
            patience: PATIENCE,
            in_transaction: false,
            unclean: Vec::new(),
        }
    }

    /// This is a probe, which may have little time: half of it without an answer says what there is to know.
    pub(super) fn become_probe(&mut self) {
        self.patience = PATIENCE.min(self.deadline.saturating_duration_since(self.began) / 2);
    }

    /// Sends a statement that changes nothing, or nothing that matters.
    pub(super) async fn read(
        &mut self,
        text: &Text,
        bind: impl Fn(Statement) -> Statement + Sync,
    ) -> Result<Vec<PgRow>> {
        let expected = self.expected.get();
        self.send(text, Doubt::None, &|statement| expected::bind(bind(statement), expected, None)).await
    }

    /// Sends a statement without arguments that any database answers, not only the expected one.
    pub(super) async fn look(&mut self, text: &Text) -> Result<Vec<PgRow>> {
        self.send(text, Doubt::None, &|statement| statement).await
    }

    /// Sends a statement that changes something: without an answer it may have taken effect. What arrives after the deadline does not.
    pub(super) async fn write(
        &mut self,
        text: &Text,
        bind: impl Fn(Statement) -> Statement + Sync,
    ) -> Result<Vec<PgRow>> {
        let expected = self.expected.get();
        // A transaction keeps its locks until it is committed, and one that nobody waits for never is.
        let until = if self.in_transaction || self.wrap { None } else { self.server_clock.at(self.deadline) };
        let sent =
            self.send(text, Doubt::Possible, &|statement| expected::bind(bind(statement), expected, until)).await;
        if !sent.as_ref().is_err_and(is_late) || self.deadline <= Instant::now() {
            return sent;
        }
        // The answer came in time by our clock: the server's was set.
        self.server_clock.forget();
        self.send(text, Doubt::Possible, &|statement| expected::bind(bind(statement), expected, None)).await
    }

    async fn send<B>(&mut self, text: &Text, doubt: Doubt, bind: &B) -> Result<Vec<PgRow>>
    where
        B: Fn(Statement) -> Statement + Sync,
    {
        if self.in_transaction {
            return self.request(text, Doubt::None, bind).await;
        }
        let mut attempts = 1;
        loop {
            let outcome =
                if self.wrap { self.wrapped(text, doubt, bind).await } else { self.request(text, doubt, bind).await };
            match outcome {
                Err(error) if is_contention(&error) && attempts < CONTENTION_ATTEMPTS => attempts += 1,
                outcome => return outcome,
            }
        }
    }

    async fn wrapped<B>(&mut self, text: &Text, doubt: Doubt, bind: &B) -> Result<Vec<PgRow>>
    where
        B: Fn(Statement) -> Statement + Sync,
    {
        self.begin().await?;
        match self.request(text, Doubt::None, bind).await {
            Ok(rows) => self.finish("COMMIT", doubt).await.map(|()| rows),
            Err(error) => {
                self.rollback().await;
                Err(error)
            }
        }
    }

    async fn request<B>(&mut self, text: &Text, doubt: Doubt, bind: &B) -> Result<Vec<PgRow>>
    where
        B: Fn(Statement) -> Statement + Sync,
    {
        let persistent = !self.wrap;
        let statement = bind(sqlx::query(AssertSqlSafe(Arc::clone(text))).persistent(persistent));
        let deadline = self.deadline.into();
        let connection = self.lease.connection()?;
        let sent = Instant::now();
        let outcome = tokio::time::timeout_at(deadline, connection.fetch_all(statement)).await;
        self.settle(outcome.ok(), sent, doubt)
    }

    /// Begins a transaction.
    pub(super) async fn begin(&mut self) -> Result<()> {
        let begin = Arc::clone(&self.begin);
        let begun = self.command(&begin, Doubt::None).await;
        if begun.is_err() {
            // It is several commands behind a pooler, and may have begun.
            self.lease.give_up();
        }
        self.in_transaction = begun.is_ok();
        begun
    }

    /// Lets the transaction last as long as the call, though its statements and the pauses between them are longer than the server's
    /// limits: a large value on a slow line is such a pause.
    pub(super) async fn outlast_limits(&mut self) -> Result<()> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left <= self.shortest_limit.min(LIMITS_OF_THE_SERVER) {
            return Ok(());
        }
        self.send(&Text::from(OUTLAST_LIMITS), Doubt::None, &|statement| statement.bind(milliseconds(left)))
            .await
            .map(drop)
    }

    /// Marks where a transaction can be taken back to.
    pub(super) async fn save(&mut self) -> Result<()> {
        self.command(&Text::from("SAVEPOINT a"), Doubt::None).await
    }

    /// Forgets the mark that was made last.
    pub(super) async fn release(&mut self) -> Result<()> {
        self.command(&Text::from("RELEASE SAVEPOINT a"), Doubt::None).await
    }

    /// Takes the transaction back to the mark that was made last, and forgets it.
    pub(super) async fn take_back(&mut self) -> Result<()> {
        self.command(&Text::from("ROLLBACK TO SAVEPOINT a; RELEASE SAVEPOINT a"), Doubt::None).await
    }

    /// Commits. What the server answers with an error was not committed.
    pub(super) async fn commit(&mut self) -> Result<()> {
        self.finish("COMMIT", Doubt::Possible).await
    }

    /// Rolls back; should that fail, the connection is closed, and the server rolls back.
    pub(super) async fn rollback(&mut self) {
        if self.in_transaction && self.lease.is_usable() {
            // A failure marks the connection as broken.
            let _ = self.finish("ROLLBACK", Doubt::None).await;
        }
    }

    async fn finish(&mut self, command: &str, doubt: Doubt) -> Result<()> {
        self.in_transaction = false;
        let outcome = self.command(&Text::from(command), doubt).await;
        if outcome.is_err() {
            // Whatever the answer was: a session that may still be in a transaction is not for others.
            self.lease.give_up();
        }
        outcome
    }

    async fn command(&mut self, command: &Text, doubt: Doubt) -> Result<()> {
        let text = sqlx::raw_sql(AssertSqlSafe(Arc::clone(command)));
        let deadline = self.deadline.into();
        let connection = self.lease.connection()?;
        let sent = Instant::now();
        let outcome = tokio::time::timeout_at(deadline, connection.execute(text)).await;
        self.settle(outcome.ok(), sent, doubt).map(drop)
    }

    /// Judges what came of a request; `None` is nothing before the deadline.
    fn settle<T>(&mut self, outcome: Option<sqlx::Result<T>>, sent: Instant, doubt: Doubt) -> Result<T> {
        let error = match outcome {
            Some(Ok(answer)) => return Ok(answer),
            Some(Err(error)) => self.judged(from_sqlx(error, doubt)),
            None if sent.elapsed() >= self.patience => silent(doubt),
            // The time went by before it was sent, in the queue for a connection: that says nothing of the server.
            None => timed_out(doubt),
        };
        match error.outage() {
            // The others lead to the same server, also where the address leads elsewhere by now.
            Some(Outage::Foreign | Outage::Down) => self.lease.give_up_all(),
            _ if is_answer(&error) => {}
            _ => self.lease.give_up(),
        }
        Err(error)
    }

    /// Where a certain database is expected, one without its tables is another one.
    fn judged(&self, error: Error) -> Error {
        if self.expected.get().is_some() && lacks_tables(&error) {
            expected::lacking().with_source(error)
        } else {
            error
        }
    }

    /// Whether a transaction is open.
    pub(super) fn in_transaction(&self) -> bool {
        self.in_transaction
    }

    /// Whether the connection can be used further.
    pub(super) fn is_usable(&self) -> bool {
        self.lease.is_usable()
    }

    /// Fails once the deadline has passed. Loops that send again ask it.
    pub(super) fn check_deadline(&self) -> Result<()> {
        if Instant::now() < self.deadline { Ok(()) } else { Err(timed_out(Doubt::None)) }
    }

    /// Remembers a list whose removed items still hold their payload.
    pub(super) fn mark_unclean(&mut self, key: &Key) {
        self.unclean.push(key.clone());
    }

    /// Whether there is no such list.
    pub(super) fn is_clean(&self) -> bool {
        self.unclean.is_empty()
    }

    /// The lists to clean, once.
    pub(super) fn take_unclean(&mut self) -> Vec<Key> {
        std::mem::take(&mut self.unclean)
    }

    /// Gives the connection back.
    pub(super) fn end(self) {
        if !self.in_transaction {
            self.lease.end();
        }
    }
}

/// Makes an error of a missing answer within a statement's rows.
pub(super) fn unanswered() -> Error {
    Error::internal("the server's answer lacks a row")
}
