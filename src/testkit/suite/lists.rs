//! Lists: appending, naming items, trimming, and lists beside values.

use super::tools::{assert_kind, assert_value, binary, json, show};
use crate::contract::{Append, AppendAck, DatabaseBackend, Durability, ItemId, ListRange};
use crate::testkit::case::cases;
use crate::testkit::{Case, Outcome, Subject};
use crate::{ErrorKind, Result, Value};

type Database = Subject<dyn DatabaseBackend>;

pub(super) fn cases() -> Vec<Case<dyn DatabaseBackend>> {
    cases!["lists":
        lists_agree_with_the_capabilities,
        positions_begin_at_zero_and_increase,
        an_empty_append_is_a_no_op,
        several_lists_share_a_batch,
        a_batch_may_hold_new_and_known_items,
        items_come_back_byte_for_byte,
        items_carry_their_position_and_name,
        an_item_is_named_by_its_stamp,
        an_item_of_the_same_id_is_added_once,
        an_item_of_the_same_id_in_a_batch_is_added_once,
        an_item_of_the_same_id_keeps_the_first_value,
        an_id_counts_for_its_own_list_alone,
        an_id_of_any_text_works,
        a_trimmed_id_is_still_known,
        a_repeated_append_is_added_once,
        trim_keeps_the_last_items,
        trim_to_zero_empties_the_list,
        trim_of_a_missing_list_is_no_error,
        positions_are_not_used_again_after_a_trim,
        positions_are_not_used_again_after_a_delete,
        positions_are_not_used_again_after_a_clear,
        an_append_after_a_delete_begins_a_fresh_list,
        an_append_by_a_slow_clock_is_last,
        an_append_by_a_slow_clock_after_a_delete_is_there,
        a_list_that_was_deleted_later_shares_a_batch,
    ]
}

async fn positions(subject: &Database, key: &str) -> Result<Vec<u64>> {
    Ok(subject.items(key, ListRange::ALL).await?.iter().map(|item| item.position).collect())
}

fn named(subject: &Database, key: &str, id: &str, value: &str) -> Append {
    subject.append_op(key, json(value)).with_item_id(ItemId::parse(id).expect("a valid id"))
}

async fn lists_agree_with_the_capabilities(subject: Database) -> Outcome {
    let appended = subject.append_many(vec![subject.append_op("list", json("1"))]).await;
    if subject.backend().capabilities().lists {
        assert_eq!(appended?[0].position, Some(0));
    } else {
        assert_kind(appended, ErrorKind::Unsupported);
        assert_kind(subject.length("list").await, ErrorKind::Unsupported);
        assert_kind(subject.range("list", 0, -1).await, ErrorKind::Unsupported);
        assert_kind(subject.trim("list", 1).await, ErrorKind::Unsupported);
    }
    Ok(())
}

async fn positions_begin_at_zero_and_increase(subject: Database) -> Outcome {
    let first = subject.append("list", json("0")).await?;
    assert_eq!((first.position, first.existed), (Some(0), Some(false)));
    assert!(first.durability == Durability::Primary || first.durability == subject.backend().capabilities().durability);
    let acks = subject.append_numbers("list", 1..20).await?;
    let told: Vec<u64> = std::iter::once(first).chain(acks).filter_map(|ack| ack.position).collect();
    assert!(told.windows(2).all(|pair| pair[0] < pair[1]), "{told:?}");
    assert_eq!(positions(&subject, "list").await?, told);
    Ok(())
}

async fn an_empty_append_is_a_no_op(subject: Database) -> Outcome {
    assert!(subject.append_many(Vec::new()).await?.is_empty());
    assert_eq!(subject.length("list").await?, 0);
    Ok(())
}

async fn several_lists_share_a_batch(subject: Database) -> Outcome {
    let item = |key, value| subject.append_op(key, json(value));
    subject.append_many(vec![item("b", "1"), item("a", "2"), item("b", "3"), item("c", "4"), item("a", "5")]).await?;
    assert_eq!(subject.range("a", 0, -1).await?, ["2", "5"]);
    assert_eq!(subject.range("b", 0, -1).await?, ["1", "3"]);
    assert_eq!(subject.range("c", 0, -1).await?, ["4"]);
    Ok(())
}

/// Asserts that these items, in this order, are where their acknowledgements say.
async fn assert_where(subject: &Database, key: &str, acks: &[AppendAck], values: &[&str]) -> Outcome {
    let items = subject.items(key, ListRange::ALL).await?;
    let seen: Vec<_> = items.iter().map(|item| (Some(item.position), show(&item.value))).collect();
    let told: Vec<_> = acks.iter().zip(values).map(|(ack, value)| (ack.position, (*value).to_owned())).collect();
    assert_eq!(seen, told);
    Ok(())
}

async fn a_batch_may_hold_new_and_known_items(subject: Database) -> Outcome {
    let item = |key, id, value| named(&subject, key, id, value);
    let first = subject.append_many(vec![item("a", "1", "1"), item("b", "1", "1")]).await?;
    let batch =
        vec![item("a", "2", "2"), item("b", "2", "2"), item("a", "1", "0"), item("c", "1", "1"), item("a", "3", "3")];
    let acks = subject.append_many(batch).await?;
    let existed: Vec<_> = acks.iter().map(|ack| ack.existed == Some(true)).collect();
    assert_eq!(existed, [false, false, true, false, false]);
    assert_eq!(acks[2].position, first[0].position);
    assert_where(&subject, "a", &[first[0], acks[0], acks[4]], &["1", "2", "3"]).await?;
    assert_where(&subject, "b", &[first[1], acks[1]], &["1", "2"]).await?;
    assert_where(&subject, "c", &[acks[3]], &["1"]).await
}

async fn items_come_back_byte_for_byte(subject: Database) -> Outcome {
    let all: Vec<u8> = (0..=255).collect();
    let mut values: Vec<Value> = vec![binary([]), binary([0]), binary(all), binary("null"), binary("\"x\"")];
    let texts = ["null", "\"\"", "0", "1e16", "9007199254740993", r#"{"a":1,"a":2}"#, r#""\u0000""#, r#""\ud800""#];
    values.extend(texts.into_iter().chain(["1e400", " [ 1 ] \n", "-0.0"]).map(json));
    let items = values.iter().map(|value| subject.append_op("list", value.clone())).collect();
    subject.append_many(items).await?;
    let read = subject.items("list", ListRange::ALL).await?;
    assert_eq!(read.len(), values.len());
    for (item, value) in read.into_iter().zip(&values) {
        assert_value(Some(item.value), value);
    }
    Ok(())
}

async fn items_carry_their_position_and_name(subject: Database) -> Outcome {
    let acks =
        subject.append_many(vec![named(&subject, "list", "one", "1"), named(&subject, "list", "two", "2")]).await?;
    let items = subject.items("list", ListRange::ALL).await?;
    let seen: Vec<_> = items.iter().map(|item| (Some(item.position), item.id.as_str(), show(&item.value))).collect();
    assert_eq!(seen, [(acks[0].position, "one", "1".to_owned()), (acks[1].position, "two", "2".to_owned())]);
    Ok(())
}

async fn an_item_is_named_by_its_stamp(subject: Database) -> Outcome {
    let item = subject.append_op("list", json("1"));
    subject.append_item(item.clone()).await?;
    let items = subject.items("list", ListRange::ALL).await?;
    assert_eq!(items[0].id, ItemId::from(item.stamp));
    Ok(())
}

async fn an_item_of_the_same_id_is_added_once(subject: Database) -> Outcome {
    let first = subject.append_item(named(&subject, "list", "m", "1")).await?;
    subject.append("list", json("2")).await?;
    let again = subject.append_item(named(&subject, "list", "m", "1")).await?;
    assert_eq!((again.position, again.existed), (first.position, Some(true)));
    assert_eq!(subject.range("list", 0, -1).await?, ["1", "2"]);
    assert_eq!(subject.length("list").await?, 2);
    Ok(())
}

async fn an_item_of_the_same_id_in_a_batch_is_added_once(subject: Database) -> Outcome {
    let item = |id, value| named(&subject, "list", id, value);
    let acks = subject.append_many(vec![item("a", "1"), item("b", "2"), item("a", "1"), item("c", "3")]).await?;
    let existed: Vec<_> = acks.iter().map(|ack| ack.existed).collect();
    assert_eq!(existed, [Some(false), Some(false), Some(true), Some(false)]);
    assert_eq!(acks[2].position, acks[0].position);
    assert_eq!(subject.range("list", 0, -1).await?, ["1", "2", "3"]);
    Ok(())
}

async fn an_item_of_the_same_id_keeps_the_first_value(subject: Database) -> Outcome {
    subject.append_item(named(&subject, "list", "m", "1")).await?;
    subject.append_item(named(&subject, "list", "m", "2")).await?;
    assert_eq!(subject.range("list", 0, -1).await?, ["1"]);
    Ok(())
}

async fn an_id_counts_for_its_own_list_alone(subject: Database) -> Outcome {
    for key in ["a", "b"] {
        assert_eq!(subject.append_item(named(&subject, key, "m", "1")).await?.existed, Some(false));
    }
    assert_eq!((subject.length("a").await?, subject.length("b").await?), (1, 1));
    Ok(())
}

async fn an_id_of_any_text_works(subject: Database) -> Outcome {
    let longest = "i".repeat(ItemId::MAX_BYTES);
    let ids = ["a", "A", " ", "a ", "%", "'", "caf\u{e9}", "cafe\u{301}", "😀", "0", "null", &longest];
    for id in ids {
        assert_eq!(subject.append_item(named(&subject, "list", id, "1")).await?.existed, Some(false), "{id:?}");
    }
    let items = subject.items("list", ListRange::ALL).await?;
    assert_eq!(items.iter().map(|item| item.id.as_str()).collect::<Vec<_>>(), ids);
    Ok(())
}

async fn a_trimmed_id_is_still_known(subject: Database) -> Outcome {
    let first = subject.append_item(named(&subject, "list", "m", "1")).await?;
    subject.append("list", json("2")).await?;
    subject.trim("list", 1).await?;
    let again = subject.append_item(named(&subject, "list", "m", "1")).await?;
    assert_eq!((again.position, again.existed), (first.position, Some(true)));
    assert_eq!(subject.range("list", 0, -1).await?, ["2"]);
    Ok(())
}

async fn a_repeated_append_is_added_once(subject: Database) -> Outcome {
    let item = subject.append_op("list", json("1"));
    let first = subject.append_item(item.clone()).await?;
    subject.append("list", json("2")).await?;
    assert_eq!(subject.append_item(item).await?.position, first.position);
    assert_eq!(subject.length("list").await?, 2);
    Ok(())
}

async fn trim_keeps_the_last_items(subject: Database) -> Outcome {
    let acks = subject.append_numbers("list", 0..10).await?;
    assert_eq!(subject.trim("list", 20).await?, 0);
    assert_eq!(subject.trim("list", 10).await?, 0);
    assert_eq!(subject.trim("list", 3).await?, 7);
    assert_eq!(subject.range("list", 0, -1).await?, ["7", "8", "9"]);
    assert_eq!(subject.length("list").await?, 3);
    // Those that stay do not move.
    let stayed: Vec<_> = acks[7..].iter().filter_map(|ack| ack.position).collect();
    assert_eq!(positions(&subject, "list").await?, stayed);
    assert_eq!(subject.trim("list", 3).await?, 0);
    Ok(())
}

async fn trim_to_zero_empties_the_list(subject: Database) -> Outcome {
    subject.append_numbers("list", 0..5).await?;
    assert_eq!(subject.trim("list", 0).await?, 5);
    assert_eq!(subject.length("list").await?, 0);
    assert!(subject.range("list", 0, -1).await?.is_empty());
    assert_eq!(subject.trim("list", 0).await?, 0);
    Ok(())
}

async fn trim_of_a_missing_list_is_no_error(subject: Database) -> Outcome {
    assert_eq!(subject.trim("list", 0).await?, 0);
    assert_eq!(subject.trim("list", u64::MAX).await?, 0);
    subject.put("value", json("1")).await?;
    assert_eq!(subject.trim("value", 0).await?, 0);
    assert!(subject.exists("value").await?);
    Ok(())
}

/// Appends five items, empties the list, and checks that the next position is beyond the old ones.
async fn goes_on(subject: &Database, key: &str, emptied: impl AsyncFnOnce() -> Result<()>) -> Outcome {
    let before = subject.append_numbers(key, 0..5).await?;
    emptied().await?;
    let after = subject.append(key, json("5")).await?;
    assert!(after.position > before[4].position, "{:?} after {:?}", after.position, before[4].position);
    assert_eq!(subject.length(key).await?, 1);
    Ok(())
}

async fn positions_are_not_used_again_after_a_trim(subject: Database) -> Outcome {
    goes_on(&subject, "list", async || subject.trim("list", 0).await.map(drop)).await
}

async fn positions_are_not_used_again_after_a_delete(subject: Database) -> Outcome {
    goes_on(&subject, "list", async || subject.delete("list").await.map(drop)).await
}

async fn positions_are_not_used_again_after_a_clear(subject: Database) -> Outcome {
    goes_on(&subject, "list", async || subject.clear("").await.map(drop)).await
}

async fn an_append_after_a_delete_begins_a_fresh_list(subject: Database) -> Outcome {
    subject.append_numbers("list", 0..3).await?;
    subject.delete("list").await?;
    assert_eq!(subject.length("list").await?, 0);
    subject.append("list", json("9")).await?;
    assert_eq!(subject.range("list", 0, -1).await?, ["9"]);
    assert_eq!(subject.range("list", -10, -1).await?, ["9"]);
    assert_eq!(subject.length("list").await?, 1);
    Ok(())
}

async fn an_append_by_a_slow_clock_is_last(subject: Database) -> Outcome {
    let slow = subject.slow_clock();
    subject.append("list", json("1")).await?;
    subject.append_item(Append::new(subject.key("list"), json("2"), slow.issue())).await?;
    subject.append("list", json("3")).await?;
    subject.append_item(Append::new(subject.key("list"), json("4"), slow.issue())).await?;
    assert_eq!(subject.range("list", 0, -1).await?, ["1", "2", "3", "4"]);
    Ok(())
}

async fn an_append_by_a_slow_clock_after_a_delete_is_there(subject: Database) -> Outcome {
    let slow = subject.slow_clock();
    subject.append("list", json("1")).await?;
    subject.delete("list").await?;
    let ack = subject.append_item(Append::new(subject.key("list"), json("2"), slow.issue())).await?;
    assert_eq!(ack.existed, Some(false));
    assert_eq!(subject.range("list", 0, -1).await?, ["2"]);
    // Its own delete goes after it, whatever its clock says.
    subject.append("list", json("3")).await?;
    assert_eq!(subject.range("list", 0, -1).await?, ["2", "3"]);
    Ok(())
}

async fn a_list_that_was_deleted_later_shares_a_batch(subject: Database) -> Outcome {
    let slow = subject.slow_clock();
    let first = subject.append_many(["a", "b", "c"].map(|key| subject.append_op(key, json("0"))).to_vec()).await?;
    subject.delete("b").await?;
    let item = |(key, value)| Append::new(subject.key(key), json(value), slow.issue());
    let batch = [("b", "1"), ("c", "1"), ("a", "1"), ("b", "2"), ("c", "2"), ("d", "1")];
    let acks = subject.append_many(batch.map(item).to_vec()).await?;
    assert!(acks.iter().all(|ack| ack.existed == Some(false)));
    assert_where(&subject, "a", &[first[0], acks[2]], &["0", "1"]).await?;
    assert_where(&subject, "b", &[acks[0], acks[3]], &["1", "2"]).await?;
    assert_where(&subject, "c", &[first[2], acks[1], acks[4]], &["0", "1", "2"]).await?;
    assert_where(&subject, "d", &[acks[5]], &["1"]).await
}
