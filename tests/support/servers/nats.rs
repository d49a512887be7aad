//! A private NATS server.

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::ops::Deref;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use super::Server;
use crate::support::process::{Launch, Process};

static SHARED: OnceLock<Nats> = OnceLock::new();

/// A NATS server, with or without JetStream.
pub struct Nats {
    process: Process,
}

impl Nats {
    /// The one of this test process, with JetStream, started on first use. Do not freeze, kill or stop it: others use it too.
    pub fn shared() -> &'static Self {
        SHARED.get_or_init(|| Self::start(true, ""))
    }

    /// Starts one of its own with further lines of configuration, as `"max_payload: 64KB"`; it ends when dropped.
    pub fn start(jetstream: bool, config: &str) -> Self {
        let program = Server::Nats.locate().expect("NATS is installed");
        let launch = |port: u16, folder: &Path| {
            let store = if jetstream {
                format!("jetstream {{ store_dir: {:?} }}\n", folder.join("data"))
            } else {
                String::new()
            };
            let file = folder.join("nats.conf");
            std::fs::write(&file, format!("host: 127.0.0.1\nport: {port}\n{store}{config}\n"))
                .expect("a file can be written");
            let mut command = Command::new(program);
            command.arg("--config").arg(file);
            Launch { command, ready: Box::new(move || greets(port)) }
        };
        Self { process: Process::start(|_| (), launch) }
    }

    /// The server's URL, without a user.
    pub fn url(&self) -> String {
        format!("nats://{}:{}", self.host(), self.port())
    }
}

impl Deref for Nats {
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

/// Whether the server sends its greeting. It listens for clients only once JetStream has recovered its streams.
fn greets(port: u16) -> bool {
    let read = || -> std::io::Result<String> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        Ok(line)
    };
    read().is_ok_and(|line| line.starts_with("INFO "))
}
