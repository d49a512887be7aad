//! A line to the server that can be left behind: whoever uses it then waits, and new connections go another way.

use std::net::SocketAddr;

use agent_storage::testkit::{FaultProxy, NetworkFault};

/// A line to the server.
pub(crate) struct Road {
    server: SocketAddr,
    /// What clients connect to.
    pub(crate) front: FaultProxy,
    back: FaultProxy,
    /// What was behind it before.
    left: Vec<FaultProxy>,
}

impl Road {
    pub(crate) async fn build(server: SocketAddr) -> Self {
        let back = FaultProxy::start(server).await.unwrap();
        let front = FaultProxy::start(back.address()).await.unwrap();
        Self { server, front, back, left: Vec::new() }
    }

    /// Has whoever uses it now, and for a while whoever connects, meet a fault for long.
    pub(crate) async fn block(&self, fault: NetworkFault) {
        self.back.set(fault).await.unwrap();
    }

    /// Leads whoever connects from now on past what is blocked, which stays as it is.
    pub(crate) async fn lead_past(&mut self) {
        let back = FaultProxy::start(self.server).await.unwrap();
        self.front.lead_to(back.address()).await;
        self.left.push(std::mem::replace(&mut self.back, back));
    }

    /// Lets go what was blocked: what waited there arrives.
    pub(crate) async fn let_go(&mut self) {
        for left in &self.left {
            left.set(NetworkFault::Pass).await.unwrap();
        }
    }
}
