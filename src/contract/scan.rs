//! Listing keys, page by page.

use crate::key::Key;

/// How many keys a page may hold, and where it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListOptions {
    /// The most keys of a page: 1 to [`ListOptions::MAX_LIMIT`], [`ListOptions::DEFAULT_LIMIT`] by default. Other numbers are
    /// brought into those bounds.
    pub limit: usize,
    /// Where to go on; `None` begins.
    pub cursor: Option<Cursor>,
}

impl ListOptions {
    /// The most keys of a page unless asked otherwise.
    pub const DEFAULT_LIMIT: usize = 1000;
    /// The most keys that a page can be asked for.
    pub const MAX_LIMIT: usize = 10_000;

    /// Sets the most keys of a page.
    #[must_use]
    pub fn with_limit(mut self, limit: usize) -> Self {
        self.limit = limit.clamp(1, Self::MAX_LIMIT);
        self
    }

    /// Goes on where a page ended.
    #[must_use]
    pub fn with_cursor(mut self, cursor: Cursor) -> Self {
        self.cursor = Some(cursor);
        self
    }
}

impl Default for ListOptions {
    fn default() -> Self {
        Self { limit: Self::DEFAULT_LIMIT, cursor: None }
    }
}

/// Where a listing goes on: opaque, made and read by the store that answered.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cursor(String);

impl Cursor {
    /// Makes a cursor of a store's own text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The store's own text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One page of a listing.
///
/// It may be empty, or shorter than asked, while `next` is `Some`: only `next` says whether there is more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyPage {
    /// The keys.
    pub keys: Vec<Key>,
    /// Where to go on, if there may be more.
    pub next: Option<Cursor>,
}

impl KeyPage {
    /// Makes a page.
    #[must_use]
    pub const fn new(keys: Vec<Key>, next: Option<Cursor>) -> Self {
        Self { keys, next }
    }
}
