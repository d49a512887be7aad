//! What a chain shows and counts.

use agent_storage::chain::ChainState;
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};

use crate::rig::Rig;

/// The metrics of the chain as `name{label=value,..} number`, in order.
fn seen(snapshotter: &Snapshotter) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for (key, _, _, value) in snapshotter.snapshot().into_vec() {
        let Some(name) = key.key().name().strip_prefix("agent_storage_chain_") else { continue };
        let labels: Vec<String> =
            key.key().labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        let value = match value {
            DebugValue::Counter(count) => count.to_string(),
            DebugValue::Gauge(number) => number.to_string(),
            DebugValue::Histogram(_) => "a histogram".to_owned(),
        };
        lines.push(format!("{name}{{{}}} {value}", labels.join(",")));
    }
    lines.sort();
    lines
}

/// Runs on one thread, because a recorder is that of its thread.
#[tokio::test]
async fn a_fall_and_a_recovery_are_counted_and_shown() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let rig = Rig::new().await;
    rig.set("before", 1).await;
    rig.fall().await;
    for key in ["a", "b"] {
        rig.set(key, 1).await;
    }
    let fallen = seen(&snapshotter);
    for expected in [
        "state{side=database,state=degraded} 1",
        "state{side=database,state=normal} 0",
        "transitions_total{side=database,state=degraded} 1",
        "journaled_operations_total{side=database} 2",
        "fenced{side=database} 0",
    ] {
        assert!(fallen.contains(&expected.to_owned()), "{expected}: {fallen:#?}");
    }
    // The gauges follow with the next probe.
    while !seen(&snapshotter).contains(&"pending_operations{side=database} 2".to_owned()) {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    rig.faults.heal();
    rig.until(|status| status.state == ChainState::Normal).await;
    let recovered = seen(&snapshotter);
    for expected in [
        "state{side=database,state=degraded} 0",
        "state{side=database,state=normal} 1",
        "transitions_total{side=database,state=normal} 1",
        "replayed_operations_total{side=database} 2",
        "pending_operations{side=database} 0",
        "oldest_operation_age_seconds{side=database} 0",
    ] {
        assert!(recovered.contains(&expected.to_owned()), "{expected}: {recovered:#?}");
    }
    assert_eq!(rig.chain.status().replayed, 2);
}
