//! What is on its way between a process and the primary.

use arrayvec::ArrayVec;

use crate::operation::{Id, Ids, MOST};
use crate::stamp::Stamp;

/// Operations in the order of a journal.
pub type Steps = ArrayVec<Id, MOST>;

/// A statement that writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Statement {
    /// Whose it is.
    pub id: Id,
    /// The stamp that it carries.
    pub stamp: Stamp,
    /// Whether an earlier attempt may have been applied.
    pub is_repeat: bool,
}

/// What is asked of the primary.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Request {
    /// To write.
    Write(Statement),
    /// To replay operations, in one transaction.
    Replay {
        /// Whose journal they are from.
        process: u8,
        /// Which.
        steps: Steps,
        /// What others wrote since then they wrote without knowing of these.
        since: Stamp,
        /// What had been acknowledged before; only an observer knows.
        aware_of: Ids,
    },
}

/// What the primary says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reply {
    /// It is there.
    Applied,
    /// Something newer stands there.
    Behind(Stamp),
    /// There is a value already.
    Exists,
    /// It is another database than was expected; nothing was done.
    Foreign,
    /// What was replayed.
    Replayed {
        /// What need not be replayed again.
        done: Ids,
        /// What is too old to be applied.
        too_old: Ids,
    },
}

/// A request, and the reply once there is one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Message {
    /// What is asked.
    pub request: Request,
    /// What is said; none as long as the request is on its way or held by a server. It may be executed at any time.
    pub reply: Option<Reply>,
    /// Whether somebody waits for the reply.
    pub is_awaited: bool,
}

/// All that is on its way, in an order that does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Network(ArrayVec<Message, 10>);

impl Network {
    /// All messages.
    #[must_use]
    pub fn messages(&self) -> &[Message] {
        &self.0
    }

    /// Sends a request.
    ///
    /// # Panics
    ///
    /// If there are more messages than a scene should lead to.
    pub fn send(&mut self, request: Request, is_awaited: bool) {
        self.0.push(Message { request, reply: None, is_awaited });
        self.0.sort_unstable();
    }

    pub(crate) fn take(&mut self, at: usize) -> Message {
        self.0.remove(at)
    }

    pub(crate) fn put(&mut self, message: Message) {
        self.0.push(message);
        self.0.sort_unstable();
    }

    /// Forgets requests.
    pub(crate) fn forget(&mut self, is_meant: impl Fn(&Message) -> bool) {
        self.0.retain(|message| !is_meant(message));
    }

    /// Nobody waits any more for what is meant; a reply that is there already is lost, unless it leads to another attempt.
    pub(crate) fn give_up(&mut self, is_meant: impl Fn(&Request) -> bool, keeps_behind: bool) {
        for message in &mut self.0 {
            if is_meant(&message.request) {
                message.is_awaited = false;
            }
        }
        let behind = |message: &Message| keeps_behind && matches!(message.reply, Some(Reply::Behind(_)));
        self.0.retain(|message| message.is_awaited || message.reply.is_none() || behind(message));
        self.0.sort_unstable();
    }

    /// Whether a replay of a process is awaited.
    #[must_use]
    pub fn is_replaying(&self, process: u8) -> bool {
        let of =
            |message: &&Message| matches!(&message.request, Request::Replay { process: one, .. } if *one == process);
        self.0.iter().filter(of).any(|message| message.is_awaited)
    }
}
