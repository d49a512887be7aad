//! What the memory database keeps of lists that are empty: a position is never used again.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use agent_storage::backend::memory::MemoryDatabase;
use agent_storage::config::MemoryDatabaseConfig;
use agent_storage::contract::{Append, Context, DatabaseBackend, ItemId, Step, Store, Write, WriteMode, WriteOp};
use agent_storage::{Clock, ErrorKind, HybridClock, Key, Value};

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
