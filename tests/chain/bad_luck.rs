//! What may befall a journal. How a file takes a full disk, a disk that fails and the end of its process is tested where it is written
//! (`src/chain/journal/tests`); here, what a chain makes of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use agent_storage::chain::{ChainOptions, ChainState, DatabaseChain};
use agent_storage::config::DatabaseFallback;
use agent_storage::contract::{Durability, Freshness, GetOptions, Store, Write};
use agent_storage::{Error, ErrorKind, Key, Value};

use crate::machine::{Machine, Process};
use crate::rig::soon;

#[tokio::test]
async fn files_that_cannot_be_read_are_left_and_told_and_nothing_else_suffers() {
    let machine = Machine::new();
    let process = machine.start().await;
    machine.fall();
    process.owe("k", 1).await;
    machine.kill([process]).await;
    let newer = machine.journals().remove(0);
    let open = || rusqlite::Connection::open(&newer).unwrap();
    let format: u32 = open().pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    open().pragma_update(None, "user_version", 99).unwrap();
    let damaged = machine.config.journal.path.join("journal-damaged.db");
    std::fs::write(&damaged, vec![7; 100_000]).unwrap();
    let process = machine.start().await;
    let told = process.chain.status().left_journals.join("\n");
    assert!(told.contains("made by a newer agent-storage") && told.contains("journal-damaged.db"), "{told}");
    process.owe("other", 2).await;
    machine.faults.heal();
    process.until(|status| status.state == ChainState::Normal).await;
    assert_eq!(machine.primary.get_json::<i64>("other").await.unwrap(), Some(2));
    assert_eq!(machine.primary.get_json::<i64>("k").await.unwrap(), None);
    assert_eq!(std::fs::read(&damaged).unwrap(), vec![7; 100_000], "it is left as it is");
    // Whoever can read it brings the primary what it holds.
    machine.kill([process]).await;
    open().pragma_update(None, "user_version", format).unwrap();
    let process = machine.start().await;
    process.until(|status| status.state == ChainState::Normal).await;
    assert_eq!(machine.primary.get_json::<i64>("k").await.unwrap(), Some(1));
}

#[tokio::test]
async fn the_journal_of_a_living_process_is_its_own() {
    let machine = Machine::new();
    let (one, other) = (machine.start().await, machine.start().await);
    machine.fall();
    one.owe("k", 1).await;
    other.owe("k", 2).await;
    let late = machine.start().await;
    assert_eq!((one.chain.status().pending, other.chain.status().pending, late.chain.status().pending), (1, 1, 0));
    let lookup = late.chain.get(&Key::parse("k").unwrap(), &GetOptions::default(), &soon()).await;
    assert_eq!(lookup.unwrap_err().kind(), ErrorKind::Unavailable, "what others owe is not known here");
    assert_eq!(machine.journals().len(), 3);
}

#[tokio::test]
async fn a_folder_that_cannot_be_used_is_told_when_the_chain_is_opened() {
    let machine = Machine::new();
    let mut config = machine.config.clone();
    std::fs::write(&config.journal.path, "no folder").unwrap();
    config.journal.path = config.journal.path.join("journal");
    let (primary, options) = (Arc::clone(&machine.backend), ChainOptions::new(Duration::from_secs(2)));
    let error: Error = DatabaseChain::open(primary, DatabaseFallback::Sqlite, &config, options).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Unavailable && error.message().contains("journal"), "{error}");
    assert!(!error.is_transient(), "waiting does not help: {error}");
}

#[tokio::test]
async fn a_process_that_is_stopped_while_degraded_leaves_all_it_owes() {
    let machine = Machine::new();
    let process = machine.start().await;
    machine.fall();
    for number in 0..100 {
        process.owe(&format!("k:{number}"), number).await;
    }
    process.chain.close(&soon()).await.unwrap();
    let key = Key::parse("k:0").unwrap();
    let late = process.chain.write(Write::delete(key, process.stamps.issue()), &soon()).await;
    assert_eq!(late.unwrap_err().kind(), ErrorKind::Closed);
    machine.kill([process]).await;
    let heir = machine.start().await;
    assert_eq!((heir.chain.status().pending, heir.number("k:99").await), (100, Some(99)));
    assert_eq!(heir.chain.journaled(0).await.unwrap().len(), 100);
}

/// `CHAIN_OWED=1000000` has it owe that many, and it tells how long the start and the first read took.
#[tokio::test]
#[expect(clippy::print_stdout, reason = "whoever measures reads it")]
async fn a_start_that_owes_much_answers_its_first_read() {
    let owed: usize = std::env::var("CHAIN_OWED").map_or(20_000, |owed| owed.parse().unwrap());
    let machine = Machine::new();
    let process = machine.start().await;
    machine.fall();
    for batch in 0..owed / 10_000 {
        let write = |number: usize| {
            let key = Key::parse(format!("k:{}", batch * 10_000 + number)).unwrap();
            Write::put(key, Value::json(format!("{{\"number\":{number}}}")).unwrap(), process.stamps.issue())
        };
        for ack in process.chain.write_many((0..10_000).map(write).collect(), &soon()).await {
            assert_eq!(ack.unwrap().durability, Durability::Local);
        }
    }
    machine.kill([process]).await;
    let began = Instant::now();
    let heir = machine.start().await;
    let last = Key::parse(format!("k:{}", owed - 1)).unwrap();
    let lookup = heir.chain.get(&last, &GetOptions::default(), &soon()).await;
    println!("owing {owed} operations, the first read was answered {:?} after the start", began.elapsed());
    assert_eq!(lookup.unwrap().freshness(), Freshness::LocalPending);
    assert_eq!(heir.chain.status().pending, owed);
    let missing = heir.chain.get(&Key::parse("none").unwrap(), &GetOptions::default(), &soon()).await;
    assert_eq!(missing.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[test]
fn what_was_being_journaled_as_its_runtime_ended_is_known_to_be_owed() {
    const ATTEMPTS: u64 = 200;
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime().block_on(async {
        let machine = Machine::new();
        let mut process = machine.start().await;
        machine.fall();
        process.owe("k", 1).await;
        // Large, so that the disk has to do with it for a while.
        let file = rusqlite::Connection::open(machine.journals().remove(0)).unwrap();
        let value = Value::binary(vec![7; 8 << 20]).unwrap();
        for attempt in 0..ATTEMPTS {
            let (chain, stamp, other) = (Arc::new(process.chain), process.stamps.issue(), runtime());
            let write = Write::put(Key::parse("large").unwrap(), value.clone(), stamp);
            let writing = other.spawn({
                let chain = Arc::clone(&chain);
                async move { chain.write(write, &soon()).await }
            });
            tokio::time::sleep(Duration::from_millis(attempt % 20)).await;
            other.shutdown_background();
            let was_heard = writing.await.is_ok();
            process = Process { chain: Arc::into_inner(chain).unwrap(), stamps: process.stamps };
            // What is asked of the disk now comes behind what it has begun.
            let before = process.chain.status().pending;
            process.owe("k", 2).await;
            let kept = file.query_row("SELECT count(*) FROM op", [], |row| row.get::<_, u32>(0)).unwrap() as usize;
            process.until(|status| status.pending == kept).await;
            if !was_heard && kept > before + 1 {
                machine.faults.heal();
                process.until(|status| status.state == ChainState::Normal).await;
                assert!(machine.primary.exists("large").await.unwrap());
                return;
            }
        }
        panic!("no runtime ended while the disk had begun");
    });
}
