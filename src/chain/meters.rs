//! What a chain counts and shows through the `metrics` facade.

use metrics::{counter, gauge};

use crate::time::Timestamp;

use super::status::{ChainState, ChainStatus};

/// The only side that has a journal of operations.
const SIDE: &str = "database";

/// Shows how a chain is now.
pub(super) fn show(side: &'static str, status: &ChainStatus, now: Timestamp) {
    for state in [ChainState::Normal, ChainState::Degraded, ChainState::Reconciling] {
        let gauge = gauge!("agent_storage_chain_state", "side" => side, "state" => state.as_str());
        gauge.set(flag(status.state == state));
    }
    gauge!("agent_storage_chain_fenced", "side" => side).set(flag(status.fenced));
    gauge!("agent_storage_chain_journal_full", "side" => side).set(flag(status.journal_full));
    gauge!("agent_storage_chain_journal_bytes", "side" => side).set(number(status.journal_bytes));
    gauge!("agent_storage_chain_pending_operations", "side" => side).set(count(status.pending));
    gauge!("agent_storage_chain_parked_operations", "side" => side).set(count(status.parked));
    gauge!("agent_storage_chain_left_journals", "side" => side).set(count(status.left_journals.len()));
    let age = status.oldest.map_or(0.0, |oldest| now.since(oldest).as_secs_f64());
    gauge!("agent_storage_chain_oldest_operation_age_seconds", "side" => side).set(age);
}

/// Counts a change of the state: to `Degraded` the breaker opened, from it it closed.
pub(super) fn count_transition(side: &'static str, to: ChainState) {
    counter!("agent_storage_chain_transitions_total", "side" => side, "state" => to.as_str()).increment(1);
}

/// Counts operations that were journaled.
pub(super) fn count_journaled(operations: usize) {
    counter!("agent_storage_chain_journaled_operations_total", "side" => SIDE).increment(whole(operations));
}

/// Counts operations that were brought to the primary.
pub(super) fn count_replayed(operations: u64) {
    counter!("agent_storage_chain_replayed_operations_total", "side" => SIDE).increment(operations);
}

/// Counts writes that lost against newer ones.
pub(super) fn count_conflicts(conflicts: u64) {
    counter!("agent_storage_chain_conflicts_total", "side" => SIDE).increment(conflicts);
}

const fn flag(is_set: bool) -> f64 {
    if is_set { 1.0 } else { 0.0 }
}

fn count(count: usize) -> f64 {
    number(whole(count))
}

fn whole(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float; beyond 2^53 nobody counts")]
const fn number(number: u64) -> f64 {
    number as f64
}
