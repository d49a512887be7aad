//! The processes as their parent holds them.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command as Program, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use crate::files::{Address, Number};
use crate::line::{Command, Reply, State};
use crate::worker::give_orders;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running process. Dropped, it is killed.
pub(crate) struct Process {
    pub(crate) number: usize,
    pub(crate) address: Address,
    /// The databases that it may take for its own; none where it does not know any yet.
    pub(crate) known: BTreeSet<Number>,
    /// Those that it may have met, or heard of, without a word.
    pub(crate) maybe: BTreeSet<Number>,
    /// The database whose file it holds open, where that is certain.
    pub(crate) opened: Option<Number>,
    /// Whether something was owed to another address when it started.
    pub(crate) is_moved: bool,
    child: Child,
    replies: Receiver<Reply>,
}

impl Process {
    pub(crate) fn start(number: usize, address: Address, config: &Path) -> Self {
        let mut program = Program::new(std::env::current_exe().unwrap());
        give_orders(&mut program, config.to_str().unwrap());
        program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = program.spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (sender, replies) = channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                let reply = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
                if sender.send(reply).is_err() {
                    return;
                }
            }
        });
        Self {
            number,
            address,
            known: BTreeSet::new(),
            maybe: BTreeSet::new(),
            opened: None,
            is_moved: false,
            child,
            replies,
        }
    }

    pub(crate) fn tell(&mut self, command: &Command) {
        let mut line = serde_json::to_string(command).unwrap();
        line.push('\n');
        // It may have ended by itself, which the missing answer will say.
        let _ = self.child.stdin.as_mut().unwrap().write_all(line.as_bytes());
    }

    /// Waits for an answer; `None` if it ended, or does not answer.
    pub(crate) fn hear(&self) -> Option<Reply> {
        self.replies.recv_timeout(PATIENCE).ok()
    }

    pub(crate) fn ask(&mut self, command: &Command) -> Option<Reply> {
        self.tell(command);
        self.hear()
    }

    /// How its chain is, once it is normal, or so many milliseconds have passed.
    pub(crate) fn settle(&mut self, millis: u64) -> Option<State> {
        match self.ask(&Command::Settle(millis))? {
            Reply::State(state) => Some(state),
            _ => None,
        }
    }

    /// Ends it as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits for its end; says whether it ended well.
    pub(crate) fn ended(&mut self) -> bool {
        self.child.wait().is_ok_and(|status| status.success())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
