//! The largest value, and deadlines that have passed.

use std::time::Duration;

use super::tools::{assert_kind, assert_value, binary, json};
use crate::contract::{Attempt, Context, GetOptions, ListOptions, Store};
use crate::testkit::case::cases;
use crate::testkit::{Case, Outcome, Subject};
use crate::{ErrorKind, Value};

pub(super) fn cases() -> Vec<Case<dyn Store>> {
    cases!["limits":
        the_largest_value_comes_back,
        a_value_over_the_limit_is_too_large,
        a_value_over_the_limit_harms_no_other_item,
        an_expired_deadline_ends_reads_at_once,
        an_expired_deadline_applies_no_write,
        an_expired_deadline_applies_no_batch,
        an_expired_deadline_clears_nothing,
        the_capabilities_need_no_connection_and_stay,
    ]
}

/// The largest value that the suite writes whole; larger limits are only looked at.
const LARGEST: usize = 8 << 20;

fn expired() -> Context {
    Context::with_timeout(Duration::ZERO)
}

async fn the_largest_value_comes_back(subject: Subject<dyn Store>) -> Outcome {
    let size = subject.backend().capabilities().max_value_bytes.min(LARGEST);
    for value in [binary(vec![0xA5; size]), json(format!("\"{}\"", "x".repeat(size - 2)))] {
        subject.put("k", value.clone()).await?;
        assert_value(subject.get("k").await?, &value);
    }
    Ok(())
}

async fn a_value_over_the_limit_is_too_large(subject: Subject<dyn Store>) -> Outcome {
    let limit = subject.backend().capabilities().max_value_bytes;
    if limit >= Value::MAX_BYTES {
        assert_kind(Value::binary(vec![0; Value::MAX_BYTES + 1]), ErrorKind::TooLarge);
        return Ok(());
    }
    subject.put("k", json("1")).await?;
    for value in [binary(vec![0; limit + 1]), json(format!("\"{}\"", "x".repeat(limit - 1)))] {
        assert_kind(subject.put("k", value.clone()).await, ErrorKind::TooLarge);
        assert_kind(subject.create("new", value).await, ErrorKind::TooLarge);
    }
    assert_value(subject.get("k").await?, &json("1"));
    assert!(!subject.exists("new").await?);
    Ok(())
}

async fn a_value_over_the_limit_harms_no_other_item(subject: Subject<dyn Store>) -> Outcome {
    let limit = subject.backend().capabilities().max_value_bytes;
    if limit < Value::MAX_BYTES {
        let values = [json("1"), binary(vec![0; limit + 1]), json("3")];
        let writes = ["a", "b", "c"].iter().zip(values).map(|(name, value)| subject.put_op(name, value)).collect();
        let mut answers = subject.write_many(writes).await;
        assert_kind(answers.remove(1), ErrorKind::TooLarge);
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    } else {
        subject.write_all(vec![subject.put_op("a", json("1")), subject.put_op("c", json("3"))]).await?;
    }
    assert_eq!(subject.names("").await?, ["a", "c"]);
    Ok(())
}

async fn an_expired_deadline_ends_reads_at_once(subject: Subject<dyn Store>) -> Outcome {
    subject.put("k", json("1")).await?;
    let (store, key, late) = (subject.backend(), subject.key("k"), expired());
    assert_kind(store.get(&key, &GetOptions::default(), &late).await, ErrorKind::Unavailable);
    for answer in store.get_many(&[key.clone(), key.clone()], &GetOptions::default(), &late).await {
        assert_kind(answer, ErrorKind::Unavailable);
    }
    for answer in store.exists(std::slice::from_ref(&key), &late).await {
        assert_kind(answer, ErrorKind::Unavailable);
    }
    assert_kind(store.list(&subject.prefix(""), &ListOptions::default(), &late).await, ErrorKind::Unavailable);
    assert_kind(store.count(&subject.prefix(""), &late).await, ErrorKind::Unavailable);
    assert_kind(store.ping(&late).await, ErrorKind::Unavailable);
    assert_value(subject.get("k").await?, &json("1"));
    Ok(())
}

async fn an_expired_deadline_applies_no_write(subject: Subject<dyn Store>) -> Outcome {
    subject.put("k", json("1")).await?;
    for write in [subject.put_op("k", json("2")), subject.put_op("new", json("2")), subject.delete_op("k")] {
        assert_kind(subject.backend().write(write, &expired()).await, ErrorKind::Unavailable);
    }
    assert_value(subject.get("k").await?, &json("1"));
    assert!(!subject.exists("new").await?);
    Ok(())
}

async fn an_expired_deadline_applies_no_batch(subject: Subject<dyn Store>) -> Outcome {
    let writes = ["a", "b", "a"].map(|name| subject.put_op(name, json("1"))).into();
    let answers = subject.backend().write_many(writes, &expired()).await;
    assert_eq!(answers.len(), 3);
    for answer in answers {
        assert_kind(answer, ErrorKind::Unavailable);
    }
    assert!(subject.names("").await?.is_empty());
    Ok(())
}

async fn an_expired_deadline_clears_nothing(subject: Subject<dyn Store>) -> Outcome {
    subject.put("k", json("1")).await?;
    let cleared = subject.backend().clear(&subject.prefix(""), subject.stamp(), Attempt::First, &expired()).await;
    assert_kind(cleared, ErrorKind::Unavailable);
    assert!(subject.exists("k").await?);
    Ok(())
}

async fn the_capabilities_need_no_connection_and_stay(subject: Subject<dyn Store>) -> Outcome {
    let before = subject.backend().capabilities();
    assert!(!before.backend.is_empty());
    assert!(before.max_value_bytes > 0 && before.max_value_bytes <= Value::MAX_BYTES);
    subject.put("k", json("1")).await?;
    subject.backend().close(&subject.cx()).await?;
    assert_eq!(subject.backend().capabilities(), before);
    Ok(())
}
