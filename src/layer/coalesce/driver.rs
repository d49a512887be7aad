//! Who drives what is on its way in a lane, and then what waits for it: the [`Driver`].

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::task::yield_now;

use crate::contract::Context;
use crate::error::Result;

use super::batch::{self, Batch};
use super::flight::{Back, Taken};
use super::lane::Lane;
use super::queue::KeyHashes;
use super::work::Work;

/// What is sent next, and in which runtime: one in which a caller waits for it. None stands for the current one.
pub(super) struct Next<W: Work> {
    pub(super) batch: Batch<W>,
    pub(super) runtime: Option<Handle>,
}

/// A flight in the hands of a task. Should the task end early, with its runtime, the lane is free again.
pub(super) struct Driver<W: Work> {
    lane: Arc<Lane<W>>,
    flight: usize,
    /// Of the batch that was answered last, until the next one is sent.
    turn: Option<u64>,
    /// It has come to its end, and has said so to the lane.
    is_over: bool,
}

impl<W: Work> Driver<W> {
    pub(super) const fn new(lane: Arc<Lane<W>>, flight: usize) -> Self {
        Self { lane, flight, turn: None, is_over: false }
    }

    /// Sends a batch, and then what waits, in a task. Without a runtime nobody is left to send it; whoever waits is told so.
    pub(super) fn send(self, next: Next<W>) {
        let Next { batch, runtime } = next;
        let here = Handle::try_current().ok();
        let is_here = |there: &Handle| here.as_ref().is_some_and(|here| here.id() == there.id());
        match runtime.filter(|there| !is_here(there)) {
            Some(there) => self.hand_over(batch, &there),
            None => {
                if let Some(here) = &here {
                    here.spawn(self.run(batch));
                }
            }
        }
    }

    /// Has a task in another runtime send a batch, unless that rests, and somebody else has begun it before.
    fn hand_over(mut self, batch: Batch<W>, there: &Handle) {
        let turn = self.lane.hand_over(self.flight, batch);
        self.turn = Some(turn);
        there.spawn(async move {
            match self.lane.take_up(self.flight, turn) {
                Some(Back::Batch(batch)) => self.run(batch).await,
                Some(Back::Lane) | None => self.end(),
            }
        });
    }

    /// The lane is somebody else's now.
    fn end(mut self) {
        self.is_over = true;
    }

    async fn run(mut self, batch: Batch<W>) {
        self.turn = None;
        let answers = self.answers(batch).await;
        self.go_on(answers).await;
    }

    /// Takes a call that was taken from its caller to its end, and then sends what waits, in a task.
    pub(super) fn finish(self, (call, runtime): Taken<W>) {
        runtime.spawn(async move {
            let answers = vec![call.await];
            self.go_on(answers).await;
        });
    }

    async fn answers(&self, Batch { items, deadline }: Batch<W>) -> Vec<Result<W::Answer>> {
        batch::send(&self.lane.work, items, Context::until(deadline)).await
    }

    async fn go_on(mut self, mut answers: Vec<Result<W::Answer>>) {
        let mut keys = KeyHashes::default();
        let here = Handle::current().id();
        loop {
            let turn = self.lane.answer(self.flight, answers);
            self.turn = Some(turn);
            // Those who were answered run first: whoever calls again goes along with the next batch, and not alone before it.
            yield_now().await;
            if self.lane.take_up(self.flight, turn).is_none() {
                // This runtime rested meanwhile, and others waited.
                break;
            }
            self.turn = None;
            let Some(next) = self.lane.next_or_free(self.flight, &mut keys) else { break };
            if next.runtime.as_ref().is_some_and(|runtime| runtime.id() != here) {
                return self.send(next);
            }
            answers = self.answers(next.batch).await;
        }
        self.is_over = true;
    }
}

impl<W: Work> Drop for Driver<W> {
    fn drop(&mut self) {
        if !self.is_over {
            self.lane.abandon(self.flight, self.turn);
        }
    }
}
