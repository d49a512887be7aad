//! Lists of many items and many writers, and items over the limits.

use super::tools::{assert_kind, binary, json, show, together};
use crate::contract::{DatabaseBackend, ItemId, ListRange};
use crate::testkit::case::cases;
use crate::testkit::{Case, Failure, Outcome, Subject};
use crate::{ErrorKind, Result, Value};

type Database = Subject<dyn DatabaseBackend>;

pub(super) fn cases() -> Vec<Case<dyn DatabaseBackend>> {
    cases!["list_load":
        ten_thousand_items_in_a_batch_work,
        concurrent_appenders_lose_nothing,
        concurrent_appends_of_one_id_add_it_once,
        concurrent_appenders_of_several_lists_do_not_block,
        concurrent_trims_and_appends_keep_the_last_items,
        concurrent_deletes_and_appends_leave_a_whole_list,
        an_item_over_the_limit_harms_no_other,
        an_expired_deadline_appends_nothing,
    ]
}

async fn ten_thousand_items_in_a_batch_work(subject: Database) -> Outcome {
    let acks = subject.append_numbers("list", 0..10_000).await?;
    assert!(acks.windows(2).all(|pair| pair[0].position < pair[1].position));
    assert_eq!(subject.length("list").await?, 10_000);
    assert_eq!(subject.range("list", -2, -1).await?, ["9998", "9999"]);
    assert_eq!(subject.range("list", 5000, 5001).await?, ["5000", "5001"]);
    assert_eq!(subject.range("list", 0, -1).await?.len(), 10_000);
    assert_eq!(subject.trim("list", 10).await?, 9990);
    assert_eq!(subject.range("list", 0, 0).await?, ["9990"]);
    Ok(())
}

async fn concurrent_appenders_lose_nothing(subject: Database) -> Outcome {
    together((0..64).map(|writer| {
        let subject = subject.clone();
        async move {
            for number in 0..5 {
                let ack = subject.append("list", json(format!("[{writer},{number}]"))).await?;
                assert_eq!(ack.existed, Some(false));
            }
            Ok(())
        }
    }))
    .await?;
    let items = subject.items("list", ListRange::ALL).await?;
    assert_eq!(items.len(), 320);
    assert!(items.windows(2).all(|pair| pair[0].position < pair[1].position));
    for writer in 0..64 {
        let own: Vec<String> = items
            .iter()
            .map(|item| show(&item.value))
            .filter(|shown| shown.starts_with(&format!("[{writer},")))
            .collect();
        let expected: Vec<String> = (0..5).map(|number| format!("[{writer},{number}]")).collect();
        assert_eq!(own, expected, "the order of writer {writer}");
    }
    Ok(())
}

async fn concurrent_appends_of_one_id_add_it_once(subject: Database) -> Outcome {
    let id = ItemId::parse("m")?;
    let appends = (0..16).map(|_| subject.append_item(subject.append_op("list", json("1")).with_item_id(id.clone())));
    let acks = futures_util::future::join_all(appends).await.into_iter().collect::<Result<Vec<_>, Failure>>()?;
    assert_eq!(acks.iter().filter(|ack| ack.existed == Some(false)).count(), 1);
    assert!(acks.iter().all(|ack| ack.position == Some(0)), "{acks:?}");
    assert_eq!(subject.length("list").await?, 1);
    Ok(())
}

async fn concurrent_appenders_of_several_lists_do_not_block(subject: Database) -> Outcome {
    together((0..8).map(|writer| {
        let subject = subject.clone();
        async move {
            for _ in 0..10 {
                let mut keys = ["a", "b", "c"];
                keys.rotate_left(writer % 3);
                subject.append_many(keys.map(|key| subject.append_op(key, json("1"))).into()).await?;
            }
            Ok(())
        }
    }))
    .await?;
    for key in ["a", "b", "c"] {
        assert_eq!(subject.length(key).await?, 80);
    }
    Ok(())
}

async fn an_item_over_the_limit_harms_no_other(subject: Database) -> Outcome {
    let limit = subject.backend().capabilities().max_value_bytes;
    if limit < Value::MAX_BYTES {
        let values = [json("1"), binary(vec![0; limit + 1]), json("3")];
        let items = values.into_iter().map(|value| subject.append_op("list", value)).collect();
        let mut answers = subject.backend().append_many(items, &subject.cx()).await;
        assert_kind(answers.remove(1), ErrorKind::TooLarge);
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    } else {
        subject.append_many(vec![subject.append_op("list", json("1")), subject.append_op("list", json("3"))]).await?;
    }
    assert_eq!(subject.range("list", 0, -1).await?, ["1", "3"]);
    Ok(())
}

async fn an_expired_deadline_appends_nothing(subject: Database) -> Outcome {
    let late = crate::contract::Context::with_timeout(std::time::Duration::ZERO);
    let (database, key) = (subject.backend(), subject.key("list"));
    for answer in database.append_many(vec![subject.append_op("list", json("1"))], &late).await {
        assert_kind(answer, ErrorKind::Unavailable);
    }
    assert_kind(database.length(&key, &late).await, ErrorKind::Unavailable);
    assert_kind(database.range(&key, ListRange::ALL, &late).await, ErrorKind::Unavailable);
    assert_kind(database.trim(&key, 0, &late).await, ErrorKind::Unavailable);
    assert_eq!(subject.length("list").await?, 0);
    Ok(())
}

async fn concurrent_trims_and_appends_keep_the_last_items(subject: Database) -> Outcome {
    together((0..8).map(|task| {
        let subject = subject.clone();
        async move {
            for number in 0..10 {
                if task < 6 {
                    subject.append("list", json(format!("[{task},{number}]"))).await?;
                } else {
                    subject.trim("list", 5).await?;
                }
            }
            Ok(())
        }
    }))
    .await?;
    let newest = subject.append("list", json("\"last\"")).await?;
    let kept = subject.trim("list", 5).await?;
    let items = subject.items("list", ListRange::ALL).await?;
    assert_eq!(items.len(), 5, "{kept} went");
    assert_eq!(items.last().map(|item| item.position), newest.position);
    assert!(items.windows(2).all(|pair| pair[0].position < pair[1].position));
    Ok(())
}

async fn concurrent_deletes_and_appends_leave_a_whole_list(subject: Database) -> Outcome {
    together((0..8).map(|task| {
        let subject = subject.clone();
        async move {
            for number in 0..10 {
                if task < 6 {
                    subject.append("list", json(format!("[{task},{number}]"))).await?;
                } else {
                    subject.delete("list").await?;
                }
            }
            Ok(())
        }
    }))
    .await?;
    let items = subject.items("list", ListRange::ALL).await?;
    assert_eq!(subject.length("list").await?, items.len() as u64);
    assert!(items.windows(2).all(|pair| pair[0].position < pair[1].position));
    assert_eq!(subject.exists("list").await?, !items.is_empty());
    subject.delete("list").await?;
    assert_eq!(subject.length("list").await?, 0);
    Ok(())
}
