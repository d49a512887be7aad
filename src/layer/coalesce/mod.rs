//! The [`Coalesce`] layer: independent calls that happen at the same time share a round trip.
//!
//! While a lane is free a call goes out at once, alone. Otherwise it waits, and when the lane becomes free it takes all that
//! waits, up to a count and a size, as one batch. There is no timer, so an idle store adds no latency, and under load the batches grow
//! by themselves.
//!
//! - A write waits while another write of its key is on its way, and an append behind an append of its list, so that they never overtake each
//!   other. A second write of a key waits for the next batch, and conditional writes are not mixed with others.
//! - The time in the queue counts against the deadline. Timed out in the queue is `Unavailable`: nothing was sent. Timed out on
//!   the way is `OutcomeUnknown` for a write.
//! - A batch that fails as a whole for a reason that lies in one of its items is halved until that item fails alone.
//! - A caller that goes away takes only its own call out of the queue. A write that was sent runs to its end, and its lane
//!   opens only then.
//! - The queue is bounded in calls and bytes; a call over the bound is `Unavailable` at once.

mod batch;
mod call;
mod driver;
mod flight;
mod lane;
mod lone;
mod queue;
mod slot;
mod store;
mod watch;
mod work;

pub use store::Coalesce;
