//! `apply`: steps in order, all or nothing.

use super::tools::{assert_conflict, assert_kind, assert_value, json, revised};
use crate::ErrorKind;
use crate::contract::{DatabaseBackend, Step, StepAck, Write, WriteMode, WriteOp};
use crate::testkit::case::cases;
use crate::testkit::{Case, Outcome, Subject};

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
        expired_entry_is_absent_for_a_transaction,
        ttls_in_a_transaction_count,
        a_repeated_transaction_is_its_own_success,
    ]
}

async fn transactions_agree_with_the_capabilities(subject: Database) -> Outcome {
    let applied = subject.apply(vec![subject.put_step("k", "1")]).await;
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
    let steps = vec![subject.put_step("b", "1"), subject.create_step("a", "2"), subject.delete_step("gone")];
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
        subject.put_step("changed", "1"),
        subject.put_step("new", "1"),
        subject.append_step("list", "1"),
        subject.delete_step("taken"),
        subject.put_step("taken", "1"),
        subject.create_step("taken", "2"),
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
    assert_conflict(subject.apply(vec![subject.create_step("taken", "1"), subject.put_step("new", "1")]).await);
    assert_eq!(subject.names("").await?, ["taken"]);
    Ok(())
}

async fn a_failed_transaction_gives_the_error_of_its_step(subject: Database) -> Outcome {
    let foreign = crate::Revision::from_sequence(7);
    let update = Step::Write(subject.write_op("k", json("1"), WriteMode::Update(foreign), None));
    assert_conflict(subject.apply(vec![subject.put_step("a", "1"), update]).await);
    let op = WriteOp::Delete { only_if: Some(foreign) };
    let lost = Step::Write(Write::new(subject.key("k"), op, subject.stamp()));
    if subject.backend().capabilities().conditional_delete {
        assert_conflict(subject.apply(vec![subject.put_step("a", "1"), lost]).await);
    }
    assert!(subject.names("").await?.is_empty());
    Ok(())
}

async fn steps_of_one_key_run_in_order(subject: Database) -> Outcome {
    let steps = vec![
        subject.put_step("k", "1"),
        subject.delete_step("k"),
        subject.create_step("k", "2"),
        subject.put_step("k", "3"),
    ];
    subject.apply(steps).await?;
    assert_value(subject.get("k").await?, &json("3"));
    subject.apply(vec![subject.put_step("k", "4"), subject.delete_step("k")]).await?;
    assert!(!subject.exists("k").await?);
    Ok(())
}

async fn the_last_of_several_puts_wins(subject: Database) -> Outcome {
    let acks =
        subject.apply(vec![subject.put_step("k", "1"), subject.put_step("k", "2"), subject.put_step("k", "3")]).await?;
    assert_value(subject.get("k").await?, &json("3"));
    let StepAck::Write(last) = acks[2] else { panic!("{:?}", acks[2]) };
    assert_eq!(last.revision, Some(subject.revision("k").await?));
    Ok(())
}

async fn a_create_after_a_delete_in_a_transaction_works(subject: Database) -> Outcome {
    subject.put("k", json("0")).await?;
    subject.apply(vec![subject.delete_step("k"), subject.create_step("k", "1")]).await?;
    assert_value(subject.get("k").await?, &json("1"));
    Ok(())
}

async fn a_create_after_a_put_in_a_transaction_loses(subject: Database) -> Outcome {
    assert_conflict(subject.apply(vec![subject.put_step("k", "1"), subject.create_step("k", "2")]).await);
    assert!(!subject.exists("k").await?);
    Ok(())
}

async fn conditions_see_earlier_steps(subject: Database) -> Outcome {
    let seen = revised(subject.put("k", json("0")).await?.revision)?;
    let update = |value| Step::Write(subject.write_op("k", json(value), WriteMode::Update(seen), None));
    assert_conflict(subject.apply(vec![update("1"), update("2")]).await);
    assert_value(subject.get("k").await?, &json("0"));
    subject.apply(vec![update("1"), subject.append_step("k", "1")]).await?;
    assert_value(subject.get("k").await?, &json("1"));
    Ok(())
}

async fn values_and_lists_change_together(subject: Database) -> Outcome {
    let steps = vec![
        subject.append_step("history", "1"),
        subject.put_step("session", "1"),
        subject.append_step("history", "2"),
        subject.append_step("session", "3"),
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
    for step in [subject.append_step("list", "9"), subject.trim_step("list", 1), subject.delete_step("list")] {
        assert_conflict(subject.apply(vec![step, subject.create_step("taken", "1")]).await);
        assert_eq!(subject.range("list", 0, -1).await?, ["0", "1", "2", "3", "4"]);
    }
    Ok(())
}

async fn a_failed_transaction_uses_no_position_twice(subject: Database) -> Outcome {
    subject.put("taken", json("0")).await?;
    let first = subject.append("list", json("0")).await?;
    assert_conflict(subject.apply(vec![subject.append_step("list", "9"), subject.create_step("taken", "1")]).await);
    let second = subject.append("list", json("1")).await?;
    assert!(second.position > first.position);
    assert_eq!(subject.range("list", 0, -1).await?, ["0", "1"]);
    Ok(())
}

async fn an_item_of_the_same_id_in_a_transaction_is_added_once(subject: Database) -> Outcome {
    let item = subject.append_op("list", json("1"));
    let first = subject.append_item(item.clone()).await?;
    let acks =
        subject.apply(vec![Step::Append(item.clone()), subject.append_step("list", "2"), Step::Append(item)]).await?;
    for at in [0, 2] {
        let StepAck::Append(again) = acks[at] else { panic!("{:?}", acks[at]) };
        assert_eq!((again.position, again.existed), (first.position, Some(true)));
    }
    assert_eq!(subject.range("list", 0, -1).await?, ["1", "2"]);
    Ok(())
}

async fn a_trim_in_a_transaction_counts(subject: Database) -> Outcome {
    subject.append_numbers("list", 0..4).await?;
    let steps = vec![subject.append_step("list", "4"), subject.trim_step("list", 2), subject.append_step("list", "5")];
    let acks = subject.apply(steps).await?;
    assert_eq!(acks[1], StepAck::Trim(3));
    assert_eq!(subject.range("list", 0, -1).await?, ["3", "4", "5"]);
    Ok(())
}

async fn a_delete_in_a_transaction_removes_value_and_list(subject: Database) -> Outcome {
    subject.put("k", json("1")).await?;
    subject.append("k", json("1")).await?;
    subject.apply(vec![subject.delete_step("k")]).await?;
    assert!(!subject.exists("k").await?);
    assert_eq!(subject.length("k").await?, 0);
    Ok(())
}

async fn an_append_after_a_delete_in_a_transaction_is_there(subject: Database) -> Outcome {
    subject.append_numbers("list", 0..3).await?;
    subject.apply(vec![subject.delete_step("list"), subject.append_step("list", "9")]).await?;
    assert_eq!(subject.range("list", 0, -1).await?, ["9"]);
    Ok(())
}

async fn a_touch_of_a_missing_key_fails_no_transaction(subject: Database) -> Outcome {
    let touch = Step::Write(Write::new(subject.key("missing"), WriteOp::Touch { ttl: None }, subject.stamp()));
    subject.apply(vec![touch, subject.put_step("k", "1"), subject.delete_step("missing")]).await?;
    assert_eq!(subject.names("").await?, ["k"]);
    Ok(())
}

async fn acks_have_the_revisions_that_are_read(subject: Database) -> Outcome {
    let acks = subject.apply(vec![subject.put_step("b", "1"), subject.put_step("a", "2")]).await?;
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
    assert_kind(subject.apply(vec![subject.put_step("new", "1"), clear]).await, ErrorKind::Unsupported);
    assert_eq!(subject.names("").await?, ["k"]);
    Ok(())
}

async fn expired_entry_is_absent_for_a_transaction(subject: Database) -> Outcome {
    let ttl = subject.short_ttl();
    let seen = revised(subject.put_for("a", json("1"), ttl).await?.revision)?;
    subject.put_for("b", json("1"), ttl).await?;
    subject.lapse(&["a", "b"]).await?;
    let update = Step::Write(subject.write_op("a", json("2"), WriteMode::Update(seen), None));
    assert_conflict(subject.apply(vec![update]).await);
    let acks = subject.apply(vec![subject.create_step("a", "2"), subject.delete_step("b")]).await?;
    let existed: Vec<_> =
        acks.iter().map(|ack| if let StepAck::Write(ack) = ack { ack.existed } else { None }).collect();
    assert_eq!(existed, [Some(false), Some(false)]);
    assert_value(subject.get("a").await?, &json("2"));
    assert_eq!(subject.names("").await?, ["a"]);
    Ok(())
}

async fn ttls_in_a_transaction_count(subject: Database) -> Outcome {
    let put = Step::Write(subject.write_op("k", json("1"), WriteMode::Upsert, Some(subject.short_ttl())));
    subject.apply(vec![put, subject.append_step("list", "1")]).await?;
    subject.lapse(&["k"]).await?;
    assert_eq!(subject.names("").await?, ["list"]);
    Ok(())
}

async fn a_repeated_transaction_is_its_own_success(subject: Database) -> Outcome {
    if subject.backend().capabilities().stamp_guard {
        let steps = vec![subject.create_step("k", "1"), subject.append_step("list", "1")];
        subject.apply(steps.clone()).await?;
        // As after a lost reply: the entry carries the step's own stamp, the list its item.
        subject.apply(steps).await?;
        assert_value(subject.get("k").await?, &json("1"));
        assert_eq!(subject.range("list", 0, -1).await?, ["1"]);
    }
    Ok(())
}
