//! The [`Breaker`]: whether calls go to the primary, judged by what came of those that did.
//!
//! A plain state machine: it is told what happened and when, and starts nothing by itself.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::config::BreakerConfig;
use crate::error::Outage;

/// The longest wait before a flapping primary is used again.
const LONGEST_HOLD: Duration = Duration::from_secs(10);

/// How long a primary must have been used without a break for one of its flaps to be forgotten.
const FLAP_MEMORY: Duration = Duration::from_secs(120);

/// How many probes in a row without an answer open it: the first may have met a pause of the disk.
pub(super) const SILENT_PROBES: u32 = 2;

/// How often, in parts of the window, what happened is added up.
const BUCKETS: u32 = 10;

/// Judges the primary.
#[derive(Debug)]
pub(super) struct Breaker {
    config: BreakerConfig,
    state: State,
    /// The window: its parts that are over, and the one that runs.
    past: VecDeque<Bucket>,
    current: Bucket,
    /// How often it opened soon after it was closed.
    flaps: u32,
    /// How many probes in a row found no answer.
    silent_probes: u32,
    /// When the primary last took a write.
    took_write: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Closed { since: Instant },
    Open { since: Instant },
}

/// What happened in a part of the window.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    began: Instant,
    calls: u32,
    silent: u32,
}

impl Bucket {
    const fn new(began: Instant) -> Self {
        Self { began, calls: 0, silent: 0 }
    }
}

impl Breaker {
    /// Makes a breaker that lets calls through.
    pub(super) const fn new(config: BreakerConfig, now: Instant) -> Self {
        Self {
            config,
            state: State::Closed { since: now },
            past: VecDeque::new(),
            current: Bucket::new(now),
            flaps: 0,
            silent_probes: 0,
            took_write: None,
        }
    }

    pub(super) const fn is_open(&self) -> bool {
        matches!(self.state, State::Open { .. })
    }

    /// Notes what a call said of the primary; `true` if the breaker opens by it.
    ///
    /// An answer that says nothing of the primary, be it an error, counts as a call that went well: overload is no outage.
    pub(super) fn record(&mut self, outage: Option<Outage>, now: Instant) -> bool {
        if self.is_open() {
            return false;
        }
        let bucket = self.bucket(now);
        bucket.calls = bucket.calls.saturating_add(1);
        match outage {
            None => false,
            Some(Outage::Down | Outage::Foreign) => self.open(now),
            Some(Outage::Silent) => {
                bucket.silent = bucket.silent.saturating_add(1);
                self.is_over() && self.open(now)
            }
        }
    }

    /// Notes that the primary took a write.
    pub(super) const fn note_write(&mut self, now: Instant) {
        self.took_write = Some(now);
    }

    /// Notes a probe that failed and had begun then; `true` if the breaker opens by it.
    ///
    /// A probe does little: two in a row without an answer say that the primary is gone, without waiting for a rate. Not so if the
    /// primary took somebody's write meanwhile, as a probe is one: then it is slow, or this process is.
    pub(super) fn probe_failed(&mut self, outage: Option<Outage>, began: Instant, now: Instant) -> bool {
        match outage {
            None => false,
            Some(Outage::Silent) if self.took_write.is_some_and(|at| at > began) => {
                self.silent_probes = 0;
                false
            }
            Some(Outage::Silent) => {
                self.silent_probes = self.silent_probes.saturating_add(1);
                self.silent_probes >= SILENT_PROBES && self.open(now)
            }
            Some(Outage::Down | Outage::Foreign) => self.open(now),
        }
    }

    /// Notes a probe that succeeded; `true` if the breaker closes by it.
    pub(super) fn probe_succeeded(&mut self, now: Instant) -> bool {
        self.silent_probes = 0;
        let State::Open { since } = self.state else { return false };
        if now.saturating_duration_since(since) < self.hold() {
            return false;
        }
        self.state = State::Closed { since: now };
        self.past.clear();
        self.current = Bucket::new(now);
        true
    }

    fn open(&mut self, now: Instant) -> bool {
        let State::Closed { since } = self.state else { return false };
        let used = now.saturating_duration_since(since);
        let forgotten = u32::try_from(used.as_secs() / FLAP_MEMORY.as_secs()).unwrap_or(u32::MAX);
        let soon = used < FLAP_MEMORY;
        self.flaps = self.flaps.saturating_sub(forgotten).saturating_add(u32::from(soon));
        self.state = State::Open { since: now };
        true
    }

    /// How long the primary must have been away before it is used again: nothing at first, more each time it flaps.
    fn hold(&self) -> Duration {
        match self.flaps {
            0 | 1 => Duration::ZERO,
            flaps => Duration::from_secs(1).saturating_mul(1 << (flaps - 2).min(6)).min(LONGEST_HOLD),
        }
    }

    /// The part of the window that runs now.
    fn bucket(&mut self, now: Instant) -> &mut Bucket {
        let (window, part) = (self.config.window, self.config.window / BUCKETS);
        if now.saturating_duration_since(self.current.began) >= part {
            self.past.push_back(std::mem::replace(&mut self.current, Bucket::new(now)));
            self.past.retain(|bucket| now.saturating_duration_since(bucket.began) < window);
        }
        &mut self.current
    }

    /// Whether too large a part of enough calls found no answer.
    fn is_over(&self) -> bool {
        let window = || self.past.iter().chain(std::iter::once(&self.current));
        let sum = |of: fn(&Bucket) -> u32| window().map(|bucket| u64::from(of(bucket))).sum::<u64>();
        let (calls, silent) = (sum(|bucket| bucket.calls), sum(|bucket| bucket.silent));
        calls >= u64::from(self.config.min_calls) && silent * 100 >= calls * u64::from(self.config.failure_rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker(now: Instant) -> Breaker {
        Breaker::new(BreakerConfig::default(), now)
    }

    #[test]
    fn a_store_that_says_it_is_down_opens_it_at_once() {
        let now = Instant::now();
        for outage in [Outage::Down, Outage::Foreign] {
            let mut breaker = breaker(now);
            assert!(breaker.record(Some(outage), now) && breaker.is_open());
            assert!(!breaker.record(Some(outage), now), "it opens once");
        }
    }

    #[test]
    fn silence_opens_it_by_rate_and_answers_never_do() {
        let now = Instant::now();
        let mut breaker = breaker(now);
        for _ in 0..1000 {
            assert!(!breaker.record(None, now));
        }
        for _ in 0..999 {
            assert!(!breaker.record(Some(Outage::Silent), now));
        }
        assert!(breaker.record(Some(Outage::Silent), now), "half of the calls");
    }

    #[test]
    fn a_few_calls_are_no_rate_and_old_ones_are_forgotten() {
        let start = Instant::now();
        let mut breaker = breaker(start);
        for number in 0..100 {
            // One in two seconds: five in a window.
            assert!(!breaker.record(Some(Outage::Silent), start + Duration::from_secs(2 * number)));
        }
    }

    #[test]
    fn two_probes_without_an_answer_open_it_and_one_that_was_merely_refused_does_not() {
        let now = Instant::now();
        let mut breaker = breaker(now);
        assert!(!breaker.probe_failed(None, now, now));
        assert!(!breaker.probe_failed(Some(Outage::Silent), now, now));
        assert!(!breaker.probe_succeeded(now), "it was closed");
        assert!(!breaker.probe_failed(Some(Outage::Silent), now, now));
        assert!(breaker.probe_failed(Some(Outage::Silent), now, now));
    }

    #[test]
    fn a_probe_without_an_answer_says_nothing_while_writes_are_answered() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut breaker = breaker(begin);
        breaker.note_write(at(0));
        assert!(!breaker.probe_failed(Some(Outage::Silent), at(1), at(2)), "it was before");
        breaker.note_write(at(3));
        assert!(!breaker.probe_failed(Some(Outage::Silent), at(2), at(4)));
        assert!(!breaker.probe_failed(Some(Outage::Silent), at(4), at(5)), "the first in a row");
        assert!(breaker.probe_failed(Some(Outage::Silent), at(5), at(6)));
    }

    #[test]
    fn a_flapping_primary_is_kept_waiting_longer_and_longer_and_forgiven_in_time() {
        let mut now = Instant::now();
        let mut breaker = breaker(now);
        let mut waits = Vec::new();
        for _ in 0..10 {
            now += Duration::from_secs(1);
            assert!(breaker.open(now));
            let opened = now;
            while !breaker.probe_succeeded(now) {
                now += Duration::from_millis(500);
            }
            waits.push((now - opened).as_secs());
        }
        assert_eq!(waits, [0, 1, 2, 4, 8, 10, 10, 10, 10, 10]);
        now += FLAP_MEMORY * 20;
        breaker.open(now);
        assert!(breaker.probe_succeeded(now));
    }
}
