//! Who drives what is on its way in a lane, and then what waits for it: the [`Driver`].

use std::future::poll_fn;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::task::yield_now;

use super::driven::{Answers, FIRST};
use super::lane::Lane;
use super::queue::KeyHashes;
use super::work::Work;

/// A flight in the hands of a task of ours. Should the task end early, with its runtime, the lane is free again.
pub(super) struct Driver<W: Work> {
    lane: Arc<Lane<W>>,
    flight: usize,
    driven: Arc<Answers<W>>,
    turn: u32,
    /// It has said to the lane that it is through, or somebody else drives the flight.
    is_over: bool,
}

impl<W: Work> Driver<W> {
    /// The first one of a batch.
    pub(super) const fn first(lane: Arc<Lane<W>>, flight: usize, driven: Arc<Answers<W>>) -> Self {
        Self::of(lane, flight, driven, FIRST)
    }

    /// One who took over.
    pub(super) const fn of(lane: Arc<Lane<W>>, flight: usize, driven: Arc<Answers<W>>, turn: u32) -> Self {
        Self { lane, flight, driven, turn, is_over: false }
    }

    /// Goes on in a task of the current runtime. Without one nobody is left to send anything; whoever waits is told so.
    pub(super) fn set_out(self) {
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(self.run());
        }
    }

    async fn run(mut self) {
        let mut keys = KeyHashes::default();
        loop {
            poll_fn(|task| self.driven.poll(self.turn, task)).await;
            if !self.lane.land(self.flight, &self.driven, self.turn) {
                break;
            }
            // Those who were answered run first: whoever calls again goes along with the next batch, and not alone before it.
            yield_now().await;
            // Somebody may have taken over meanwhile.
            let ours = |_: &_| self.driven.is_turn(self.turn);
            let Some(next) = self.lane.next_or_free(self.flight, &mut keys, ours) else { break };
            (self.driven, self.turn) = (next, FIRST);
        }
        self.is_over = true;
    }
}

impl<W: Work> Drop for Driver<W> {
    fn drop(&mut self) {
        if !self.is_over {
            self.lane.abandon(self.flight, &self.driven, self.turn);
        }
    }
}
