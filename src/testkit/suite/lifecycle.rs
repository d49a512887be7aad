//! Ping and close.

use super::tools::{assert_kind, json};
use crate::contract::{
    Append, CacheBackend, DatabaseBackend, GetOptions, IncrementOptions, ListOptions, ListRange, ReplayOptions, Step,
    Store,
};
use crate::testkit::case::cases;
use crate::testkit::{Case, Outcome, Subject};
use crate::{ErrorKind, Stamp};

pub(super) fn cases() -> Vec<Case<dyn Store>> {
    cases!["lifecycle":
        a_ping_is_answered,
        a_ping_leaves_no_key,
        after_close_every_call_is_closed,
        closing_twice_is_no_error,
        closing_at_once_from_several_callers_is_no_error,
        close_waits_for_calls_in_flight,
        a_store_that_was_never_used_can_be_closed,
        debug_shows_no_value,
    ]
}

pub(super) fn cache_cases() -> Vec<Case<dyn CacheBackend>> {
    cases!["lifecycle": a_closed_cache_does_not_count]
}

pub(super) fn database_cases() -> Vec<Case<dyn DatabaseBackend>> {
    cases!["lifecycle": a_closed_database_has_no_lists_and_transactions]
}

async fn a_ping_is_answered(subject: Subject<dyn Store>) -> Outcome {
    subject.backend().ping(&subject.cx()).await?;
    Ok(())
}

async fn a_ping_leaves_no_key(subject: Subject<dyn Store>) -> Outcome {
    for _ in 0..3 {
        subject.backend().ping(&subject.cx()).await?;
    }
    assert!(subject.names("").await?.is_empty());
    assert_eq!(subject.count("").await?, 0);
    Ok(())
}

async fn after_close_every_call_is_closed(subject: Subject<dyn Store>) -> Outcome {
    subject.put("k", json("1")).await?;
    let (store, cx, key) = (subject.backend(), subject.cx(), subject.key("k"));
    store.close(&cx).await?;
    let closed = ErrorKind::Closed;
    assert_kind(store.get(&key, &GetOptions::default(), &cx).await, closed);
    let answers = store.get_many(&[key.clone(), key.clone()], &GetOptions::default(), &cx).await;
    assert_eq!(answers.len(), 2);
    answers.into_iter().for_each(|answer| assert_kind(answer, closed));
    store.exists(&[key], &cx).await.into_iter().for_each(|answer| assert_kind(answer, closed));
    assert_kind(subject.put("k", json("2")).await, closed);
    assert_kind(subject.delete("k").await, closed);
    let answers = subject.write_many(vec![subject.put_op("a", json("1")), subject.delete_op("k")]).await;
    assert_eq!(answers.len(), 2);
    answers.into_iter().for_each(|answer| assert_kind(answer, closed));
    assert_kind(store.list(&subject.prefix(""), &ListOptions::default(), &cx).await, closed);
    assert_kind(store.count(&subject.prefix(""), &cx).await, closed);
    assert_kind(subject.clear("").await, closed);
    assert_kind(store.ping(&cx).await, closed);
    Ok(())
}

async fn closing_twice_is_no_error(subject: Subject<dyn Store>) -> Outcome {
    subject.put("k", json("1")).await?;
    for _ in 0..3 {
        subject.backend().close(&subject.cx()).await?;
    }
    assert_kind(subject.get("k").await, ErrorKind::Closed);
    Ok(())
}

async fn closing_at_once_from_several_callers_is_no_error(subject: Subject<dyn Store>) -> Outcome {
    subject.put("k", json("1")).await?;
    let cx = subject.cx();
    let closes = (0..4).map(|_| subject.backend().close(&cx));
    for closed in futures_util::future::join_all(closes).await {
        closed?;
    }
    Ok(())
}

async fn close_waits_for_calls_in_flight(subject: Subject<dyn Store>) -> Outcome {
    let writes: Vec<_> = (0..32)
        .map(|number| {
            let subject = subject.clone();
            tokio::spawn(async move { subject.put(&format!("k{number}"), json("1")).await })
        })
        .collect();
    tokio::task::yield_now().await;
    subject.backend().close(&subject.cx()).await?;
    for write in writes {
        // A call came before the close or after it; none is torn.
        match write.await.expect("a call does not panic") {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::Closed, "{error}"),
        }
    }
    Ok(())
}

async fn a_store_that_was_never_used_can_be_closed(subject: Subject<dyn Store>) -> Outcome {
    subject.backend().close(&subject.cx()).await?;
    assert_kind(subject.get("k").await, ErrorKind::Closed);
    Ok(())
}

async fn debug_shows_no_value(subject: Subject<dyn Store>) -> Outcome {
    subject.put("k", json("\"a-secret-value\"")).await?;
    assert!(!format!("{:?}", subject.backend()).contains("a-secret-value"));
    Ok(())
}

async fn a_closed_cache_does_not_count(subject: Subject<dyn CacheBackend>) -> Outcome {
    let (cache, cx) = (subject.backend(), subject.cx());
    cache.close(&cx).await?;
    let answer = cache.increment(&subject.key("k"), 1, &IncrementOptions::default(), &cx).await;
    assert_kind(answer, ErrorKind::Closed);
    Ok(())
}

async fn a_closed_database_has_no_lists_and_transactions(subject: Subject<dyn DatabaseBackend>) -> Outcome {
    subject.append("list", json("1")).await?;
    let (database, cx, key) = (subject.backend(), subject.cx(), subject.key("list"));
    database.close(&cx).await?;
    let closed = ErrorKind::Closed;
    let items = vec![subject.append_op("list", json("1")), subject.append_op("list", json("2"))];
    let answers = database.append_many(items, &cx).await;
    assert_eq!(answers.len(), 2);
    answers.into_iter().for_each(|answer| assert_kind(answer, closed));
    assert_kind(database.range(&key, ListRange::ALL, &cx).await, closed);
    assert_kind(database.length(&key, &cx).await, closed);
    assert_kind(database.trim(&key, 1, &cx).await, closed);
    let step = Step::Append(Append::new(key, json("1"), subject.stamp()));
    assert_kind(database.apply(vec![step.clone()], &cx).await, closed);
    assert_kind(database.identity(&cx).await, closed);
    for answer in database.replay(vec![step], &ReplayOptions::new(Stamp::MIN), &cx).await {
        let kind = answer.map_err(|error| error.kind());
        assert!(matches!(kind, Err(ErrorKind::Closed | ErrorKind::Unsupported)), "{kind:?}");
    }
    Ok(())
}
