//! Repeats: an operation that was sent before, and may have been applied, has effect once.

use super::tools::{assert_kind, assert_value, future_stamp, json};
use crate::ErrorKind;
use crate::contract::{Append, Attempt, DatabaseBackend, Store, Write};
use crate::testkit::case::cases;
use crate::testkit::{Case, Outcome, Subject};

pub(super) fn cases() -> Vec<Case<dyn Store>> {
    cases!["repeats":
        a_repeat_with_nothing_newer_is_applied,
        a_repeat_never_lands_over_something_newer,
        a_repeated_delete_never_removes_something_newer,
        a_repeated_put_never_brings_back_what_was_deleted,
        a_repeated_put_never_brings_back_what_was_cleared,
        a_repeat_of_what_a_delete_followed_is_refused_in_a_batch,
        a_repeat_in_a_batch_harms_no_other,
    ]
}

pub(super) fn database_cases() -> Vec<Case<dyn DatabaseBackend>> {
    cases!["repeats":
        a_repeated_append_is_there_once,
        a_repeated_append_does_not_outlive_a_delete,
        a_repeated_append_of_a_fast_clock_does_not_outlive_a_delete,
        a_repeated_append_does_not_outlive_a_delete_that_found_no_list,
    ]
}

/// Without the guard of stamps a repeat is never sent.
fn is_guarded(subject: &Subject<dyn Store>) -> bool {
    subject.backend().capabilities().stamp_guard
}

async fn a_repeat_with_nothing_newer_is_applied(subject: Subject<dyn Store>) -> Outcome {
    if !is_guarded(&subject) {
        return Ok(());
    }
    let mut write = subject.put_op("k", json("1"));
    write.attempt = Attempt::Repeat;
    subject.write(write.clone()).await?;
    subject.write(write).await?;
    assert_value(subject.get("k").await?, &json("1"));
    Ok(())
}

async fn a_repeat_never_lands_over_something_newer(subject: Subject<dyn Store>) -> Outcome {
    if !is_guarded(&subject) {
        return Ok(());
    }
    let mut write = subject.put_op("k", json("1"));
    subject.write(write.clone()).await?;
    subject.put("k", json("2")).await?;
    write.attempt = Attempt::Repeat;
    let error = subject.backend().write(write, &subject.cx()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown);
    assert_value(subject.get("k").await?, &json("2"));
    Ok(())
}

async fn a_repeated_delete_never_removes_something_newer(subject: Subject<dyn Store>) -> Outcome {
    if !is_guarded(&subject) {
        return Ok(());
    }
    let mut delete = subject.delete_op("k");
    subject.put("k", json("1")).await?;
    delete.attempt = Attempt::Repeat;
    let error = subject.backend().write(delete, &subject.cx()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown);
    assert_value(subject.get("k").await?, &json("1"));
    Ok(())
}

async fn a_repeated_put_never_brings_back_what_was_deleted(subject: Subject<dyn Store>) -> Outcome {
    if !is_guarded(&subject) {
        return Ok(());
    }
    let mut write = subject.put_op("k", json("1"));
    subject.write(write.clone()).await?;
    subject.delete("k").await?;
    write.attempt = Attempt::Repeat;
    assert_kind(subject.write(write).await, ErrorKind::OutcomeUnknown);
    assert!(!subject.exists("k").await?);
    // A write of today is none of the delete's matter.
    subject.put("k", json("2")).await?;
    assert_value(subject.get("k").await?, &json("2"));
    Ok(())
}

async fn a_repeated_put_never_brings_back_what_was_cleared(subject: Subject<dyn Store>) -> Outcome {
    if !is_guarded(&subject) {
        return Ok(());
    }
    let mut write = subject.put_op("k", json("1"));
    subject.write(write.clone()).await?;
    subject.clear("").await?;
    write.attempt = Attempt::Repeat;
    assert_kind(subject.write(write).await, ErrorKind::OutcomeUnknown);
    assert!(subject.names("").await?.is_empty());
    Ok(())
}

async fn a_repeat_of_what_a_delete_followed_is_refused_in_a_batch(subject: Subject<dyn Store>) -> Outcome {
    if !is_guarded(&subject) {
        return Ok(());
    }
    let mut write = subject.put_op("k", json("1"));
    subject.write(write.clone()).await?;
    subject.write_all(vec![subject.delete_op("k")]).await?;
    write.attempt = Attempt::Repeat;
    let answers = subject.backend().write_many(vec![write, subject.put_op("b", json("2"))], &subject.cx()).await;
    let [repeated, other] = <[_; 2]>::try_from(answers).expect("one answer a write");
    assert_kind(repeated, ErrorKind::OutcomeUnknown);
    other?;
    assert_eq!(subject.exist(&["k", "b"]).await?, [false, true]);
    Ok(())
}

async fn a_repeat_in_a_batch_harms_no_other(subject: Subject<dyn Store>) -> Outcome {
    if !is_guarded(&subject) {
        return Ok(());
    }
    let mut behind = subject.put_op("a", json("1"));
    subject.put("a", json("2")).await?;
    behind.attempt = Attempt::Repeat;
    let batch = vec![behind, subject.put_op("b", json("3"))];
    let answers = subject.backend().write_many(batch, &subject.cx()).await;
    assert_eq!(answers[0].as_ref().unwrap_err().kind(), ErrorKind::OutcomeUnknown);
    assert!(answers[1].is_ok());
    assert_value(subject.get("a").await?, &json("2"));
    assert_value(subject.get("b").await?, &json("3"));
    Ok(())
}

async fn a_repeated_append_is_there_once(subject: Subject<dyn DatabaseBackend>) -> Outcome {
    let mut append = subject.append_op("list", json("1"));
    let first = subject.append_many(vec![append.clone()]).await?;
    append.attempt = Attempt::Repeat;
    let again = subject.append_many(vec![append]).await?;
    assert_eq!(first[0].position, again[0].position);
    assert_eq!(subject.backend().length(&subject.key("list"), &subject.cx()).await?, 1);
    Ok(())
}

async fn a_repeated_append_does_not_outlive_a_delete(subject: Subject<dyn DatabaseBackend>) -> Outcome {
    if !subject.backend().capabilities().stamp_guard {
        return Ok(());
    }
    let mut append = subject.append_op("list", json("1"));
    subject.append_many(vec![append.clone()]).await?;
    subject.delete("list").await?;
    append.attempt = Attempt::Repeat;
    let answers = subject.backend().append_many(vec![append], &subject.cx()).await;
    assert_eq!(answers[0].as_ref().unwrap_err().kind(), ErrorKind::OutcomeUnknown);
    assert_eq!(subject.backend().length(&subject.key("list"), &subject.cx()).await?, 0);
    Ok(())
}

async fn a_repeated_append_of_a_fast_clock_does_not_outlive_a_delete(subject: Subject<dyn DatabaseBackend>) -> Outcome {
    if !subject.backend().capabilities().stamp_guard {
        return Ok(());
    }
    let mut append = Append::new(subject.key("list"), json("1"), future_stamp(&subject));
    subject.append_many(vec![append.clone()]).await?;
    subject.write(Write::delete(subject.key("list"), subject.slow_clock().issue())).await?;
    append.attempt = Attempt::Repeat;
    let answers = subject.backend().append_many(vec![append], &subject.cx()).await;
    assert_eq!(answers[0].as_ref().unwrap_err().kind(), ErrorKind::OutcomeUnknown);
    assert_eq!(subject.length("list").await?, 0);
    Ok(())
}

async fn a_repeated_append_does_not_outlive_a_delete_that_found_no_list(
    subject: Subject<dyn DatabaseBackend>,
) -> Outcome {
    if !subject.backend().capabilities().stamp_guard {
        return Ok(());
    }
    let appends = ["nothing", "value"].map(|key| {
        let mut append = subject.append_op(key, json("1"));
        append.attempt = Attempt::Repeat;
        append
    });
    subject.put("value", json("1")).await?;
    for key in ["nothing", "value"] {
        subject.delete(key).await?;
    }
    subject.put("value", json("2")).await?;
    for answer in subject.backend().append_many(appends.into(), &subject.cx()).await {
        assert_kind(answer, ErrorKind::OutcomeUnknown);
    }
    assert_eq!(subject.names("").await?, ["value"]);
    Ok(())
}
