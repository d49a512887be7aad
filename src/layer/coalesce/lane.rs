//! The lanes of one kind of call: so many calls or batches on their way, and one queue of what waits for them.

use std::fmt;
use std::mem;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Instant;

use tokio::runtime::{Handle, Id};

use crate::error::{Error, Result};

use super::batch::Batch;
use super::driver::{Driver, Next};
use super::flight::{Back, Flight, PATIENCE, Taken};
use super::lone::Lone;
use super::queue::{KeyHashes, Limits, Load, Queue, Waiting};
use super::slot::Slot;
use super::watch::{Alarm, Watch};
use super::work::Work;

/// The lanes of one kind of call before a store.
pub(super) struct Lane<W: Work> {
    pub(super) work: Arc<W>,
    limits: Limits,
    /// How many bytes an answer lately had.
    answer_bytes: AtomicUsize,
    state: Mutex<State<W>>,
}

struct State<W: Work> {
    /// Whoever takes a free one must see to it that [`Lane::release`] or [`Lane::abandon`] is called.
    flights: Box<[Flight<W>]>,
    queue: Queue<W>,
    /// How many batches were answered.
    turns: u64,
    /// The runtime of the call that began to wait last.
    last_waiter: Option<Handle>,
    /// No later than the first deadline of what waits or is on its way, unless there is none.
    first_deadline: Option<Instant>,
    watch: Watch,
}

/// How a call gets in.
pub(super) enum Entered<W: Work> {
    /// At once, as this flight. What it sends is to be begun there.
    Alone(Arc<Slot<W>>, usize, Arc<Lone<W::Answer>>),
    Queued(Arc<Slot<W>>),
}

impl<W: Work> Lane<W> {
    /// Makes a lane for so many calls or batches at a time.
    pub(super) fn new(work: Arc<W>, width: u32, limits: Limits, load: Arc<Load>) -> Arc<Self> {
        let flights = (0..width).map(|_| Flight::Free).collect();
        let (queue, watch) = (Queue::new(load), Watch::default());
        let state = State { flights, queue, turns: 0, last_waiter: None, first_deadline: None, watch };
        Arc::new(Self { work, limits, answer_bytes: AtomicUsize::new(0), state: Mutex::new(state) })
    }

    /// Lets a call in that comes now: out at once if the lane is free, else into the queue. `task` is woken at the deadline, and with
    /// the answer of a queued call.
    pub(super) fn enter(
        self: &Arc<Self>,
        mut slot: Arc<Slot<W>>,
        key_hash: u64,
        [now, deadline]: [Instant; 2],
        task: &Waker,
    ) -> Result<Entered<W>> {
        let runtime = Handle::current();
        let mut state = self.lock();
        // What waits before a free lane follows a call of its key in another, or was left behind by a runtime that ended. It goes first.
        let stranded = !state.queue.is_empty();
        // Under load the first two say enough: to look for the key among all calls on their way takes time.
        let waits = stranded
            || state.free().is_none()
            || (W::ORDERED && state.flights.iter().any(|flight| flight.carries(key_hash)));
        let goes_alone = (!waits && W::ORDERED).then(|| now + PATIENCE);
        let stalls = state.stalls_at(waits).into_iter().chain(goes_alone).min();
        let alarm = state.wake_by(deadline, stalls, &runtime);
        let entered = match state.free() {
            Some((index, flight)) if !waits => {
                let (call, lone) = (Waiting::new(&mut slot, key_hash, deadline, task)?, Arc::new(Lone::new()));
                *flight = Flight::Alone { call, lone: Arc::clone(&lone), since: now, runtime };
                Ok(Entered::Alone(slot, index, lone))
            }
            _ => {
                state.last_waiter = Some(runtime);
                state.queue.push(slot, key_hash, deadline, task).map(Entered::Queued)
            }
        };
        let resumed = if stranded { state.claim() } else { None };
        drop(state);
        self.go_on(alarm, resumed);
        entered
    }

    /// Looks after a call that was woken without an answer: its runtime may be another one now, or the one that had to send it may
    /// have ended.
    pub(super) fn tend(self: &Arc<Self>, deadline: Instant) {
        let mut state = self.lock();
        let waits = !state.queue.is_empty();
        let stalls = state.stalls_at(waits);
        let alarm = state.wake_by(deadline, stalls, &Handle::current());
        let resumed = if waits { state.claim() } else { None };
        drop(state);
        self.go_on(alarm, resumed);
    }

    fn go_on(self: &Arc<Self>, alarm: Alarm, resumed: Option<usize>) {
        alarm.ring(self);
        resumed.into_iter().for_each(|flight| self.release_here(flight));
    }

    /// The same as [`Lane::release`], for what waits elsewhere too: the runtime of others may rest, or have ended.
    fn release_here(self: &Arc<Self>, flight: usize) {
        if let Some(next) = self.next_or_free(flight, &mut KeyHashes::default()) {
            Driver::new(Arc::clone(self), flight).send(Next { runtime: None, ..next });
        }
    }

    /// What had a lane has ended: it is free, or goes on with what waits in a task of its own.
    pub(super) fn release(self: &Arc<Self>, flight: usize) {
        if let Some(next) = self.next_or_free(flight, &mut KeyHashes::default()) {
            Driver::new(Arc::clone(self), flight).send(next);
        }
    }

    /// What waits, as a batch on its way; if nothing does, the flight is free.
    pub(super) fn next_or_free(&self, flight: usize, keys: &mut KeyHashes) -> Option<Next<W>> {
        let limits = self.limits.for_answers_of(self.answer_bytes.load(Ordering::Relaxed));
        loop {
            let mut state = self.lock();
            state.keys_of_others(flight, keys);
            let taken = state.queue.take(limits, keys);
            let next = if taken.is_empty() { Flight::Free } else { Flight::boarding(&taken) };
            let before = state.put(flight, next);
            // Where nobody is left to wait, no runtime is held on to.
            let waiter = state.last_waiter.take();
            if !state.queue.is_empty() {
                state.last_waiter.clone_from(&waiter);
            }
            drop(state);
            drop(before);
            if taken.is_empty() {
                return None;
            }
            let (batch, waiting) = Batch::of(taken);
            self.lock().put(flight, Flight::Batch(waiting));
            if let Some(batch) = batch {
                return Some(Next { batch, runtime: waiter });
            }
        }
    }

    /// Notes how large answers are: larger ones at once, smaller ones little by little.
    pub(super) fn note_sizes(&self, answers: &[Result<W::Answer>]) {
        let bytes = answers.iter().flatten().map(W::answer_bytes).fold(0, usize::saturating_add);
        let mean = bytes / answers.len().max(1);
        let before = self.answer_bytes.load(Ordering::Relaxed);
        if mean != before {
            let lately = if mean > before { mean } else { before - (before - mean).div_ceil(4) };
            self.answer_bytes.store(lately, Ordering::Relaxed);
        }
    }

    /// Answers a batch, whose task goes on with [`Lane::take_up`] under the number that it is given here.
    pub(super) fn answer(&self, flight: usize, answers: Vec<Result<W::Answer>>) -> u64 {
        self.note_sizes(&answers);
        let mut state = self.lock();
        state.turns += 1;
        let turn = state.turns;
        let since = Instant::now();
        let flown = state.put(flight, Flight::Answered { since, turn });
        // This runtime may rest from now on.
        let others = if state.queue.is_empty() { Vec::new() } else { state.watch.sooner(since + PATIENCE) };
        drop(state);
        others.into_iter().for_each(Waker::wake);
        if let Some(Flight::Batch(waiting)) = flown {
            for (call, answer) in waiting.into_iter().zip(answers) {
                if let Some(caller) = call.slot.answer(answer) {
                    caller.wake();
                }
            }
        }
        turn
    }

    /// Keeps a batch for a task in another runtime, which begins it with [`Lane::take_up`] under the number that it is given here. Should
    /// that runtime rest, somebody else does.
    pub(super) fn hand_over(&self, flight: usize, batch: Batch<W>) -> u64 {
        let mut state = self.lock();
        state.turns += 1;
        let (turn, since) = (state.turns, Instant::now());
        let waiting = match state.put(flight, Flight::Free) {
            Some(Flight::Batch(waiting)) => waiting,
            _ => Vec::new(),
        };
        state.put(flight, Flight::Handed { waiting, batch, since, turn });
        let timers = state.watch.sooner(since + PATIENCE);
        drop(state);
        timers.into_iter().for_each(Waker::wake);
        turn
    }

    /// Goes on with a lane after a batch was answered there, or begins one that was handed over; None if it is not this task's any more.
    pub(super) fn take_up(&self, flight: usize, turn: u64) -> Option<Back<W>> {
        let mut state = self.lock();
        state.flights.get_mut(flight).filter(|flight| flight.is_of(turn)).and_then(Flight::take_back)
    }

    /// The caller of a lone call went away: a task of ours takes the call to its end, and the lane is free then.
    pub(super) fn leave(self: &Arc<Self>, flight: usize, lone: &Arc<Lone<W::Answer>>) {
        let mut state = self.lock();
        let ours = state.flights.get_mut(flight).filter(|flight| flight.is(lone));
        let taken = ours.and_then(Flight::take_over);
        drop(state);
        if let Some(taken) = taken {
            Driver::new(Arc::clone(self), flight).finish(taken);
        }
    }

    /// A flight ended with the runtime that it was in: who waited for it is told so, and who waits for the next one is to see to it. In
    /// this turn somebody else may have the lane already.
    pub(super) fn abandon(&self, flight: usize, turn: Option<u64>) {
        let mut state = self.lock();
        let is_ours = |flight: &Flight<W>| turn.is_none_or(|turn| flight.is_of(turn));
        if !state.flights.get(flight).is_some_and(is_ours) {
            return;
        }
        let before = state.put(flight, Flight::Free);
        let queued: Vec<Waker> = state.queue.wakers().collect();
        state.last_waiter = None;
        drop(state);
        let (waiting, error): (_, fn() -> Error) = match before {
            Some(Flight::Batch(waiting)) => (waiting, W::unanswered),
            Some(Flight::Handed { waiting, .. }) => (waiting, unsent),
            _ => (Vec::new(), unsent),
        };
        waiting.iter().filter_map(|call| call.slot.answer(Err(error()))).for_each(Waker::wake);
        queued.into_iter().for_each(Waker::wake);
    }

    /// Ends the waiting of those whose time is up and takes over what keeps others waiting, if it is time to look; says when it is next.
    pub(super) fn look(self: &Arc<Self>, runtime: Id, timer: &Waker) -> Option<Instant> {
        // The clock of the timer, which a test may have stopped.
        let now = tokio::time::Instant::now().into_std();
        let (mut late, mut taken, mut resumed) = (Vec::new(), Vec::new(), Vec::new());
        let mut state = self.lock();
        let mut next = state.watch.next(runtime);
        if next.is_some_and(|next| next <= now) {
            taken = state.take_over(now);
            resumed = state.take_back(now);
            // What its caller gets on with at this moment is looked at again, but not at once.
            let stalls = state.stalls_at(false).map(|at| if at <= now { now + PATIENCE } else { at });
            next = state.expire(now, &mut late).into_iter().chain(stalls).min();
        }
        state.watch.reset(runtime, next, timer);
        drop(state);
        for (flight, taken) in taken {
            Driver::new(Arc::clone(self), flight).finish(taken);
        }
        for (flight, back) in resumed {
            match back {
                Back::Lane => self.release_here(flight),
                Back::Batch(batch) => Driver::new(Arc::clone(self), flight).send(Next { batch, runtime: None }),
            }
        }
        late.into_iter().for_each(Waker::wake);
        next
    }

    /// The timer of a runtime ended with it. Nothing is sent there any more.
    pub(super) fn stop_looking(&self, runtime: Id) {
        let mut state = self.lock();
        state.watch.end(runtime);
        let ended = state.last_waiter.take_if(|waiter| waiter.id() == runtime);
        drop(state);
        drop(ended);
    }

    fn lock(&self) -> MutexGuard<'_, State<W>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unsent() -> Error {
    Error::unavailable("the runtime that was to send the call has ended; it was not sent")
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

    /// Sees to it that a timer of this runtime looks in time: at this deadline, and for what may keep a call waiting.
    fn wake_by(&mut self, deadline: Instant, stalls: Option<Instant>, runtime: &Handle) -> Alarm {
        let alarm = self.watch.set(stalls.map_or(deadline, |stalls| stalls.min(deadline)), runtime);
        self.first_deadline = Some(self.first_deadline.map_or(deadline, |first| first.min(deadline)));
        alarm
    }

    /// When the first lone call is to be taken over.
    fn stalls_at(&self, waits: bool) -> Option<Instant> {
        let is_waited_for = waits || !self.queue.is_empty();
        self.flights.iter().filter_map(|flight| flight.stalls_at(is_waited_for)).min()
    }

    /// What keeps others waiting for too long.
    fn stalled(&mut self, now: Instant) -> impl Iterator<Item = (usize, &mut Flight<W>)> {
        let is_waited_for = !self.queue.is_empty();
        let stalled = move |flight: &Flight<W>| flight.stalls_at(is_waited_for).is_some_and(|at| at <= now);
        self.flights.iter_mut().enumerate().filter(move |(_, flight)| stalled(flight))
    }

    /// The lone calls that are taken from their callers.
    fn take_over(&mut self, now: Instant) -> Vec<(usize, Taken<W>)> {
        self.stalled(now).filter_map(|(index, flight)| Some((index, flight.take_over()?))).collect()
    }

    /// What is taken back from tasks that do not go on.
    fn take_back(&mut self, now: Instant) -> Vec<(usize, Back<W>)> {
        self.stalled(now).filter_map(|(index, flight)| Some((index, flight.take_back()?))).collect()
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
