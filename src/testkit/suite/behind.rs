//! Writes that keep their stamp: where something newer stands they are refused, and change nothing newer.

use super::tools::{assert_conflict, assert_value, future_stamp, json, revised};
use crate::contract::{Append, Attempt, DatabaseBackend, Step, Store, Write, WriteMode, WriteOp};
use crate::testkit::case::cases;
use crate::testkit::{Case, Outcome, Subject};
use crate::{Behind, Error, Result, Stamp};

type Database = Subject<dyn DatabaseBackend>;

pub(super) fn cases() -> Vec<Case<dyn Store>> {
    cases!["behind":
        a_fixed_write_with_nothing_newer_is_applied_under_its_stamp,
        a_fixed_write_that_stands_already_is_its_own_success,
        a_fixed_write_that_is_behind_is_refused,
        a_fixed_write_that_is_behind_is_refused_in_a_batch,
        a_fixed_put_behind_a_delete_is_refused,
        a_refused_write_shows_the_clock_what_stands,
        a_lost_condition_is_not_behind,
        what_follows_a_refused_write_in_its_batch_is_refused_with_it,
        a_fixed_clear_removes_what_is_older,
    ]
}

pub(super) fn database_cases() -> Vec<Case<dyn DatabaseBackend>> {
    cases!["behind":
        a_fixed_append_behind_a_delete_is_refused,
        a_fixed_append_that_is_there_already_is_its_own_success,
        a_fixed_append_between_others_stays_behind_a_delete,
        what_follows_a_refused_append_in_its_batch_is_refused_with_it,
        a_fixed_delete_leaves_a_list_that_is_newer,
        a_fixed_delete_behind_a_delete_changes_nothing,
        a_fixed_clear_leaves_lists_that_are_newer,
        a_fixed_transaction_that_is_behind_is_undone,
        a_fixed_transaction_with_nothing_newer_is_applied,
        a_fixed_delete_may_follow_a_trim_in_its_transaction,
    ]
}

/// Without the guard of stamps a store makes no difference.
fn is_guarded<B: Store + ?Sized>(subject: &Subject<B>) -> bool {
    subject.backend().capabilities().stamp_guard
}

fn fixed(write: Write) -> Write {
    Write { attempt: Attempt::Fixed, ..write }
}

fn fixed_item(append: Append) -> Append {
    Append { attempt: Attempt::Fixed, ..append }
}

/// The same of one that is the first of its key in its batch: the refusal names what stands in its way.
#[track_caller]
fn refused_for<T: std::fmt::Debug>(answer: Result<T>, standing: Stamp) -> Behind {
    let behind = refused(answer);
    assert!(behind.standing() >= Some(standing), "{behind:?}, and {standing} stands there");
    behind
}

#[track_caller]
fn refused<T: std::fmt::Debug>(answer: Result<T>) -> Behind {
    let error: Error = answer.expect_err("a write that is behind");
    assert!(error.is_conflict() && !error.is_transient(), "{error}");
    error.as_behind().expect("an error that says so")
}

/// Every write that could change the value under a key, with the same stamp.
fn writes_of<B: Store + ?Sized>(subject: &Subject<B>, key: &str, stamp: Stamp) -> Vec<Write> {
    let put = |mode| WriteOp::Put { value: json("\"late\""), mode, ttl: None };
    let ops = [put(WriteMode::Upsert), WriteOp::Delete { only_if: None }, WriteOp::Touch { ttl: None }];
    ops.map(|op| fixed(Write::new(subject.key(key), op, stamp))).into()
}

async fn a_fixed_write_with_nothing_newer_is_applied_under_its_stamp(subject: Subject<dyn Store>) -> Outcome {
    let write = fixed(subject.put_op("k", json("1")));
    let stamp = write.stamp;
    let ack = subject.write(write).await?;
    assert_ne!(ack.existed, Some(true));
    if is_guarded(&subject) {
        assert_eq!(revised(ack.revision)?.to_stamp(), Some(stamp));
    }
    assert_value(subject.get("k").await?, &json("1"));
    let revision = subject.revision("k").await?;
    let update = subject.write_op("k", json("2"), WriteMode::Update(revision), None);
    subject.write_all(vec![fixed(subject.put_op("other", json("3"))), fixed(update)]).await?;
    assert_eq!(subject.get_many(&["k", "other"]).await?, [Some(json("2")), Some(json("3"))]);
    subject.write(fixed(subject.delete_op("k"))).await?;
    assert!(!subject.exists("k").await?);
    subject.write(fixed(subject.write_op("k", json("4"), WriteMode::Create, None))).await?;
    assert_value(subject.get("k").await?, &json("4"));
    Ok(())
}

async fn a_fixed_write_that_stands_already_is_its_own_success(subject: Subject<dyn Store>) -> Outcome {
    if !is_guarded(&subject) {
        return Ok(());
    }
    let (put, create) = (subject.put_op("k", json("1")), subject.write_op("new", json("1"), WriteMode::Create, None));
    let delete = subject.delete_op("gone");
    for write in [put, create, delete].map(fixed) {
        let first = subject.write(write.clone()).await?;
        assert_eq!(subject.write(write.clone()).await?.revision, first.revision);
        assert_eq!(subject.write_all(vec![write]).await?[0].revision, first.revision);
    }
    assert_eq!(subject.names("").await?, ["k", "new"]);
    Ok(())
}

async fn a_fixed_write_that_is_behind_is_refused(subject: Subject<dyn Store>) -> Outcome {
    if !is_guarded(&subject) {
        return Ok(());
    }
    let early = subject.stamp();
    subject.put("k", json("1")).await?;
    let revision = subject.revision("k").await?;
    let standing = revision.to_stamp().expect("a revision that is a stamp");
    for write in writes_of(&subject, "k", early) {
        refused_for(subject.write(write).await, standing);
    }
    for mode in [WriteMode::Update(revision), WriteMode::Replace(revision)] {
        let op = WriteOp::Put { value: json("\"late\""), mode, ttl: None };
        refused_for(subject.write(fixed(Write::new(subject.key("k"), op, early))).await, standing);
    }
    if subject.backend().capabilities().conditional_delete {
        let op = WriteOp::Delete { only_if: Some(revision) };
        refused_for(subject.write(fixed(Write::new(subject.key("k"), op, early))).await, standing);
    }
    assert_value(subject.get("k").await?, &json("1"));
    assert_eq!(subject.revision("k").await?, revision);
    Ok(())
}

async fn a_fixed_write_that_is_behind_is_refused_in_a_batch(subject: Subject<dyn Store>) -> Outcome {
    if !is_guarded(&subject) {
        return Ok(());
    }
    let early = subject.stamp();
    subject.write_all(["a", "b", "c"].map(|key| subject.put_op(key, json("1"))).into()).await?;
    let late = ["a", "b", "c"]
        .into_iter()
        .zip(0..)
        .filter_map(|(key, nth)| writes_of(&subject, key, early).into_iter().nth(nth));
    let mut batch: Vec<Write> = late.collect();
    batch.insert(1, fixed(Write::put(subject.key("d"), json("2"), early)));
    let mut answers = subject.write_many(batch).await.into_iter();
    refused(answers.next().expect("an answer"));
    assert!(answers.next().is_some_and(|answer| answer.is_ok()));
    for answer in answers {
        refused(answer);
    }
    let one = || Some(json("1"));
    assert_eq!(subject.get_many(&["a", "b", "c", "d"]).await?, [one(), one(), one(), Some(json("2"))]);
    Ok(())
}

async fn a_fixed_put_behind_a_delete_is_refused(subject: Subject<dyn Store>) -> Outcome {
    if !is_guarded(&subject) {
        return Ok(());
    }
    let (put, create) = (subject.put_op("k", json("1")), subject.write_op("new", json("1"), WriteMode::Create, None));
    for key in ["k", "new"] {
        subject.put(key, json("2")).await?;
        subject.delete(key).await?;
    }
    for write in [put, create].map(fixed) {
        refused(subject.write(write.clone()).await);
        refused(subject.write_many(vec![write]).await.remove(0));
    }
    assert!(subject.names("").await?.is_empty());
    Ok(())
}

async fn a_refused_write_shows_the_clock_what_stands(subject: Subject<dyn Store>) -> Outcome {
    if !is_guarded(&subject) {
        return Ok(());
    }
    let standing = future_stamp(&subject);
    subject.write(fixed(Write::put(subject.key("k"), json("1"), standing))).await?;
    refused_for(subject.write(fixed(subject.put_op("k", json("2")))).await, standing);
    assert!(subject.stamp() > standing);
    subject.write(fixed(subject.put_op("k", json("3")))).await?;
    assert_value(subject.get("k").await?, &json("3"));
    Ok(())
}

async fn a_lost_condition_is_not_behind(subject: Subject<dyn Store>) -> Outcome {
    let early = subject.stamp();
    let seen = revised(subject.put("k", json("1")).await?.revision)?;
    subject.put("k", json("2")).await?;
    for mode in [WriteMode::Create, WriteMode::Update(seen)] {
        let op = WriteOp::Put { value: json("3"), mode, ttl: None };
        let answer = subject.write(fixed(Write::new(subject.key("k"), op, early))).await;
        assert!(answer.as_ref().is_err_and(|error| !error.is_behind()), "{answer:?}");
        assert_conflict(answer);
    }
    Ok(())
}

async fn what_follows_a_refused_write_in_its_batch_is_refused_with_it(subject: Subject<dyn Store>) -> Outcome {
    if !is_guarded(&subject) {
        return Ok(());
    }
    let early = subject.put_op("k", json("\"early\""));
    subject.put("k", json("1")).await?;
    let batch = [early, subject.put_op("k", json("2")), subject.put_op("other", json("2")), subject.delete_op("k")];
    let answers = subject.write_many(batch.map(fixed).into()).await;
    let behind: Vec<bool> = answers.iter().map(|answer| answer.as_ref().is_err_and(Error::is_behind)).collect();
    assert_eq!(behind, [true, true, false, true]);
    assert_eq!(subject.get_many(&["k", "other"]).await?, [Some(json("1")), Some(json("2"))]);
    Ok(())
}

async fn a_fixed_clear_removes_what_is_older(subject: Subject<dyn Store>) -> Outcome {
    if !is_guarded(&subject) {
        return Ok(());
    }
    subject.write_all(["a:1", "a:2", "b"].map(|key| subject.put_op(key, json("1"))).into()).await?;
    let early = subject.stamp();
    let newer = future_stamp(&subject);
    subject.write(fixed(Write::put(subject.key("a:3"), json("1"), newer))).await?;
    let clear =
        async |stamp| subject.backend().clear(&subject.prefix("a:"), stamp, Attempt::Fixed, &subject.cx()).await;
    let behind = refused_for(clear(early).await, newer);
    assert_eq!((behind.begun, behind.removed), (true, 2));
    assert_eq!(subject.names("").await?, ["a:3", "b"]);
    let again = refused_for(clear(early).await, newer);
    assert_eq!((again.begun, again.removed), (false, 0));
    assert_eq!(subject.revision("a:3").await?.to_stamp(), Some(newer));
    assert_eq!(clear(subject.stamp()).await?.unwrap_or(1), 1);
    assert_eq!(subject.names("").await?, ["b"]);
    Ok(())
}

async fn a_fixed_append_behind_a_delete_is_refused(subject: Database) -> Outcome {
    let late = ["list", "nothing", "value"].map(|key| fixed_item(subject.append_op(key, json("\"late\""))));
    subject.append("list", json("1")).await?;
    subject.put("value", json("1")).await?;
    for key in ["list", "nothing", "value"] {
        subject.delete(key).await?;
    }
    for append in &late {
        refused_for(subject.backend().append_many(vec![append.clone()], &subject.cx()).await.remove(0), append.stamp);
    }
    for answer in subject.backend().append_many(late.into(), &subject.cx()).await {
        refused(answer);
    }
    assert!(subject.names("").await?.is_empty());
    // The list goes on where it stopped.
    assert_eq!(subject.append_item(fixed_item(subject.append_op("list", json("2")))).await?.position, Some(1));
    Ok(())
}

async fn a_fixed_append_that_is_there_already_is_its_own_success(subject: Database) -> Outcome {
    let append = fixed_item(subject.append_op("list", json("1")));
    let first = subject.append_item(append.clone()).await?;
    let second = subject.append_item(append).await?;
    assert_eq!((first.existed, second.existed, second.position), (Some(false), Some(true), first.position));
    assert_eq!(subject.length("list").await?, 1);
    Ok(())
}

/// The stamps of a batch may lie on both sides of a delete.
async fn a_fixed_append_between_others_stays_behind_a_delete(subject: Database) -> Outcome {
    let (early, other) = (subject.append_op("list", json("\"early\"")), subject.append_op("other", json("1")));
    subject.append("list", json("1")).await?;
    subject.delete("list").await?;
    let batch = [other, early, subject.append_op("list", json("2"))].map(fixed_item);
    let answers = subject.backend().append_many(batch.into(), &subject.cx()).await;
    let behind: Vec<bool> = answers.iter().map(|answer| answer.as_ref().is_err_and(Error::is_behind)).collect();
    assert_eq!(behind, [false, true, true]);
    assert_eq!((subject.length("list").await?, subject.length("other").await?), (0, 1));
    Ok(())
}

async fn what_follows_a_refused_append_in_its_batch_is_refused_with_it(subject: Database) -> Outcome {
    let early = subject.append_op("list", json("0"));
    subject.append("list", json("1")).await?;
    subject.delete("list").await?;
    let later = (1..3000_u64).map(|number| subject.append_op("list", json(number.to_string())));
    let mut batch: Vec<Append> = std::iter::once(early).chain(later).map(fixed_item).collect();
    batch.push(fixed_item(subject.append_op("other", json("1"))));
    let mut answers = subject.backend().append_many(batch.clone(), &subject.cx()).await;
    assert!(answers.pop().is_some_and(|answer| answer.is_ok()));
    for answer in answers {
        refused(answer);
    }
    batch.pop();
    for append in &mut batch {
        append.stamp = subject.stamp();
    }
    let acks = subject.append_many(batch).await?;
    assert!(acks.iter().zip(1..).all(|(ack, position)| ack.position == Some(position)));
    Ok(())
}

async fn a_fixed_delete_leaves_a_list_that_is_newer(subject: Database) -> Outcome {
    subject.put("both", json("1")).await?;
    let deletes = ["list", "both"].map(|key| fixed(subject.delete_op(key)));
    for key in ["list", "both"] {
        subject.append(key, json("1")).await?;
    }
    for delete in deletes {
        let key = delete.key.clone();
        let stamp = delete.stamp;
        let behind = refused_for(subject.write(delete).await, stamp);
        // Value and list may be guarded apart.
        assert!(behind.removed <= 1, "{behind:?}");
        assert_eq!(subject.backend().length(&key, &subject.cx()).await?, 1);
        let found = subject.backend().get(&key, &crate::contract::GetOptions::default(), &subject.cx()).await?;
        assert!(behind.begun || found.into_value().is_some() == key.as_str().ends_with("both"), "{behind:?}");
    }
    Ok(())
}

async fn a_fixed_delete_behind_a_delete_changes_nothing(subject: Database) -> Outcome {
    let (early, append) = (fixed(subject.delete_op("list")), fixed_item(subject.append_op("list", json("2"))));
    subject.append("list", json("1")).await?;
    subject.delete("list").await?;
    let stamp = early.stamp;
    refused_for(subject.write(early).await, stamp);
    // The floor is the newer delete's.
    refused(subject.backend().append_many(vec![append], &subject.cx()).await.remove(0));
    assert_eq!(subject.length("list").await?, 0);
    Ok(())
}

async fn a_fixed_clear_leaves_lists_that_are_newer(subject: Database) -> Outcome {
    for key in ["a:old", "a:both"] {
        subject.append(key, json("1")).await?;
    }
    let early = subject.stamp();
    for key in ["a:new", "a:both"] {
        subject.append(key, json("2")).await?;
    }
    let clear = subject.backend().clear(&subject.prefix("a:"), early, Attempt::Fixed, &subject.cx()).await;
    let behind = refused_for(clear, early);
    assert_eq!(behind.removed, 1);
    assert_eq!(subject.names("").await?, ["a:both", "a:new"]);
    assert_eq!(subject.length("a:both").await?, 2);
    Ok(())
}

async fn a_fixed_transaction_that_is_behind_is_undone(subject: Database) -> Outcome {
    let early = subject.delete_op("k");
    let late = subject.append_op("list", json("2"));
    subject.put("k", json("1")).await?;
    subject.append("list", json("1")).await?;
    subject.append("k", json("1")).await?;
    let transaction = |last: Step| {
        vec![
            Step::Write(fixed(subject.put_op("other", json("1")))),
            Step::Append(fixed_item(subject.append_op("list", json("3")))),
            subject.trim_step("list", 1),
            last,
        ]
    };
    let behind = refused(subject.apply(transaction(Step::Write(fixed(early)))).await);
    assert_eq!((behind.begun, behind.removed), (false, 0));
    subject.delete("list").await?;
    refused(subject.apply(transaction(Step::Append(fixed_item(late)))).await);
    assert_eq!(subject.names("").await?, ["k"]);
    assert_eq!(subject.length("k").await?, 1);
    assert_value(subject.get("k").await?, &json("1"));
    Ok(())
}

async fn a_fixed_transaction_with_nothing_newer_is_applied(subject: Database) -> Outcome {
    subject.put("old", json("1")).await?;
    let steps = vec![
        Step::Write(fixed(subject.put_op("k", json("1")))),
        Step::Append(fixed_item(subject.append_op("list", json("1")))),
        Step::Write(fixed(subject.delete_op("old"))),
        Step::Append(fixed_item(subject.append_op("list", json("2")))),
    ];
    subject.apply(steps).await?;
    assert_eq!(subject.names("").await?, ["k", "list"]);
    assert_eq!(subject.range("list", 0, -1).await?, ["1", "2"]);
    Ok(())
}

async fn a_fixed_delete_may_follow_a_trim_in_its_transaction(subject: Database) -> Outcome {
    for value in ["1", "2", "3"] {
        subject.append("list", json(value)).await?;
    }
    let steps = vec![
        Step::Append(fixed_item(subject.append_op("list", json("4")))),
        Step::Write(fixed(subject.delete_op("list"))),
    ];
    let trimmed = std::iter::once(subject.trim_step("list", 1)).chain(steps).collect();
    subject.apply(trimmed).await?;
    assert_eq!(subject.names("").await?, Vec::<String>::new());
    Ok(())
}
