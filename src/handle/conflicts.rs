//! Conflicts as they come: the [`ConflictStream`].

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};

use futures_util::stream::{self, BoxStream, Stream, StreamExt};

use crate::contract::{ConflictOptions, ConflictRecord};
use crate::error::Result;
use crate::key::Key;
use crate::stamp::Stamp;

use super::database::Database;

/// How many records are fetched at once: a record may hold a large value.
const PAGE: usize = 100;

/// The writes that were acknowledged and lost, in the order of their stamps, fetched a page at a time as they are taken.
///
/// It ends after the first error.
pub struct ConflictStream(BoxStream<'static, Result<ConflictRecord>>);

/// Where a listing stands.
struct Position {
    ready: VecDeque<ConflictRecord>,
    /// What to ask for next; `None` at the end.
    next: Option<ConflictOptions>,
}

impl ConflictStream {
    /// Lists from the first record after a stamp and key.
    pub(super) fn new(database: Database, after: Option<(Stamp, Key)>) -> Self {
        let mut first = ConflictOptions::default().with_limit(PAGE);
        first.after = after;
        let start = Position { ready: VecDeque::new(), next: Some(first) };
        let records = stream::try_unfold((start, database), |(mut position, database)| async move {
            loop {
                if let Some(record) = position.ready.pop_front() {
                    return Ok(Some((record, (position, database))));
                }
                let Some(options) = position.next else { return Ok(None) };
                let page = database.backend.conflicts(&options, &database.context()).await?;
                let next = page.last().filter(|_| page.len() >= PAGE).map(|last| options.with_after(last));
                position = Position { ready: page.into(), next };
            }
        });
        Self(records.boxed())
    }

    /// The next record; `None` at the end.
    ///
    /// # Errors
    ///
    /// The first error of the listing; it is also the end.
    ///
    /// # Cancel safety
    ///
    /// It may be dropped at any point; no record is passed over.
    pub async fn next(&mut self) -> Option<Result<ConflictRecord>> {
        self.0.next().await
    }

    /// Takes all records that are left. Their number and size are the caller's to bound.
    ///
    /// # Errors
    ///
    /// The first error of the listing.
    ///
    /// # Cancel safety
    ///
    /// It may be dropped at any point.
    pub async fn collect(mut self) -> Result<Vec<ConflictRecord>> {
        let mut records = Vec::new();
        while let Some(record) = self.next().await {
            records.push(record?);
        }
        Ok(records)
    }
}

impl Stream for ConflictStream {
    type Item = Result<ConflictRecord>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(cx)
    }
}

impl fmt::Debug for ConflictStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConflictStream")
    }
}
