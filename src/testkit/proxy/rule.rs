//! The fault in force, which all connections look at, and what they count.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::watch;

use super::fault::NetworkFault;

/// What the proxy and its connections share.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) rule: watch::Sender<Arc<Rule>>,
    pub(super) resets: watch::Sender<u64>,
    pub(super) accepted: AtomicU64,
    pub(super) open: AtomicUsize,
    pub(super) hits: AtomicU64,
    pub(super) lost: AtomicU64,
}

/// A fault from when it was set until the next is.
#[derive(Default)]
pub(super) struct Rule {
    /// Grows with each rule; the first, under which everything passes, is 0.
    pub(super) number: u64,
    pub(super) fault: NetworkFault,
    /// Whether its first hit ends it.
    pub(super) once: bool,
}

impl Shared {
    pub(super) fn publish(&self, fault: NetworkFault, once: bool) {
        self.rule.send_modify(|rule| *rule = Arc::new(Rule { number: rule.number + 1, fault, once }));
    }

    /// Counts a hit and says the number of the rule that is in force after it; none if `rule` no longer was in force, as when
    /// it was for one hit and another connection took it.
    pub(super) fn hit(&self, rule: &Rule) -> Option<u64> {
        let mut after = None;
        self.rule.send_if_modified(|current| {
            if current.number != rule.number {
                return false;
            }
            if rule.once {
                *current = Arc::new(Rule { number: rule.number + 1, ..Rule::default() });
            }
            after = Some(current.number);
            rule.once
        });
        if after.is_some() {
            self.hits.fetch_add(1, Ordering::SeqCst);
        }
        after
    }
}
