//! The task that owns the port and all connections.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::connection::Connection;
use super::fault::NetworkFault;
use super::rule::Shared;

/// How many connections may wait to be accepted, as the standard library has it.
const BACKLOG: u32 = 128;

/// How long nobody is accepted after the system refused to.
const BREATH: Duration = Duration::from_millis(10);

/// What the proxy asks of its task; the answer says that it is done.
pub(super) enum Order {
    Set { fault: NetworkFault, once: bool, done: oneshot::Sender<io::Result<()>> },
    Reset { done: oneshot::Sender<()> },
    LeadTo { server: SocketAddr, done: oneshot::Sender<()> },
    Close { done: oneshot::Sender<()> },
}

/// The port clients connect to.
enum Door {
    Open(TcpListener),
    /// Bound, so that nobody else takes the port, but not listening: the system refuses who comes.
    Shut(TcpSocket),
}

impl Door {
    async fn accept(&self) -> io::Result<TcpStream> {
        match self {
            Self::Open(listener) => listener.accept().await.map(|(client, _)| client),
            Self::Shut(_) => std::future::pending().await,
        }
    }

    fn open(self) -> io::Result<Self> {
        match self {
            Self::Shut(socket) => socket.listen(BACKLOG).map(Self::Open),
            Self::Open(listener) => Ok(Self::Open(listener)),
        }
    }

    fn shut(self, address: SocketAddr) -> io::Result<Self> {
        let Self::Open(listener) = self else { return Ok(self) };
        if cfg!(target_os = "linux") {
            // The port is never free in between, so nobody else gets it for a connection of theirs.
            let socket = bound(address)?;
            drop(listener);
            return Ok(Self::Shut(socket));
        }
        drop(listener);
        bound(address).map(Self::Shut)
    }
}

/// Listens on an address; for port 0 the system chooses one.
pub(super) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    bound(address)?.listen(BACKLOG)
}

fn bound(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    #[cfg(target_os = "linux")]
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// The task that owns the port and all connections.
pub(super) struct Acceptor {
    server: SocketAddr,
    shared: Arc<Shared>,
    connections: JoinSet<()>,
}

impl Acceptor {
    pub(super) fn new(server: SocketAddr, shared: Arc<Shared>) -> Self {
        Self { server, shared, connections: JoinSet::new() }
    }

    /// Takes orders and connections until the proxy is dropped.
    pub(super) async fn run(mut self, listener: TcpListener, address: SocketAddr, mut inbox: mpsc::Receiver<Order>) {
        let mut door = Door::Open(listener);
        loop {
            tokio::select! {
                // An order comes before whoever connects later.
                biased;
                order = inbox.recv() => match order {
                    None => return,
                    Some(Order::Reset { done }) => {
                        self.reset().await;
                        let _ = done.send(());
                    }
                    Some(Order::LeadTo { server, done }) => {
                        self.server = server;
                        let _ = done.send(());
                    }
                    Some(Order::Close { done }) => {
                        drop(door);
                        self.reset().await;
                        let _ = done.send(());
                        return;
                    }
                    Some(Order::Set { fault, once, done }) => {
                        let moved = if fault == NetworkFault::Refuse { door.shut(address) } else { door.open() };
                        door = match moved {
                            Ok(door) => door,
                            // Without a port there is nothing left to do: every later order fails too.
                            Err(error) => {
                                let _ = done.send(Err(error));
                                return;
                            }
                        };
                        self.shared.publish(fault, once);
                        let _ = done.send(Ok(()));
                    }
                },
                Some(_) = self.connections.join_next() => {}
                client = door.accept() => match client {
                    Ok(client) => self.serve(client),
                    // Too many open files, most likely: some may be closed soon.
                    Err(_) => tokio::time::sleep(BREATH).await,
                },
            }
        }
    }

    fn serve(&mut self, client: TcpStream) {
        self.connections.spawn(Connection::new(Arc::clone(&self.shared), client, self.server).run());
    }

    async fn reset(&mut self) {
        self.shared.resets.send_modify(|number| *number += 1);
        while self.connections.join_next().await.is_some() {}
    }
}
