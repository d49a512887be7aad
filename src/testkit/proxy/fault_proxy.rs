//! The proxy as a test holds it.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::acceptor::{self, Acceptor, Order};
use super::fault::NetworkFault;
use super::rule::Shared;

/// A TCP proxy on a free port of the loopback interface, before one server, with a fault that can be changed at any time.
///
/// Dropping it ends its tasks and connections; [`FaultProxy::close`] also waits for that.
///
/// # Examples
///
/// ```
/// use agent_storage::testkit::{FaultProxy, NetworkFault};
/// use tokio::net::{TcpListener, TcpStream};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let server = TcpListener::bind("127.0.0.1:0").await?;
/// let proxy = FaultProxy::start(server.local_addr()?).await?;
/// assert!(TcpStream::connect(proxy.address()).await.is_ok());
///
/// proxy.set(NetworkFault::Refuse).await?;
/// assert!(TcpStream::connect(proxy.address()).await.is_err());
/// proxy.close().await;
/// # Ok(())
/// # }
/// ```
pub struct FaultProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    orders: mpsc::Sender<Order>,
    task: JoinHandle<()>,
}

impl FaultProxy {
    /// Starts a proxy before a server, which need not be up; everything passes.
    ///
    /// # Errors
    ///
    /// What the system says if no port can be listened on.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is left behind.
    pub async fn start(server: SocketAddr) -> io::Result<Self> {
        let listener = acceptor::listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let (orders, inbox) = mpsc::channel(1);
        let task = tokio::spawn(Acceptor::new(server, Arc::clone(&shared)).run(listener, address, inbox));
        Ok(Self { address, shared, orders, task })
    }

    /// The address clients connect to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes the fault, for open connections and new ones; it is in force on return.
    ///
    /// # Errors
    ///
    /// What the system says if the port cannot be opened or closed.
    ///
    /// # Cancel safety
    ///
    /// A call that was dropped may have changed the fault.
    pub async fn set(&self, fault: NetworkFault) -> io::Result<()> {
        self.order(|done| Order::Set { fault, once: false, done }).await?
    }

    /// Changes the fault until it first hits: after one [`CutAt`](NetworkFault::CutAt) or [`LoseFrom`](NetworkFault::LoseFrom) everything passes
    /// for the other connections. Other faults stay as with [`FaultProxy::set`].
    ///
    /// # Errors
    ///
    /// As [`FaultProxy::set`].
    ///
    /// # Cancel safety
    ///
    /// As [`FaultProxy::set`].
    pub async fn set_once(&self, fault: NetworkFault) -> io::Result<()> {
        self.order(|done| Order::Set { fault, once: true, done }).await?
    }

    /// Resets all open connections; they are gone on return. New ones are taken as the fault says.
    ///
    /// # Cancel safety
    ///
    /// A call that was dropped may have reset them.
    pub async fn reset(&self) {
        // The acceptor lives as long as the proxy does.
        let _ = self.order(|done| Order::Reset { done }).await;
    }

    /// Leads to another server, which need not be up: whoever connects from now on comes there. Open connections stay where they are;
    /// [`FaultProxy::reset`] ends them.
    ///
    /// # Cancel safety
    ///
    /// A call that was dropped may have changed it.
    pub async fn lead_to(&self, server: SocketAddr) {
        // The acceptor lives as long as the proxy does.
        let _ = self.order(|done| Order::LeadTo { server, done }).await;
    }

    /// The connections that were accepted so far.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// The connections that are open now.
    #[must_use]
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// How often a [`CutAt`](NetworkFault::CutAt) or [`LoseFrom`](NetworkFault::LoseFrom) hit so far.
    #[must_use]
    pub fn hits(&self) -> u64 {
        self.shared.hits.load(Ordering::SeqCst)
    }

    /// The bytes that were swallowed so far by a [`BlackHole`](NetworkFault::BlackHole) or after a
    /// [`LoseFrom`](NetworkFault::LoseFrom).
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::SeqCst)
    }

    /// Resets all connections and frees the port; no task is left on return.
    ///
    /// # Cancel safety
    ///
    /// A call that was dropped closes all the same.
    pub async fn close(mut self) {
        let _ = self.order(|done| Order::Close { done }).await;
        let _ = (&mut self.task).await;
    }

    async fn order<T>(&self, order: impl FnOnce(oneshot::Sender<T>) -> Order) -> io::Result<T> {
        let (done, answer) = oneshot::channel();
        let ended = || io::Error::other("the proxy's task ended; was its runtime shut down?");
        self.orders.send(order(done)).await.map_err(|_| ended())?;
        answer.await.map_err(|_| ended())
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for FaultProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fault = &self.shared.rule.borrow().fault;
        f.debug_struct("FaultProxy").field("address", &self.address).field("fault", fault).finish_non_exhaustive()
    }
}
