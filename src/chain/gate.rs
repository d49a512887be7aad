//! The [`Gate`]: whether calls go to the primary, and what tells so.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::config::BreakerConfig;
use crate::contract::{Context, Ping, Store};
use crate::error::{Error, ErrorKind, Outage, Result};
use crate::stamp::Stamp;

use super::breaker::{Breaker, SILENT_PROBES};

/// The pause between two probes, however often the primary is suspected.
const BREATH: Duration = Duration::from_millis(50);

/// How often at most the time of a probe is doubled.
const MOST_DOUBLINGS: u32 = 10;

/// How many lists the calls on their way are spread over, so that those of different threads do not wait for one lock.
const SHARDS: usize = 16;

/// How many generations of calls are told apart: see [`Gate::begin_generation`].
const GENERATIONS: usize = 4;

/// How long is waited for what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// From when on a call without an answer makes the primary suspect: no sooner, and no later than half as long again.
    suspect_after: Duration,
    /// How long a probe waits for its answer while calls go to the primary.
    probe_timeout: Duration,
    /// And at most when it is away.
    longest_probe_timeout: Duration,
    probe_interval: Duration,
}

impl Patience {
    /// What a configuration means where calls may take as long as `timeout`: suspicion and two probes end well before it.
    pub(super) fn new(config: &BreakerConfig, timeout: Duration) -> Self {
        let fifth = (timeout / 5).max(Duration::from_millis(1));
        Self {
            suspect_after: config.slow_call.min(fifth),
            probe_timeout: config.slow_call.min(fifth),
            longest_probe_timeout: timeout,
            probe_interval: config.probe_interval,
        }
    }
}

/// Whether calls go to the primary.
#[derive(Debug)]
pub(super) struct Gate {
    patience: Patience,
    open: AtomicBool,
    breaker: Mutex<Breaker>,
    on_their_way: [OnTheirWay; SHARDS],
    generation: AtomicUsize,
    /// How many probes in a row found no answer while the breaker was open.
    silent_probes: AtomicU32,
    /// Wakes the task that probes.
    suspicion: Notify,
}

/// Calls on their way that began in the same thread. A place of their own in the processor's cache keeps threads apart.
#[derive(Debug, Default)]
#[repr(align(128))]
struct OnTheirWay {
    /// Tells them that the breaker opened.
    opened: Notify,
    /// How many there are of each generation.
    counts: [AtomicUsize; GENERATIONS],
}

impl OnTheirWay {
    /// Those that begin in this thread.
    fn of_this_thread(shards: &[Self; SHARDS]) -> &Self {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static SHARD: usize = THREADS.fetch_add(1, Ordering::Relaxed) % SHARDS;
        }
        let [first, ..] = shards;
        // A thread that is ending has no number any more.
        SHARD.try_with(|shard| shards.get(*shard)).ok().flatten().unwrap_or(first)
    }
}

/// One call on its way, until it is dropped.
struct Underway<'a>(Option<&'a AtomicUsize>);

impl Drop for Underway<'_> {
    fn drop(&mut self) {
        if let Some(count) = self.0 {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// What a call asks of the primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Read,
    Write,
}

/// What came of a call to the primary.
#[derive(Debug)]
pub(super) enum Attempt<T> {
    /// The primary answered, or the backend in its place.
    Answered(T),
    /// It was not sent, because the breaker is open.
    NotSent,
    /// The breaker opened while it was on its way; it may yet be applied.
    BrokenOff,
}

/// What a probe changed.
#[derive(Debug)]
pub(super) enum Probed {
    /// The primary is back.
    Closed,
    /// It is away; this says why.
    Open(Error),
    /// Nothing is known that was not known before.
    Unchanged,
}

/// An answer that may tell something of the primary.
pub(super) trait Answer {
    /// The error that tells most.
    fn outage(&self) -> Option<&Error>;

    /// Whether any of it was done.
    fn is_done(&self) -> bool;
}

impl<T> Answer for Result<T> {
    fn outage(&self) -> Option<&Error> {
        self.as_ref().err().filter(|error| error.outage().is_some())
    }

    fn is_done(&self) -> bool {
        self.is_ok()
    }
}

impl<T> Answer for Vec<Result<T>> {
    fn outage(&self) -> Option<&Error> {
        let mut telling = self.iter().filter_map(Answer::outage);
        let first = telling.next()?;
        Some(telling.find(|error| error.outage() != Some(Outage::Silent)).unwrap_or(first))
    }

    fn is_done(&self) -> bool {
        self.iter().any(Result::is_ok)
    }
}

impl Gate {
    /// Makes a gate that lets calls through.
    pub(super) fn new(config: BreakerConfig, patience: Patience) -> Self {
        Self {
            patience,
            open: AtomicBool::new(false),
            breaker: Mutex::new(Breaker::new(config, Instant::now())),
            on_their_way: Default::default(),
            generation: AtomicUsize::new(0),
            silent_probes: AtomicU32::new(0),
            suspicion: Notify::new(),
        }
    }

    /// Whether the breaker is open, so that no call goes to the primary.
    pub(super) fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// Calls the primary, if the breaker lets it, and notes what its answer says of the primary. While it takes long the primary is
    /// probed; should the breaker open, the call is no longer waited for. `told` hears the error that opened it.
    ///
    /// It sets no timer: nearly every call is answered long before, and a hundred thousand may be on their way.
    pub(super) async fn attempt<T: Answer>(
        &self,
        asked: Call,
        call: impl Future<Output = T>,
        told: impl FnOnce(&Error),
    ) -> Attempt<T> {
        let others = OnTheirWay::of_this_thread(&self.on_their_way);
        let mut opened = pin!(others.opened.notified());
        // From here on the opening does not go unnoticed.
        opened.as_mut().enable();
        if self.is_open() {
            return Attempt::NotSent;
        }
        let underway = self.set_out(others);
        let answer = tokio::select! {
            biased;
            answer = call => answer,
            () = opened => return Attempt::BrokenOff,
        };
        drop(underway);
        let error = answer.outage();
        let outage = error.and_then(Error::outage);
        let took_write = asked == Call::Write && answer.is_done();
        let has_opened = self.judge(|breaker, now| {
            if took_write {
                breaker.note_write(now);
            }
            breaker.record(outage, now)
        });
        if let (true, Some(error)) = (has_opened, error) {
            told(error);
        }
        Attempt::Answered(answer)
    }

    /// Asks whether the primary is there: at once a second time where no answer came.
    pub(super) async fn probe<F: Future<Output = Result<()>>>(&self, mut ask: impl FnMut() -> F) -> Probed {
        for _ in 0..SILENT_PROBES {
            let began = Instant::now();
            let Err(error) = ask().await else {
                self.silent_probes.store(0, Ordering::Relaxed);
                return if self.judge(Breaker::probe_succeeded) { Probed::Closed } else { Probed::Unchanged };
            };
            self.judge(|breaker, now| breaker.probe_failed(error.outage(), began, now));
            if self.is_open() {
                if error.outage() == Some(Outage::Silent) {
                    self.silent_probes.fetch_add(1, Ordering::Relaxed);
                }
                return Probed::Open(error);
            }
            if error.outage() != Some(Outage::Silent) {
                return Probed::Unchanged;
            }
        }
        Probed::Unchanged
    }

    /// From when on a call without an answer makes the primary suspect.
    pub(super) const fn suspect_after(&self) -> Duration {
        self.patience.suspect_after
    }

    /// Asks a store for as long as a probe waits.
    pub(super) async fn ping<S: Store + ?Sized>(&self, store: &S) -> Result<Ping> {
        let timeout = self.probe_timeout();
        let cx = Context::with_timeout(timeout);
        // The backend knows better than we what it waited for, so it is the first to say that the time is over.
        let answer = tokio::time::timeout(timeout + BREATH, store.ping(&cx)).await;
        let silent = |_| Error::unavailable("the primary did not answer a probe in time").with_outage(Outage::Silent);
        answer.map_err(silent)?
    }

    /// The context of a question that may wait for as long as a probe.
    pub(super) fn probe_context(&self) -> Context {
        Context::with_timeout(self.probe_timeout())
    }

    /// How long a probe waits. While the primary is away no caller waits for it, and on a line with long round trips connecting alone may
    /// take longer than a probe has else: so twice as long after each that found no answer.
    fn probe_timeout(&self) -> Duration {
        let Patience { probe_timeout, longest_probe_timeout, .. } = self.patience;
        if !self.is_open() {
            return probe_timeout;
        }
        let doubled = 1 << self.silent_probes.load(Ordering::Relaxed).min(MOST_DOUBLINGS);
        probe_timeout.saturating_mul(doubled).min(longest_probe_timeout)
    }

    /// Waits until the next probe is due: for the interval, which `random` shortens by up to a fifth, so that processes do not probe
    /// together; or until the primary is suspected.
    pub(super) async fn until_due(&self, random: Stamp) {
        let bytes = random.to_bytes();
        let fraction = f64::from(bytes[5] ^ bytes[15]) / 255.0;
        let pause = self.patience.probe_interval.mul_f64(0.8 + 0.2 * fraction);
        let mut due = pin!(tokio::time::sleep(pause));
        loop {
            tokio::select! {
                () = due.as_mut() => return,
                // A suspicion only makes the next probe come sooner.
                () = self.suspicion.notified() => return,
                () = tokio::time::sleep(self.patience.suspect_after / 2) => if self.begin_generation() { return },
            }
        }
    }

    /// Begins a generation of calls, as is done twice in the time after which a call makes the primary suspect; says whether a call
    /// is on its way that has been for so long.
    fn begin_generation(&self) -> bool {
        let begun = self.generation.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        // Those of the generation that ended now, and of the one before, may have begun later. The number that begins was last given
        // to a generation that is older still.
        let old = |count: usize| [begun, begun.wrapping_add(1)].iter().any(|old| old % GENERATIONS == count);
        let counts = self.on_their_way.iter().flat_map(|calls| calls.counts.iter().enumerate());
        counts.into_iter().any(|(generation, count)| old(generation) && count.load(Ordering::Relaxed) > 0)
    }

    fn set_out<'a>(&self, others: &'a OnTheirWay) -> Underway<'a> {
        let generation = self.generation.load(Ordering::Relaxed) % GENERATIONS;
        let count = others.counts.get(generation);
        count.into_iter().for_each(|count| _ = count.fetch_add(1, Ordering::Relaxed));
        Underway(count)
    }

    /// Pauses after a probe: calls that are slow because of the load must not be joined by probes without a pause.
    pub(super) async fn breathe(&self) {
        tokio::time::sleep(BREATH).await;
    }

    /// Changes the breaker, and lets calls through or not as it says then. Whoever waits for an answer hears if it opens.
    fn judge(&self, change: impl FnOnce(&mut Breaker, Instant) -> bool) -> bool {
        let mut breaker = self.breaker.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = change(&mut breaker, Instant::now());
        let is_open = breaker.is_open();
        if changed {
            self.open.store(is_open, Ordering::Release);
        }
        drop(breaker);
        if changed && is_open {
            self.on_their_way.iter().for_each(|calls| calls.opened.notify_waiters());
            // The next probe is due.
            self.suspicion.notify_one();
        }
        changed
    }
}

/// What a call is told that only the primary could answer.
pub(super) fn away() -> Error {
    Error::unavailable("the primary is away, and only it could answer; see the state of the storage")
        .with_outage(Outage::Down)
}

/// What a call is told that was sent, and whose answer nobody waits for any more.
pub(super) fn unsettled() -> Error {
    Error::outcome_unknown("the primary went away before its reply to a write; it may have been applied")
}

/// Whether an error leaves open what became of a write, or says that the primary cannot be used.
pub(super) fn is_of_the_primary(error: &Error) -> bool {
    match error.kind() {
        ErrorKind::OutcomeUnknown => true,
        ErrorKind::Unavailable => error.outage().is_some(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use std::future::pending;
    use std::sync::Arc;

    fn gate() -> Gate {
        let config = BreakerConfig::default();
        Gate::new(config, Patience::new(&config, Duration::from_secs(5)))
    }

    #[tokio::test]
    async fn a_call_is_late_once_two_whole_generations_have_passed() {
        let gate = gate();
        let mut call = Box::pin(gate.attempt(Call::Write, pending::<Result<()>>(), |_| ()));
        assert!(call.as_mut().now_or_never().is_none());
        let began = [gate.begin_generation(), gate.begin_generation(), gate.begin_generation()];
        assert_eq!(began, [false, false, true]);
        drop(call);
        assert!((0..2 * GENERATIONS).all(|_| !gate.begin_generation()), "it is gone");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn calls_of_all_threads_hear_that_the_breaker_opened() {
        let gate = Arc::new(gate());
        let calls: Vec<_> = (0..64)
            .map(|_| {
                let gate = Arc::clone(&gate);
                tokio::spawn(async move { gate.attempt(Call::Write, pending::<Result<()>>(), |_| ()).await })
            })
            .collect();
        let on_their_way = || {
            gate.on_their_way
                .iter()
                .flat_map(|calls| &calls.counts)
                .map(|count| count.load(Ordering::SeqCst))
                .sum::<usize>()
        };
        while on_their_way() != 64 {
            tokio::task::yield_now().await;
        }
        assert!(gate.judge(|breaker, now| breaker.record(Some(Outage::Down), now)));
        for call in calls {
            assert!(matches!(call.await.unwrap(), Attempt::BrokenOff));
        }
        assert!(matches!(gate.attempt(Call::Write, async { Ok(()) }, |_| ()).await, Attempt::<Result<()>>::NotSent));
        assert_eq!(on_their_way(), 0);
    }
}
