//! What the [`Observe`](super::Observe) layer counts and times.

use std::cell::Cell;
use std::time::Instant;

use metrics::{Histogram, IntoF64, Key, Label, Level, Metadata};

use super::observe::Side;

/// The outcome of what succeeded.
pub(super) const OK: &str = "ok";

const OPERATIONS: &str = "agent_storage_operations_total";
const DURATION: &str = "agent_storage_operation_duration_seconds";

static METADATA: Metadata<'_> = Metadata::new(module_path!(), Level::INFO, Some(module_path!()));

/// An operation of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Get,
    GetMany,
    Exists,
    Write,
    WriteMany,
    List,
    Count,
    Clear,
    Ping,
    Close,
    Increment,
    AppendMany,
    Range,
    Length,
    Trim,
    Apply,
    Replay,
    Identity,
    Conflicts,
    ForgetConflict,
}

impl Operation {
    /// In the order of their numbers.
    const ALL: [Self; 20] = [
        Self::Get,
        Self::GetMany,
        Self::Exists,
        Self::Write,
        Self::WriteMany,
        Self::List,
        Self::Count,
        Self::Clear,
        Self::Ping,
        Self::Close,
        Self::Increment,
        Self::AppendMany,
        Self::Range,
        Self::Length,
        Self::Trim,
        Self::Apply,
        Self::Replay,
        Self::Identity,
        Self::Conflicts,
        Self::ForgetConflict,
    ];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::GetMany => "get_many",
            Self::Exists => "exists",
            Self::Write => "write",
            Self::WriteMany => "write_many",
            Self::List => "list",
            Self::Count => "count",
            Self::Clear => "clear",
            Self::Ping => "ping",
            Self::Close => "close",
            Self::Increment => "increment",
            Self::AppendMany => "append_many",
            Self::Range => "range",
            Self::Length => "length",
            Self::Trim => "trim",
            Self::Apply => "apply",
            Self::Replay => "replay",
            Self::Identity => "identity",
            Self::Conflicts => "conflicts",
            Self::ForgetConflict => "forget_conflict",
        }
    }
}

/// The metrics of a store. Their names with labels are made once; whoever records is asked for at each call, because it may have
/// come since, or be another on this thread.
#[derive(Debug)]
pub(super) struct Meters {
    side: Side,
    backend: &'static str,
    by_operation: [Meter; Operation::ALL.len()],
}

#[derive(Debug)]
struct Meter {
    duration: Key,
    succeeded: Key,
}

impl Meters {
    pub(super) fn new(side: Side, backend: &'static str) -> Self {
        let by_operation = Operation::ALL.map(|operation| Meter {
            duration: Key::from_parts(DURATION, labels(side, backend, operation)),
            succeeded: count_key(side, backend, operation, OK),
        });
        Self { side, backend, by_operation }
    }

    /// Begins to time an operation, if somebody wants to know.
    pub(super) fn start(&self, operation: Operation) -> Option<Timer<'_>> {
        let meter = self.by_operation.get(operation as usize)?;
        let histogram = metrics::with_recorder(|to| to.register_histogram(&meter.duration, &METADATA));
        is_heard(&histogram).then(|| Timer { meters: self, meter, operation, histogram, began: Instant::now() })
    }
}

/// An operation that is being timed.
#[derive(Debug)]
pub(super) struct Timer<'a> {
    meters: &'a Meters,
    meter: &'a Meter,
    operation: Operation,
    histogram: Histogram,
    began: Instant,
}

impl Timer<'_> {
    /// Records how the operation ended, and when.
    pub(super) fn stop(self, outcome: &'static str) {
        let Meters { side, backend, .. } = *self.meters;
        self.histogram.record(self.began.elapsed().as_secs_f64());
        let count = |key: &Key| metrics::with_recorder(|to| to.register_counter(key, &METADATA)).increment(1);
        if outcome == OK {
            count(&self.meter.succeeded);
        } else {
            count(&count_key(side, backend, self.operation, outcome));
        }
    }
}

/// Whether somebody records a histogram: only then is a value that it is given made into a number, here one that is recorded not
/// even once.
fn is_heard(histogram: &Histogram) -> bool {
    struct Probe<'a>(&'a Cell<bool>);
    impl IntoF64 for Probe<'_> {
        fn into_f64(self) -> f64 {
            self.0.set(true);
            0.0
        }
    }
    let heard = Cell::new(false);
    histogram.record_many(Probe(&heard), 0);
    heard.get()
}

fn labels(side: Side, backend: &'static str, operation: Operation) -> Vec<Label> {
    let label = Label::from_static_parts;
    vec![label("side", side.as_str()), label("backend", backend), label("operation", operation.as_str())]
}

fn count_key(side: Side, backend: &'static str, operation: Operation, outcome: &'static str) -> Key {
    let mut labels = labels(side, backend, operation);
    labels.push(Label::from_static_parts("outcome", outcome));
    Key::from_parts(OPERATIONS, labels)
}

#[cfg(test)]
mod tests {
    use super::*;
    use metrics_util::debugging::DebuggingRecorder;

    #[test]
    fn each_operation_has_the_number_of_its_place() {
        for (index, operation) in Operation::ALL.into_iter().enumerate() {
            assert_eq!(operation as usize, index);
        }
    }

    #[test]
    fn only_a_histogram_that_somebody_records_is_heard() {
        let recorder = DebuggingRecorder::new();
        let register = || metrics::histogram!("name");
        assert!(!is_heard(&register()));
        let heard = metrics::with_local_recorder(&recorder, register);
        assert!(is_heard(&heard));
        assert!(recorder.snapshotter().snapshot().into_vec().iter().all(|(_, _, _, value)| match value {
            metrics_util::debugging::DebugValue::Histogram(values) => values.is_empty(),
            _ => false,
        }));
    }
}
