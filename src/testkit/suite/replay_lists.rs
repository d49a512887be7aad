//! `replay` of appends, and of deletes where a list is: value and list are judged apart, the list item by item.

use super::replay_tools::{Database, Outage, lost_append};
use super::tools::{assert_kind, assert_value, json};
use crate::contract::{Append, DatabaseBackend, ItemId, ListRange, LostOperation, ReplayOutcome, Step};
use crate::testkit::Case;
use crate::testkit::Outcome;
use crate::testkit::case::cases;
use crate::{ErrorKind, Format, Value};

pub(super) fn cases() -> Vec<Case<dyn DatabaseBackend>> {
    cases!["replay_lists":
        replayed_appends_are_applied_once_in_order,
        replayed_appends_go_behind_what_others_appended,
        a_replayed_append_of_a_known_id_is_there_already,
        a_replayed_append_of_a_trimmed_id_stays_trimmed,
        a_replayed_append_behind_a_delete_of_another_writer_loses,
        a_replayed_append_behind_a_delete_of_its_own_writer_is_over,
        a_replayed_append_after_a_delete_is_applied,
        a_delete_that_found_no_list_outvotes_a_replayed_append,
        a_replayed_delete_that_found_nothing_outvotes_an_older_append,
        a_replayed_put_leaves_the_list,
        a_replayed_append_leaves_the_value,
        a_replayed_delete_removes_value_and_list,
        a_replayed_delete_spares_newer_items,
        a_replayed_delete_spares_newer_items_among_older_ones,
        a_replayed_delete_leaves_the_ids_of_newer_items_that_were_trimmed,
        a_replayed_delete_judges_value_and_list_apart,
        a_replayed_delete_keeps_what_others_appended_meanwhile,
        a_delete_among_replayed_appends_counts,
        an_append_by_a_slow_clock_outlives_a_second_replay_of_a_delete,
        positions_rise_over_replays,
        what_follows_an_append_that_failed_is_withheld,
    ]
}

async fn replayed_appends_are_applied_once_in_order(subject: Database) -> Outcome {
    if subject.replays() {
        let outage = Outage::begin(&subject);
        let steps: Vec<_> = (0..20).map(|number| outage.append("list", &number.to_string(), outage.ours())).collect();
        let expected: Vec<String> = (0..20).map(|number| number.to_string()).collect();
        // As if the reply to the first half had been lost.
        assert_eq!(outage.replay(steps[..10].to_vec()).await?, [ReplayOutcome::Applied; 10]);
        let outcomes = outage.replay(steps.clone()).await?;
        assert_eq!(outcomes[..10], [ReplayOutcome::AlreadyApplied; 10]);
        assert_eq!(outcomes[10..], [ReplayOutcome::Applied; 10]);
        assert_eq!(subject.range("list", 0, -1).await?, expected);
        assert!(outage.losses().await?.is_empty());
    }
    Ok(())
}

async fn replayed_appends_go_behind_what_others_appended(subject: Database) -> Outcome {
    if subject.replays() {
        subject.append("list", json("\"before\"")).await?;
        let outage = Outage::begin(&subject);
        let steps = ["1", "2"].map(|value| outage.append("list", value, outage.ours())).to_vec();
        outage.they_append("list", "\"theirs\"").await?;
        assert_eq!(outage.replay(steps).await?, [ReplayOutcome::Applied; 2]);
        assert_eq!(subject.range("list", 0, -1).await?, ["\"before\"", "\"theirs\"", "1", "2"]);
        assert!(outage.losses().await?.is_empty());
    }
    Ok(())
}

async fn a_replayed_append_of_a_known_id_is_there_already(subject: Database) -> Outcome {
    if subject.replays() {
        let outage = Outage::begin(&subject);
        let step = |value| outage.append_named("list", value, "message 1", outage.ours());
        assert_eq!(outage.replay_one(step("1")).await?, ReplayOutcome::Applied);
        assert_eq!(outage.replay_one(step("2")).await?, ReplayOutcome::AlreadyApplied);
        let items = subject.items("list", ListRange::ALL).await?;
        assert_eq!(items.len(), 1);
        assert_eq!(items[0].id.as_str(), "message 1");
        // The item is known to appends of today, too.
        let id = ItemId::parse("message 1")?;
        let ack = subject.append_item(subject.append_op("list", json("3")).with_item_id(id)).await?;
        assert_eq!((ack.position, ack.existed), (Some(items[0].position), Some(true)));
    }
    Ok(())
}

async fn a_replayed_append_of_a_trimmed_id_stays_trimmed(subject: Database) -> Outcome {
    if subject.replays() {
        let outage = Outage::begin(&subject);
        let steps: Vec<_> = (0..3).map(|number| outage.append("list", &number.to_string(), outage.ours())).collect();
        outage.replay(steps.clone()).await?;
        subject.trim("list", 1).await?;
        assert_eq!(outage.replay(steps).await?, [ReplayOutcome::AlreadyApplied; 3]);
        assert_eq!(subject.range("list", 0, -1).await?, ["2"]);
    }
    Ok(())
}

async fn a_replayed_append_behind_a_delete_of_another_writer_loses(subject: Database) -> Outcome {
    if subject.replays() {
        subject.append("list", json("0")).await?;
        let outage = Outage::begin(&subject);
        let (plain, named) = (outage.ours(), outage.ours());
        let steps = vec![outage.append("list", "1", plain), outage.append_named("list", "2", "named", named)];
        let winner = outage.they_delete("list").await?;
        assert_eq!(outage.replay(steps).await?, [ReplayOutcome::Superseded { winner }; 2]);
        assert_eq!(subject.length("list").await?, 0);
        let lost = LostOperation::Append { value: json("2"), item_id: ItemId::parse("named")? };
        let list = || "list".to_owned();
        let expected = [(list(), plain, lost_append("1", plain), winner), (list(), named, lost, winner)];
        assert_eq!(outage.losses().await?, expected);
    }
    Ok(())
}

async fn a_replayed_append_behind_a_delete_of_its_own_writer_is_over(subject: Database) -> Outcome {
    if subject.replays() {
        subject.append("list", json("0")).await?;
        let outage = Outage::begin(&subject);
        let step = outage.append("list", "1", outage.ours());
        subject.delete("list").await?;
        assert_eq!(outage.replay_one(step).await?, ReplayOutcome::AlreadyApplied);
        assert_eq!(subject.length("list").await?, 0);
        assert!(outage.losses().await?.is_empty());
    }
    Ok(())
}

async fn a_replayed_append_after_a_delete_is_applied(subject: Database) -> Outcome {
    if subject.replays() {
        subject.append("list", json("0")).await?;
        let outage = Outage::begin(&subject);
        outage.they_delete("list").await?;
        assert_eq!(outage.replay_one(outage.append("list", "1", outage.ours())).await?, ReplayOutcome::Applied);
        assert_eq!(subject.range("list", 0, -1).await?, ["1"]);
        assert!(outage.losses().await?.is_empty(), "an append overwrites nothing");
    }
    Ok(())
}

async fn a_delete_that_found_no_list_outvotes_a_replayed_append(subject: Database) -> Outcome {
    if subject.replays() {
        let outage = Outage::begin(&subject);
        let steps = ["empty", "value"].map(|key| outage.append(key, "1", outage.ours()));
        subject.put("value", json("0")).await?;
        let winner = outage.they_delete("empty").await?;
        let other = outage.they_delete("value").await?;
        // What is written over the tombstone does not take the delete back.
        outage.they_put("value", "2").await?;
        let outcomes = outage.replay(steps.into()).await?;
        assert_eq!(outcomes, [winner, other].map(|winner| ReplayOutcome::Superseded { winner }));
        assert_eq!((subject.length("empty").await?, subject.length("value").await?), (0, 0));
        assert_value(subject.get("value").await?, &json("2"));
    }
    Ok(())
}

async fn a_replayed_delete_that_found_nothing_outvotes_an_older_append(subject: Database) -> Outcome {
    if subject.replays() {
        let outage = Outage::begin(&subject);
        let appends = ["empty", "value"].map(|key| outage.append(key, "1", outage.ours()));
        let deletes = ["empty", "value"].map(|key| outage.delete(key, outage.ours()));
        outage.replay(deletes.into()).await?;
        outage.replay_one(outage.put("value", "2", outage.ours())).await?;
        assert_eq!(outage.replay(appends.into()).await?, [ReplayOutcome::AlreadyApplied; 2]);
        assert_eq!((subject.length("empty").await?, subject.length("value").await?), (0, 0));
        assert_eq!(subject.names("").await?, ["value"]);
    }
    Ok(())
}

async fn a_replayed_put_leaves_the_list(subject: Database) -> Outcome {
    if subject.replays() {
        subject.append_numbers("k", 0..2).await?;
        let outage = Outage::begin(&subject);
        assert_eq!(outage.replay_one(outage.put("k", "1", outage.ours())).await?, ReplayOutcome::Applied);
        assert_value(subject.get("k").await?, &json("1"));
        assert_eq!(subject.range("k", 0, -1).await?, ["0", "1"]);
    }
    Ok(())
}

async fn a_replayed_append_leaves_the_value(subject: Database) -> Outcome {
    if subject.replays() {
        let outage = Outage::begin(&subject);
        let step = outage.append("k", "1", outage.ours());
        outage.they_put("k", "\"newer\"").await?;
        assert_eq!(outage.replay_one(step).await?, ReplayOutcome::Applied);
        assert_value(subject.get("k").await?, &json("\"newer\""));
        assert_eq!(subject.range("k", 0, -1).await?, ["1"]);
    }
    Ok(())
}

async fn a_replayed_delete_removes_value_and_list(subject: Database) -> Outcome {
    if subject.replays() {
        subject.put("k", json("1")).await?;
        subject.append_numbers("k", 0..5).await?;
        subject.trim("k", 3).await?;
        let outage = Outage::begin(&subject);
        let step = outage.delete("k", outage.ours());
        assert_eq!(outage.replay_one(step.clone()).await?, ReplayOutcome::Applied);
        assert!(!subject.exists("k").await?);
        assert_eq!(subject.append("k", json("5")).await?.position, Some(5), "positions go on");
        assert_eq!(outage.replay_one(step).await?, ReplayOutcome::AlreadyApplied);
        assert_eq!(subject.range("k", 0, -1).await?, ["5"]);
        assert!(outage.losses().await?.is_empty());
    }
    Ok(())
}

async fn a_replayed_delete_spares_newer_items(subject: Database) -> Outcome {
    if subject.replays() {
        for key in ["ours", "theirs"] {
            subject.append_numbers(key, 0..3).await?;
        }
        let outage = Outage::begin(&subject);
        let steps = ["ours", "theirs"].map(|key| outage.delete(key, outage.ours())).to_vec();
        subject.append("ours", json("\"newer\"")).await?;
        let winner = outage.they_append("theirs", "\"newer\"").await?;
        let outcomes = outage.replay(steps.clone()).await?;
        assert_eq!(outcomes, [ReplayOutcome::Applied, ReplayOutcome::Superseded { winner }]);
        for _ in 0..2 {
            for key in ["ours", "theirs"] {
                let items = subject.items(key, ListRange::ALL).await?;
                assert_eq!(items.iter().map(|item| item.position).collect::<Vec<_>>(), [3], "it stays where it was");
                assert_eq!(subject.range(key, 0, -1).await?, ["\"newer\""]);
            }
            assert_eq!(outage.losses().await?.len(), 1);
            outage.replay(steps.clone()).await?;
        }
    }
    Ok(())
}

async fn a_replayed_delete_spares_newer_items_among_older_ones(subject: Database) -> Outcome {
    if subject.replays() {
        // The order in a list is that of the commits, whatever the clocks say.
        let outage = Outage::begin(&subject);
        let (older, between, oldest, step) = (outage.ours(), outage.ours(), outage.ours(), outage.ours());
        let (first, second) = (outage.theirs(), outage.theirs());
        let stamps = [("0", older), ("1", first), ("2", between), ("3", second), ("4", oldest)];
        let items = stamps.map(|(value, stamp)| Append::new(subject.key("list"), json(value), stamp));
        subject.append_many(items.to_vec()).await?;
        subject.append_many(items.to_vec()).await?;
        assert_eq!(subject.length("list").await?, 5);
        let before = subject.items("list", ListRange::ALL).await?;
        let outcome = outage.replay_one(outage.delete("list", step)).await?;
        assert_eq!(outcome, ReplayOutcome::Superseded { winner: second });
        let after = subject.items("list", ListRange::ALL).await?;
        assert_eq!(subject.range("list", 0, -1).await?, ["1", "3"]);
        assert_eq!(subject.length("list").await?, 2);
        assert_eq!(subject.range("list", -1, -1).await?, ["3"]);
        assert!(after[0].position < after[1].position);
        assert!(after.iter().zip([&before[1], &before[3]]).all(|(after, before)| after.id == before.id));
        let next = subject.append("list", json("5")).await?;
        assert!(next.position > Some(after[1].position) && next.position > Some(before[4].position));
        // Those that stay are still known by their ids, and those that went do not come back.
        let known = items.into_iter().skip(1).step_by(2).collect();
        assert!(subject.append_many(known).await?.iter().all(|ack| ack.existed == Some(true)));
        for (value, stamp) in [("0", older), ("2", between), ("4", oldest)] {
            assert_eq!(outage.replay_one(outage.append("list", value, stamp)).await?, ReplayOutcome::AlreadyApplied);
        }
        assert_eq!(subject.range("list", 0, -1).await?, ["1", "3", "5"]);
    }
    Ok(())
}

async fn a_replayed_delete_leaves_the_ids_of_newer_items_that_were_trimmed(subject: Database) -> Outcome {
    if subject.replays() {
        subject.append("list", json("0")).await?;
        let outage = Outage::begin(&subject);
        let step = outage.delete("list", outage.ours());
        let stamp = outage.they_append("list", "1").await?;
        subject.trim("list", 0).await?;
        outage.replay_one(step).await?;
        // As if the reply to the append had been lost: it is newer than the delete, and was trimmed since.
        let again = Append::new(subject.key("list"), json("1"), stamp);
        assert_eq!(subject.append_item(again).await?.existed, Some(true));
        assert_eq!(subject.length("list").await?, 0);
    }
    Ok(())
}

async fn a_replayed_delete_judges_value_and_list_apart(subject: Database) -> Outcome {
    if subject.replays() {
        for key in ["value", "list"] {
            subject.put(key, json("1")).await?;
            subject.append_numbers(key, 0..2).await?;
        }
        let outage = Outage::begin(&subject);
        let steps = ["value", "list"].map(|key| outage.delete(key, outage.ours()));
        let value = outage.they_put("value", "2").await?;
        let item = outage.they_append("list", "2").await?;
        let outcomes = outage.replay(steps.into()).await?;
        assert_eq!(outcomes, [value, item].map(|winner| ReplayOutcome::Superseded { winner }));
        assert_eq!(subject.get_many(&["value", "list"]).await?, [Some(json("2")), None]);
        assert_eq!(subject.length("value").await?, 0);
        assert_eq!(subject.range("list", 0, -1).await?, ["2"]);
    }
    Ok(())
}

async fn a_replayed_delete_keeps_what_others_appended_meanwhile(subject: Database) -> Outcome {
    if subject.replays() {
        let before = Outage::begin(&subject);
        before.they_append("list", "\"long ago\"").await?;
        subject.append("list", json("\"ours\"")).await?;
        let outage = before.next();
        let theirs = outage.they_append("list", "\"theirs\"").await?;
        subject.append("list", json("\"ours\"")).await?;
        let winner = outage.ours();
        assert_eq!(outage.replay_one(outage.delete("list", winner)).await?, ReplayOutcome::Applied);
        assert_eq!(subject.length("list").await?, 0);
        let expected = ("list".to_owned(), theirs, lost_append("\"theirs\"", theirs), winner);
        assert_eq!(outage.losses().await?, [expected]);
    }
    Ok(())
}

async fn a_delete_among_replayed_appends_counts(subject: Database) -> Outcome {
    if subject.replays() {
        let outage = Outage::begin(&subject);
        let steps = vec![
            outage.append("list", "1", outage.ours()),
            outage.append("list", "2", outage.ours()),
            outage.delete("list", outage.ours()),
            outage.append("list", "3", outage.ours()),
            outage.append("other", "1", outage.ours()),
        ];
        for _ in 0..2 {
            outage.replay(steps.clone()).await?;
            assert_eq!(subject.range("list", 0, -1).await?, ["3"]);
            assert_eq!(subject.range("other", 0, -1).await?, ["1"]);
        }
        assert!(outage.losses().await?.is_empty());
    }
    Ok(())
}

async fn an_append_by_a_slow_clock_outlives_a_second_replay_of_a_delete(subject: Database) -> Outcome {
    if subject.replays() {
        let slow = subject.slow_clock();
        subject.append("list", json("0")).await?;
        let outage = Outage::begin(&subject);
        let steps = ["list", "nothing"].map(|key| outage.delete(key, outage.ours())).to_vec();
        outage.replay(steps.clone()).await?;
        for key in ["list", "nothing"] {
            subject.append_many(vec![Append::new(subject.key(key), json("1"), slow.issue())]).await?;
        }
        outage.replay(steps).await?;
        for key in ["list", "nothing"] {
            assert_eq!(subject.range(key, 0, -1).await?, ["1"]);
        }
    }
    Ok(())
}

async fn positions_rise_over_replays(subject: Database) -> Outcome {
    if subject.replays() {
        let outage = Outage::begin(&subject);
        let mut last = None;
        for round in 0..4 {
            let acked = subject.append("list", json(round.to_string())).await?.position;
            assert!(acked > last, "{acked:?} after {last:?}");
            outage.replay_one(outage.append("list", "\"replayed\"", outage.ours())).await?;
            last = subject.items("list", ListRange::last(1)).await?.first().map(|item| item.position);
            assert!(last > acked, "{last:?} after {acked:?}");
            if round == 1 {
                outage.replay_one(outage.delete("list", outage.ours())).await?;
            }
        }
        assert_eq!(subject.length("list").await?, 4);
    }
    Ok(())
}

async fn what_follows_an_append_that_failed_is_withheld(subject: Database) -> Outcome {
    if subject.replays() {
        let outage = Outage::begin(&subject);
        let limit = subject.backend().capabilities().max_value_bytes;
        // What a journal gives back is not checked again.
        let large = Value::from_stored(vec![b' '; limit + 1].into(), Format::Binary);
        let steps = vec![
            outage.append("list", "1", outage.ours()),
            Step::Append(Append::new(subject.key("list"), large, outage.ours())),
            outage.append("list", "2", outage.ours()),
            outage.append("other", "3", outage.ours()),
            outage.put("list", "4", outage.ours()),
            outage.append("list", "5", outage.ours()),
        ];
        let mut answers = outage.answers(steps.clone()).await;
        assert_kind(answers.remove(1), ErrorKind::TooLarge);
        let outcomes: Vec<_> = answers.into_iter().collect::<crate::Result<_>>()?;
        let (applied, withheld) = (ReplayOutcome::Applied, ReplayOutcome::Withheld);
        assert_eq!(outcomes, [applied, withheld, applied, applied, withheld]);
        assert_eq!(subject.range("list", 0, -1).await?, ["1"]);
        // Once the one in the way is gone, they come in their order.
        let steps: Vec<_> = steps.into_iter().enumerate().filter(|(at, _)| *at != 1).map(|(_, step)| step).collect();
        let outcomes = outage.replay(steps).await?;
        let there = ReplayOutcome::AlreadyApplied;
        assert_eq!(outcomes, [there, applied, there, there, applied]);
        assert_eq!(subject.range("list", 0, -1).await?, ["1", "2", "5"]);
    }
    Ok(())
}
