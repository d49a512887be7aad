//! What a cache and a database have in common: [`SideOptions`] and [`RetryConfig`].

use std::time::Duration;

use validator::Validate;

use super::batching::BatchingConfig;
use super::rules;

/// What every backend understands, on either side.
#[derive(Clone, Debug, Validate)]
#[non_exhaustive]
pub struct SideOptions {
    /// Goes before every key; nothing outside it can be read, listed or cleared. Empty by default.
    #[validate(custom(function = "rules::key_prefix"))]
    pub key_prefix: String,
    /// How long a call may take from beginning to end, retries included. 5 s by default.
    #[validate(custom(function = "rules::wait"))]
    pub timeout: Duration,
    /// How often and how patiently a failed call is sent again.
    #[validate(nested)]
    pub retry: RetryConfig,
    /// How calls that happen at the same time are sent together.
    #[validate(nested)]
    pub batching: BatchingConfig,
    /// Whether connecting fails if the backend cannot be reached at the start. `false` by default: the start is degraded
    /// instead, and the backend is used once it is there.
    pub required: bool,
}

impl Default for SideOptions {
    fn default() -> Self {
        Self {
            key_prefix: String::new(),
            timeout: Duration::from_secs(5),
            retry: RetryConfig::default(),
            batching: BatchingConfig::default(),
            required: false,
        }
    }
}

/// How often a call that is safe to repeat is sent again after a transient failure.
///
/// The pause before attempt `n + 1` is `initial_delay` times 2 to the power of `n - 1`, at most `max_delay`, with random
/// jitter. All attempts together stay within [`SideOptions::timeout`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Validate)]
#[validate(schema(function = "rules::retry", skip_on_field_errors = false))]
#[non_exhaustive]
pub struct RetryConfig {
    /// How often a call is tried in all: 1 never tries again. 3 by default.
    #[validate(range(min = 1, max = 100, message = "must be from 1 to 100"))]
    pub attempts: u32,
    /// The pause before the second attempt. 100 ms by default.
    pub initial_delay: Duration,
    /// The longest pause between two attempts. 5 s by default.
    pub max_delay: Duration,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self { attempts: 3, initial_delay: Duration::from_millis(100), max_delay: Duration::from_secs(5) }
    }
}
