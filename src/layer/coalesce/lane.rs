//! The lanes of one kind of call: so many calls or batches on their way, and one queue of what waits for them.

use std::fmt;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Instant;

use tokio::runtime::{Handle, Id};

use crate::contract::Context;
use crate::error::Result;

use super::batch::{self, Batch};
use super::driven::{Answers, Driven};
use super::driver::Driver;
use super::flight::{Flight, PATIENCE, TakenOver};
use super::queue::{KeyHashes, Limits, Load, Queue, Waiting};
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
    /// No later than the first deadline of what waits or is on its way, unless there is none.
    first_deadline: Option<Instant>,
    watch: Watch,
}

/// How a call gets in.
pub(super) enum Entered<W: Work> {
    /// At once, as this flight. What it sends is to be begun there.
    Alone(Arc<Slot<W>>, usize, Arc<Answers<W>>),
    Queued(Arc<Slot<W>>),
}

impl<W: Work> Lane<W> {
    /// Makes a lane for so many calls or batches at a time.
    pub(super) fn new(work: Arc<W>, width: u32, limits: Limits, load: Arc<Load>) -> Arc<Self> {
        let flights = (0..width).map(|_| Flight::Free).collect();
        let state = State { flights, queue: Queue::new(load), first_deadline: None, watch: Watch::default() };
        Arc::new(Self { work, limits, state: Mutex::new(state) })
    }

    /// Lets a call in: out at once if the lane is free, else into the queue. `task` is woken at the deadline, and with the answer of
    /// a queued call.
    pub(super) fn enter(
        self: &Arc<Self>,
        mut slot: Arc<Slot<W>>,
        key_hash: u64,
        deadline: Instant,
        task: &Waker,
    ) -> Result<Entered<W>> {
        let mut state = self.lock();
        // What waits before a free lane follows a call of its key in another, or was left behind by a runtime that ended. It goes first.
        let stranded = !state.queue.is_empty();
        let follows = W::ORDERED && state.flights.iter().any(|flight| flight.carries(key_hash));
        let entered = match state.free() {
            Some((index, flight)) if !stranded && !follows => {
                let (call, driven) = (Waiting::new(&mut slot, key_hash, deadline, task)?, Arc::new(Driven::new()));
                *flight = Flight::Alone { call, driven: Arc::clone(&driven), since: Instant::now() };
                Ok(Entered::Alone(slot, index, driven))
            }
            _ => state.queue.push(slot, key_hash, deadline, task).map(Entered::Queued),
        };
        let alarm = state.wake_by(deadline);
        let resumed = if stranded { state.claim() } else { None };
        drop(state);
        self.go_on(alarm, resumed);
        entered
    }

    /// Looks after a call that was woken without an answer: its runtime may be another one now, or the one that had to send it may
    /// have ended.
    pub(super) fn tend(self: &Arc<Self>, deadline: Instant) {
        let mut state = self.lock();
        let alarm = state.wake_by(deadline);
        let resumed = if state.queue.is_empty() { None } else { state.claim() };
        drop(state);
        self.go_on(alarm, resumed);
    }

    fn go_on(self: &Arc<Self>, alarm: Alarm, resumed: Option<usize>) {
        alarm.ring(self);
        if let Some(flight) = resumed {
            self.release(flight);
        }
    }

    /// A flight has ended, or was taken for what waits: the lane is free, or goes on with what waits in a task of its own.
    pub(super) fn release(self: &Arc<Self>, flight: usize) {
        let mut keys = KeyHashes::default();
        if let Some(driven) = self.next_or_free(flight, &mut keys, |_| true) {
            Driver::first(Arc::clone(self), flight, driven).set_out();
        }
    }

    /// What waits, as a batch on its way; if nothing does, the flight is free. Neither, if it is not `ours`.
    pub(super) fn next_or_free(
        &self,
        flight: usize,
        keys: &mut KeyHashes,
        ours: impl FnOnce(&Flight<W>) -> bool,
    ) -> Option<Arc<Answers<W>>> {
        let mut state = self.lock();
        if !state.flights.get(flight).is_some_and(ours) {
            return None;
        }
        loop {
            state.keys_of_others(flight, keys);
            let taken = state.queue.take(self.limits, keys);
            let next = if taken.is_empty() { Flight::Free } else { Flight::boarding(&taken) };
            let before = state.put(flight, next);
            drop(state);
            drop(before);
            if taken.is_empty() {
                return None;
            }
            let (batch, calls) = Batch::of(taken);
            if let Some(Batch { items, deadline }) = batch {
                let (work, driven) = (Arc::clone(&self.work), Arc::new(Driven::new()));
                driven.begin(async move { batch::send(&work, items, Context::until(deadline)).await });
                let runtime = Handle::try_current().ok().map(|runtime| runtime.id());
                self.lock().put(flight, Flight::batch(calls, Arc::clone(&driven), runtime));
                return Some(driven);
            }
            state = self.lock();
        }
    }

    /// Answers the calls of a batch that is done; `false` if somebody else took it over.
    pub(super) fn land(&self, flight: usize, driven: &Answers<W>, turn: u32) -> bool {
        let mut state = self.lock();
        if !driven.is_turn(turn) {
            return false;
        }
        let answers = driven.fetch(turn).unwrap_or_default();
        let calls = state.flights.get_mut(flight).map(Flight::land).unwrap_or_default();
        drop(state);
        for (call, answer) in calls.into_iter().zip(answers) {
            if let Some(caller) = call.slot.answer(answer) {
                caller.wake();
            }
        }
        true
    }

    /// The caller of a lone call went away: a task of ours takes the call to its end, and the lane is free then.
    pub(super) fn leave(self: &Arc<Self>, flight: usize, driven: &Arc<Answers<W>>) {
        let runtime = Handle::try_current().ok().map(|runtime| runtime.id());
        let mut state = self.lock();
        let ours = state.flights.get_mut(flight).filter(|flight| flight.is(driven));
        let taken = ours.and_then(|flight| flight.take_over(runtime, Instant::now()));
        drop(state);
        if let Some(taken) = taken {
            self.drive(flight, taken);
        }
    }

    fn drive(self: &Arc<Self>, flight: usize, (driven, turn): TakenOver<W>) {
        Driver::of(Arc::clone(self), flight, driven, turn).set_out();
    }

    /// A flight ended with the runtime that it was in: who waited for it is told so, and who waits for the next one is to see to it.
    pub(super) fn abandon(&self, flight: usize, driven: &Arc<Answers<W>>, turn: u32) {
        let mut state = self.lock();
        if !driven.is_turn(turn) || !state.flights.get(flight).is_some_and(|flight| flight.is(driven)) {
            return;
        }
        let before = state.put(flight, Flight::Free);
        let queued: Vec<Waker> = state.queue.wakers().collect();
        drop(state);
        driven.give_up();
        if let Some(Flight::Batch { calls, .. }) = before {
            let broken_off = |call: &Waiting<W>| call.slot.answer(Err(W::unanswered()));
            calls.iter().filter_map(broken_off).for_each(Waker::wake);
        }
        queued.into_iter().for_each(Waker::wake);
    }

    /// Ends the waiting of those whose time is up and takes over what nobody drives, if it is time to look; says when it is next.
    pub(super) fn look(self: &Arc<Self>, runtime: Id, timer: &Waker) -> Option<Instant> {
        // The clock of the timer, which a test may have stopped.
        let now = tokio::time::Instant::now().into_std();
        let (mut late, mut taken) = (Vec::new(), Vec::new());
        let mut state = self.lock();
        let mut next = state.watch.next(runtime);
        if next.is_some_and(|next| next <= now) {
            taken = state.take_over(runtime, now);
            next = state.expire(now, &mut late);
            // What was being driven a moment ago is looked at again, but not at once.
            let stalls = state.stalls_at(runtime).map(|at| at.max(now + PATIENCE));
            next = next.into_iter().chain(stalls).min();
        }
        state.watch.reset(runtime, next, timer);
        drop(state);
        taken.into_iter().for_each(|(flight, taken)| self.drive(flight, taken));
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

    /// Sees to it that a timer of the current runtime looks in time, at this deadline and for what may stand in the way.
    fn wake_by(&mut self, deadline: Instant) -> Alarm {
        self.first_deadline = Some(self.first_deadline.map_or(deadline, |first| first.min(deadline)));
        let runtime = Handle::current();
        let moment = self.stalls_at(runtime.id()).map_or(deadline, |stalls| stalls.min(deadline));
        self.watch.set(moment, runtime)
    }

    /// When the first flight may have to be taken over by somebody in this runtime.
    fn stalls_at(&self, runtime: Id) -> Option<Instant> {
        let is_waited_for = !self.queue.is_empty();
        self.flights.iter().filter_map(|flight| flight.stalls_at(runtime, is_waited_for)).min()
    }

    fn take_over(&mut self, runtime: Id, now: Instant) -> Vec<(usize, TakenOver<W>)> {
        let is_waited_for = !self.queue.is_empty();
        let stalled = |flight: &Flight<W>| flight.stalls_at(runtime, is_waited_for).is_some_and(|at| at <= now);
        let flights = self.flights.iter_mut().enumerate().filter(|(_, flight)| stalled(flight));
        flights.filter_map(|(index, flight)| Some((index, flight.take_over(Some(runtime), now)?))).collect()
    }

    fn expire(&mut self, now: Instant, wakers: &mut Vec<Waker>) -> Option<Instant> {
        if self.first_deadline.is_none_or(|first| first <= now) {
            let queued = self.queue.expire(now, wakers);
            let flying = self.flights.iter_mut().filter_map(|flight| flight.expire(now, wakers)).min();
            self.first_deadline = queued.into_iter().chain(flying).min();
        }
        self.first_deadline
    }
}

impl<W: Work> fmt::Debug for Lane<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let busy = self.lock().flights.iter().filter(|flight| !flight.is_free()).count();
        f.debug_struct("Lane").field("busy", &busy).finish_non_exhaustive()
    }
}
