//! Another database answers.

use agent_storage::chain::ChainState;
use agent_storage::contract::{Durability, Freshness};

use crate::rig::{Rig, read, unavailable};

#[tokio::test]
async fn an_emptied_primary_is_fenced_off() {
    let rig = Rig::new().await;
    rig.set("k", 1).await;
    rig.faults.wipe();
    unavailable(rig.database.get("k").await);
    rig.until(|status| status.fenced).await;
    assert_eq!(rig.set("owed", 2).await, Durability::Volatile);
    assert_eq!(read(rig.database.lookup("owed").await), (Some(2), Freshness::LocalPending));
    unavailable(rig.database.get("k").await);
    // Probes have their say, and a replay would have its chance.
    rig.until_called(5).await;
    let status = rig.chain.status();
    assert!(status.fenced && status.state == ChainState::Degraded && status.pending == 1, "{status:?}");
    assert_eq!(rig.stored("owed").await, None, "nothing is replayed to another database");
}
