//! What the memory database keeps: of lists that are empty, that no position is used again; of what is gone, whether an older step
//! may be replayed.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use agent_storage::backend::memory::MemoryDatabase;
use agent_storage::config::MemoryDatabaseConfig;
use agent_storage::contract::{
    Append, Context, DatabaseBackend, GetOptions, ItemId, ReplayOptions, ReplayOutcome, Step, Store, Write, WriteMode,
    WriteOp,
};
use agent_storage::{Clock, ErrorKind, HybridClock, Key, KeyPrefix, Stamp, Ttl, Value};

struct Fixture {
    database: MemoryDatabase,
    clock: Clock,
    stamps: Arc<HybridClock>,
}

impl Fixture {
    fn new() -> Self {
        let clock = Clock::manual();
        let stamps = Arc::new(HybridClock::new(clock.clone()));
        let config = MemoryDatabaseConfig::default();
        Self { database: MemoryDatabase::with_clocks(&config, clock.clone(), Arc::clone(&stamps)), clock, stamps }
    }

    fn append_op(&self, id: &str) -> Append {
        let append = Append::new(key("list"), Value::json("1").unwrap(), self.stamps.issue());
        append.with_item_id(ItemId::parse(id).unwrap())
    }

    async fn append(&self, id: &str) -> (Option<u64>, Option<bool>) {
        let acks = self.database.append_many(vec![self.append_op(id)], &cx()).await;
        let ack = acks[0].as_ref().unwrap();
        (ack.position, ack.existed)
    }

    async fn trim(&self) {
        self.database.trim(&key("list"), 0, &cx()).await.unwrap();
    }

    async fn delete(&self) {
        self.database.write(Write::delete(key("list"), self.stamps.issue()), &cx()).await.unwrap();
    }

    /// Fails a transaction after these steps.
    async fn fail_after(&self, mut steps: Vec<Step>) {
        let revision = self.database.write(self.put("other"), &cx()).await.unwrap().revision.unwrap();
        let op = WriteOp::Put { value: Value::json("2").unwrap(), mode: WriteMode::Update(revision), ttl: None };
        steps.push(Step::Write(Write::new(key("missing"), op, self.stamps.issue())));
        assert_eq!(self.database.apply(steps, &cx()).await.unwrap_err().kind(), ErrorKind::Conflict);
    }

    fn put(&self, name: &str) -> Write {
        Write::put(key(name), Value::json("1").unwrap(), self.stamps.issue())
    }

    async fn replay(&self, step: Step) -> ReplayOutcome {
        let options = ReplayOptions::new(Stamp::MIN);
        self.database.replay(vec![step], &options, &cx()).await.remove(0).unwrap()
    }

    async fn exists(&self, name: &str) -> bool {
        self.database.exists(&[key(name)], &cx()).await.remove(0).unwrap()
    }

    /// Writes as much as sweeps every record of every shard.
    async fn sweep(&self) {
        for number in 0..2000 {
            self.database.write(self.put(&format!("k{number}")), &cx()).await.unwrap();
        }
    }
}

fn cx() -> Context {
    Context::with_timeout(Duration::from_secs(10))
}

fn key(name: &str) -> Key {
    Key::parse(name).unwrap()
}

#[tokio::test]
async fn positions_go_on_long_after_a_list_was_emptied() {
    let fixture = Fixture::new();
    assert_eq!(fixture.append("a").await, (Some(0), Some(false)));
    fixture.trim().await;
    fixture.clock.advance(Duration::from_secs(3600));
    fixture.sweep().await;
    assert_eq!(fixture.append("b").await, (Some(1), Some(false)));
    fixture.delete().await;
    fixture.clock.advance(Duration::from_secs(3600));
    fixture.sweep().await;
    assert_eq!(fixture.append("c").await, (Some(2), Some(false)));
}

#[tokio::test]
async fn an_undone_append_to_an_emptied_list_leaves_its_positions_and_ids() {
    let fixture = Fixture::new();
    fixture.append("a").await;
    fixture.trim().await;
    fixture.fail_after(vec![Step::Append(fixture.append_op("b"))]).await;
    fixture.sweep().await;
    assert_eq!(fixture.append("a").await, (Some(0), Some(true)));
    assert_eq!(fixture.append("b").await, (Some(1), Some(false)));
}

#[tokio::test]
async fn an_undone_trim_of_an_emptied_list_leaves_its_positions_and_ids() {
    let fixture = Fixture::new();
    fixture.append("a").await;
    fixture.trim().await;
    fixture.fail_after(vec![Step::Trim { key: key("list"), keep_last: 0 }]).await;
    fixture.sweep().await;
    assert_eq!(fixture.append("a").await, (Some(0), Some(true)));
    assert_eq!(fixture.append("b").await, (Some(1), Some(false)));
}

#[tokio::test]
async fn an_undone_first_append_leaves_nothing() {
    let fixture = Fixture::new();
    fixture.fail_after(vec![Step::Append(fixture.append_op("a"))]).await;
    assert_eq!(fixture.append("a").await, (Some(0), Some(false)));
}

#[tokio::test]
async fn the_id_of_a_trimmed_item_is_forgotten_after_ten_minutes() {
    let fixture = Fixture::new();
    fixture.append("a").await;
    fixture.trim().await;
    fixture.clock.advance(Duration::from_secs(600));
    fixture.sweep().await;
    assert_eq!(fixture.append("a").await, (Some(0), Some(true)));
    fixture.clock.advance(Duration::from_secs(1));
    assert_eq!(fixture.append("a").await, (Some(1), Some(false)));
}

/// Checks that a step older than what was forgotten is not applied, and a newer one is.
async fn assert_too_old(fixture: &Fixture, steps: impl IntoIterator<Item = Step>) {
    for step in steps {
        let name = step.key().map_or("list", Key::as_str).to_owned();
        let before = fixture.exists(&name).await;
        let outcome = fixture.replay(step.clone()).await;
        assert!(matches!(outcome, ReplayOutcome::TooOld { .. }), "{step:?}: {outcome:?}");
        assert_eq!(fixture.exists(&name).await, before, "{step:?}");
    }
}

#[tokio::test]
async fn a_step_older_than_a_forgotten_delete_is_not_replayed() {
    let fixture = Fixture::new();
    let older = Step::Write(fixture.put("list"));
    let items = [fixture.append_op("a"), fixture.append_op("b")].map(Step::Append);
    let clear = Step::Clear { prefix: KeyPrefix::empty(), stamp: fixture.stamps.issue() };
    fixture.append("c").await;
    fixture.delete().await;
    fixture.clock.advance(Duration::from_secs(600));
    fixture.sweep().await;
    assert_eq!(fixture.replay(older.clone()).await, ReplayOutcome::AlreadyApplied, "the delete is known");
    fixture.clock.advance(Duration::from_secs(1));
    fixture.sweep().await;
    let [first, second] = items;
    assert_too_old(&fixture, [older, clear]).await;
    // The list itself knows its last delete for ever.
    assert_eq!(fixture.replay(first).await, ReplayOutcome::AlreadyApplied);
    assert_eq!(fixture.replay(second).await, ReplayOutcome::AlreadyApplied);
    assert_eq!(fixture.replay(Step::Write(fixture.put("list"))).await, ReplayOutcome::Applied);
}

#[tokio::test]
async fn a_step_older_than_a_forgotten_value_is_not_replayed() {
    let fixture = Fixture::new();
    let older = Step::Write(fixture.put("list"));
    let op = WriteOp::Put {
        value: Value::json("2").unwrap(),
        mode: WriteMode::Upsert,
        ttl: Some(Ttl::from_secs(1).unwrap()),
    };
    fixture.database.write(Write::new(key("list"), op, fixture.stamps.issue()), &cx()).await.unwrap();
    fixture.clock.advance(Duration::from_secs(600));
    fixture.sweep().await;
    assert_eq!(fixture.replay(older.clone()).await, ReplayOutcome::AlreadyApplied, "the expired value is known");
    assert!(!fixture.database.get(&key("list"), &GetOptions::default(), &cx()).await.unwrap().is_found());
    fixture.clock.advance(Duration::from_secs(1));
    fixture.sweep().await;
    assert_too_old(&fixture, [older]).await;
}

#[tokio::test]
async fn a_step_older_than_a_forgotten_id_is_not_replayed() {
    let fixture = Fixture::new();
    let step = Step::Append(fixture.append_op("a"));
    assert_eq!(fixture.replay(step.clone()).await, ReplayOutcome::Applied);
    fixture.trim().await;
    fixture.clock.advance(Duration::from_secs(600));
    fixture.sweep().await;
    assert_eq!(fixture.replay(step.clone()).await, ReplayOutcome::AlreadyApplied, "the id is known");
    fixture.clock.advance(Duration::from_secs(1));
    assert_too_old(&fixture, [step]).await;
    assert_eq!(fixture.replay(Step::Append(fixture.append_op("a"))).await, ReplayOutcome::Applied);
}
