//! `replay`: steps that may have been applied before, each once in effect. Here: values, and steps in general.

use std::time::Duration;

use super::replay_tools::{Database, Outage, lost_put};
use super::tools::{assert_kind, assert_value, binary, json, revised, together};
use crate::contract::{
    ConflictOptions, ConflictPolicy, Context, DatabaseBackend, Expiry, LostOperation, ReplayOptions, ReplayOutcome,
    Step, Write, WriteMode, WriteOp,
};
use crate::testkit::case::cases;
use crate::testkit::{Case, Outcome};
use crate::{ErrorKind, Revision, Stamp, Timestamp, Ttl, Value};

pub(super) fn cases() -> Vec<Case<dyn DatabaseBackend>> {
    cases!["replay":
        replay_agrees_with_the_capabilities,
        a_replayed_put_is_applied_once,
        a_replayed_put_comes_back_as_it_was,
        a_replayed_put_wins_over_an_older_one,
        a_replayed_put_loses_against_a_newer_one_of_another_writer,
        a_replayed_put_does_not_undo_a_newer_one_of_its_own_writer,
        what_an_heir_writes_is_in_no_conflict_with_what_it_took_over,
        writers_of_one_journal_are_judged_each_as_its_own,
        a_replayed_delete_is_applied_once,
        a_replayed_delete_leaves_a_tombstone_where_nothing_was,
        a_replayed_delete_does_not_undo_a_newer_put,
        steps_of_one_key_are_replayed_in_order,
        a_ttl_counts_from_the_replay_on,
        a_replayed_put_that_has_ended_is_never_read_and_brings_nothing_older_back,
        a_replayed_put_that_has_ended_loses_as_any_other,
        a_write_by_a_slow_clock_after_a_replay_is_visible,
        a_step_that_cannot_be_replayed_fails_alone,
        a_value_over_the_limit_fails_alone,
        a_replay_after_its_deadline_applies_nothing,
        a_replay_done_twice_changes_nothing_more,
        the_same_replay_by_two_at_once_has_effect_once,
        ten_thousand_steps_are_replayed,
        the_newest_stamps_of_values_and_deletes_are_told,
    ]
}

async fn the_newest_stamps_of_values_and_deletes_are_told(subject: Database) -> Outcome {
    if subject.replays() {
        let (store, cx) = (subject.backend(), subject.cx());
        subject.put("kept", json("1")).await?;
        let kept = revised(subject.put("kept", json("2")).await?.revision)?.to_stamp();
        subject.append("list", json("1")).await?;
        subject.put("undone", json("1")).await?;
        let outage = Outage::begin(&subject);
        let (undone, deleted) = (outage.they_delete("undone").await?, outage.they_delete("deleted").await?);
        let keys = ["kept", "undone", "deleted", "list", "none", "kept"].map(|key| subject.key(key));
        let stamps = store.stamps(&keys, &cx).await?;
        assert_eq!(stamps, [kept, Some(undone), Some(deleted), None, None, kept]);
        assert!(store.stamps(&[], &cx).await?.is_empty());
    }
    Ok(())
}

async fn replay_agrees_with_the_capabilities(subject: Database) -> Outcome {
    let (store, cx) = (subject.backend(), subject.cx());
    let options = ReplayOptions::new(Stamp::MIN);
    assert!(store.replay(Vec::new(), &options, &cx).await.is_empty());
    let steps = vec![subject.put_step("k", "1"), subject.put_step("k", "2")];
    let answers = store.replay(steps, &options, &cx).await;
    assert_eq!(answers.len(), 2);
    let conflicts = store.conflicts(&ConflictOptions::default(), &cx).await;
    let forgotten = store.forget_conflict(&subject.key("k"), subject.stamp(), &cx).await;
    if subject.replays() {
        for answer in answers {
            assert_eq!(answer?, ReplayOutcome::Applied);
        }
        assert!(subject.conflicts().await?.is_empty());
        assert!(!forgotten?);
        store.expect(None)?;
    } else {
        for answer in answers {
            assert_kind(answer, ErrorKind::Unsupported);
        }
        // A chain replays by itself, but shows its primary's conflicts.
        match conflicts {
            Ok(conflicts) => assert!(conflicts.is_empty() && !forgotten?),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unsupported);
                assert_kind(forgotten, ErrorKind::Unsupported);
            }
        }
        assert_kind(store.expect(None), ErrorKind::Unsupported);
        assert_kind(store.expect(Some(store.identity(&cx).await?)), ErrorKind::Unsupported);
        assert!(!subject.exists("k").await?);
    }
    Ok(())
}

async fn a_replayed_put_is_applied_once(subject: Database) -> Outcome {
    if subject.replays() {
        let outage = Outage::begin(&subject);
        let step = outage.put("k", "1", outage.ours());
        assert_eq!(outage.replay_one(step.clone()).await?, ReplayOutcome::Applied);
        assert_eq!(outage.replay_one(step).await?, ReplayOutcome::AlreadyApplied);
        assert_value(subject.get("k").await?, &json("1"));
        assert_eq!(subject.count("").await?, 1);
    }
    Ok(())
}

async fn a_replayed_put_comes_back_as_it_was(subject: Database) -> Outcome {
    if subject.replays() {
        let outage = Outage::begin(&subject);
        let values = [json(" { \"b\":1e400,\"b\" : \"\\u0000\" } "), binary([0, 255, 0]), binary([]), json("null")];
        let stamps: Vec<Stamp> = values.iter().map(|_| outage.ours()).collect();
        let steps = values.iter().zip(&stamps).enumerate();
        let steps = steps.map(|(at, (value, stamp))| outage.put_value(&at.to_string(), value.clone(), None, *stamp));
        assert_eq!(outage.replay(steps.collect()).await?, [ReplayOutcome::Applied; 4]);
        for (at, (value, stamp)) in values.iter().zip(stamps).enumerate() {
            let entry = subject.entry(&at.to_string()).await?;
            assert_value(Some(entry.value), value);
            assert_eq!(entry.revision, Revision::from_stamp(stamp), "it has the stamp that it was given");
        }
    }
    Ok(())
}

async fn a_replayed_put_wins_over_an_older_one(subject: Database) -> Outcome {
    if subject.replays() {
        subject.put_for("k", json("1"), Ttl::from_secs(3600)?).await?;
        let outage = Outage::begin(&subject);
        assert_eq!(outage.replay_one(outage.put("k", "2", outage.ours())).await?, ReplayOutcome::Applied);
        let entry = subject.entry("k").await?;
        assert_value(Some(entry.value), &json("2"));
        assert_eq!(entry.expiry, Expiry::Never, "the older one's TTL is gone with it");
        assert!(outage.losses().await?.is_empty());
    }
    Ok(())
}

async fn a_replayed_put_loses_against_a_newer_one_of_another_writer(subject: Database) -> Outcome {
    if subject.replays() {
        let outage = Outage::begin(&subject);
        let step = outage.put("k", "1", outage.ours());
        let winner = outage.they_put("k", "2").await?;
        for _ in 0..2 {
            assert_eq!(outage.replay_one(step.clone()).await?, ReplayOutcome::Superseded { winner });
            assert_value(subject.get("k").await?, &json("2"));
            assert_eq!(outage.losses().await?.len(), 1);
        }
    }
    Ok(())
}

async fn a_replayed_put_does_not_undo_a_newer_one_of_its_own_writer(subject: Database) -> Outcome {
    if subject.replays() {
        let outage = Outage::begin(&subject);
        let older = outage.ours();
        subject.put("k", json("2")).await?;
        assert_eq!(outage.replay_one(outage.put("k", "1", older)).await?, ReplayOutcome::AlreadyApplied);
        assert_value(subject.get("k").await?, &json("2"));
        subject.delete("k").await?;
        assert_eq!(outage.replay_one(outage.put("k", "1", older)).await?, ReplayOutcome::AlreadyApplied);
        assert!(!subject.exists("k").await?);
        assert!(outage.losses().await?.is_empty());
    }
    Ok(())
}

async fn what_an_heir_writes_is_in_no_conflict_with_what_it_took_over(subject: Database) -> Outcome {
    if subject.replays() {
        // As of a process that found the journal of a dead one, which the other one here is.
        let mut outage = Outage::begin(&subject);
        let unaware = outage.ours();
        let left = [outage.theirs(), outage.theirs()];
        outage.options.succession.add(unaware.writer(), left[0].writer(), outage.ours());
        for policy in [ConflictPolicy::PrimaryWins, ConflictPolicy::LastWriterWins] {
            outage = outage.with_policy(policy);
            let aware = outage.ours();
            outage.they_replay("k", "1", left[0]).await?;
            assert_eq!(outage.replay_one(outage.put("k", "2", aware)).await?, ReplayOutcome::Applied);
            assert_eq!(outage.they_replay("k", "1", left[1]).await?, ReplayOutcome::AlreadyApplied);
            assert_value(subject.get("k").await?, &json("2"));
        }
        assert!(outage.losses().await?.is_empty());
        outage.they_replay("other", "1", left[0]).await?;
        let lost = ReplayOutcome::Superseded { winner: left[0] };
        assert_eq!(outage.replay_one(outage.put("other", "2", unaware)).await?, lost);
        assert_eq!(outage.losses().await?.len(), 1, "before it took over, it did not know of it");
    }
    Ok(())
}

async fn writers_of_one_journal_are_judged_each_as_its_own(subject: Database) -> Outcome {
    if subject.replays() {
        let outage = Outage::begin(&subject);
        let (older, newer, newest) = (outage.ours(), outage.theirs(), outage.ours());
        let steps = vec![
            outage.put("a", "1", newer),
            outage.put("a", "2", older),
            outage.put("b", "1", newer),
            outage.put("b", "2", newest),
        ];
        let lost = ReplayOutcome::Superseded { winner: newer };
        let expected = [ReplayOutcome::Applied, lost, ReplayOutcome::Applied, ReplayOutcome::Applied];
        assert_eq!(outage.replay(steps).await?, expected);
        assert_eq!(subject.get_many(&["a", "b"]).await?, [Some(json("1")), Some(json("2"))]);
        let losses = [("a".into(), older, lost_put("2"), newer), ("b".into(), newer, lost_put("1"), newest)];
        assert_eq!(outage.losses().await?, losses);
    }
    Ok(())
}

async fn a_replayed_delete_is_applied_once(subject: Database) -> Outcome {
    if subject.replays() {
        subject.put("k", json("1")).await?;
        let outage = Outage::begin(&subject);
        let step = outage.delete("k", outage.ours());
        assert_eq!(outage.replay_one(step.clone()).await?, ReplayOutcome::Applied);
        assert!(!subject.exists("k").await?);
        assert_eq!(outage.replay_one(step.clone()).await?, ReplayOutcome::AlreadyApplied);
        subject.put("k", json("2")).await?;
        outage.replay_one(step).await?;
        assert_value(subject.get("k").await?, &json("2"));
        assert!(outage.losses().await?.is_empty());
    }
    Ok(())
}

async fn a_replayed_delete_leaves_a_tombstone_where_nothing_was(subject: Database) -> Outcome {
    if subject.replays() {
        let outage = Outage::begin(&subject);
        let older = outage.ours();
        assert_eq!(outage.replay_one(outage.delete("k", outage.ours())).await?, ReplayOutcome::Applied);
        assert_eq!(outage.replay_one(outage.put("k", "1", older)).await?, ReplayOutcome::AlreadyApplied);
        assert!(!subject.exists("k").await?);
        assert!(subject.names("").await?.is_empty());
    }
    Ok(())
}

async fn a_replayed_delete_does_not_undo_a_newer_put(subject: Database) -> Outcome {
    if subject.replays() {
        let outage = Outage::begin(&subject);
        let steps = [outage.delete("ours", outage.ours()), outage.delete("theirs", outage.ours())];
        subject.put("ours", json("1")).await?;
        let winner = outage.they_put("theirs", "2").await?;
        let outcomes = outage.replay(steps.into()).await?;
        assert!(!matches!(outcomes[0], ReplayOutcome::Superseded { .. }), "{:?}", outcomes[0]);
        assert_eq!(outcomes[1], ReplayOutcome::Superseded { winner });
        assert_eq!(subject.get_many(&["ours", "theirs"]).await?, [Some(json("1")), Some(json("2"))]);
        assert_eq!(outage.losses().await?.len(), 1);
    }
    Ok(())
}

async fn steps_of_one_key_are_replayed_in_order(subject: Database) -> Outcome {
    if subject.replays() {
        let outage = Outage::begin(&subject);
        let steps = vec![
            outage.put("a", "1", outage.ours()),
            outage.delete("a", outage.ours()),
            outage.put("b", "1", outage.ours()),
            outage.put("a", "2", outage.ours()),
            outage.delete("b", outage.ours()),
            outage.put("c", "1", outage.ours()),
            outage.put("c", "2", outage.ours()),
        ];
        for _ in 0..2 {
            let outcomes = outage.replay(steps.clone()).await?;
            let lost = |outcome: &ReplayOutcome| matches!(outcome, ReplayOutcome::Superseded { .. });
            assert!(!outcomes.iter().any(lost), "{outcomes:?}");
            assert_eq!(subject.get_many(&["a", "b", "c"]).await?, [Some(json("2")), None, Some(json("2"))]);
        }
        assert!(outage.losses().await?.is_empty());
    }
    Ok(())
}

async fn a_ttl_counts_from_the_replay_on(subject: Database) -> Outcome {
    if subject.replays() {
        let outage = Outage::begin(&subject);
        let step = outage.put_value("k", json("1"), Some(subject.short_ttl()), outage.ours());
        assert_eq!(outage.replay_one(step).await?, ReplayOutcome::Applied);
        // By a clock out of reach it may be gone already.
        if let Ok(entry) = subject.entry("k").await {
            assert!(matches!(entry.expiry, Expiry::At(_)), "{:?}", entry.expiry);
        }
        subject.lapse(&["k"]).await?;
        assert_eq!(subject.get("k").await?, None);
    }
    Ok(())
}

async fn a_replayed_put_that_has_ended_is_never_read_and_brings_nothing_older_back(subject: Database) -> Outcome {
    if subject.replays() {
        subject.put("k", json("\"before\"")).await?;
        let outage = Outage::begin(&subject);
        let older = outage.put("k", "\"older\"", outage.ours());
        let list = outage.append("k", "1", outage.ours());
        // By a clock that is ahead of the store's it ended in the future.
        for ended in [outage.now(), Timestamp::from_millis(outage.now().as_millis() + 3_600_000)] {
            let step = outage.ended("k", "\"ended\"", ended, outage.ours());
            assert_eq!(outage.replay_one(step.clone()).await?, ReplayOutcome::Applied);
            assert_eq!(subject.get("k").await?, None);
            assert!(subject.names("").await?.is_empty());
            let outcomes = outage.replay(vec![older.clone(), step]).await?;
            assert_eq!(outcomes, [ReplayOutcome::AlreadyApplied; 2]);
            assert_eq!(subject.get("k").await?, None);
        }
        assert_eq!(outage.replay_one(list).await?, ReplayOutcome::Applied, "it is no delete of the list");
        assert_eq!(subject.range("k", 0, -1).await?, ["1"]);
    }
    Ok(())
}

async fn a_replayed_put_that_has_ended_loses_as_any_other(subject: Database) -> Outcome {
    if subject.replays() {
        let outage = Outage::begin(&subject);
        let (ended, stamp) = (outage.now(), outage.ours());
        let winner = outage.they_put("k", "2").await?;
        let step = outage.ended("k", "1", ended, stamp);
        assert_eq!(outage.replay_one(step).await?, ReplayOutcome::Superseded { winner });
        assert_value(subject.get("k").await?, &json("2"));
        let lost = LostOperation::Put { value: json("1"), expires_at: Some(ended) };
        assert_eq!(outage.losses().await?, [("k".into(), stamp, lost, winner)]);
    }
    Ok(())
}

async fn a_write_by_a_slow_clock_after_a_replay_is_visible(subject: Database) -> Outcome {
    if subject.replays() {
        let outage = Outage::begin(&subject);
        let slow = subject.slow_clock();
        outage.replay(vec![outage.put("a", "1", outage.ours()), outage.delete("b", outage.ours())]).await?;
        for key in ["a", "b"] {
            let ack = subject.write(Write::put(subject.key(key), json("2"), slow.issue())).await?;
            assert_value(subject.get(key).await?, &json("2"));
            assert_eq!(revised(ack.revision)?, subject.revision(key).await?);
        }
    }
    Ok(())
}

async fn a_step_that_cannot_be_replayed_fails_alone(subject: Database) -> Outcome {
    if subject.replays() {
        let seen = revised(subject.put("k", json("1")).await?.revision)?;
        subject.append_numbers("list", 0..3).await?;
        let outage = Outage::begin(&subject);
        let put = |mode| WriteOp::Put { value: json("2"), mode, ttl: None };
        let ops = [
            put(WriteMode::Create),
            put(WriteMode::Update(seen)),
            put(WriteMode::Replace(seen)),
            WriteOp::Delete { only_if: Some(seen) },
            WriteOp::Touch { ttl: None },
        ];
        let mut steps: Vec<Step> =
            ops.into_iter().map(|op| Step::Write(Write::new(subject.key("k"), op, outage.ours()))).collect();
        steps.push(Step::Trim { key: subject.key("list"), keep_last: 1 });
        steps.insert(0, outage.put("first", "1", outage.ours()));
        steps.insert(3, outage.append("list", "3", outage.ours()));
        steps.push(outage.put("last", "1", outage.ours()));
        let mut answers = outage.answers(steps).await;
        for (at, answer) in [answers.pop(), Some(answers.remove(3)), Some(answers.remove(0))].into_iter().enumerate() {
            assert_eq!(answer.expect("an answer")?, ReplayOutcome::Applied, "good step {at} from the end");
        }
        assert_eq!(answers.len(), 6);
        answers.into_iter().for_each(|answer| assert_kind(answer, ErrorKind::Unsupported));
        assert_value(subject.get("k").await?, &json("1"));
        assert_eq!(subject.range("list", 0, -1).await?, ["0", "1", "2", "3"]);
        assert_eq!(subject.names("").await?, ["first", "k", "last", "list"]);
    }
    Ok(())
}

async fn a_value_over_the_limit_fails_alone(subject: Database) -> Outcome {
    if subject.replays() {
        let limit = subject.backend().capabilities().max_value_bytes;
        // Where the limit is that of every value, only what a journal gives back without a check is over it.
        let large = Value::from_stored(vec![b' '; limit + 1].into(), crate::Format::Binary);
        let outage = Outage::begin(&subject);
        let steps = vec![
            outage.put("a", "1", outage.ours()),
            outage.put_value("large", large, None, outage.ours()),
            outage.put("b", "1", outage.ours()),
        ];
        let mut answers = outage.answers(steps).await;
        assert_kind(answers.remove(1), ErrorKind::TooLarge);
        for answer in answers {
            assert_eq!(answer?, ReplayOutcome::Applied);
        }
        assert_eq!(subject.names("").await?, ["a", "b"]);
    }
    Ok(())
}

async fn a_replay_after_its_deadline_applies_nothing(subject: Database) -> Outcome {
    if subject.replays() {
        let outage = Outage::begin(&subject);
        let steps = vec![outage.put("k", "1", outage.ours()), outage.append("list", "1", outage.ours())];
        let late = Context::with_timeout(Duration::ZERO);
        let answers = subject.backend().replay(steps, &outage.options, &late).await;
        assert_eq!(answers.len(), 2);
        answers.into_iter().for_each(|answer| assert_kind(answer, ErrorKind::Unavailable));
        assert!(subject.names("").await?.is_empty());
    }
    Ok(())
}

async fn a_replay_done_twice_changes_nothing_more(subject: Database) -> Outcome {
    if subject.replays() {
        let outage = Outage::begin(&subject);
        let lost = [outage.put("lost", "1", outage.ours()), outage.append("gone", "1", outage.ours())];
        let winner = outage.they_put("lost", "2").await?;
        let floor = outage.they_delete("gone").await?;
        outage.they_put("won", "1").await?;
        let mut steps = vec![
            outage.put("k", "1", outage.ours()),
            outage.append("list", "1", outage.ours()),
            outage.append("list", "2", outage.ours()),
            outage.delete("deleted", outage.ours()),
            outage.put("won", "2", outage.ours()),
        ];
        steps.extend(lost);
        let mut expected = vec![ReplayOutcome::Applied; 5];
        expected.extend([winner, floor].map(|winner| ReplayOutcome::Superseded { winner }));
        assert_eq!(outage.replay(steps.clone()).await?, expected);
        let (names, losses) = (subject.names("").await?, outage.losses().await?);
        assert_eq!((names.len(), losses.len()), (4, 3));
        expected[..5].fill(ReplayOutcome::AlreadyApplied);
        assert_eq!(outage.replay(steps).await?, expected);
        assert_eq!(subject.names("").await?, names);
        assert_eq!(outage.losses().await?, losses);
        assert_eq!(subject.range("list", 0, -1).await?, ["1", "2"]);
        assert_eq!(subject.get_many(&["k", "won", "lost"]).await?, ["1", "2", "2"].map(|text| Some(json(text))));
    }
    Ok(())
}

async fn the_same_replay_by_two_at_once_has_effect_once(subject: Database) -> Outcome {
    if subject.replays() {
        let outage = Outage::begin(&subject);
        let steps: Vec<Step> = (0..200)
            .map(|number: u32| match number % 4 {
                0 => outage.put(&format!("k{}", number % 40), &number.to_string(), outage.ours()),
                1 => outage.delete(&format!("k{}", number % 40 - 1), outage.ours()),
                _ => outage.append(&format!("list{}", number % 3), &number.to_string(), outage.ours()),
            })
            .collect();
        together((0..4).map(|_| {
            let (subject, steps, options) = (subject.clone(), steps.clone(), outage.options.clone());
            async move {
                for answer in subject.backend().replay(steps, &options, &subject.cx()).await {
                    answer?;
                }
                Ok(())
            }
        }))
        .await?;
        for list in 0..3 {
            let expected: Vec<String> =
                (0..200).filter(|number| number % 4 > 1 && number % 3 == list).map(|n: u32| n.to_string()).collect();
            assert_eq!(subject.range(&format!("list{list}"), 0, -1).await?, expected);
        }
        assert_eq!(subject.count("k").await?, 0);
        assert!(outage.losses().await?.is_empty());
    }
    Ok(())
}

async fn ten_thousand_steps_are_replayed(subject: Database) -> Outcome {
    if subject.replays() {
        let outage = Outage::begin(&subject);
        let steps: Vec<Step> = (0..10_000)
            .map(|number| match number % 2 {
                0 => outage.put(&format!("k{number}"), &number.to_string(), outage.ours()),
                _ => outage.append(&format!("list{}", number % 10), &number.to_string(), outage.ours()),
            })
            .collect();
        let outcomes = outage.replay(steps.clone()).await?;
        assert!(outcomes.iter().all(|outcome| *outcome == ReplayOutcome::Applied));
        let outcomes = outage.replay(steps).await?;
        assert!(outcomes.iter().all(|outcome| *outcome == ReplayOutcome::AlreadyApplied));
        assert_eq!(subject.count("k").await?, 5000);
        assert_eq!(subject.length("list1").await?, 1000);
        assert_eq!(subject.range("list1", -1, -1).await?, ["9991"]);
    }
    Ok(())
}
