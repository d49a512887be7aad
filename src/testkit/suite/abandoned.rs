//! Callers that go away in the middle: nothing is left locked, half-written or stranded.

use std::time::Duration;

use super::tools::{abandon, assert_value, json};
use crate::contract::{Append, Context, DatabaseBackend, ListRange, Step, Store, WriteMode};
use crate::testkit::case::cases;
use crate::testkit::{Case, Failure, Outcome, Subject};

pub(super) fn store_cases() -> Vec<Case<dyn Store>> {
    cases!["abandoned":
        a_dropped_write_leaves_the_store_usable,
        a_dropped_write_is_whole_or_not_there,
        dropped_reads_leave_the_store_usable,
        many_dropped_calls_leave_the_store_usable,
    ]
}

pub(super) fn database_cases() -> Vec<Case<dyn DatabaseBackend>> {
    cases!["abandoned":
        a_dropped_transaction_is_applied_whole_or_not_at_all,
        a_dropped_append_is_there_once_or_not_at_all,
    ]
}

/// How long a write whose caller went away may take to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// How many times calls are polled before they are dropped.
const POLLS: [usize; 6] = [1, 2, 3, 5, 9, 40];

async fn a_dropped_write_leaves_the_store_usable(subject: Subject<dyn Store>) -> Outcome {
    for polls in POLLS {
        abandon(subject.put("k", json("1")), polls).await;
        abandon(subject.delete("k"), polls).await;
    }
    // What was dropped may still run, so that only a key of its own is certain.
    subject.put("other", json("2")).await?;
    assert_value(subject.get("other").await?, &json("2"));
    Ok(())
}

async fn a_dropped_write_is_whole_or_not_there(subject: Subject<dyn Store>) -> Outcome {
    let value = json(format!("\"{}\"", "x".repeat(20_000)));
    for (number, polls) in POLLS.into_iter().cycle().take(24).enumerate() {
        abandon(subject.put(&format!("k{number}"), value.clone()), polls).await;
    }
    for number in 0..24 {
        if let Some(read) = subject.get(&format!("k{number}")).await? {
            assert_value(Some(read), &value);
        }
    }
    Ok(())
}

async fn dropped_reads_leave_the_store_usable(subject: Subject<dyn Store>) -> Outcome {
    subject.put("k", json("1")).await?;
    for polls in POLLS {
        abandon(subject.get("k"), polls).await;
        abandon(subject.get_many(&["k", "x"]), polls).await;
        abandon(subject.exist(&["k"]), polls).await;
        abandon(subject.page("", 10, None), polls).await;
        abandon(subject.count(""), polls).await;
        abandon(subject.backend().ping(&subject.cx()), polls).await;
    }
    assert_value(subject.get("k").await?, &json("1"));
    Ok(())
}

async fn many_dropped_calls_leave_the_store_usable(subject: Subject<dyn Store>) -> Outcome {
    // More than any pool has connections: none of them may be stranded.
    for number in 0..200 {
        let polls = POLLS[number % POLLS.len()];
        let batch = (0..5).map(|item| subject.put_op(&format!("{number}:{item}"), json("1"))).collect();
        abandon(subject.write_many(batch), polls).await;
        abandon(subject.get("k"), polls).await;
    }
    for number in 0..30 {
        let key = format!("after:{number}");
        subject.write(subject.write_op(&key, json("1"), WriteMode::Create, None)).await?;
        assert_value(subject.get(&key).await?, &json("1"));
    }
    Ok(())
}

async fn a_dropped_transaction_is_applied_whole_or_not_at_all(subject: Subject<dyn DatabaseBackend>) -> Outcome {
    let rounds = POLLS.len() * 5;
    for (number, polls) in POLLS.into_iter().cycle().take(rounds).enumerate() {
        let put = |name: &str| Step::Write(subject.put_op(&format!("{name}{number}"), json("1")));
        let append = Step::Append(Append::new(subject.key(&format!("c{number}")), json("1"), subject.stamp()));
        abandon(subject.apply(vec![put("a"), put("b"), append]), polls).await;
    }
    let patience = Context::with_timeout(PATIENCE);
    for number in 0..rounds {
        let names = ["a", "b", "c"].map(|name| format!("{name}{number}"));
        // Read while it may still be applied, the three may differ; in the end they agree.
        loop {
            let there = subject.exist(&[&names[0], &names[1], &names[2]]).await?;
            if there.iter().all(|each| *each == there[0]) {
                break;
            }
            if patience.is_expired() {
                return Err(Failure::new(format!("transaction {number} was applied in part: {there:?}")));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    Ok(())
}

async fn a_dropped_append_is_there_once_or_not_at_all(subject: Subject<dyn DatabaseBackend>) -> Outcome {
    for (number, polls) in POLLS.into_iter().cycle().take(24).enumerate() {
        abandon(subject.append("list", json(number.to_string())), polls).await;
    }
    subject.append("list", json("\"last\"")).await?;
    let items = subject.items("list", ListRange::ALL).await?;
    let mut ids: Vec<&str> = items.iter().map(|item| item.id.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), items.len(), "no item twice");
    assert!(items.windows(2).all(|pair| pair[0].position < pair[1].position));
    Ok(())
}
