//! The writers as their parent holds them.

use std::io::{BufRead, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use agent_storage::Clock;

use crate::history::Life;
use crate::line::Line;
use crate::support::process::{freeze_family, thaw_family, wait_until};
use crate::writer::Orders;

/// A running writer. Dropped, it is killed.
pub(crate) struct Writer {
    process: i64,
    started: u64,
    child: Child,
    reader: Option<JoinHandle<Vec<Line>>>,
    was_normal: Arc<AtomicBool>,
}

impl Writer {
    pub(crate) fn start(orders: &Orders) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        orders.give(&mut command);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let started = now();
        let mut child = command.spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let was_normal = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&was_normal);
        let reader = std::thread::spawn(move || {
            let lines = out.lines().map_while(Result::ok);
            let lines = lines.map(|line| serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}")));
            let note = |line: &Line| {
                if matches!(line, Line::State { state, .. } if state == "normal") {
                    seen.store(true, Ordering::SeqCst);
                }
            };
            lines.inspect(note).collect()
        });
        Self { process: orders.process, started, child, reader: Some(reader), was_normal }
    }

    /// Whether it was in the normal state yet.
    pub(crate) fn was_normal(&self) -> bool {
        self.was_normal.load(Ordering::SeqCst)
    }

    /// Stops it where it stands, as a machine does that is suspended.
    pub(crate) fn freeze(&self) {
        freeze_family(self.child.id());
    }

    /// Lets it run on.
    pub(crate) fn thaw(&self) {
        thaw_family(self.child.id());
    }

    /// Tells it to make no more calls, to wait until it owes nothing, though not for long, and to end.
    pub(crate) fn tell_to_finish(&mut self) {
        // It may have ended by itself, which its exit status will say.
        let _ = writeln!(self.child.stdin.as_mut().unwrap(), "finish");
    }

    /// Waits for its end.
    pub(crate) fn finished(mut self) -> Life {
        let ended = wait_until(|| !matches!(self.child.try_wait(), Ok(None)));
        assert!(ended, "writer {} does not end", self.process);
        let status = self.child.wait().unwrap();
        assert!(status.success(), "writer {} failed: {status}", self.process);
        self.life(false)
    }

    pub(crate) fn kill(mut self) -> Life {
        let alive = matches!(self.child.try_wait(), Ok(None));
        assert!(alive, "writer {} ended by itself", self.process);
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.life(true)
    }

    fn life(&mut self, killed: bool) -> Life {
        let lines = self.reader.take().unwrap().join().unwrap();
        Life { process: self.process, started: self.started, ended: now(), killed, lines }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn now() -> u64 {
    Clock::system().now().as_millis()
}
