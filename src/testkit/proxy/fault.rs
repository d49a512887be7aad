//! What can be done to the traffic.

use std::time::Duration;

/// What a [`FaultProxy`](super::FaultProxy) does to the traffic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum NetworkFault {
    /// Everything passes.
    #[default]
    Pass,
    /// New connections are refused, as by a server that is down. Open ones go on; [`FaultProxy::reset`](super::FaultProxy::reset) ends them.
    Refuse,
    /// Nothing passes, nothing is lost: what was sent arrives late, when the fault is lifted, as after a short partition.
    Stall,
    /// Connections are accepted and nothing passes. Since TCP never leaves a gap, a connection that lost bytes is reset when
    /// the fault is lifted.
    BlackHole,
    /// Each chunk waits this long in each direction.
    Latency(Duration),
    /// Only so many bytes (at least one) pass at a time, with a pause after each slice: a slow line that tears messages.
    Slice {
        /// The bytes of a slice.
        bytes: usize,
        /// The pause after it.
        pause: Duration,
    },
    /// The receiver in this direction is told that nothing more comes; the other direction goes on.
    HalfClose(Direction),
    /// A connection is reset at a point of its traffic, which does not arrive.
    CutAt(Direction, Point),
    /// A connection falls silent both ways at a point of its traffic, which does not arrive; it is reset when the fault is
    /// lifted.
    LoseFrom(Direction, Point),
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server.
    ToServer,
    /// From the server to the client.
    ToClient,
}

/// A point in what a connection carries in one direction, counted from the moment the fault was set.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Point {
    /// After so many bytes, which arrive.
    Bytes(u64),
    /// Where these bytes begin; an empty pattern is never met. If they come torn into pieces, the earlier pieces arrive (to
    /// hold them back could make both sides wait for ever) and the last does not.
    Pattern(Vec<u8>),
}

impl Point {
    /// Where PostgreSQL acknowledges a `COMMIT`: the transaction is committed, and the client never hears of it.
    ///
    /// The bytes are those of a `CommandComplete` message ("PostgreSQL: Message Formats").
    #[must_use]
    pub fn postgres_commit() -> Self {
        Self::Pattern(b"C\0\0\0\x0bCOMMIT\0".to_vec())
    }
}
