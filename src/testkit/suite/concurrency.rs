//! Many callers at the same time.

use super::tools::{Task, assert_value, json, peek, revised, together};
use crate::contract::{Store, WriteMode};
use crate::testkit::case::cases;
use crate::testkit::{Case, Failure, Outcome, Subject};
use crate::{Error, Value};

pub(super) fn cases() -> Vec<Case<dyn Store>> {
    cases!["concurrency":
        of_concurrent_creates_exactly_one_wins,
        of_concurrent_creates_in_batches_exactly_one_wins,
        of_concurrent_updates_exactly_one_wins,
        of_concurrent_deletes_exactly_one_finds_the_key,
        compare_and_set_loops_lose_no_update,
        a_value_read_never_goes_back,
        each_writer_reads_its_own_acknowledged_write,
        batches_of_the_same_keys_in_opposite_order_do_not_block,
        writes_of_different_keys_do_not_disturb_each_other,
        a_value_is_never_torn,
        create_and_delete_keep_a_lock,
        readers_and_writers_share_the_store,
    ]
}

fn number(value: Option<Value>) -> i64 {
    value.and_then(|value| value.to_integer()).unwrap_or(-1)
}

/// Counts the answers that are a success; any error but a conflict fails the case.
fn won<T>(answers: Vec<Result<T, Error>>) -> Result<usize, Failure> {
    let mut winners = 0;
    for answer in answers {
        match answer {
            Ok(_) => winners += 1,
            Err(error) if error.is_conflict() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(winners)
}

/// Adds one to a number by compare-and-set until it was not lost.
async fn add_one(subject: &Subject<dyn Store>, key: &str) -> Outcome {
    for _ in 0..10_000 {
        let entry = subject.entry(key).await?;
        let next = Value::from_integer(number(Some(entry.value)) + 1);
        match subject.update(key, next, entry.revision).await {
            Ok(_) => return Ok(()),
            Err(error) if error.is_conflict() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Failure::new("an update was lost ten thousand times"))
}

async fn of_concurrent_creates_exactly_one_wins(subject: Subject<dyn Store>) -> Outcome {
    for round in 0..5 {
        let key = format!("k{round}");
        let creates = (0..32).map(|writer| subject.create(&key, json(writer.to_string())));
        let answers = futures_util::future::join_all(creates).await;
        let winner = answers.iter().position(Result::is_ok);
        assert_eq!(won(answers)?, 1);
        assert_eq!(Some(peek(subject.get(&key).await?)), winner.map(|winner| winner.to_string()));
    }
    Ok(())
}

async fn of_concurrent_creates_in_batches_exactly_one_wins(subject: Subject<dyn Store>) -> Outcome {
    let batches = (0..8).map(|writer| {
        let create = |key| subject.write_op(key, json(writer.to_string()), WriteMode::Create, None);
        let keys = if writer % 2 == 0 { ["a", "b", "c"] } else { ["c", "b", "a"] };
        subject.write_many(keys.map(create).into())
    });
    let answers: Vec<_> = futures_util::future::join_all(batches).await.into_iter().flatten().collect();
    assert_eq!(won(answers)?, 3);
    Ok(())
}

async fn of_concurrent_updates_exactly_one_wins(subject: Subject<dyn Store>) -> Outcome {
    let seen = revised(subject.put("k", json("-1")).await?.revision)?;
    let updates = (0..32).map(|writer| subject.update("k", json(writer.to_string()), seen));
    assert_eq!(won(futures_util::future::join_all(updates).await)?, 1);
    Ok(())
}

async fn of_concurrent_deletes_exactly_one_finds_the_key(subject: Subject<dyn Store>) -> Outcome {
    for _ in 0..5 {
        subject.put("k", json("1")).await?;
        let deletes = (0..16).map(|_| subject.delete("k"));
        let mut found = 0;
        for answer in futures_util::future::join_all(deletes).await {
            found += usize::from(answer?.existed == Some(true));
        }
        assert_eq!(found, 1);
    }
    Ok(())
}

async fn compare_and_set_loops_lose_no_update(subject: Subject<dyn Store>) -> Outcome {
    subject.put("k", json("0")).await?;
    together((0..8).map(|_| {
        let subject = subject.clone();
        async move {
            for _ in 0..10 {
                add_one(&subject, "k").await?;
            }
            Ok(())
        }
    }))
    .await?;
    assert_value(subject.get("k").await?, &json("80"));
    Ok(())
}

async fn a_value_read_never_goes_back(subject: Subject<dyn Store>) -> Outcome {
    subject.put("k", json("0")).await?;
    let mut tasks: Vec<Task> = Vec::new();
    for _ in 0..2 {
        let writer = subject.clone();
        tasks.push(Box::pin(async move {
            for _ in 0..40 {
                add_one(&writer, "k").await?;
            }
            Ok(())
        }));
    }
    for many in [false, true] {
        let reader = subject.clone();
        tasks.push(Box::pin(async move {
            let mut last = 0;
            for _ in 0..200 {
                let read = if many { reader.get_many(&["k"]).await?.remove(0) } else { reader.get("k").await? };
                let now = number(read);
                assert!(now >= last, "read {now} after {last}");
                last = now;
            }
            Ok(())
        }));
    }
    together(tasks).await
}

async fn each_writer_reads_its_own_acknowledged_write(subject: Subject<dyn Store>) -> Outcome {
    together((0..16).map(|writer| {
        let subject = subject.clone();
        async move {
            let key = format!("k{writer}");
            for round in 0..20 {
                let value = json(format!("[{writer},{round}]"));
                let ack = subject.put(&key, value.clone()).await?;
                let entry = subject.entry(&key).await?;
                assert_value(Some(entry.value), &value);
                assert_eq!(ack.revision, Some(entry.revision));
                if round % 7 == 6 {
                    assert_eq!(subject.delete(&key).await?.existed, Some(true));
                    assert!(!subject.exists(&key).await?);
                }
            }
            Ok(())
        }
    }))
    .await
}

async fn batches_of_the_same_keys_in_opposite_order_do_not_block(subject: Subject<dyn Store>) -> Outcome {
    let names: Vec<String> = (0..50).map(|number| format!("k{number}")).collect();
    together((0..8).map(|writer| {
        let (subject, mut names) = (subject.clone(), names.clone());
        async move {
            if writer % 2 == 0 {
                names.reverse();
            }
            for _ in 0..10 {
                let writes = names.iter().map(|name| subject.put_op(name, json(writer.to_string()))).collect();
                subject.write_all(writes).await?;
            }
            Ok(())
        }
    }))
    .await?;
    assert_eq!(subject.count("k").await?, 50);
    Ok(())
}

async fn writes_of_different_keys_do_not_disturb_each_other(subject: Subject<dyn Store>) -> Outcome {
    together((0..64).map(|writer| {
        let subject = subject.clone();
        async move {
            subject.put(&format!("k{writer}"), json(writer.to_string())).await?;
            Ok(())
        }
    }))
    .await?;
    for writer in 0..64 {
        assert_eq!(peek(subject.get(&format!("k{writer}")).await?), writer.to_string());
    }
    Ok(())
}

async fn a_value_is_never_torn(subject: Subject<dyn Store>) -> Outcome {
    let value = |byte: u8| super::tools::binary(vec![byte; 1000 + usize::from(byte) * 997]);
    subject.put("k", value(0)).await?;
    let mut tasks: Vec<Task> = Vec::new();
    for writer in 0..4 {
        let subject = subject.clone();
        tasks.push(Box::pin(async move {
            for round in 0..10 {
                subject.put("k", value(writer * 10 + round)).await?;
            }
            Ok(())
        }));
    }
    tasks.push(Box::pin(async move {
        for _ in 0..60 {
            let read = subject.get("k").await?;
            let byte = read.as_ref().and_then(|value| value.as_bytes().first().copied()).unwrap_or_default();
            assert_value(read, &value(byte));
        }
        Ok(())
    }));
    together(tasks).await
}

async fn create_and_delete_keep_a_lock(subject: Subject<dyn Store>) -> Outcome {
    let holders = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    together((0..8).map(|owner| {
        let (subject, holders) = (subject.clone(), holders.clone());
        async move {
            let mut held = 0;
            while held < 5 {
                match subject.create("lock", json(owner.to_string())).await {
                    Ok(_) => {
                        let others = holders.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                        assert_eq!(others, 0, "two hold the lock");
                        tokio::task::yield_now().await;
                        holders.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                        assert_eq!(subject.delete("lock").await?.existed, Some(true));
                        held += 1;
                    }
                    Err(error) if error.is_conflict() => tokio::task::yield_now().await,
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(())
        }
    }))
    .await
}

async fn readers_and_writers_share_the_store(subject: Subject<dyn Store>) -> Outcome {
    together((0..12).map(|task| {
        let subject = subject.clone();
        async move {
            for round in 0..15 {
                let key = format!("k{}", (task + round) % 5);
                match task % 6 {
                    0 => drop(subject.put(&key, json("1")).await?),
                    1 => drop(subject.delete(&key).await?),
                    2 => drop(subject.names("").await?),
                    3 => drop(subject.get_many(&[&key, "k0"]).await?),
                    4 => drop(subject.count("k").await?),
                    _ => drop(subject.clear(&key).await?),
                }
            }
            Ok(())
        }
    }))
    .await?;
    subject.put("k", json("1")).await?;
    assert_value(subject.get("k").await?, &json("1"));
    Ok(())
}
