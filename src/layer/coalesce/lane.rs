//! One lane: at most one call or batch on its way, and a queue of what waits.

use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context as TaskContext, Poll};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::runtime::Handle;

use crate::contract::Context;
use crate::error::{Error, Result};

use super::batch::{self, panicked};
use super::queue::{Limits, Load, Queue, Taken, Ticket};
use super::work::Work;

/// One lane of a store.
pub(super) struct Lane<W: Work> {
    work: Arc<W>,
    limits: Limits,
    state: Mutex<State<W>>,
}

struct State<W: Work> {
    /// Whether a call or batch is on its way. Whoever set it must call [`Lane::release`].
    busy: bool,
    queue: Queue<W>,
}

enum Entered<W: Work> {
    Alone(W::Item),
    Queued(Ticket<W::Answer>),
}

impl<W: Work> Lane<W> {
    pub(super) fn new(work: Arc<W>, limits: Limits, load: Arc<Load>) -> Arc<Self> {
        Arc::new(Self { work, limits, state: Mutex::new(State { busy: false, queue: Queue::new(load) }) })
    }

    /// Whether a call would go out at once.
    pub(super) fn is_free(&self) -> bool {
        !self.lock().busy
    }

    /// Sends a call, alone if the lane is free, or with others when it is again.
    pub(super) async fn call(self: &Arc<Self>, item: W::Item, cx: &Context) -> Result<W::Answer> {
        if cx.is_expired() {
            return Err(Error::unavailable("the deadline had passed before the call began"));
        }
        match self.enter(item, cx)? {
            Entered::Alone(item) => self.call_alone(item, cx).await,
            Entered::Queued(ticket) => wait::<W>(ticket, cx).await,
        }
    }

    fn enter(&self, item: W::Item, cx: &Context) -> Result<Entered<W>> {
        let mut state = self.lock();
        if state.busy {
            return state.queue.push(item, cx.deadline).map(Entered::Queued);
        }
        state.busy = true;
        Ok(Entered::Alone(item))
    }

    async fn call_alone(self: &Arc<Self>, item: W::Item, cx: &Context) -> Result<W::Answer> {
        let call = AssertUnwindSafe(Arc::clone(&self.work).send_one(item, *cx)).catch_unwind();
        let call = call.map(|answer| answer.unwrap_or_else(|_| Err(panicked()))).boxed();
        let alone = Alone { lane: Arc::clone(self), call: Some(call) };
        cx.limit(alone).await.unwrap_or_else(|| Err(W::unanswered()))
    }

    /// Opens the lane, or goes on with what waits in a task of its own.
    fn release(self: &Arc<Self>) {
        let Some(taken) = self.next_or_open() else { return };
        let busy = Busy(Some(Arc::clone(self)));
        // Without a runtime nobody is left to wait; the senders that are dropped then say so to whoever is.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(Arc::clone(self).drain(taken, busy));
        }
    }

    async fn drain(self: Arc<Self>, first: Taken<W>, busy: Busy<W>) {
        let mut next = Some(first);
        while let Some(taken) = next {
            let mut cx = Context::with_timeout(Context::MAX_TIMEOUT);
            cx.deadline = taken.deadline;
            let answers = batch::send(Arc::clone(&self.work), taken.items, cx).await;
            for (reply, answer) in taken.replies.into_iter().zip(answers) {
                // A caller that is gone does not want its answer.
                let _ = reply.send(answer);
            }
            next = self.next_or_open();
        }
        busy.settled();
    }

    /// What waits; if nothing does, the lane is open.
    fn next_or_open(&self) -> Option<Taken<W>> {
        let mut state = self.lock();
        let next = state.queue.take(self.limits);
        state.busy = next.is_some();
        next
    }

    fn lock(&self) -> MutexGuard<'_, State<W>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<W: Work> fmt::Debug for Lane<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane").field("busy", &!self.is_free()).finish_non_exhaustive()
    }
}

/// A lane that is in the hands of a task. Should the task end early, with its runtime, the lane is open again.
struct Busy<W: Work>(Option<Arc<Lane<W>>>);

impl<W: Work> Busy<W> {
    /// The task has come to its end and has said so to the lane.
    fn settled(mut self) {
        self.0 = None;
    }
}

impl<W: Work> Drop for Busy<W> {
    fn drop(&mut self) {
        if let Some(lane) = self.0.take() {
            lane.lock().busy = false;
        }
    }
}

/// Waits for the answer to a call that was queued.
async fn wait<W: Work>(mut ticket: Ticket<W::Answer>, cx: &Context) -> Result<W::Answer> {
    match cx.limit(&mut ticket.answer).await {
        Some(Ok(answer)) => answer,
        // The task that held the call ended with its runtime.
        Some(Err(_)) if ticket.place.leave() => Err(Error::unavailable("the call was broken off before it was sent")),
        Some(Err(_)) => Err(W::unanswered()),
        None if ticket.place.leave() => {
            Err(Error::unavailable("the call was still waiting for its turn at the deadline; it was not sent"))
        }
        None => ticket.answer.try_recv().unwrap_or_else(|_| Err(W::unanswered())),
    }
}

/// A call on its way alone. If its caller goes away, a task of ours takes it to its end; the lane opens then.
struct Alone<W: Work> {
    lane: Arc<Lane<W>>,
    call: Option<BoxFuture<'static, Result<W::Answer>>>,
}

impl<W: Work> Future for Alone<W> {
    type Output = Result<W::Answer>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let Some(call) = &mut self.call else {
            return Poll::Ready(Err(Error::internal("a call was polled after its end")));
        };
        let Poll::Ready(answer) = call.as_mut().poll(cx) else { return Poll::Pending };
        self.call = None;
        self.lane.release();
        Poll::Ready(answer)
    }
}

impl<W: Work> Drop for Alone<W> {
    fn drop(&mut self) {
        let Some(call) = self.call.take() else { return };
        let lane = Arc::clone(&self.lane);
        let busy = Busy(Some(Arc::clone(&lane)));
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                let _ = call.await;
                busy.settled();
                lane.release();
            });
        }
    }
}
