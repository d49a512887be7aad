//! How independent calls share round trips: [`BatchingConfig`].

use validator::Validate;

/// How calls that happen at the same time are sent together.
///
/// A call goes out at once while its lane is free; otherwise it waits, and the lane takes all that waits as one batch when it is
/// free again. There is no timer, so an idle store adds no latency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Validate)]
#[non_exhaustive]
pub struct BatchingConfig {
    /// Whether calls are batched at all. `true` by default.
    pub enabled: bool,
    /// How many batches of a kind (reads, writes, appends) may be on their way at once. `None`, the default, stands for 2.
    #[validate(range(min = 1, max = 64, message = "must be from 1 to 64"))]
    pub lanes: Option<u32>,
    /// The most calls of one batch. 512 by default.
    #[validate(range(min = 1, max = 10_000, message = "must be from 1 to 10000"))]
    pub max_batch: u32,
    /// The most bytes of values in one batch; a single larger value goes alone. 4 MiB by default.
    #[validate(range(min = 1, message = "must be at least 1"))]
    pub max_batch_bytes: u64,
}

impl Default for BatchingConfig {
    fn default() -> Self {
        Self { enabled: true, lanes: None, max_batch: 512, max_batch_bytes: 4 << 20 }
    }
}
