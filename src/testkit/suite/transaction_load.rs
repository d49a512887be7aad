//! Transactions of many steps and many writers, and steps over the limits.

use super::tools::{assert_kind, json, together};
use crate::contract::{Context, DatabaseBackend, Entry, RevisionKind, Step, WriteMode};
use crate::testkit::case::cases;
use crate::testkit::{Case, Failure, Outcome, Subject};
use crate::{ErrorKind, Value};

type Database = Subject<dyn DatabaseBackend>;

pub(super) fn cases() -> Vec<Case<dyn DatabaseBackend>> {
    cases!["transaction_load":
        a_value_over_the_limit_undoes_everything,
        an_expired_deadline_applies_no_transaction,
        a_transaction_of_many_steps_works,
        transactions_in_opposite_order_do_not_block,
        concurrent_transfers_keep_the_sum,
    ]
}

async fn a_value_over_the_limit_undoes_everything(subject: Database) -> Outcome {
    let limit = subject.backend().capabilities().max_value_bytes;
    if limit < Value::MAX_BYTES {
        let large = Step::Write(subject.put_op("large", Value::binary(vec![0; limit + 1])?));
        assert_kind(subject.apply(vec![subject.put_step("small", "1"), large]).await, ErrorKind::TooLarge);
        assert!(subject.names("").await?.is_empty());
    }
    Ok(())
}

async fn an_expired_deadline_applies_no_transaction(subject: Database) -> Outcome {
    let late = Context::with_timeout(std::time::Duration::ZERO);
    let steps = vec![subject.put_step("k", "1"), subject.append_step("list", "1")];
    assert_kind(subject.backend().apply(steps, &late).await, ErrorKind::Unavailable);
    assert!(subject.names("").await?.is_empty());
    Ok(())
}

async fn a_transaction_of_many_steps_works(subject: Database) -> Outcome {
    let steps = (0..1000).map(|number| {
        let key = format!("k{:03}", number / 2);
        if number % 2 == 0 { subject.put_step(&key, &number.to_string()) } else { subject.append_step(&key, "1") }
    });
    assert_eq!(subject.apply(steps.collect()).await?.len(), 1000);
    assert_eq!(subject.count("k").await?, 500);
    assert_eq!(subject.length("k499").await?, 1);
    Ok(())
}

async fn transactions_in_opposite_order_do_not_block(subject: Database) -> Outcome {
    together((0..16).map(|writer: usize| {
        let subject = subject.clone();
        async move {
            for round in 0..5 {
                let value = format!("[{writer},{round}]");
                let keys = if writer.is_multiple_of(2) { ["a", "b"] } else { ["b", "a"] };
                let mut steps: Vec<Step> = keys.iter().map(|key| subject.put_step(key, &value)).collect();
                steps.extend(keys.iter().map(|key| subject.append_step(key, &value)));
                subject.apply(steps).await?;
            }
            Ok(())
        }
    }))
    .await?;
    let read = subject.get_many(&["a", "b"]).await?;
    assert_eq!(read[0], read[1], "the last transaction wrote both");
    let (first, second) = (subject.range("a", 0, -1).await?, subject.range("b", 0, -1).await?);
    assert_eq!(first.len(), 80);
    assert_eq!(first, second, "both lists are in the order of the transactions");
    Ok(())
}

/// Moves one from an account to another, unless somebody else changed one of them meanwhile.
async fn transfer(subject: &Database, from: &str, to: &str) -> Result<bool, Failure> {
    let (source, target) = (subject.entry(from).await?, subject.entry(to).await?);
    let step = |key: &str, entry: &Entry, by: i64| {
        let balance = entry.value.to_integer().unwrap_or_default() + by;
        let mode = WriteMode::Update(entry.revision);
        Step::Write(subject.write_op(key, Value::from_integer(balance), mode, None))
    };
    match subject.apply(vec![step(from, &source, -1), step(to, &target, 1)]).await {
        Ok(_) => Ok(true),
        Err(error) if error.is_conflict() => Ok(false),
        Err(error) => Err(error.into()),
    }
}

async fn concurrent_transfers_keep_the_sum(subject: Database) -> Outcome {
    assert_ne!(subject.backend().capabilities().revision, RevisionKind::Digest, "a database's revisions are unique");
    for account in ["a", "b", "c"] {
        subject.put(account, json("100")).await?;
    }
    together((0..6).map(|writer: usize| {
        let subject = subject.clone();
        async move {
            let (from, to) = [("a", "b"), ("b", "c"), ("c", "a"), ("b", "a"), ("c", "b"), ("a", "c")][writer];
            let mut done = 0;
            while done < 5 {
                done += u32::from(transfer(&subject, from, to).await?);
            }
            Ok(())
        }
    }))
    .await?;
    let balances = subject.get_many(&["a", "b", "c"]).await?;
    let sum: i64 = balances.into_iter().flatten().filter_map(|value| value.to_integer()).sum();
    assert_eq!(sum, 300);
    Ok(())
}
