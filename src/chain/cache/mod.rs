//! The chain of a cache: a memory that stands in while the primary is away, and the [`CacheChain`] that puts it there.
//!
//! What is written meanwhile is never brought to the primary, where somebody else may have written since; it is deleted there before
//! it is read there again.

mod chain;
mod clear;
mod core;
mod dirty;
mod fallback;
mod guarded;
mod late;
mod marker;
mod read;
mod reconcile;
mod write;

pub use chain::CacheChain;
