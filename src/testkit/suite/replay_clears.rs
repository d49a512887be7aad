//! `replay` of clears: everything under a prefix that is older.

use super::replay_tools::{Database, Outage, lost_append, lost_put};
use super::tools::{assert_value, json};
use crate::contract::{DatabaseBackend, ReplayOutcome};
use crate::testkit::Case;
use crate::testkit::Outcome;
use crate::testkit::case::cases;

pub(super) fn cases() -> Vec<Case<dyn DatabaseBackend>> {
    cases!["replay_clears":
        a_replayed_clear_removes_values_and_lists,
        a_replayed_clear_spares_newer_entries,
        a_replayed_clear_spares_other_prefixes,
        a_replayed_clear_among_other_steps_keeps_their_order,
        a_replayed_clear_can_be_repeated,
        a_replayed_clear_leaves_tombstones,
        a_replayed_clear_keeps_what_others_wrote_meanwhile,
        a_replayed_clear_of_many_keys_removes_all,
    ]
}

async fn a_replayed_clear_removes_values_and_lists(subject: Database) -> Outcome {
    if subject.replays() {
        subject.put("value", json("1")).await?;
        subject.append_numbers("list", 0..3).await?;
        subject.put("both", json("1")).await?;
        subject.append_numbers("both", 0..3).await?;
        let outage = Outage::begin(&subject);
        assert_eq!(outage.replay_one(outage.clear("", outage.ours())).await?, ReplayOutcome::Applied);
        assert!(subject.names("").await?.is_empty());
        assert_eq!((subject.length("list").await?, subject.length("both").await?), (0, 0));
        assert_eq!(subject.append("list", json("3")).await?.position, Some(3), "positions go on");
        assert!(outage.losses().await?.is_empty());
    }
    Ok(())
}

async fn a_replayed_clear_spares_newer_entries(subject: Database) -> Outcome {
    if subject.replays() {
        for key in ["a", "list"] {
            subject.put(key, json("1")).await?;
        }
        subject.append_numbers("list", 0..3).await?;
        let outage = Outage::begin(&subject);
        let clear = outage.clear("", outage.ours());
        subject.put("ours", json("2")).await?;
        outage.they_put("theirs", "2").await?;
        outage.they_append("list", "3").await?;
        for _ in 0..2 {
            outage.replay_one(clear.clone()).await?;
            assert_eq!(subject.names("").await?, ["list", "ours", "theirs"]);
            assert_eq!(subject.get("list").await?, None);
            assert_eq!(subject.range("list", 0, -1).await?, ["3"]);
        }
        assert!(outage.losses().await?.is_empty(), "what was written later is no conflict");
    }
    Ok(())
}

async fn a_replayed_clear_spares_other_prefixes(subject: Database) -> Outcome {
    if subject.replays() {
        for key in ["a:1", "a:2", "a", "b:1"] {
            subject.put(key, json("1")).await?;
        }
        subject.append("a:list", json("1")).await?;
        let outage = Outage::begin(&subject);
        outage.replay_one(outage.clear("a:", outage.ours())).await?;
        assert_eq!(subject.names("").await?, ["a", "b:1"]);
    }
    Ok(())
}

async fn a_replayed_clear_among_other_steps_keeps_their_order(subject: Database) -> Outcome {
    if subject.replays() {
        let outage = Outage::begin(&subject);
        let steps = vec![
            outage.put("a", "1", outage.ours()),
            outage.append("list", "1", outage.ours()),
            outage.clear("", outage.ours()),
            outage.put("b", "1", outage.ours()),
            outage.append("list", "2", outage.ours()),
            outage.clear("b", outage.ours()),
            outage.put("c", "1", outage.ours()),
        ];
        for _ in 0..2 {
            outage.replay(steps.clone()).await?;
            assert_eq!(subject.names("").await?, ["c", "list"]);
            assert_eq!(subject.range("list", 0, -1).await?, ["2"]);
        }
        assert!(outage.losses().await?.is_empty());
    }
    Ok(())
}

async fn a_replayed_clear_can_be_repeated(subject: Database) -> Outcome {
    if subject.replays() {
        subject.put("a", json("1")).await?;
        let outage = Outage::begin(&subject);
        let clear = outage.clear("", outage.ours());
        outage.replay_one(clear.clone()).await?;
        for key in ["a", "b"] {
            subject.put(key, json("2")).await?;
        }
        outage.replay_one(clear).await?;
        assert_eq!(subject.names("").await?, ["a", "b"]);
    }
    Ok(())
}

async fn a_replayed_clear_leaves_tombstones(subject: Database) -> Outcome {
    if subject.replays() {
        subject.put("k", json("1")).await?;
        subject.append("list", json("1")).await?;
        let outage = Outage::begin(&subject);
        let older = vec![outage.put("k", "2", outage.ours()), outage.append("list", "2", outage.ours())];
        outage.replay_one(outage.clear("", outage.ours())).await?;
        assert_eq!(outage.replay(older).await?, [ReplayOutcome::AlreadyApplied; 2]);
        assert!(subject.names("").await?.is_empty());
    }
    Ok(())
}

async fn a_replayed_clear_keeps_what_others_wrote_meanwhile(subject: Database) -> Outcome {
    if subject.replays() {
        subject.put("before", json("1")).await?;
        let outage = Outage::begin(&subject);
        let value = outage.they_put("value", "2").await?;
        let item = outage.they_append("list", "3").await?;
        let winner = outage.ours();
        outage.replay_one(outage.clear("", winner)).await?;
        assert!(subject.names("").await?.is_empty());
        let expected = [
            ("value".to_owned(), value, lost_put("2"), winner),
            ("list".to_owned(), item, lost_append("3", item), winner),
        ];
        assert_eq!(outage.losses().await?, expected);
    }
    Ok(())
}

async fn a_replayed_clear_of_many_keys_removes_all(subject: Database) -> Outcome {
    if subject.replays() {
        let writes = (0..3000).map(|number| subject.put_op(&format!("k{number}"), json("1"))).collect();
        subject.write_all(writes).await?;
        let outage = Outage::begin(&subject);
        let step = outage.clear("k", outage.ours());
        // Some of the keys that stay lie between those that go.
        for number in 0..30 {
            outage.they_put(&format!("k{}", number * 100), "2").await?;
        }
        outage.replay_one(step).await?;
        assert_eq!(subject.count("k").await?, 30);
        assert_value(subject.get("k2900").await?, &json("2"));
    }
    Ok(())
}
