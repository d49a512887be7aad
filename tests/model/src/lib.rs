//! The protocol of a database's chain as a model, explored completely by `stateright`.
//!
//! It is a package of its own, because the checker brings a web server. `cargo test --manifest-path tests/model/Cargo.toml` explores
//! it within a minute on two cores; with `-- --nocapture` it tells how many states there are, and by which shortest schedule each
//! rule is missed.
//!
//! # What is modelled
//!
//! - **A primary** with one key: a row (stamp, value or tombstone), a list (floor, items with id and stamp), `gc_floor`, conflicts.
//!   Value and list of a delete are guarded each for itself, as PostgreSQL does it. A replay is judged as `ReplayOptions::decide` says.
//! - **Two processes**, each with a clock that may run far before the other's, a breaker, a journal that survives a crash, what it
//!   knows to owe, and callers who call at any time, one behind the other or at once.
//! - **A network** on which every request may be executed at any time, also long after it was given up, and every reply be held up
//!   until nobody waits for it.
//! - **Faults**, so many in a run: a call or a replay is given up, a call is sent again, a caller goes away, a breaker opens (and
//!   closes), a process crashes at any point, another database answers, tombstones are swept, a value expires, a journal is full,
//!   much time passes.
//! - **Operations**: set, set with a TTL, create, delete, clear, append; get and range are asked of every process in every state.
//!
//! A scene ([`scenes`]) says how many calls and faults there may be; within it every order of events is explored.
//!
//! | file | what is in it |
//! |---|---|
//! | `rules` | the rules, each a switch |
//! | `promises` | what must hold in every state |
//! | `event` | what must come about in some state, so that the promises say something |
//! | `action`, `step` | what can happen, and what it does |
//! | `primary`, `process`, `message`, `system` | the state |
//!
//! # What is not modelled
//!
//! - Batches over several keys, lanes, prefixes other than the whole: one key stands for each.
//! - Trims, touches, conditional deletes, poison operations, adoption of another process's journal, a primary restored from a backup
//!   (it is fenced as a foreign one is), the loss of a disk.
//! - Time itself: timeouts, probes and the judgement of the breaker may come at any moment.
//!
//! # What is assumed
//!
//! - No statement of normal operation is late by as much as tombstones are kept, and tombstones are kept for longer than clocks differ.
//! - What counts as written meanwhile (`since`) and `gc_floor` allow for the difference of clocks.
//!
//! # What is left out of the states, and why that hides nothing
//!
//! A reply arrives at once, or is held up until it is given up: while it travels its reader changes nothing that it
//! would decide, and an earlier acknowledgement only demands more. A late statement that can have no effect any more is forgotten.

mod action;
pub mod event;
pub mod message;
pub mod operation;
pub mod primary;
pub mod process;
mod promises;
pub mod rules;
pub mod scene;
pub mod scenes;
pub mod stamp;
mod step;
pub mod system;

pub use action::Action;

use stateright::{Model, Property};

use event::{Events, Reached};
use scene::Scene;
use step::Step;
use system::System;

/// The protocol in a scene.
#[derive(Debug)]
pub struct Protocol {
    /// How much may happen.
    pub scene: Scene,
    reached: Reached,
}

impl Protocol {
    /// The protocol in a scene.
    #[must_use]
    pub fn new(scene: Scene) -> Self {
        Self { scene, reached: Reached::default() }
    }
}

impl Model for Protocol {
    type State = System;
    type Action = Action;

    fn init_states(&self) -> Vec<System> {
        [[false, false], [true, false], [false, true]].map(|skews| System::new(&self.scene, skews)).to_vec()
    }

    fn actions(&self, system: &System, actions: &mut Vec<Action>) {
        action::list(&self.scene, system, actions);
    }

    fn next_state(&self, system: &System, action: Action) -> Option<System> {
        let events = Events::default();
        let next = Step { scene: &self.scene, events: &events, system: system.clone() }.take(action);
        self.reached.add(&events);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        promises::all().into_iter().chain(event::all()).collect()
    }
}
