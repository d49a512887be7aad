//! The deadlines of a lane's calls: one timer for all that wait in a runtime, instead of one a call.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context as TaskContext, Poll, Waker, ready};
use std::time::Instant;

use tokio::runtime::{Handle, Id};
use tokio::time::Sleep;

use super::lane::Lane;
use super::work::Work;

/// The timers of a lane, one in each runtime that calls wait in. A timer of another runtime would not do: that one may rest, or end.
#[derive(Debug, Default)]
pub(super) struct Watch {
    timers: Vec<Timer>,
}

#[derive(Debug)]
struct Timer {
    runtime: Id,
    /// When it looks next: no later than the next deadline.
    next: Instant,
    task: Option<Waker>,
}

/// What is left to do for a deadline when the lane is unlocked.
#[must_use]
pub(super) enum Alarm {
    /// Nothing: a timer looks in time.
    Set,
    /// The timer must look sooner.
    Sooner(Waker),
    /// There is no timer yet in this runtime.
    Start(Handle, Pin<Box<Sleep>>),
}

impl Watch {
    /// Sees to it that a timer of this runtime looks at this moment.
    ///
    /// # Panics
    ///
    /// In a runtime without timers, as every wait does.
    pub(super) fn set(&mut self, deadline: Instant, runtime: &Handle) -> Alarm {
        let id = runtime.id();
        match self.timers.iter_mut().find(|timer| timer.runtime == id) {
            Some(timer) if timer.next <= deadline => Alarm::Set,
            Some(timer) => {
                timer.next = deadline;
                timer.task.take().map_or(Alarm::Set, Alarm::Sooner)
            }
            None => {
                let sleep = Box::pin(tokio::time::sleep_until(deadline.into()));
                self.timers.push(Timer { runtime: id, next: deadline, task: None });
                Alarm::Start(runtime.clone(), sleep)
            }
        }
    }

    /// Has the timers of all runtimes look at this moment, where there are several: which of them rests nobody knows.
    pub(super) fn sooner(&mut self, moment: Instant) -> Vec<Waker> {
        if self.timers.len() < 2 {
            return Vec::new();
        }
        let late = self.timers.iter_mut().filter(|timer| timer.next > moment);
        late.filter_map(|timer| {
            timer.next = moment;
            timer.task.take()
        })
        .collect()
    }

    /// When the timer of a runtime looks next.
    pub(super) fn next(&self, runtime: Id) -> Option<Instant> {
        self.timers.iter().find(|timer| timer.runtime == runtime).map(|timer| timer.next)
    }

    /// Notes when the timer of a runtime looks next, and which task it is. Without a moment it ends.
    pub(super) fn reset(&mut self, runtime: Id, next: Option<Instant>, task: &Waker) {
        match (self.timers.iter_mut().find(|timer| timer.runtime == runtime), next) {
            (Some(timer), Some(next)) => {
                timer.next = next;
                timer.task = Some(task.clone());
            }
            _ => self.end(runtime),
        }
    }

    /// The timer of a runtime has ended.
    pub(super) fn end(&mut self, runtime: Id) {
        self.timers.retain(|timer| timer.runtime != runtime);
    }
}

/// The lane is gone, so its timers end.
impl Drop for Watch {
    fn drop(&mut self) {
        self.timers.drain(..).filter_map(|timer| timer.task).for_each(Waker::wake);
    }
}

impl Alarm {
    pub(super) fn ring<W: Work>(self, lane: &Arc<Lane<W>>) {
        match self {
            Self::Set => {}
            Self::Sooner(task) => task.wake(),
            Self::Start(handle, sleep) => {
                let ticking = Ticking { lane: Arc::downgrade(lane), runtime: handle.id(), sleep };
                handle.spawn(ticking);
            }
        }
    }
}

/// The task of a timer. It ends when nothing waits any more, with its lane, or with its runtime.
struct Ticking<W: Work> {
    lane: Weak<Lane<W>>,
    runtime: Id,
    sleep: Pin<Box<Sleep>>,
}

impl<W: Work> Future for Ticking<W> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<()> {
        loop {
            let next = self.lane.upgrade().and_then(|lane| lane.look(self.runtime, task.waker()));
            let Some(next) = next else {
                self.lane = Weak::new();
                return Poll::Ready(());
            };
            if self.sleep.deadline() != next.into() {
                self.sleep.as_mut().reset(next.into());
            }
            ready!(self.sleep.as_mut().poll(task));
        }
    }
}

impl<W: Work> Drop for Ticking<W> {
    fn drop(&mut self) {
        if let Some(lane) = self.lane.upgrade() {
            lane.stop_looking(self.runtime);
        }
    }
}
