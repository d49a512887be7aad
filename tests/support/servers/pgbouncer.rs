//! A private PgBouncer in transaction mode.

use std::net::{SocketAddr, TcpStream};
use std::ops::Deref;
use std::path::Path;
use std::process::Command;

use super::Server;
use super::postgres::{as_user, give_to_user};
use crate::support::process::{Launch, Process};

/// The name of its configuration in its folder.
const CONFIG: &str = "pgbouncer.ini";

/// A PgBouncer that lets everybody in and logs in to the server by itself; it ends when dropped.
pub struct PgBouncer {
    process: Process,
}

impl PgBouncer {
    /// Starts one before a server, which need not be up. It gives up what it waits for after a second.
    pub fn start(server: SocketAddr, user: &str, password: &str) -> Self {
        let program = Server::PgBouncer.locate().expect("PgBouncer is installed");
        let (host, port) = (server.ip(), server.port());
        let settings = |listen: u16| {
            format!(
                "[databases]\n* = host={host} port={port} user={user} password={password}\n[pgbouncer]\n\
                 listen_addr = 127.0.0.1\nlisten_port = {listen}\nunix_socket_dir =\nauth_type = any\n\
                 pool_mode = transaction\ndefault_pool_size = 20\nserver_connect_timeout = 1\n\
                 server_login_retry = 1\nquery_wait_timeout = 1\n"
            )
        };
        let launch = |port: u16, folder: &Path| {
            let config = folder.join(CONFIG);
            std::fs::write(&config, settings(port)).expect("a file can be written");
            give_to_user(folder);
            give_to_user(&config);
            let mut command = Command::new(program);
            command.arg(config);
            as_user(&mut command);
            Launch { command, ready: Box::new(move || TcpStream::connect(("127.0.0.1", port)).is_ok()) }
        };
        Self { process: Process::start(|_| (), launch) }
    }
}

impl Deref for PgBouncer {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}
