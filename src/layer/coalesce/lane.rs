//! The lanes of one kind of call: so many calls or batches on their way, and one queue of what waits for them.

use std::fmt;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Instant;

use tokio::runtime::{Handle, Id};
use tokio::task::yield_now;

use crate::contract::Context;
use crate::error::Result;

use super::batch::{self, Batch};
use super::flight::Flight;
use super::queue::{KeyHashes, Limits, Load, Queue};
use super::slot::Slot;
use super::watch::{Alarm, Watch};
use super::work::Work;

/// The lanes of one kind of call before a store.
pub(super) struct Lane<W: Work> {
    pub(super) work: Arc<W>,
    limits: Limits,
    state: Mutex<State<W>>,
}

struct State<W: Work> {
    /// Whoever takes a free one must see to it that [`Lane::release`] or [`Lane::abandon`] is called.
    flights: Box<[Flight<W>]>,
    queue: Queue<W>,
    watch: Watch,
}

/// How a call gets in.
pub(super) enum Entered<W: Work> {
    /// At once, as this flight.
    Alone(Arc<Slot<W>>, usize),
    Queued(Arc<Slot<W>>),
}

impl<W: Work> Lane<W> {
    /// Makes a lane for so many calls or batches at a time.
    pub(super) fn new(work: Arc<W>, width: u32, limits: Limits, load: Arc<Load>) -> Arc<Self> {
        let flights = (0..width).map(|_| Flight::Free).collect();
        let state = State { flights, queue: Queue::new(load), watch: Watch::default() };
        Arc::new(Self { work, limits, state: Mutex::new(state) })
    }

    /// Lets a call in: out at once if the lane is free, else into the queue. `task` is woken at the deadline, and with the answer of
    /// a queued call.
    pub(super) fn enter(
        self: &Arc<Self>,
        slot: Arc<Slot<W>>,
        key_hash: u64,
        deadline: Instant,
        task: &Waker,
    ) -> Result<Entered<W>> {
        let mut state = self.lock();
        let alarm = state.watch.set(deadline);
        // What waits before a free lane follows a call of its key in another, or was left behind by a runtime that ended. It goes first.
        let stranded = !state.queue.is_empty();
        let follows = W::ORDERED && state.flights.iter().any(|flight| flight.carries(key_hash));
        let entered = match state.free() {
            Some((index, flight)) if !stranded && !follows => {
                *flight = Flight::Alone { key_hash, deadline, caller: Some(task.clone()) };
                Ok(Entered::Alone(slot, index))
            }
            _ => state.queue.push(slot, key_hash, deadline, task).map(Entered::Queued),
        };
        let resumed = if stranded { state.claim() } else { None };
        drop(state);
        self.go_on(alarm, resumed);
        entered
    }

    /// Looks after a queued call that was woken without an answer: its runtime may be another one now, or the one that had to send
    /// it may have ended.
    pub(super) fn tend(self: &Arc<Self>, deadline: Instant) {
        let mut state = self.lock();
        let alarm = state.watch.set(deadline);
        let resumed = if state.queue.is_empty() { None } else { state.claim() };
        drop(state);
        self.go_on(alarm, resumed);
    }

    /// Whether the deadline of a lone call has passed; if not, `task` is woken when it does.
    pub(super) fn is_late(self: &Arc<Self>, flight: usize, deadline: Instant, task: &Waker) -> bool {
        let mut state = self.lock();
        let alarm = state.watch.set(deadline);
        let before = state.flights.get_mut(flight).and_then(|flight| flight.replace_caller(task));
        drop(state);
        self.go_on(alarm, None);
        before.is_none()
    }

    fn go_on(self: &Arc<Self>, alarm: Alarm, resumed: Option<usize>) {
        alarm.ring(self);
        if let Some(flight) = resumed {
            self.release(flight);
        }
    }

    /// A flight has ended: the lane is free, or goes on with what waits in a task of its own.
    pub(super) fn release(self: &Arc<Self>, flight: usize) {
        let mut keys = KeyHashes::default();
        let Some(batch) = self.next_or_free(flight, &mut keys) else { return };
        let busy = Busy::new(Arc::clone(self), flight);
        // Without a runtime nobody is left to send it; whoever waits is told so.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(Arc::clone(self).drain(flight, batch, keys, busy));
        }
    }

    async fn drain(self: Arc<Self>, flight: usize, first: Batch<W>, mut keys: KeyHashes, busy: Busy<W>) {
        let mut next = Some(first);
        while let Some(Batch { items, deadline }) = next {
            let answers = batch::send(&self.work, items, Context::until(deadline)).await;
            self.answer(flight, answers);
            // Those who were answered run first: whoever calls again goes along with the next batch, and not alone before it.
            yield_now().await;
            next = self.next_or_free(flight, &mut keys);
        }
        busy.settled();
    }

    /// What waits, as a batch on its way; if nothing does, the flight is free.
    fn next_or_free(&self, flight: usize, keys: &mut KeyHashes) -> Option<Batch<W>> {
        loop {
            let mut state = self.lock();
            state.keys_of_others(flight, keys);
            let taken = state.queue.take(self.limits, keys);
            let next = if taken.is_empty() { Flight::Free } else { Flight::boarding(&taken) };
            let before = state.put(flight, next);
            drop(state);
            drop(before);
            if taken.is_empty() {
                return None;
            }
            let (batch, waiting) = Batch::of(taken);
            self.lock().put(flight, Flight::Batch(waiting));
            if batch.is_some() {
                return batch;
            }
        }
    }

    fn answer(&self, flight: usize, answers: Vec<Result<W::Answer>>) {
        let flown = self.lock().put(flight, Flight::Batch(Vec::new()));
        let Some(Flight::Batch(waiting)) = flown else { return };
        for (call, answer) in waiting.into_iter().zip(answers) {
            if let Some(caller) = call.slot.answer(answer) {
                caller.wake();
            }
        }
    }

    /// Nobody waits for this lone call any more, though it goes on.
    pub(super) fn forget(&self, flight: usize) {
        let caller = self.lock().flights.get_mut(flight).and_then(Flight::forget_caller);
        drop(caller);
    }

    /// A flight ended with the runtime that it was in: who waited for it is told so, and who waits for the next one is to see to it.
    fn abandon(&self, flight: usize) {
        let mut state = self.lock();
        let before = state.put(flight, Flight::Free);
        let queued: Vec<Waker> = state.queue.wakers().collect();
        drop(state);
        if let Some(Flight::Batch(waiting)) = before {
            let broken_off = |call: &super::queue::Waiting<W>| call.slot.answer(Err(W::unanswered()));
            waiting.iter().filter_map(broken_off).for_each(Waker::wake);
        }
        queued.into_iter().for_each(Waker::wake);
    }

    /// Ends the waiting of those whose time is up, if it is time to look; says when it is next.
    pub(super) fn look(&self, runtime: Id, timer: &Waker) -> Option<Instant> {
        // The clock of the timer, which a test may have stopped.
        let now = tokio::time::Instant::now().into_std();
        let mut late = Vec::new();
        let mut state = self.lock();
        let mut next = state.watch.next(runtime);
        if next.is_some_and(|next| next <= now) {
            next = state.expire(now, &mut late);
        }
        state.watch.reset(runtime, next, timer);
        drop(state);
        late.into_iter().for_each(Waker::wake);
        next
    }

    /// The timer of a runtime ended with it.
    pub(super) fn stop_looking(&self, runtime: Id) {
        self.lock().watch.end(runtime);
    }

    fn lock(&self) -> MutexGuard<'_, State<W>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<W: Work> State<W> {
    fn free(&mut self) -> Option<(usize, &mut Flight<W>)> {
        self.flights.iter_mut().enumerate().find(|(_, flight)| flight.is_free())
    }

    /// Takes a free flight for what waits.
    fn claim(&mut self) -> Option<usize> {
        let (index, flight) = self.free()?;
        *flight = Flight::Boarding(Vec::new(), None);
        Some(index)
    }

    /// The keys that are on their way in other lanes, if their calls must keep their order.
    fn keys_of_others(&self, own: usize, keys: &mut KeyHashes) {
        keys.clear();
        if W::ORDERED {
            let others = self.flights.iter().enumerate().filter(|(index, _)| *index != own);
            others.for_each(|(_, flight)| flight.note_keys(keys));
        }
    }

    /// Replaces what is on its way and hands it out, to be dropped when the lane is unlocked.
    fn put(&mut self, flight: usize, next: Flight<W>) -> Option<Flight<W>> {
        Some(mem::replace(self.flights.get_mut(flight)?, next))
    }

    fn expire(&mut self, now: Instant, wakers: &mut Vec<Waker>) -> Option<Instant> {
        let queued = self.queue.expire(now, wakers);
        let flying = self.flights.iter_mut().filter_map(|flight| flight.expire(now, wakers)).min();
        queued.into_iter().chain(flying).min()
    }
}

impl<W: Work> fmt::Debug for Lane<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let busy = self.lock().flights.iter().filter(|flight| !flight.is_free()).count();
        f.debug_struct("Lane").field("busy", &busy).finish_non_exhaustive()
    }
}

/// A flight in the hands of a task. Should the task end early, with its runtime, the lane is free again.
pub(super) struct Busy<W: Work> {
    lane: Option<Arc<Lane<W>>>,
    flight: usize,
}

impl<W: Work> Busy<W> {
    pub(super) const fn new(lane: Arc<Lane<W>>, flight: usize) -> Self {
        Self { lane: Some(lane), flight }
    }

    /// The task has come to its end and has said so to the lane.
    pub(super) fn settled(mut self) {
        self.lane = None;
    }
}

impl<W: Work> Drop for Busy<W> {
    fn drop(&mut self) {
        if let Some(lane) = self.lane.take() {
            lane.abandon(self.flight);
        }
    }
}
