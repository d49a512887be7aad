//! Wrappers that are themselves backends, for caches and databases alike. They know the contract, and no backend.
//!
//! Every method is forwarded by hand; the lint `missing_trait_methods` holds each wrapper to that.

mod batch;
mod coalesce;
mod meter;
mod observe;
mod prefix;
mod retry;

pub(crate) use batch::answer_each;
pub use coalesce::Coalesce;
pub use observe::{Observe, Side};
pub use prefix::Prefix;
pub use retry::Retry;
