//! Stamps: a slow clock loses no acknowledged write, and a repeated write does no harm.

use super::tools::{assert_conflict, assert_value, future_stamp, json, revised};
use crate::contract::{RevisionKind, Store, Write, WriteMode, WriteOp};
use crate::testkit::case::cases;
use crate::testkit::{Case, Outcome, Subject};

pub(super) fn cases() -> Vec<Case<dyn Store>> {
    cases!["stamps":
        a_write_by_a_slow_clock_is_visible,
        a_write_by_a_slow_clock_has_the_revision_that_is_read,
        a_batch_by_a_slow_clock_is_visible,
        a_delete_by_a_slow_clock_deletes,
        a_write_by_a_slow_clock_after_a_delete_is_visible,
        a_create_by_a_slow_clock_after_a_delete_works,
        an_update_by_a_slow_clock_works,
        a_touch_by_a_slow_clock_works,
        a_lost_condition_by_a_slow_clock_is_a_conflict,
        a_conditional_delete_by_a_slow_clock_works,
        a_batch_of_deletes_by_a_slow_clock_deletes,
        two_clocks_take_turns,
        a_write_after_a_fast_clock_is_visible,
        a_repeated_write_does_no_harm,
        a_repeated_delete_does_no_harm,
        a_repeated_create_is_its_own_success,
        a_repeated_update_is_its_own_success,
        a_stored_revision_is_the_stamp_where_the_capabilities_say_so,
    ]
}

async fn a_write_by_a_slow_clock_is_visible(subject: Subject<dyn Store>) -> Outcome {
    let slow = subject.slow_clock();
    for number in 0..4 {
        subject.put("k", json("\"fast\"")).await?;
        let value = json(number.to_string());
        subject.write(Write::put(subject.key("k"), value.clone(), slow.issue())).await?;
        assert_value(subject.get("k").await?, &value);
    }
    Ok(())
}

async fn a_write_by_a_slow_clock_has_the_revision_that_is_read(subject: Subject<dyn Store>) -> Outcome {
    let slow = subject.slow_clock();
    let fast = revised(subject.put("k", json("1")).await?.revision)?;
    let ack = subject.write(Write::put(subject.key("k"), json("2"), slow.issue())).await?;
    let revision = revised(ack.revision)?;
    assert_eq!(revision, subject.revision("k").await?);
    assert_ne!(revision, fast);
    assert_ne!(ack.existed, Some(false));
    // The revision is good for a condition.
    subject.update("k", json("3"), revision).await?;
    Ok(())
}

async fn a_batch_by_a_slow_clock_is_visible(subject: Subject<dyn Store>) -> Outcome {
    let slow = subject.slow_clock();
    subject.write_all(["a", "b"].map(|key| subject.put_op(key, json("\"fast\""))).into()).await?;
    let put = |key, value| Write::put(subject.key(key), json(value), slow.issue());
    let acks = subject.write_all(vec![put("a", "1"), put("new", "2"), put("b", "3"), put("a", "4")]).await?;
    assert_eq!(subject.get_many(&["a", "b", "new"]).await?, [Some(json("4")), Some(json("3")), Some(json("2"))]);
    assert_eq!(acks[3].revision, Some(subject.revision("a").await?));
    assert_eq!(acks[2].revision, Some(subject.revision("b").await?));
    Ok(())
}

async fn a_delete_by_a_slow_clock_deletes(subject: Subject<dyn Store>) -> Outcome {
    subject.put("k", json("1")).await?;
    let ack = subject.write(Write::delete(subject.key("k"), subject.slow_clock().issue())).await?;
    assert_eq!(ack.existed, Some(true));
    assert!(!subject.exists("k").await?);
    assert!(subject.names("").await?.is_empty());
    Ok(())
}

async fn a_write_by_a_slow_clock_after_a_delete_is_visible(subject: Subject<dyn Store>) -> Outcome {
    subject.put("k", json("1")).await?;
    subject.delete("k").await?;
    subject.write(Write::put(subject.key("k"), json("2"), subject.slow_clock().issue())).await?;
    assert_value(subject.get("k").await?, &json("2"));
    Ok(())
}

async fn a_create_by_a_slow_clock_after_a_delete_works(subject: Subject<dyn Store>) -> Outcome {
    subject.put("k", json("1")).await?;
    subject.delete("k").await?;
    let op = WriteOp::Put { value: json("2"), mode: WriteMode::Create, ttl: None };
    let ack = subject.write(Write::new(subject.key("k"), op, subject.slow_clock().issue())).await?;
    assert_eq!(revised(ack.revision)?, subject.revision("k").await?);
    assert_value(subject.get("k").await?, &json("2"));
    Ok(())
}

async fn an_update_by_a_slow_clock_works(subject: Subject<dyn Store>) -> Outcome {
    let slow = subject.slow_clock();
    let mut revision = revised(subject.put("k", json("1")).await?.revision)?;
    for number in 2..5 {
        let op = WriteOp::Put { value: json(number.to_string()), mode: WriteMode::Update(revision), ttl: None };
        revision = revised(subject.write(Write::new(subject.key("k"), op, slow.issue())).await?.revision)?;
        assert_eq!(revision, subject.revision("k").await?);
    }
    assert_value(subject.get("k").await?, &json("4"));
    Ok(())
}

async fn a_touch_by_a_slow_clock_works(subject: Subject<dyn Store>) -> Outcome {
    subject.put("k", json("1")).await?;
    let ttl = Some(crate::Ttl::from_secs(3600)?);
    let ack = subject.write(Write::new(subject.key("k"), WriteOp::Touch { ttl }, subject.slow_clock().issue())).await?;
    let entry = subject.entry("k").await?;
    assert!(matches!(entry.expiry, crate::contract::Expiry::At(_)), "{:?}", entry.expiry);
    assert_eq!(ack.revision, Some(entry.revision));
    Ok(())
}

async fn a_lost_condition_by_a_slow_clock_is_a_conflict(subject: Subject<dyn Store>) -> Outcome {
    let slow = subject.slow_clock();
    let old = revised(subject.put("k", json("1")).await?.revision)?;
    subject.put("k", json("2")).await?;
    for mode in [WriteMode::Create, WriteMode::Update(old)] {
        let op = WriteOp::Put { value: json("3"), mode, ttl: None };
        assert_conflict(subject.write(Write::new(subject.key("k"), op, slow.issue())).await);
    }
    assert_value(subject.get("k").await?, &json("2"));
    Ok(())
}

async fn a_conditional_delete_by_a_slow_clock_works(subject: Subject<dyn Store>) -> Outcome {
    if subject.backend().capabilities().conditional_delete {
        let seen = revised(subject.put("k", json("1")).await?.revision)?;
        let op = WriteOp::Delete { only_if: Some(seen) };
        subject.write(Write::new(subject.key("k"), op, subject.slow_clock().issue())).await?;
        assert!(!subject.exists("k").await?);
    }
    Ok(())
}

async fn a_batch_of_deletes_by_a_slow_clock_deletes(subject: Subject<dyn Store>) -> Outcome {
    let slow = subject.slow_clock();
    subject.write_all(["a", "b"].map(|key| subject.put_op(key, json("1"))).into()).await?;
    let deletes = ["a", "none", "b", "a"].map(|key| Write::delete(subject.key(key), slow.issue()));
    let existed: Vec<_> = subject.write_all(deletes.into()).await?.iter().map(|ack| ack.existed).collect();
    assert_eq!(existed, [Some(true), Some(false), Some(true), Some(false)]);
    assert!(subject.names("").await?.is_empty());
    Ok(())
}

async fn two_clocks_take_turns(subject: Subject<dyn Store>) -> Outcome {
    let slow = subject.slow_clock();
    for number in 0..20 {
        let stamp = if number % 2 == 0 { subject.stamp() } else { slow.issue() };
        let write = if number % 5 == 4 {
            Write::delete(subject.key("k"), stamp)
        } else {
            Write::put(subject.key("k"), json(number.to_string()), stamp)
        };
        let expected = (number % 5 != 4).then(|| json(number.to_string()));
        subject.write(write).await?;
        assert_eq!(subject.get("k").await?, expected, "after write {number}");
    }
    Ok(())
}

async fn a_write_after_a_fast_clock_is_visible(subject: Subject<dyn Store>) -> Outcome {
    subject.write(Write::put(subject.key("k"), json("1"), future_stamp(&subject))).await?;
    subject.put("k", json("2")).await?;
    assert_value(subject.get("k").await?, &json("2"));
    subject.delete("k").await?;
    assert!(!subject.exists("k").await?);
    Ok(())
}

async fn a_repeated_write_does_no_harm(subject: Subject<dyn Store>) -> Outcome {
    let write = subject.put_op("k", json("1"));
    let first = subject.write(write.clone()).await?;
    let second = subject.write(write.clone()).await?;
    assert_value(subject.get("k").await?, &json("1"));
    assert_eq!(second.revision, Some(subject.revision("k").await?));
    if subject.backend().capabilities().stamp_guard {
        assert_eq!(first.revision, second.revision);
    }
    assert_eq!(subject.count("").await?, 1);
    Ok(())
}

async fn a_repeated_delete_does_no_harm(subject: Subject<dyn Store>) -> Outcome {
    subject.put("k", json("1")).await?;
    let delete = subject.delete_op("k");
    subject.write(delete.clone()).await?;
    subject.write(delete).await?;
    assert!(!subject.exists("k").await?);
    subject.put("k", json("2")).await?;
    assert_value(subject.get("k").await?, &json("2"));
    Ok(())
}

async fn a_repeated_create_is_its_own_success(subject: Subject<dyn Store>) -> Outcome {
    let create = subject.write_op("k", json("1"), WriteMode::Create, None);
    let first = subject.write(create.clone()).await?;
    let second = subject.write(create).await;
    if subject.backend().capabilities().stamp_guard {
        // A reply that was lost: the entry carries this write's own stamp.
        assert_eq!(second?.revision, first.revision);
    } else {
        // A store without stamps cannot know its own write again.
        second.map_or_else(|error| assert!(error.is_conflict(), "{error}"), drop);
    }
    assert_value(subject.get("k").await?, &json("1"));
    Ok(())
}

async fn a_repeated_update_is_its_own_success(subject: Subject<dyn Store>) -> Outcome {
    let seen = revised(subject.put("k", json("1")).await?.revision)?;
    let update = subject.write_op("k", json("2"), WriteMode::Update(seen), None);
    let first = subject.write(update.clone()).await?;
    let second = subject.write(update).await;
    if subject.backend().capabilities().stamp_guard {
        assert_eq!(second?.revision, first.revision);
    } else {
        second.map_or_else(|error| assert!(error.is_conflict(), "{error}"), drop);
    }
    assert_value(subject.get("k").await?, &json("2"));
    Ok(())
}

async fn a_stored_revision_is_the_stamp_where_the_capabilities_say_so(subject: Subject<dyn Store>) -> Outcome {
    let write = subject.put_op("k", json("1"));
    let stamp = write.stamp;
    let revision = revised(subject.write(write).await?.revision)?;
    let capabilities = subject.backend().capabilities();
    match capabilities.revision {
        RevisionKind::Stamp if capabilities.stamp_guard => assert_eq!(revision.to_stamp(), Some(stamp)),
        // It may have been stamped anew when its turn had come.
        RevisionKind::Stamp => assert!(revision.to_stamp() >= Some(stamp), "{revision}"),
        RevisionKind::Sequence => assert!(revision.to_sequence().is_some(), "{revision}"),
        RevisionKind::Digest => assert!(revision.to_digest().is_some(), "{revision}"),
    }
    assert_eq!(subject.revision("k").await?, revision, "it is what is stored");
    Ok(())
}
