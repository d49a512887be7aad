//! A private Redis.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::ops::Deref;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use super::Server;
use crate::support::process::{Launch, Process};

static SHARED: OnceLock<Redis> = OnceLock::new();

/// A Redis that keeps nothing on disk unless told to.
pub struct Redis {
    process: Process,
}

impl Redis {
    /// The one of this test process, started on first use. Do not freeze, kill or stop it: others use it too.
    pub fn shared() -> &'static Self {
        SHARED.get_or_init(|| Self::start(&[]))
    }

    /// Starts one of its own with further arguments, as `["--requirepass", "secret"]` or `["--appendonly", "yes"]`; it ends
    /// when dropped.
    pub fn start(arguments: &[&str]) -> Self {
        let program = Server::Redis.locate().expect("Redis is installed");
        let launch = |port: u16, folder: &Path| {
            let mut command = Command::new(program);
            command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--daemonize", "no"]);
            command.args(["--save", "", "--appendonly", "no"]).arg("--dir").arg(folder).args(arguments);
            Launch { command, ready: Box::new(move || answers(port)) }
        };
        Self { process: Process::start(|_| (), launch) }
    }

    /// The URL of database 0, without a password.
    pub fn url(&self) -> String {
        format!("redis://{}:{}/0", self.host(), self.port())
    }
}

impl Deref for Redis {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

pub(super) fn stop_shared() {
    if let Some(server) = SHARED.get() {
        server.kill();
    }
}

/// Whether the server answers a ping and has loaded its data; a demand for a password is an answer too.
fn answers(port: u16) -> bool {
    let ask = || -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(b"PING\r\n")?;
        let mut reply = vec![0; 64];
        let length = stream.read(&mut reply)?;
        reply.truncate(length);
        Ok(reply)
    };
    ask().is_ok_and(|reply| reply.starts_with(b"+PONG") || reply.starts_with(b"-NOAUTH"))
}
