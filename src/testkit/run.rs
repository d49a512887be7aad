//! Running every case in one test: [`check_cache`] and [`check_database`].

use std::fmt;
use std::future::Future;
use std::time::Duration;

use crate::contract::{CacheBackend, DatabaseBackend, Store};

use super::case::Case;
use super::subject::Subject;
use super::suite::{cache_cases, database_cases};

/// How long a case may take before it counts as hanging.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs every case for caches, each over a fresh, empty subject made by `make`, and says how many held.
///
/// Cases run one after another, each in a task of its own, for at most 60 seconds.
///
/// # Errors
///
/// [`Failures`] with every case that did not hold.
///
/// # Cancel safety
///
/// Dropping it leaves the case that runs to its end.
///
/// # Examples
///
/// ```no_run
/// # async fn example(make_cache: fn() -> std::sync::Arc<dyn agent_storage::contract::CacheBackend>) {
/// use agent_storage::testkit::{Elapse, Subject, check_cache};
///
/// check_cache(|| async { Subject::cache(make_cache(), Elapse::Real) }).await.unwrap();
/// # }
/// ```
pub async fn check_cache<F>(make: impl Fn() -> F) -> Result<usize, Failures>
where
    F: Future<Output = Subject<dyn CacheBackend>>,
{
    check(cache_cases(), make).await
}

/// Runs every case for databases, each over a fresh, empty subject made by `make`, and says how many held.
///
/// # Errors
///
/// As [`check_cache`].
///
/// # Cancel safety
///
/// As [`check_cache`].
pub async fn check_database<F>(make: impl Fn() -> F) -> Result<usize, Failures>
where
    F: Future<Output = Subject<dyn DatabaseBackend>>,
{
    check(database_cases(), make).await
}

async fn check<B, F>(cases: Vec<Case<B>>, make: impl Fn() -> F) -> Result<usize, Failures>
where
    B: Store + ?Sized,
    F: Future<Output = Subject<B>>,
{
    let total = cases.len();
    let mut failures = Vec::new();
    for case in cases {
        let subject = make().await;
        let name = case.to_string();
        let run = tokio::spawn(async move { tokio::time::timeout(LIMIT, case.run(subject)).await });
        let reason = match run.await {
            Ok(Ok(Ok(()))) => continue,
            Ok(Ok(Err(failure))) => failure.to_string(),
            Ok(Err(_)) => format!("hangs: it did not end within {} seconds", LIMIT.as_secs()),
            Err(error) => panic_text(error),
        };
        failures.push((name, reason));
    }
    if failures.is_empty() { Ok(total) } else { Err(Failures { failures, total }) }
}

fn panic_text(error: tokio::task::JoinError) -> String {
    match error.try_into_panic() {
        Ok(panic) => match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
            (Some(text), _) => text.clone(),
            (None, Some(text)) => (*text).to_owned(),
            (None, None) => "panicked".to_owned(),
        },
        Err(error) => error.to_string(),
    }
}

/// The cases that did not hold, each with its reason.
#[derive(Clone)]
pub struct Failures {
    failures: Vec<(String, String)>,
    total: usize,
}

impl Failures {
    /// The cases by name, each with its reason.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.failures.iter().map(|(name, reason)| (name.as_str(), reason.as_str()))
    }
}

impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} cases failed", self.failures.len(), self.total)?;
        self.iter().try_for_each(|(name, reason)| write!(f, "\n  {name}: {reason}"))
    }
}

impl fmt::Debug for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Failures {}
