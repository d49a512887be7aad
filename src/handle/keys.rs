//! Keys as they come: the [`KeyStream`].

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};

use futures_util::stream::{self, BoxStream, Stream, StreamExt};

use crate::contract::{Cursor, ListOptions};
use crate::error::Result;
use crate::key::{Key, KeyPattern, KeyPrefix};

use super::base::{Handle, HandleBackend};

/// The keys of a listing, fetched a page at a time as they are taken, so that memory does not grow with their number.
///
/// It ends after the first error.
pub struct KeyStream(BoxStream<'static, Result<Key>>);

/// Where a listing stands.
struct Position {
    ready: VecDeque<Key>,
    next: Next,
}

enum Next {
    Start,
    At(Cursor),
    End,
}

impl KeyStream {
    pub(super) fn new<B: HandleBackend + ?Sized>(
        handle: Handle<B>,
        prefix: KeyPrefix,
        pattern: Option<KeyPattern>,
    ) -> Self {
        let start = Position { ready: VecDeque::new(), next: Next::Start };
        let keys = stream::try_unfold((start, handle, prefix), |(mut position, handle, prefix)| async move {
            loop {
                if let Some(key) = position.ready.pop_front() {
                    return Ok(Some((key, (position, handle, prefix))));
                }
                let options = match position.next {
                    Next::Start => ListOptions::default(),
                    Next::At(cursor) => ListOptions::default().with_cursor(cursor),
                    Next::End => return Ok(None),
                };
                let page = handle.backend.list(&prefix, &options, &handle.context()).await?;
                position = Position { ready: page.keys.into(), next: page.next.map_or(Next::End, Next::At) };
            }
        });
        let wanted = move |key: &Result<Key>| match (&pattern, key) {
            (Some(pattern), Ok(key)) => pattern.matches_key(key),
            _ => true,
        };
        Self(keys.filter(move |key| std::future::ready(wanted(key))).boxed())
    }

    /// The next key; `None` at the end.
    ///
    /// # Errors
    ///
    /// The first error of the listing; it is also the end.
    ///
    /// # Cancel safety
    ///
    /// It may be dropped at any point; no key is passed over.
    pub async fn next(&mut self) -> Option<Result<Key>> {
        self.0.next().await
    }

    /// Takes all keys that are left. Their number is the caller's to bound.
    ///
    /// # Errors
    ///
    /// The first error of the listing.
    ///
    /// # Cancel safety
    ///
    /// It may be dropped at any point.
    pub async fn collect(mut self) -> Result<Vec<Key>> {
        let mut keys = Vec::new();
        while let Some(key) = self.next().await {
            keys.push(key?);
        }
        Ok(keys)
    }
}

impl Stream for KeyStream {
    type Item = Result<Key>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(cx)
    }
}

impl fmt::Debug for KeyStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyStream")
    }
}
