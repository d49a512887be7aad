//! What an operation reports, and what it never does.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt;
use std::sync::{Arc, Mutex};

use agent_storage::{SetOptions, StorageManager, Value};
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

const KEY: &str = "a-key-nobody-should-see";
const SECRET: &str = "a-value-nobody-should-see";

/// Writes down every span and event, of every level.
#[derive(Clone, Default)]
struct Journal(Arc<Mutex<String>>);

impl Journal {
    fn text(&self) -> String {
        self.0.lock().unwrap().clone()
    }

    fn write(&self, what: &str, record: impl FnOnce(&mut dyn Visit)) {
        let mut line = Line(what.to_owned());
        record(&mut line);
        self.0.lock().unwrap().push_str(&format!("{}\n", line.0));
    }
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.push_str(&format!(" {field}={value:?}"));
    }
}

impl Subscriber for Journal {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("agent_storage")
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let metadata = attributes.metadata();
        self.write(&format!("{} {}", metadata.level(), metadata.name()), |visit| attributes.record(visit));
        Id::from_u64(1)
    }

    fn record(&self, _span: &Id, values: &Record<'_>) {
        self.write("recorded", |visit| values.record(visit));
    }

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, event: &Event<'_>) {
        self.write(&format!("{}", event.metadata().level()), |visit| event.record(visit));
    }

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {}
}

/// Every test here has a subscriber: where only one of several threads has one, `tracing` may ask another thread whether anybody is
/// interested in a span, and remembers that nobody is.
async fn use_storage() {
    let database = StorageManager::in_memory().database().await.unwrap();
    let value = Value::json(format!("\"{SECRET}\"")).unwrap();
    database.set(KEY, value.clone()).await.unwrap();
    database.get(KEY).await.unwrap().unwrap();
    database.set_with(KEY, value, SetOptions::new().if_absent()).await.unwrap_err();
    database.get_many([KEY, "other"]).await;
}

#[tokio::test]
async fn each_operation_has_a_span_with_backend_operation_and_outcome() {
    let journal = Journal::default();
    let guard = tracing::subscriber::set_default(journal.clone());
    use_storage().await;
    drop(guard);
    let text = journal.text();
    for expected in [
        "INFO storage side=\"database\" backend=\"memory\" operation=\"write\" items=1",
        "operation=\"get\" items=1",
        "operation=\"get_many\" items=2",
        "recorded outcome=\"ok\"",
        "recorded outcome=\"conflict\"",
    ] {
        assert!(text.contains(expected), "{expected} is not in:\n{text}");
    }
}

#[tokio::test]
async fn no_key_and_no_value_is_ever_reported() {
    let journal = Journal::default();
    let guard = tracing::subscriber::set_default(journal.clone());
    use_storage().await;
    drop(guard);
    let text = journal.text();
    assert!(!text.is_empty() && !text.contains(KEY) && !text.contains(SECRET), "{text}");
}

#[test]
fn operations_are_counted_and_timed() {
    let _guard = tracing::subscriber::set_default(Journal::default());
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    metrics::with_local_recorder(&recorder, || runtime.block_on(use_storage()));
    let (mut conflicts, mut durations) = (0, 0);
    for (key, _, _, value) in snapshotter.snapshot().into_vec() {
        let labels: Vec<String> =
            key.key().labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        match value {
            DebugValue::Counter(count) if labels.contains(&"outcome=conflict".to_owned()) => {
                assert_eq!(key.key().name(), "agent_storage_operations_total");
                conflicts += count;
            }
            DebugValue::Histogram(times) => {
                assert_eq!(key.key().name(), "agent_storage_operation_duration_seconds");
                durations += times.len();
            }
            _ => {}
        }
        assert!(labels.contains(&"side=database".to_owned()) && labels.contains(&"backend=memory".to_owned()));
    }
    // The first ping, two writes, a read and a batch of reads.
    assert_eq!((conflicts, durations), (1, 5));
}

#[cfg(all(feature = "postgres", feature = "sqlite"))]
#[tokio::test]
async fn who_takes_the_fallback_out_is_told_what_the_database_is_still_owed() {
    let (journal, folder) = (Journal::default(), tempfile::tempdir().unwrap());
    let _guard = tracing::subscriber::set_default(journal.clone());
    let path = folder.path().join("journal").display().to_string();
    // Nobody listens there.
    let yaml = |keys: &str| {
        format!(
            "storage:\n  cache: {{ type: in-memory }}\n  database:\n    type: postgres\n    host: 127.0.0.1\n    port: 1\n    \
             database: d\n    username: u\n    journal: {{ path: {path:?} }}\n    {keys}\n"
        )
    };
    let warning = "the database is owed what a journal holds";
    let declined = StorageManager::from_yaml(&yaml("fallback: none")).unwrap();
    declined.database().await.unwrap();
    assert!(!journal.text().contains(warning), "{}", journal.text());
    let manager = StorageManager::from_yaml(&yaml("")).unwrap();
    manager.database().await.unwrap().set(KEY, Value::from_integer(1)).await.unwrap();
    manager.disconnect().await.unwrap();
    let declined = StorageManager::from_yaml(&yaml("fallback: none")).unwrap();
    declined.database().await.unwrap();
    assert!(journal.text().contains(warning) && journal.text().contains("operations=1"), "{}", journal.text());
}

#[test]
fn a_recorder_that_comes_later_is_heard() {
    let _guard = tracing::subscriber::set_default(Journal::default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let database = runtime.block_on(async {
        let database = StorageManager::in_memory().database().await.unwrap();
        database.get(KEY).await.unwrap();
        database
    });
    for _ in 0..2 {
        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        metrics::with_local_recorder(&recorder, || runtime.block_on(database.get(KEY)).unwrap());
        let reported: Vec<_> = snapshotter.snapshot().into_vec().into_iter().map(|(_, _, _, value)| value).collect();
        assert_eq!(reported.len(), 2, "{reported:?}");
        assert!(reported.contains(&DebugValue::Counter(1)), "{reported:?}");
    }
}
