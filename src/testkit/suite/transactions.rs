//! `apply`: steps in order, all or nothing.

use super::tools::{assert_conflict, assert_kind, assert_value, json, revised, together};
use crate::contract::{DatabaseBackend, RevisionKind, Step, StepAck, Write, WriteMode, WriteOp};
use crate::testkit::case::cases;
use crate::testkit::{Case, Outcome, Subject};
use crate::{ErrorKind, Result, Value};

type Database = Subject<dyn DatabaseBackend>;

pub(super) fn cases() -> Vec<Case<dyn DatabaseBackend>> {
    cases!["transactions":
        transactions_agree_with_the_capabilities,
        an_empty_transaction_is_a_no_op,
        a_transaction_applies_all_its_steps,
        a_conflict_at_the_end_undoes_everything,
        a_conflict_at_the_beginning_applies_nothing,
        a_failed_transaction_gives_the_error_of_its_step,
        steps_of_one_key_run_in_order,
        the_last_of_several_puts_wins,
        a_create_after_a_delete_in_a_transaction_works,
        a_create_after_a_put_in_a_transaction_loses,
        conditions_see_earlier_steps,
        values_and_lists_change_together,
        a_failed_transaction_leaves_lists_as_they_were,
        a_failed_transaction_uses_no_position_twice,
        an_item_of_the_same_id_in_a_transaction_is_added_once,
        a_trim_in_a_transaction_counts,
        a_delete_in_a_transaction_removes_value_and_list,
        an_append_after_a_delete_in_a_transaction_is_there,
        a_touch_of_a_missing_key_fails_no_transaction,
        acks_have_the_revisions_that_are_read,
        a_transaction_by_a_slow_clock_is_visible,
        a_clear_in_a_transaction_is_unsupported,
        a_value_over_the_limit_undoes_everything,
        an_expired_deadline_applies_no_transaction,
        a_transaction_of_many_steps_works,
        transactions_in_opposite_order_do_not_block,
        concurrent_transfers_keep_the_sum,
    ]
}

fn put(subject: &Database, key: &str, value: &str) -> Step {
    Step::Write(subject.put_op(key, json(value)))
}

fn create(subject: &Database, key: &str, value: &str) -> Step {
    Step::Write(subject.write_op(key, json(value), WriteMode::Create, None))
}

fn append(subject: &Database, key: &str, value: &str) -> Step {
    Step::Append(subject.append_op(key, json(value)))
}

fn delete(subject: &Database, key: &str) -> Step {
    Step::Write(subject.delete_op(key))
}

fn trim(subject: &Database, key: &str, keep_last: u64) -> Step {
    Step::Trim { key: subject.key(key), keep_last }
}

async fn transactions_agree_with_the_capabilities(subject: Database) -> Outcome {
    let applied = subject.apply(vec![put(&subject, "k", "1")]).await;
    if subject.backend().capabilities().transactions {
        assert_eq!(applied?.len(), 1);
    } else {
        assert_kind(applied, ErrorKind::Unsupported);
        assert!(!subject.exists("k").await?);
    }
    Ok(())
}

async fn an_empty_transaction_is_a_no_op(subject: Database) -> Outcome {
    assert!(subject.apply(Vec::new()).await?.is_empty());
    Ok(())
}

async fn a_transaction_applies_all_its_steps(subject: Database) -> Outcome {
    subject.put("gone", json("0")).await?;
    let steps = vec![put(&subject, "b", "1"), create(&subject, "a", "2"), delete(&subject, "gone")];
    let acks = subject.apply(steps).await?;
    assert_eq!(acks.len(), 3);
    let StepAck::Write(deleted) = acks[2] else { panic!("{:?}", acks[2]) };
    assert_eq!(deleted.existed, Some(true));
    assert_eq!(subject.names("").await?, ["a", "b"]);
    Ok(())
}

async fn a_conflict_at_the_end_undoes_everything(subject: Database) -> Outcome {
    subject.put("taken", json("0")).await?;
    subject.put("changed", json("0")).await?;
    let before = subject.entry("changed").await?;
    let steps = vec![
        put(&subject, "changed", "1"),
        put(&subject, "new", "1"),
        append(&subject, "list", "1"),
        delete(&subject, "taken"),
        put(&subject, "taken", "1"),
        create(&subject, "taken", "2"),
    ];
    assert_conflict(subject.apply(steps).await);
    assert_eq!(subject.entry("changed").await?, before);
    assert_value(subject.get("taken").await?, &json("0"));
    assert_eq!(subject.names("").await?, ["changed", "taken"]);
    assert_eq!(subject.length("list").await?, 0);
    Ok(())
}

async fn a_conflict_at_the_beginning_applies_nothing(subject: Database) -> Outcome {
    subject.put("taken", json("0")).await?;
    assert_conflict(subject.apply(vec![create(&subject, "taken", "1"), put(&subject, "new", "1")]).await);
    assert_eq!(subject.names("").await?, ["taken"]);
    Ok(())
}

async fn a_failed_transaction_gives_the_error_of_its_step(subject: Database) -> Outcome {
    let foreign = crate::Revision::from_sequence(7);
    let update = Step::Write(subject.write_op("k", json("1"), WriteMode::Update(foreign), None));
    assert_conflict(subject.apply(vec![put(&subject, "a", "1"), update]).await);
    let op = WriteOp::Delete { only_if: Some(foreign) };
    let lost = Step::Write(Write::new(subject.key("k"), op, subject.stamp()));
    if subject.backend().capabilities().conditional_delete {
        assert_conflict(subject.apply(vec![put(&subject, "a", "1"), lost]).await);
    }
    assert!(subject.names("").await?.is_empty());
    Ok(())
}

async fn steps_of_one_key_run_in_order(subject: Database) -> Outcome {
    let steps =
        vec![put(&subject, "k", "1"), delete(&subject, "k"), create(&subject, "k", "2"), put(&subject, "k", "3")];
    subject.apply(steps).await?;
    assert_value(subject.get("k").await?, &json("3"));
    subject.apply(vec![put(&subject, "k", "4"), delete(&subject, "k")]).await?;
    assert!(!subject.exists("k").await?);
    Ok(())
}

async fn the_last_of_several_puts_wins(subject: Database) -> Outcome {
    let acks = subject.apply(vec![put(&subject, "k", "1"), put(&subject, "k", "2"), put(&subject, "k", "3")]).await?;
    assert_value(subject.get("k").await?, &json("3"));
    let StepAck::Write(last) = acks[2] else { panic!("{:?}", acks[2]) };
    assert_eq!(last.revision, Some(subject.revision("k").await?));
    Ok(())
}

async fn a_create_after_a_delete_in_a_transaction_works(subject: Database) -> Outcome {
    subject.put("k", json("0")).await?;
    subject.apply(vec![delete(&subject, "k"), create(&subject, "k", "1")]).await?;
    assert_value(subject.get("k").await?, &json("1"));
    Ok(())
}

async fn a_create_after_a_put_in_a_transaction_loses(subject: Database) -> Outcome {
    assert_conflict(subject.apply(vec![put(&subject, "k", "1"), create(&subject, "k", "2")]).await);
    assert!(!subject.exists("k").await?);
    Ok(())
}

async fn conditions_see_earlier_steps(subject: Database) -> Outcome {
    let seen = revised(subject.put("k", json("0")).await?.revision)?;
    let update = |value| Step::Write(subject.write_op("k", json(value), WriteMode::Update(seen), None));
    assert_conflict(subject.apply(vec![update("1"), update("2")]).await);
    assert_value(subject.get("k").await?, &json("0"));
    subject.apply(vec![update("1"), append(&subject, "k", "1")]).await?;
    assert_value(subject.get("k").await?, &json("1"));
    Ok(())
}

async fn values_and_lists_change_together(subject: Database) -> Outcome {
    let steps = vec![
        append(&subject, "history", "1"),
        put(&subject, "session", "1"),
        append(&subject, "history", "2"),
        append(&subject, "session", "3"),
    ];
    let acks = subject.apply(steps).await?;
    let positions: Vec<_> =
        acks.iter().filter_map(|ack| if let StepAck::Append(ack) = ack { ack.position } else { None }).collect();
    assert_eq!(positions, [0, 1, 0]);
    assert_eq!(subject.range("history", 0, -1).await?, ["1", "2"]);
    assert_eq!(subject.range("session", 0, -1).await?, ["3"]);
    assert_value(subject.get("session").await?, &json("1"));
    Ok(())
}

async fn a_failed_transaction_leaves_lists_as_they_were(subject: Database) -> Outcome {
    subject.append_numbers("list", 0..5).await?;
    subject.put("taken", json("0")).await?;
    for step in [append(&subject, "list", "9"), trim(&subject, "list", 1), delete(&subject, "list")] {
        assert_conflict(subject.apply(vec![step, create(&subject, "taken", "1")]).await);
        assert_eq!(subject.range("list", 0, -1).await?, ["0", "1", "2", "3", "4"]);
    }
    Ok(())
}

async fn a_failed_transaction_uses_no_position_twice(subject: Database) -> Outcome {
    subject.put("taken", json("0")).await?;
    let first = subject.append("list", json("0")).await?;
    assert_conflict(subject.apply(vec![append(&subject, "list", "9"), create(&subject, "taken", "1")]).await);
    let second = subject.append("list", json("1")).await?;
    assert!(second.position > first.position);
    assert_eq!(subject.range("list", 0, -1).await?, ["0", "1"]);
    Ok(())
}

async fn an_item_of_the_same_id_in_a_transaction_is_added_once(subject: Database) -> Outcome {
    let item = subject.append_op("list", json("1"));
    let first = subject.append_item(item.clone()).await?;
    let acks =
        subject.apply(vec![Step::Append(item.clone()), append(&subject, "list", "2"), Step::Append(item)]).await?;
    for at in [0, 2] {
        let StepAck::Append(again) = acks[at] else { panic!("{:?}", acks[at]) };
        assert_eq!((again.position, again.existed), (first.position, Some(true)));
    }
    assert_eq!(subject.range("list", 0, -1).await?, ["1", "2"]);
    Ok(())
}

async fn a_trim_in_a_transaction_counts(subject: Database) -> Outcome {
    subject.append_numbers("list", 0..4).await?;
    let steps = vec![append(&subject, "list", "4"), trim(&subject, "list", 2), append(&subject, "list", "5")];
    let acks = subject.apply(steps).await?;
    assert_eq!(acks[1], StepAck::Trim(3));
    assert_eq!(subject.range("list", 0, -1).await?, ["3", "4", "5"]);
    Ok(())
}

async fn a_delete_in_a_transaction_removes_value_and_list(subject: Database) -> Outcome {
    subject.put("k", json("1")).await?;
    subject.append("k", json("1")).await?;
    subject.apply(vec![delete(&subject, "k")]).await?;
    assert!(!subject.exists("k").await?);
    assert_eq!(subject.length("k").await?, 0);
    Ok(())
}

async fn an_append_after_a_delete_in_a_transaction_is_there(subject: Database) -> Outcome {
    subject.append_numbers("list", 0..3).await?;
    subject.apply(vec![delete(&subject, "list"), append(&subject, "list", "9")]).await?;
    assert_eq!(subject.range("list", 0, -1).await?, ["9"]);
    Ok(())
}

async fn a_touch_of_a_missing_key_fails_no_transaction(subject: Database) -> Outcome {
    let touch = Step::Write(Write::new(subject.key("missing"), WriteOp::Touch { ttl: None }, subject.stamp()));
    subject.apply(vec![touch, put(&subject, "k", "1"), delete(&subject, "missing")]).await?;
    assert_eq!(subject.names("").await?, ["k"]);
    Ok(())
}

async fn acks_have_the_revisions_that_are_read(subject: Database) -> Outcome {
    let acks = subject.apply(vec![put(&subject, "b", "1"), put(&subject, "a", "2")]).await?;
    for (ack, key) in acks.into_iter().zip(["b", "a"]) {
        let StepAck::Write(ack) = ack else { panic!("{ack:?}") };
        assert_eq!(ack.revision, Some(subject.revision(key).await?));
    }
    Ok(())
}

async fn a_transaction_by_a_slow_clock_is_visible(subject: Database) -> Outcome {
    let slow = subject.slow_clock();
    subject.put("a", json("0")).await?;
    subject.append("list", json("0")).await?;
    subject.delete("list").await?;
    let steps = vec![
        Step::Write(Write::put(subject.key("a"), json("1"), slow.issue())),
        Step::Append(crate::contract::Append::new(subject.key("list"), json("1"), slow.issue())),
    ];
    let acks = subject.apply(steps).await?;
    let StepAck::Write(ack) = acks[0] else { panic!("{:?}", acks[0]) };
    assert_eq!(ack.revision, Some(subject.revision("a").await?));
    assert_value(subject.get("a").await?, &json("1"));
    assert_eq!(subject.range("list", 0, -1).await?, ["1"]);
    subject.apply(vec![Step::Write(Write::delete(subject.key("a"), slow.issue()))]).await?;
    assert!(!subject.exists("a").await?);
    Ok(())
}

async fn a_clear_in_a_transaction_is_unsupported(subject: Database) -> Outcome {
    subject.put("k", json("1")).await?;
    let clear = Step::Clear { prefix: subject.prefix(""), stamp: subject.stamp() };
    assert_kind(subject.apply(vec![put(&subject, "new", "1"), clear]).await, ErrorKind::Unsupported);
    assert_eq!(subject.names("").await?, ["k"]);
    Ok(())
}

async fn a_value_over_the_limit_undoes_everything(subject: Database) -> Outcome {
    let limit = subject.backend().capabilities().max_value_bytes;
    if limit < Value::MAX_BYTES {
        let large = Step::Write(subject.put_op("large", Value::binary(vec![0; limit + 1])?));
        assert_kind(subject.apply(vec![put(&subject, "small", "1"), large]).await, ErrorKind::TooLarge);
        assert!(subject.names("").await?.is_empty());
    }
    Ok(())
}

async fn an_expired_deadline_applies_no_transaction(subject: Database) -> Outcome {
    let late = crate::contract::Context::with_timeout(std::time::Duration::ZERO);
    let steps = vec![put(&subject, "k", "1"), append(&subject, "list", "1")];
    assert_kind(subject.backend().apply(steps, &late).await, ErrorKind::Unavailable);
    assert!(subject.names("").await?.is_empty());
    Ok(())
}

async fn a_transaction_of_many_steps_works(subject: Database) -> Outcome {
    let steps = (0..1000).map(|number| {
        let key = format!("k{:03}", number / 2);
        if number % 2 == 0 { put(&subject, &key, &number.to_string()) } else { append(&subject, &key, "1") }
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
                let keys = if writer % 2 == 0 { ["a", "b"] } else { ["b", "a"] };
                let mut steps: Vec<Step> = keys.iter().map(|key| put(&subject, key, &value)).collect();
                steps.extend(keys.iter().map(|key| append(&subject, key, &value)));
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
async fn transfer(subject: &Database, from: &str, to: &str) -> Result<bool, crate::testkit::Failure> {
    let (source, target) = (subject.entry(from).await?, subject.entry(to).await?);
    let step = |key: &str, entry: &crate::contract::Entry, by: i64| {
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
