//! One behaviour that a backend is held to: the [`Case`].

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::failure::Failure;
use super::subject::Subject;

/// What a case returns.
pub type Outcome = Result<(), Failure>;

type Run<B> = dyn Fn(Subject<B>) -> Pin<Box<dyn Future<Output = Outcome> + Send>> + Send + Sync;

/// One behaviour, as a test over a fresh [`Subject`].
pub struct Case<B: ?Sized> {
    group: &'static str,
    name: &'static str,
    run: Arc<Run<B>>,
}

impl<B: ?Sized + Send + Sync + 'static> Case<B> {
    /// Makes a case of a theme, of a sentence that says the behaviour, and of the test.
    pub fn new<F>(
        group: &'static str,
        name: &'static str,
        run: impl Fn(Subject<B>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        Self { group, name, run: Arc::new(move |subject| Box::pin(run(subject))) }
    }

    /// The theme.
    #[must_use]
    pub fn group(&self) -> &'static str {
        self.group
    }

    /// The behaviour, as a sentence with underscores.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Runs the test over a subject that no other case uses.
    ///
    /// # Errors
    ///
    /// The [`Failure`] that says what did not hold.
    ///
    /// # Panics
    ///
    /// Most cases fail by a panic, as tests do.
    ///
    /// # Cancel safety
    ///
    /// A dropped case leaves its subject in any state.
    pub async fn run(&self, subject: Subject<B>) -> Outcome {
        (self.run)(subject).await
    }

    /// Makes a case for a wider kind of store, by a function that narrows the subject.
    pub(super) fn widen<W: ?Sized + Send + Sync + 'static>(self, narrow: fn(Subject<W>) -> Subject<B>) -> Case<W> {
        let run = self.run;
        Case { group: self.group, name: self.name, run: Arc::new(move |subject| run(narrow(subject))) }
    }
}

impl<B: ?Sized> Clone for Case<B> {
    fn clone(&self) -> Self {
        Self { group: self.group, name: self.name, run: Arc::clone(&self.run) }
    }
}

impl<B: ?Sized> fmt::Display for Case<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}::{}", self.group, self.name)
    }
}

impl<B: ?Sized> fmt::Debug for Case<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Case({self})")
    }
}

/// Makes the cases of one theme from its test functions.
macro_rules! cases {
    ($group:literal: $($name:ident),+ $(,)?) => {
        vec![$($crate::testkit::Case::new($group, stringify!($name), $name)),+]
    };
}

pub(super) use cases;
