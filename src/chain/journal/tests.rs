//! What every journal promises.

#[cfg(feature = "sqlite")]
mod crash;
#[cfg(feature = "sqlite")]
mod disk;
mod episode;
#[cfg(feature = "sqlite")]
mod folder;
#[cfg(feature = "sqlite")]
mod survey;

use std::time::{Duration, Instant};

use super::{Action, Effect, Exported, Header, Journal, Meta, Operation, VolatileJournal};
use crate::contract::{Durability, Identity, ItemId};
use crate::error::ErrorKind;
use crate::key::{Key, KeyPrefix};
use crate::stamp::{HybridClock, Stamp};
use crate::time::Timestamp;
use crate::value::Value;

/// The bound of the journals under test.
const MAX_BYTES: u64 = 1 << 20;

/// When the outage of the journals under test began: it is older than any stamp.
const SINCE: Stamp = Stamp::MIN;

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

fn key(text: &str) -> Key {
    Key::parse(text).unwrap()
}

fn operation(action: Action) -> Operation {
    Operation { stamp: HybridClock::process().issue(), action }
}

fn put(name: &str, value: &str) -> Operation {
    operation(Action::Put { key: key(name), value: Value::json(value.to_owned()).unwrap(), expires_at: None })
}

fn large(name: &str, bytes: usize) -> Operation {
    operation(Action::Put { key: key(name), value: Value::binary(vec![7; bytes]).unwrap(), expires_at: None })
}

/// Moves the log of a closed journal into its file: its threads may have ended together, so that none of them did it.
#[cfg(feature = "sqlite")]
fn move_log_into(journal: &std::path::Path) {
    let connection = rusqlite::Connection::open(journal).unwrap();
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
}

/// One of each kind.
fn all_kinds() -> Vec<Operation> {
    vec![
        put("a", r#"{"a":1,"a":2}"#),
        operation(Action::Put {
            key: key("Ünï/😀"),
            value: Value::binary(vec![0, 159, 146, 150]).unwrap(),
            expires_at: Some(Timestamp::from_millis(u64::from(u32::MAX) * 1000)),
        }),
        operation(Action::Delete { key: key("a") }),
        operation(Action::Append {
            key: key("list"),
            value: Value::json("null").unwrap(),
            item_id: ItemId::parse("first").unwrap(),
        }),
        operation(Action::Append {
            key: key("list"),
            value: Value::binary("").unwrap(),
            item_id: ItemId::parse("second").unwrap(),
        }),
        operation(Action::Clear { prefix: KeyPrefix::parse("tenant:").unwrap() }),
        operation(Action::Clear { prefix: KeyPrefix::empty() }),
    ]
}

/// Runs a test on a journal of each kind.
async fn each(test: impl AsyncFn(&dyn Journal)) {
    test(&VolatileJournal::new(MAX_BYTES)).await;
    #[cfg(feature = "sqlite")]
    {
        let temporary = tempfile::tempdir().unwrap();
        let folder = super::JournalFolder::new(temporary.path(), None, MAX_BYTES, 1);
        let (journal, _) = folder.open().await.unwrap();
        test(&journal).await;
    }
}

#[tokio::test]
async fn operations_come_back_as_they_went_in() {
    each(async |journal| {
        let operations = all_kinds();
        let seqs = journal.append(operations.clone(), SINCE, soon()).await.unwrap();
        assert!(seqs.is_sorted() && seqs.len() == operations.len());
        for (seq, operation) in seqs.iter().zip(&operations) {
            assert_eq!(journal.read(*seq).await.unwrap().as_ref(), Some(operation));
        }
        let numbered: Vec<_> = seqs.iter().copied().zip(operations.clone()).collect();
        assert_eq!(journal.read_many(seqs.clone(), usize::MAX).await.unwrap(), numbered);
        let header =
            |(seq, operation): &(u64, Operation)| Header::new(*seq, operation.stamp, operation.action.effect(), None);
        let headers: Vec<_> = numbered.iter().map(header).collect();
        assert_eq!(journal.headers(0, 100).await.unwrap(), headers);
        assert!(matches!(&headers[6].effect, Effect::Clear(prefix) if prefix.is_empty()));
    })
    .await;
}

#[tokio::test]
async fn what_was_settled_is_gone_and_what_was_put_aside_stays_with_its_reason() {
    each(async |journal| {
        let operations = vec![put("a", "1"), put("b", "2"), put("c", "3")];
        let seqs = journal.append(operations.clone(), SINCE, soon()).await.unwrap();
        journal.settle(vec![seqs[0], seqs[0], 999], vec![(seqs[1], "poison".to_owned())]).await.unwrap();
        assert_eq!(journal.read(seqs[0]).await.unwrap(), None);
        let headers = journal.headers(0, 100).await.unwrap();
        assert_eq!(
            headers.iter().map(|header| (header.seq, header.parked)).collect::<Vec<_>>(),
            [(seqs[1], true), (seqs[2], false)]
        );
        let exported = journal.export(0, 100, usize::MAX).await.unwrap();
        let parked = |index: usize, reason: Option<&str>| Exported {
            seq: seqs[index],
            operation: operations[index].clone(),
            parked: reason.map(str::to_owned),
        };
        assert_eq!(exported, [parked(1, Some("poison")), parked(2, None)]);
        let found = journal.read_many(vec![seqs[2], seqs[0], seqs[1]], usize::MAX).await.unwrap();
        assert_eq!(found.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), [seqs[2], seqs[1]]);
    })
    .await;
}

#[tokio::test]
async fn numbers_are_never_used_again() {
    each(async |journal| {
        let first = journal.append(vec![put("a", "1"), put("a", "2")], SINCE, soon()).await.unwrap();
        journal.settle(first.clone(), Vec::new()).await.unwrap();
        let next = journal.append(vec![put("a", "3")], SINCE, soon()).await.unwrap();
        assert!(next[0] > first[1]);
        assert_eq!(journal.append(Vec::new(), SINCE, soon()).await.unwrap(), Vec::<u64>::new());
    })
    .await;
}

#[tokio::test]
async fn pages_go_on_where_the_last_one_ended() {
    each(async |journal| {
        let seqs = journal.append((0..10).map(|_| put("a", "1")).collect(), SINCE, soon()).await.unwrap();
        let mut seen = Vec::new();
        loop {
            let page = journal.headers(seen.last().copied().unwrap_or(0), 3).await.unwrap();
            if page.is_empty() {
                break;
            }
            assert!(page.len() <= 3);
            seen.extend(page.iter().map(|header| header.seq));
        }
        assert_eq!(seen, seqs);
        assert_eq!(journal.export(seqs[7], 100, usize::MAX).await.unwrap().len(), 2);
    })
    .await;
}

#[tokio::test]
async fn what_is_read_at_once_is_bounded_by_bytes_but_never_nothing() {
    each(async |journal| {
        let seqs = journal.append((0..4).map(|_| large("a", 1000)).collect(), SINCE, soon()).await.unwrap();
        for (max_bytes, count) in [(0, 1), (1999, 1), (2000, 2), (usize::MAX, 4)] {
            assert_eq!(journal.read_many(seqs.clone(), max_bytes).await.unwrap().len(), count);
            assert_eq!(journal.export(0, 100, max_bytes).await.unwrap().len(), count);
        }
        assert!(journal.read_many(Vec::new(), usize::MAX).await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_full_journal_says_so_and_has_room_again_once_it_is_settled() {
    each(async |journal| {
        let mut seqs = Vec::new();
        let error = loop {
            match journal.append(vec![large("a", 10_000), large("b", 10_000)], SINCE, soon()).await {
                Ok(kept) => seqs.extend(kept),
                Err(error) => break error,
            }
        };
        assert!(error.kind() == ErrorKind::Unavailable && error.message().contains("the journal is full"), "{error}");
        assert!(journal.is_full() && journal.bytes() <= MAX_BYTES && journal.bytes() > MAX_BYTES / 2);
        assert_eq!(journal.headers(0, 1000).await.unwrap().len(), seqs.len(), "all or none of a call");
        journal.settle(seqs, Vec::new()).await.unwrap();
        assert!(!journal.is_full() && journal.bytes() < MAX_BYTES / 16);
        journal.append(vec![large("a", 10_000)], SINCE, soon()).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_single_operation_beyond_the_bound_is_refused_and_others_go_on() {
    each(async |journal| {
        let bytes = usize::try_from(MAX_BYTES).unwrap() + 1;
        let error = journal.append(vec![large("a", bytes)], SINCE, soon()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(!journal.is_full());
        journal.append(vec![put("a", "1")], SINCE, soon()).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn what_is_known_of_the_primary_is_kept() {
    each(async |journal| {
        let before = journal.meta().await.unwrap();
        assert_eq!((before.identity, before.clock_reserve), (None, None));
        let meta = Meta {
            fingerprint: Some("postgres at db".to_owned()),
            identity: Some(Identity::new(u128::MAX - 1, 7)),
            clock_reserve: Some(Timestamp::from_millis(1)),
        };
        journal.set_meta(meta.clone()).await.unwrap();
        assert_eq!(journal.meta().await.unwrap(), meta);
    })
    .await;
}

#[tokio::test]
async fn a_closed_journal_takes_no_calls() {
    each(async |journal| {
        journal.append(vec![put("a", "1")], SINCE, soon()).await.unwrap();
        journal.close(soon()).await.unwrap();
        journal.close(soon()).await.unwrap();
        let closed = [
            journal.append(vec![put("a", "1")], SINCE, soon()).await.unwrap_err(),
            journal.read(1).await.unwrap_err(),
            journal.settle(vec![1], Vec::new()).await.unwrap_err(),
            journal.headers(0, 1).await.unwrap_err(),
            journal.meta().await.unwrap_err(),
        ];
        assert!(closed.iter().all(|error| error.kind() == ErrorKind::Closed), "{closed:?}");
    })
    .await;
}

#[test]
fn each_kind_says_what_it_survives() {
    assert_eq!(VolatileJournal::new(MAX_BYTES).durability(), Durability::Volatile);
}
