//! A call from its caller's side: the [`Call`].

use std::future::Future;
use std::mem;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Instant;

use futures_util::FutureExt;

use crate::contract::Context;
use crate::error::{Error, Result};

use super::batch::panicked;
use super::lane::{Entered, Lane};
use super::lone::Lone;
use super::slot::Slot;
use super::work::Work;

/// A call that goes out alone if its lane is free, or with others when it is again.
pub(super) struct Call<'a, W: Work> {
    lane: &'a Arc<Lane<W>>,
    key_hash: u64,
    deadline: Instant,
    stage: Stage<'a, W>,
}

enum Stage<'a, W: Work> {
    /// It has yet to begin. What it wants to send lies in the slot from the start, so that it need not lie here too.
    New(Arc<Slot<W>>),
    Waiting(Arc<Slot<W>>),
    Alone(Alone<'a, W>),
    Over,
}

impl<'a, W: Work> Call<'a, W> {
    pub(super) fn new(lane: &'a Arc<Lane<W>>, key_hash: u64, item: W::Item, cx: &Context) -> Self {
        Self { lane, key_hash, deadline: cx.deadline, stage: Stage::New(Arc::new(Slot::new(item))) }
    }

    fn begin(&mut self, slot: Arc<Slot<W>>, task: &mut TaskContext<'_>) -> Poll<Result<W::Answer>> {
        let now = Instant::now();
        if self.deadline <= now {
            return Poll::Ready(Err(Error::unavailable("the deadline had passed before the call began")));
        }
        match self.lane.enter(slot, self.key_hash, [now, self.deadline], task.waker())? {
            Entered::Queued(slot) => {
                self.stage = Stage::Waiting(slot);
                Poll::Pending
            }
            Entered::Alone(slot, flight, lone) => {
                let Some(item) = slot.send() else {
                    // Its time was up just now.
                    self.lane.release(flight);
                    return slot.poll(task.waker());
                };
                let mut alone = Alone::begin(self.lane, flight, slot, lone, item, self.deadline);
                let answer = alone.poll(task);
                if answer.is_pending() {
                    self.stage = Stage::Alone(alone);
                }
                answer
            }
        }
    }
}

impl<W: Work> Future for Call<'_, W> {
    type Output = Result<W::Answer>;

    fn poll(mut self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let answer = match &mut this.stage {
            Stage::New(_) => match mem::replace(&mut this.stage, Stage::Over) {
                Stage::New(slot) => return this.begin(slot, task),
                _ => Poll::Ready(Err(Error::internal("a call began twice"))),
            },
            Stage::Over => Poll::Ready(Err(Error::internal("a call was polled after its end"))),
            Stage::Waiting(slot) => {
                let answer = slot.poll(task.waker());
                if answer.is_pending() {
                    this.lane.tend(this.deadline);
                }
                answer
            }
            Stage::Alone(alone) => {
                let answer = alone.poll(task);
                if answer.is_pending() {
                    this.lane.tend(this.deadline);
                }
                answer
            }
        };
        if answer.is_ready() {
            this.stage = Stage::Over;
        }
        answer
    }
}

/// A caller that goes away while its call waits takes it out of the queue.
impl<W: Work> Drop for Call<'_, W> {
    fn drop(&mut self) {
        if let Stage::Waiting(slot) = &self.stage {
            slot.leave();
        }
    }
}

/// A call on its way alone, in its caller. Should the caller go away, or not get on with it, a task of ours takes it to its end.
struct Alone<'a, W: Work> {
    lane: &'a Arc<Lane<W>>,
    flight: usize,
    /// Where the answer comes if the call was taken over, and who is woken at its deadline.
    slot: Arc<Slot<W>>,
    lone: Arc<Lone<W::Answer>>,
    is_over: bool,
}

impl<'a, W: Work> Alone<'a, W> {
    fn begin(
        lane: &'a Arc<Lane<W>>,
        flight: usize,
        slot: Arc<Slot<W>>,
        lone: Arc<Lone<W::Answer>>,
        item: W::Item,
        deadline: Instant,
    ) -> Self {
        let call = AssertUnwindSafe(Arc::clone(&lane.work).send_one(item, Context::until(deadline))).catch_unwind();
        lone.begin(call.map(|answer| answer.unwrap_or_else(|_| Err(panicked()))));
        Self { lane, flight, slot, lone, is_over: false }
    }

    fn poll(&mut self, task: &mut TaskContext<'_>) -> Poll<Result<W::Answer>> {
        if let Some(Poll::Ready(answer)) = self.lone.poll(task) {
            self.is_over = true;
            self.lane.note_sizes(std::slice::from_ref(&answer));
            self.lane.release(self.flight);
            return Poll::Ready(answer);
        }
        self.slot.poll(task.waker())
    }
}

impl<W: Work> Drop for Alone<'_, W> {
    fn drop(&mut self) {
        if !self.is_over {
            self.slot.leave();
            self.lane.leave(self.flight, &self.lone);
        }
    }
}
