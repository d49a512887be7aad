//! Batches: order, duplicates, failures of single items, sizes.

use super::tools::{assert_conflict, assert_value, binary, json, peek, revised};
use crate::contract::{Store, Write, WriteMode, WriteOp};
use crate::testkit::case::cases;
use crate::testkit::{Case, Outcome, Subject};

pub(super) fn cases() -> Vec<Case<dyn Store>> {
    cases!["batches":
        an_empty_batch_is_a_no_op,
        get_many_answers_in_request_order,
        get_many_answers_duplicates,
        get_many_of_missing_keys_is_missing,
        write_many_answers_in_order,
        the_last_write_of_a_key_wins,
        a_later_delete_in_a_batch_wins,
        a_later_put_in_a_batch_wins,
        acks_of_a_batch_have_the_revisions_that_are_read,
        a_lost_condition_harms_no_other_item,
        the_second_create_in_a_batch_loses,
        create_after_delete_in_a_batch_works,
        create_after_put_in_a_batch_loses,
        the_second_update_of_a_revision_in_a_batch_loses,
        deletes_in_a_batch_say_what_existed,
        puts_in_a_batch_tell_the_truth_about_what_was_there,
        touch_in_a_batch_follows_its_put,
        operations_of_every_kind_share_a_batch,
        ten_thousand_writes_in_a_batch_work,
        a_batch_of_many_bytes_works,
        ten_thousand_writes_of_one_key_work,
        the_order_of_keys_in_a_batch_does_not_matter,
        thousands_of_conditions_share_a_batch,
        exists_answers_thousands_of_keys,
    ]
}

async fn an_empty_batch_is_a_no_op(subject: Subject<dyn Store>) -> Outcome {
    assert!(subject.write_many(Vec::new()).await.is_empty());
    assert!(subject.get_many(&[]).await?.is_empty());
    assert_eq!(subject.count("").await?, 0);
    Ok(())
}

async fn get_many_answers_in_request_order(subject: Subject<dyn Store>) -> Outcome {
    for (key, value) in [("a", "1"), ("b", "2"), ("c", "3")] {
        subject.put(key, json(value)).await?;
    }
    let read = subject.get_many(&["c", "x", "a", "b"]).await?;
    assert_eq!(read.into_iter().map(peek).collect::<Vec<_>>(), ["3", "(missing)", "1", "2"]);
    Ok(())
}

async fn get_many_answers_duplicates(subject: Subject<dyn Store>) -> Outcome {
    subject.put("a", json("1")).await?;
    let read = subject.get_many(&["a", "x", "a", "x", "a"]).await?;
    assert_eq!(read.into_iter().map(peek).collect::<Vec<_>>(), ["1", "(missing)", "1", "(missing)", "1"]);
    Ok(())
}

async fn get_many_of_missing_keys_is_missing(subject: Subject<dyn Store>) -> Outcome {
    let names: Vec<String> = (0..3000).map(|number| format!("missing:{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    assert!(subject.get_many(&names).await?.iter().all(Option::is_none));
    Ok(())
}

async fn write_many_answers_in_order(subject: Subject<dyn Store>) -> Outcome {
    subject.put("b", json("0")).await?;
    let create = |key| subject.write_op(key, json("1"), WriteMode::Create, None);
    let answers = subject.write_many(vec![create("c"), create("b"), create("a")]).await;
    assert_eq!(answers.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
    Ok(())
}

async fn the_last_write_of_a_key_wins(subject: Subject<dyn Store>) -> Outcome {
    let put = |key, value| subject.put_op(key, json(value));
    subject.write_all(vec![put("a", "1"), put("b", "2"), put("a", "3"), put("b", "4"), put("a", "5")]).await?;
    assert_value(subject.get("a").await?, &json("5"));
    assert_value(subject.get("b").await?, &json("4"));
    Ok(())
}

async fn a_later_delete_in_a_batch_wins(subject: Subject<dyn Store>) -> Outcome {
    let acks = subject.write_all(vec![subject.put_op("k", json("1")), subject.delete_op("k")]).await?;
    assert_eq!(acks[1].existed, Some(true));
    assert!(!subject.exists("k").await?);
    Ok(())
}

async fn a_later_put_in_a_batch_wins(subject: Subject<dyn Store>) -> Outcome {
    subject.put("k", json("0")).await?;
    let acks = subject.write_all(vec![subject.delete_op("k"), subject.put_op("k", json("1"))]).await?;
    assert_eq!(acks[0].existed, Some(true));
    assert_value(subject.get("k").await?, &json("1"));
    Ok(())
}

async fn acks_of_a_batch_have_the_revisions_that_are_read(subject: Subject<dyn Store>) -> Outcome {
    let names = ["b", "a", "d", "c"];
    let writes = names.iter().enumerate().map(|(at, name)| subject.put_op(name, json(at.to_string()))).collect();
    for (name, ack) in names.iter().zip(subject.write_all(writes).await?) {
        assert_eq!(revised(ack.revision)?, subject.revision(name).await?, "{name}");
    }
    Ok(())
}

async fn a_lost_condition_harms_no_other_item(subject: Subject<dyn Store>) -> Outcome {
    let old = revised(subject.put("taken", json("0")).await?.revision)?;
    subject.put("taken", json("1")).await?;
    let batch = vec![
        subject.put_op("a", json("1")),
        subject.write_op("taken", json("2"), WriteMode::Create, None),
        subject.put_op("b", json("1")),
        subject.write_op("taken", json("2"), WriteMode::Update(old), None),
        subject.write_op("never", json("2"), WriteMode::Update(old), None),
        subject.put_op("c", json("1")),
    ];
    let mut answers = subject.write_many(batch).await;
    for at in [4, 3, 1] {
        assert_conflict(answers.remove(at));
    }
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert_eq!(subject.names("").await?, ["a", "b", "c", "taken"]);
    assert_value(subject.get("taken").await?, &json("1"));
    Ok(())
}

async fn the_second_create_in_a_batch_loses(subject: Subject<dyn Store>) -> Outcome {
    let create = |value| subject.write_op("k", json(value), WriteMode::Create, None);
    let mut answers = subject.write_many(vec![create("1"), create("2"), create("1")]).await;
    assert_conflict(answers.pop().unwrap());
    assert_conflict(answers.pop().unwrap());
    answers.pop().unwrap()?;
    assert_value(subject.get("k").await?, &json("1"));
    Ok(())
}

async fn create_after_delete_in_a_batch_works(subject: Subject<dyn Store>) -> Outcome {
    subject.put("k", json("0")).await?;
    let delete = subject.delete_op("k");
    let create = subject.write_op("k", json("1"), WriteMode::Create, None);
    subject.write_all(vec![delete, create]).await?;
    assert_value(subject.get("k").await?, &json("1"));
    Ok(())
}

async fn create_after_put_in_a_batch_loses(subject: Subject<dyn Store>) -> Outcome {
    let put = subject.put_op("k", json("1"));
    let create = subject.write_op("k", json("2"), WriteMode::Create, None);
    let mut answers = subject.write_many(vec![put, create]).await;
    assert_conflict(answers.pop().unwrap());
    answers.pop().unwrap()?;
    assert_value(subject.get("k").await?, &json("1"));
    Ok(())
}

async fn the_second_update_of_a_revision_in_a_batch_loses(subject: Subject<dyn Store>) -> Outcome {
    let revision = revised(subject.put("k", json("0")).await?.revision)?;
    let update = |value| subject.write_op("k", json(value), WriteMode::Update(revision), None);
    let mut answers = subject.write_many(vec![update("1"), update("2")]).await;
    assert_conflict(answers.pop().unwrap());
    answers.pop().unwrap()?;
    assert_value(subject.get("k").await?, &json("1"));
    Ok(())
}

async fn deletes_in_a_batch_say_what_existed(subject: Subject<dyn Store>) -> Outcome {
    subject.write_all(vec![subject.put_op("a", json("1")), subject.put_op("b", json("1"))]).await?;
    let batch = ["a", "x", "b", "a"].map(|key| subject.delete_op(key)).into();
    let existed: Vec<_> = subject.write_all(batch).await?.iter().map(|ack| ack.existed).collect();
    assert_eq!(existed, [Some(true), Some(false), Some(true), Some(false)]);
    assert_eq!(subject.count("").await?, 0);
    Ok(())
}

async fn puts_in_a_batch_tell_the_truth_about_what_was_there(subject: Subject<dyn Store>) -> Outcome {
    subject.put("a", json("0")).await?;
    let batch = ["a", "b", "b"].map(|key| subject.put_op(key, json("1"))).into();
    let acks = subject.write_all(batch).await?;
    assert_ne!(acks[0].existed, Some(false));
    assert_ne!(acks[1].existed, Some(true));
    assert_ne!(acks[2].existed, Some(false));
    Ok(())
}

async fn touch_in_a_batch_follows_its_put(subject: Subject<dyn Store>) -> Outcome {
    let ttl = crate::Ttl::from_secs(3600)?;
    let put = subject.write_op("k", json("1"), WriteMode::Upsert, Some(ttl));
    let touch = Write::new(subject.key("k"), WriteOp::Touch { ttl: None }, subject.stamp());
    let acks = subject.write_all(vec![put, touch]).await?;
    assert_eq!(subject.entry("k").await?.expiry, crate::contract::Expiry::Never);
    assert_eq!(revised(acks[1].revision)?, subject.revision("k").await?);
    Ok(())
}

async fn operations_of_every_kind_share_a_batch(subject: Subject<dyn Store>) -> Outcome {
    let mut revisions = Vec::new();
    for key in ["update", "delete", "touch", "put"] {
        revisions.push(revised(subject.put(key, json("0")).await?.revision)?);
    }
    let batch = vec![
        subject.put_op("put", json("1")),
        subject.write_op("create", json("1"), WriteMode::Create, None),
        subject.write_op("update", json("1"), WriteMode::Update(revisions[0]), None),
        subject.delete_op("delete"),
        Write::new(subject.key("touch"), WriteOp::Touch { ttl: None }, subject.stamp()),
        Write::new(subject.key("absent"), WriteOp::Touch { ttl: None }, subject.stamp()),
    ];
    subject.write_all(batch).await?;
    assert_eq!(subject.names("").await?, ["create", "put", "touch", "update"]);
    let read = subject.get_many(&["put", "create", "update", "touch"]).await?;
    assert_eq!(read.into_iter().map(peek).collect::<Vec<_>>(), ["1", "1", "1", "0"]);
    Ok(())
}

async fn ten_thousand_writes_in_a_batch_work(subject: Subject<dyn Store>) -> Outcome {
    let names: Vec<String> = (0..10_000).map(|number| format!("k:{number}")).collect();
    let value = |number: usize| json(format!("{{\"n\":{number}}}"));
    let writes = names.iter().enumerate().map(|(number, name)| subject.put_op(name, value(number))).collect();
    subject.write_all(writes).await?;
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for (number, read) in subject.get_many(&names).await?.into_iter().enumerate() {
        assert_value(read, &value(number));
    }
    assert_eq!(subject.count("k:").await?, 10_000);
    let deletes = names.iter().map(|name| subject.delete_op(name)).collect();
    assert!(subject.write_all(deletes).await?.iter().all(|ack| ack.existed == Some(true)));
    assert_eq!(subject.count("").await?, 0);
    Ok(())
}

async fn a_batch_of_many_bytes_works(subject: Subject<dyn Store>) -> Outcome {
    let size = subject.backend().capabilities().max_value_bytes.min(500_000);
    let names: Vec<String> = (0..40).map(|number| format!("k{number}")).collect();
    let value = |number: usize| binary(vec![number as u8; size]);
    let writes = names.iter().enumerate().map(|(number, name)| subject.put_op(name, value(number))).collect();
    subject.write_all(writes).await?;
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for (number, read) in subject.get_many(&names).await?.into_iter().enumerate() {
        assert_value(read, &value(number));
    }
    Ok(())
}

async fn ten_thousand_writes_of_one_key_work(subject: Subject<dyn Store>) -> Outcome {
    let writes = (0..10_000).map(|number| subject.put_op("k", json(number.to_string()))).collect();
    let acks = subject.write_all(writes).await?;
    assert_value(subject.get("k").await?, &json("9999"));
    assert_eq!(acks[9999].revision, Some(subject.revision("k").await?));
    Ok(())
}

async fn the_order_of_keys_in_a_batch_does_not_matter(subject: Subject<dyn Store>) -> Outcome {
    let mut names: Vec<String> = (0..200).map(|number| format!("k{number:03}")).collect();
    for _ in 0..2 {
        names.reverse();
        let writes = names.iter().map(|name| subject.put_op(name, json(format!("\"{name}\"")))).collect();
        subject.write_all(writes).await?;
        for name in &names {
            assert_eq!(peek(subject.get(name).await?), format!("\"{name}\""));
        }
    }
    Ok(())
}

async fn thousands_of_conditions_share_a_batch(subject: Subject<dyn Store>) -> Outcome {
    let names: Vec<String> = (0..3000).map(|number| format!("k{number:04}")).collect();
    let create = |name: &String| subject.write_op(name, json("1"), WriteMode::Create, None);
    let every_third: Vec<Write> = names.iter().step_by(3).map(create).collect();
    let first = subject.write_all(every_third).await?;
    for (number, answer) in subject.write_many(names.iter().map(create).collect()).await.into_iter().enumerate() {
        if number % 3 == 0 {
            assert_conflict(answer);
        } else {
            answer?;
        }
    }
    let updates = names.iter().step_by(3).zip(first).map(|(name, ack)| {
        let revision = ack.revision.expect("a put has a revision");
        subject.write_op(name, json("2"), WriteMode::Update(revision), None)
    });
    subject.write_all(updates.collect()).await?;
    assert_eq!(subject.get_many(&[&names[0], &names[1]]).await?, [Some(json("2")), Some(json("1"))]);
    assert_eq!(subject.count("").await?, 3000);
    Ok(())
}

async fn exists_answers_thousands_of_keys(subject: Subject<dyn Store>) -> Outcome {
    let names: Vec<String> = (0..3000).map(|number| format!("k{number}")).collect();
    subject.write_all(names.iter().step_by(2).map(|name| subject.put_op(name, json("1"))).collect()).await?;
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let exist = subject.exist(&names).await?;
    assert!(exist.into_iter().enumerate().all(|(number, exists)| exists == (number % 2 == 0)));
    Ok(())
}
