//! What is kept of writes that were acknowledged and lost: listed, told apart by key and stamp, and forgotten.

use super::replay_tools::{Database, Outage, lost_append, lost_put};
use super::tools::{assert_value, binary, json};
use crate::contract::{
    Append, ConflictPolicy, DatabaseBackend, Expiry, ListRange, LostOperation, ReplayOutcome, Write, WriteMode, WriteOp,
};
use crate::testkit::case::cases;
use crate::testkit::{Case, Elapse, Outcome};
use crate::{HybridClock, Stamp, Timestamp, Ttl};

pub(super) fn cases() -> Vec<Case<dyn DatabaseBackend>> {
    cases!["replay_conflicts":
        what_a_replayed_put_lost_is_kept_as_it_was,
        what_a_replayed_put_would_have_expired_at_is_kept,
        what_a_replayed_delete_lost_is_kept,
        what_was_overwritten_meanwhile_is_kept,
        what_was_overwritten_keeps_its_expiry,
        a_delete_that_was_overwritten_meanwhile_is_kept,
        what_was_written_before_the_outage_is_not_kept,
        what_its_own_writers_wrote_is_not_kept,
        the_primary_wins_where_the_policy_says_so,
        the_primary_wins_over_replayed_deletes_item_by_item,
        the_primary_loses_what_was_written_before_the_outage,
        items_that_were_stamped_anew_are_kept_each,
        conflicts_are_no_keys,
        conflicts_are_listed_in_order_and_in_pages,
        conflicts_of_one_stamp_are_all_listed,
        a_conflict_is_forgotten_once,
        a_conflict_is_forgotten_by_key_and_stamp,
    ]
}

async fn what_a_replayed_put_lost_is_kept_as_it_was(subject: Database) -> Outcome {
    if subject.replays() {
        let outage = Outage::begin(&subject);
        let values = [json(" { \"b\":1e400,\"b\" : \"\\u0000\" } "), binary([0, 255, 0]), binary([])];
        let mut expected = Vec::new();
        let mut steps = Vec::new();
        for (at, value) in values.into_iter().enumerate() {
            let (key, stamp) = (format!("k{at}"), outage.ours());
            steps.push(outage.put_value(&key, value.clone(), None, stamp));
            expected.push((key, stamp, LostOperation::Put { value, expires_at: None }));
        }
        let mut winners = Vec::new();
        for (key, ..) in &expected {
            winners.push(outage.they_put(key, "\"theirs\"").await?);
        }
        let outcomes = outage.replay(steps).await?;
        for ((winner, outcome), (_, stamp, _)) in winners.iter().zip(outcomes).zip(&expected) {
            assert_eq!(outcome, ReplayOutcome::Superseded { winner: *winner });
            assert!(winner > stamp);
        }
        let expected: Vec<_> =
            expected.into_iter().zip(winners).map(|((key, stamp, lost), winner)| (key, stamp, lost, winner)).collect();
        assert_eq!(outage.losses().await?, expected);
    }
    Ok(())
}

/// Checks an expiry a TTL after now, by a clock that may be a server's.
#[track_caller]
fn assert_ends_in(subject: &Database, actual: Option<Timestamp>, ttl: Ttl) {
    let actual = actual.expect("an expiry").as_millis();
    let expected = subject.elapse().clock().now().after(ttl).as_millis();
    let tolerance = if matches!(subject.elapse(), Elapse::Manual(_)) { 0 } else { 60_000 };
    assert!(actual.abs_diff(expected) <= tolerance, "{actual} is not {expected}");
}

async fn what_a_replayed_put_would_have_expired_at_is_kept(subject: Database) -> Outcome {
    if subject.replays() {
        let outage = Outage::begin(&subject);
        let ttl = Ttl::from_secs(3600)?;
        let step = outage.put_value("k", json("1"), Some(ttl), outage.ours());
        outage.they_put("k", "2").await?;
        outage.replay_one(step).await?;
        let records = subject.conflicts().await?;
        assert_eq!(records.len(), 1);
        let LostOperation::Put { value, expires_at } = &records[0].operation else {
            panic!("a put was kept as {:?}", records[0].operation);
        };
        assert_value(Some(value.clone()), &json("1"));
        assert_ends_in(&subject, *expires_at, ttl);
        let ago = subject.elapse().clock().now().as_millis().abs_diff(records[0].at.as_millis());
        assert!(ago < 60_000, "found {ago} ms ago");
        assert_value(subject.get("k").await?, &json("2"));
    }
    Ok(())
}

async fn what_a_replayed_delete_lost_is_kept(subject: Database) -> Outcome {
    if subject.replays() {
        let outage = Outage::begin(&subject);
        let (value, list) = (outage.ours(), outage.ours());
        let steps = vec![outage.delete("value", value), outage.delete("list", list)];
        let put = outage.they_put("value", "2").await?;
        let item = outage.they_append("list", "2").await?;
        outage.replay(steps).await?;
        let expected = [
            ("value".to_owned(), value, LostOperation::Delete, put),
            ("list".to_owned(), list, LostOperation::Delete, item),
        ];
        assert_eq!(outage.losses().await?, expected);
    }
    Ok(())
}

async fn what_was_overwritten_meanwhile_is_kept(subject: Database) -> Outcome {
    if subject.replays() {
        let outage = Outage::begin(&subject);
        let (put, deleted) = (outage.they_put("put", "1").await?, outage.they_put("deleted", "2").await?);
        let (over, delete) = (outage.ours(), outage.ours());
        let steps = vec![outage.put("put", "3", over), outage.delete("deleted", delete)];
        assert_eq!(outage.replay(steps.clone()).await?, [ReplayOutcome::Applied; 2]);
        assert_eq!(subject.get_many(&["put", "deleted"]).await?, [Some(json("3")), None]);
        let expected =
            [("put".to_owned(), put, lost_put("1"), over), ("deleted".to_owned(), deleted, lost_put("2"), delete)];
        assert_eq!(outage.losses().await?, expected);
        assert_eq!(outage.replay(steps).await?, [ReplayOutcome::AlreadyApplied; 2]);
        assert_eq!(outage.losses().await?, expected);
    }
    Ok(())
}

async fn what_was_overwritten_keeps_its_expiry(subject: Database) -> Outcome {
    if subject.replays() {
        let outage = Outage::begin(&subject);
        let (value, ttl) = (binary([0, 1, 2]), Ttl::from_secs(3600)?);
        let op = WriteOp::Put { value: value.clone(), mode: WriteMode::Upsert, ttl: Some(ttl) };
        subject.write(Write::new(subject.key("k"), op, outage.theirs())).await?;
        let Expiry::At(expires_at) = subject.entry("k").await?.expiry else { panic!("the entry has no expiry") };
        outage.replay_one(outage.put("k", "2", outage.ours())).await?;
        let kept: Vec<LostOperation> = outage.losses().await?.into_iter().map(|(_, _, lost, _)| lost).collect();
        assert_eq!(kept, [LostOperation::Put { value, expires_at: Some(expires_at) }]);
    }
    Ok(())
}

async fn a_delete_that_was_overwritten_meanwhile_is_kept(subject: Database) -> Outcome {
    if subject.replays() {
        subject.put("k", json("1")).await?;
        let outage = Outage::begin(&subject);
        let deleted = outage.they_delete("k").await?;
        let winner = outage.ours();
        assert_eq!(outage.replay_one(outage.put("k", "2", winner)).await?, ReplayOutcome::Applied);
        assert_value(subject.get("k").await?, &json("2"));
        assert_eq!(outage.losses().await?, [("k".to_owned(), deleted, LostOperation::Delete, winner)]);
    }
    Ok(())
}

async fn what_was_written_before_the_outage_is_not_kept(subject: Database) -> Outcome {
    if subject.replays() {
        let before = Outage::begin(&subject);
        before.they_put("put", "1").await?;
        before.they_put("deleted", "1").await?;
        before.they_delete("tombstone").await?;
        before.they_append("list", "1").await?;
        let outage = before.next();
        let steps = vec![
            outage.put("put", "2", outage.ours()),
            outage.delete("deleted", outage.ours()),
            outage.put("tombstone", "2", outage.ours()),
            outage.delete("list", outage.ours()),
        ];
        assert_eq!(outage.replay(steps).await?, [ReplayOutcome::Applied; 4]);
        assert_eq!(subject.names("").await?, ["put", "tombstone"]);
        assert!(outage.losses().await?.is_empty());
    }
    Ok(())
}

async fn what_its_own_writers_wrote_is_not_kept(subject: Database) -> Outcome {
    if subject.replays() {
        let outage = Outage::begin(&subject);
        subject.put("put", json("1")).await?;
        subject.delete("tombstone").await?;
        subject.append("list", json("1")).await?;
        let steps = vec![
            outage.put("put", "2", outage.ours()),
            outage.put("tombstone", "2", outage.ours()),
            outage.delete("list", outage.ours()),
        ];
        assert_eq!(outage.replay(steps).await?, [ReplayOutcome::Applied; 3]);
        assert!(outage.losses().await?.is_empty());
    }
    Ok(())
}

async fn the_primary_wins_where_the_policy_says_so(subject: Database) -> Outcome {
    if subject.replays() {
        subject.append("list", json("0")).await?;
        let outage = Outage::begin(&subject).with_policy(ConflictPolicy::PrimaryWins);
        let put = outage.they_put("put", "1").await?;
        let deleted = outage.they_delete("tombstone").await?;
        let floor = outage.they_delete("list").await?;
        let cleared = outage.they_put("cleared", "1").await?;
        let stamps: [Stamp; 4] = std::array::from_fn(|_| outage.ours());
        let steps = vec![
            outage.put("put", "2", stamps[0]),
            outage.put("tombstone", "2", stamps[1]),
            outage.append("list", "2", stamps[2]),
            outage.clear("cleared", stamps[3]),
            outage.put("new", "2", outage.ours()),
        ];
        for first in [true, false] {
            let outcomes = outage.replay(steps.clone()).await?;
            assert_eq!(outcomes[..3], [put, deleted, floor].map(|winner| ReplayOutcome::Superseded { winner }));
            assert_eq!(outcomes[4] == ReplayOutcome::Applied, first);
            assert_eq!(subject.names("").await?, ["cleared", "new", "put"]);
            assert_value(subject.get("put").await?, &json("1"));
            let expected = [
                ("put".to_owned(), stamps[0], lost_put("2"), put),
                ("tombstone".to_owned(), stamps[1], lost_put("2"), deleted),
                ("list".to_owned(), stamps[2], lost_append("2", stamps[2]), floor),
                ("cleared".to_owned(), stamps[3], LostOperation::Delete, cleared),
            ];
            assert_eq!(outage.losses().await?, expected);
        }
    }
    Ok(())
}

async fn the_primary_wins_over_replayed_deletes_item_by_item(subject: Database) -> Outcome {
    if subject.replays() {
        subject.put("k", json("1")).await?;
        subject.append_numbers("k", 0..2).await?;
        let outage = Outage::begin(&subject).with_policy(ConflictPolicy::PrimaryWins);
        let winner = outage.they_append("k", "2").await?;
        subject.append("k", json("3")).await?;
        let stamp = outage.ours();
        let step = outage.delete("k", stamp);
        assert_eq!(outage.replay_one(step.clone()).await?, ReplayOutcome::Superseded { winner });
        for _ in 0..2 {
            assert_eq!(subject.get("k").await?, None);
            assert_eq!(subject.range("k", 0, -1).await?, ["2"]);
            assert_eq!(subject.items("k", ListRange::ALL).await?[0].id.as_str(), winner.to_string());
            assert_eq!(outage.losses().await?, [("k".to_owned(), stamp, LostOperation::Delete, winner)]);
            outage.replay_one(step.clone()).await?;
        }
    }
    Ok(())
}

async fn the_primary_loses_what_was_written_before_the_outage(subject: Database) -> Outcome {
    if subject.replays() {
        let before = Outage::begin(&subject);
        before.they_put("put", "1").await?;
        before.they_append("list", "1").await?;
        let outage = before.next().with_policy(ConflictPolicy::PrimaryWins);
        let steps = vec![outage.put("put", "2", outage.ours()), outage.delete("list", outage.ours())];
        assert_eq!(outage.replay(steps).await?, [ReplayOutcome::Applied; 2]);
        assert_eq!(subject.names("").await?, ["put"]);
        assert_value(subject.get("put").await?, &json("2"));
        assert!(outage.losses().await?.is_empty());
    }
    Ok(())
}

async fn items_that_were_stamped_anew_are_kept_each(subject: Database) -> Outcome {
    if subject.replays() {
        let outage = Outage::begin(&subject);
        let early = [outage.theirs(), outage.theirs()];
        outage.they_delete("k").await?;
        let items =
            early.iter().zip(["1", "2"]).map(|(stamp, value)| Append::new(subject.key("k"), json(value), *stamp));
        subject.append_many(items.collect()).await?;
        // A third process, which knew of nothing.
        let third = HybridClock::new(subject.elapse().clock());
        third.observe(outage.ours());
        assert_eq!(outage.replay_one(outage.delete("k", third.issue())).await?, ReplayOutcome::Applied);
        assert!(subject.range("k", 0, -1).await?.is_empty());
        let mut lost = Vec::new();
        for (_, stamp, operation, _) in outage.losses().await? {
            let LostOperation::Append { value, .. } = operation else { continue };
            lost.push((stamp, value.decode::<i64>()?));
        }
        lost.sort_unstable();
        assert!(matches!(lost[..], [(first, 1), (second, 2)] if first < second), "{lost:?}");
    }
    Ok(())
}

/// Has replayed puts lose under so many keys; gives the keys with the stamps of what was lost.
async fn lose(outage: &Outage, keys: usize) -> crate::Result<Vec<(String, Stamp)>> {
    let lost: Vec<_> = (0..keys).map(|number| (format!("k{:03}", keys - number), outage.ours())).collect();
    for (key, _) in &lost {
        outage.they_put(key, "2").await?;
    }
    outage.replay(lost.iter().map(|(key, stamp)| outage.put(key, "1", *stamp)).rev().collect()).await?;
    Ok(lost)
}

async fn conflicts_are_no_keys(subject: Database) -> Outcome {
    if subject.replays() {
        lose(&Outage::begin(&subject), 2).await?;
        assert_eq!(subject.names("").await?, ["k001", "k002"]);
        assert_eq!(subject.count("").await?, 2);
        subject.clear("").await?;
        assert_eq!(subject.conflicts().await?.len(), 2, "a clear does not see to conflicts");
    }
    Ok(())
}

async fn conflicts_are_listed_in_order_and_in_pages(subject: Database) -> Outcome {
    if subject.replays() {
        let lost = lose(&Outage::begin(&subject), 25).await?;
        for limit in [1, 2, 7, 25, 26, 1000] {
            let listed = subject.conflicts_by(limit).await?;
            let stamps: Vec<Stamp> = listed.iter().map(|record| record.stamp).collect();
            assert_eq!(stamps, lost.iter().map(|(_, stamp)| *stamp).collect::<Vec<_>>(), "in pages of {limit}");
            assert!(listed.iter().zip(&lost).all(|(record, (key, _))| record.key == subject.key(key)));
        }
    }
    Ok(())
}

async fn conflicts_of_one_stamp_are_all_listed(subject: Database) -> Outcome {
    if subject.replays() {
        let outage = Outage::begin(&subject);
        let stamp = outage.theirs();
        let keys = ["a", "b", "c", "d", "e"];
        // As a clear leaves them.
        let deletes = keys.map(|key| Write::delete(subject.key(key), stamp));
        subject.write_all(deletes.into()).await?;
        outage.replay(keys.map(|key| outage.put(key, "1", outage.ours())).into()).await?;
        for limit in [1, 2, 5, 1000] {
            let listed = subject.conflicts_by(limit).await?;
            let listed: Vec<_> = listed.iter().map(|record| (record.key.clone(), record.stamp)).collect();
            assert_eq!(listed, keys.map(|key| (subject.key(key), stamp)), "in pages of {limit}");
        }
    }
    Ok(())
}

async fn a_conflict_is_forgotten_once(subject: Database) -> Outcome {
    if subject.replays() {
        let mut lost = lose(&Outage::begin(&subject), 3).await?;
        let (key, stamp) = lost.remove(1);
        let forget = || async { subject.backend().forget_conflict(&subject.key(&key), stamp, &subject.cx()).await };
        assert!(forget().await?);
        assert!(!forget().await?);
        let left: Vec<_> = subject.losses().await?.into_iter().map(|(key, stamp, ..)| (key, stamp)).collect();
        assert_eq!(left, lost);
        assert_eq!(subject.count("").await?, 3, "the entries stay");
    }
    Ok(())
}

async fn a_conflict_is_forgotten_by_key_and_stamp(subject: Database) -> Outcome {
    if subject.replays() {
        let lost = lose(&Outage::begin(&subject), 2).await?;
        let ((one, first), (two, second)) = (&lost[0], &lost[1]);
        for (key, stamp) in [(one, second), (two, first)] {
            assert!(!subject.backend().forget_conflict(&subject.key(key), *stamp, &subject.cx()).await?);
        }
        assert_eq!(subject.conflicts().await?.len(), 2);
    }
    Ok(())
}
