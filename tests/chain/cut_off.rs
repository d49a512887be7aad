//! Calls whose time runs out while the journal works for them.

use std::path::Path;
use std::time::Duration;

use agent_storage::chain::ChainState;
use agent_storage::contract::{Context, GetOptions, Store, Write};
use agent_storage::{ErrorKind, Key, Value};
use futures_util::future::join_all;

use crate::machine::{Machine, Process, until_free};
use crate::rig::soon;

/// Writes keys to the journal, each with a time that ends about when it is written; says of how many the outcome is unknown.
async fn write_in_haste(process: &Process) -> usize {
    let mut unknown = 0;
    for number in 0..2000_u64 {
        let cx = Context::with_timeout(Duration::from_micros(200 + number % 40 * 50));
        let key = Key::parse(format!("hasty:{number}")).unwrap();
        let written = process.chain.write(Write::put(key, Value::from_integer(1), process.stamps.issue()), &cx).await;
        unknown += usize::from(written.is_err_and(|error| error.kind() == ErrorKind::OutcomeUnknown));
    }
    unknown
}

/// How many operations the journal of a process holds.
async fn journaled(process: &Process) -> usize {
    let (mut after, mut count) = (0, 0);
    loop {
        let page = process.chain.journaled(after).await.unwrap();
        let Some(last) = page.last() else { return count };
        (after, count) = (last.seq, count + page.len());
    }
}

#[tokio::test]
async fn what_the_journal_took_after_its_caller_had_left_is_known_to_be_owed() {
    let machine = Machine::new();
    let process = machine.start().await;
    machine.fall();
    process.owe("first", 1).await;
    let unknown = write_in_haste(&process).await;
    // What comes last is written after all that was begun before.
    process.owe("last", 1).await;
    let in_journal = journaled(&process).await;
    process.until(|status| status.pending == in_journal).await;
    machine.faults.heal();
    process.until(|status| status.state == ChainState::Normal).await;
    assert_eq!(journaled(&process).await, 0, "{in_journal} were in the journal, {unknown} of them unknown");
    let there = machine.primary.count("").await.unwrap();
    assert_eq!(there, u64::try_from(in_journal).unwrap());
}

/// Copies the journal of one process into that of another which lives, as if it had begun to take it over.
fn copy_journal(from: &Path, to: &Path) {
    let connection = rusqlite::Connection::open(to).unwrap();
    connection.busy_timeout(Duration::from_secs(10)).unwrap();
    connection.execute("ATTACH ?1 AS source", [from.to_str().unwrap()]).unwrap();
    let columns = "seq, version, stamp, kind, key, expires_at, item_id, parked, payload";
    let sql = format!("INSERT INTO op ({columns}) SELECT {columns} FROM source.op");
    connection.execute(&sql, []).unwrap();
    let name = from.file_name().unwrap().to_str().unwrap();
    let mark = "INSERT INTO imported (source) SELECT ?1 || ' ' || lower(hex(writer)) || printf(' %x', clock_reserve) FROM source.meta";
    assert_eq!(connection.execute(mark, [name]).unwrap(), 1);
}

#[tokio::test]
async fn what_was_copied_when_nobody_waited_for_it_any_more_is_known_to_be_owed() {
    let machine = Machine::new();
    let one = machine.start().await;
    let journals = machine.journals();
    let other = machine.start().await;
    let theirs = machine.journals().into_iter().find(|path| !journals.contains(path)).unwrap();
    machine.fall();
    one.owe("k", 1).await;
    drop(one);
    until_free(&journals[0]).await;
    copy_journal(&journals[0], &theirs);
    machine.faults.heal();
    other.until(|status| status.state == ChainState::Normal).await;
    assert_eq!(other.number("k").await, None);
    // It looks through the folder.
    other.chain.accept_primary().await.unwrap();
    assert_eq!(machine.journals(), [theirs]);
    other.until(|status| status.state == ChainState::Normal && status.replayed == 1).await;
    assert_eq!(machine.primary.get_json::<i64>("k").await.unwrap(), Some(1));
    assert_eq!(journaled(&other).await, 0);
}

#[tokio::test]
async fn a_primary_that_does_not_end_keeps_nobody_from_the_journal() {
    let machine = Machine::new();
    let process = machine.start().await;
    machine.picky.hang_at_the_end();
    process.chain.close(&Context::with_timeout(Duration::from_millis(500))).await.unwrap_err();
    until_free(&machine.journals()[0]).await;
    // Also where the time was over from the start.
    let process = machine.start().await;
    process.chain.close(&Context::with_timeout(Duration::ZERO)).await.unwrap_err();
    until_free(&machine.journals()[0]).await;
}

#[tokio::test]
async fn a_read_of_what_is_owed_ends_at_its_deadline_though_the_journal_is_busy() {
    let machine = Machine::new();
    let process = machine.start().await;
    machine.fall();
    process.owe("k", 1).await;
    let large = |number: usize| {
        let (key, value) = (Key::parse(format!("large:{number}")).unwrap(), Value::binary(vec![7; 1024]).unwrap());
        Write::put(key, value, process.stamps.issue())
    };
    let written = process.chain.write_many((0..1000).map(large).collect(), &soon()).await;
    assert!(written.iter().all(Result::is_ok));
    let busy = join_all((0..64).map(|_| process.chain.journaled(0)));
    let (key, options) = (Key::parse("k").unwrap(), GetOptions::default());
    let read = async {
        let cx = Context::with_timeout(Duration::from_millis(5));
        let one = process.chain.get(&key, &options, &cx).await.unwrap_err();
        let cx = Context::with_timeout(Duration::from_millis(5));
        let many = process.chain.get_many(std::slice::from_ref(&key), &options, &cx).await.remove(0).unwrap_err();
        [one, many].map(|error| error.kind())
    };
    let (_, kinds) = tokio::join!(busy, read);
    assert_eq!(kinds, [ErrorKind::Unavailable; 2]);
    assert_eq!(process.number("k").await, Some(1));
}
