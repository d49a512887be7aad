//! TTLs: an expired entry is absent for everything, swept or not.

use std::time::Duration;

use super::tools::{assert_conflict, assert_value, json, revised};
use crate::contract::{Expiry, Lookup, Store, WriteMode};
use crate::testkit::case::cases;
use crate::testkit::{Case, Elapse, Failure, Outcome, Subject};
use crate::{Timestamp, Ttl};

pub(super) fn cases() -> Vec<Case<dyn Store>> {
    cases!["expiry":
        expired_entry_is_absent_from_get,
        expired_entry_is_absent_from_get_many,
        expired_entry_does_not_exist,
        expired_entry_is_absent_from_lists,
        expired_entry_is_absent_from_counts,
        expired_entry_is_absent_for_create,
        expired_entry_is_absent_for_create_in_a_batch,
        expired_entry_is_absent_for_update,
        expired_entry_is_absent_for_conditional_delete,
        expired_entry_is_absent_for_delete,
        expired_entry_is_absent_for_put,
        expired_entry_is_not_revived_by_touch,
        expired_entry_is_not_counted_by_clear,
        an_entry_lives_at_least_its_ttl,
        an_entry_ends_with_its_ttl_to_the_millisecond,
        a_plain_put_clears_the_ttl,
        a_put_with_a_ttl_replaces_the_ttl,
        an_update_without_a_ttl_clears_it,
        a_replacement_ends_when_the_value_before_it_would_have,
        a_replacement_of_what_stays_stays,
        a_replacement_needs_the_revision,
        a_created_entry_expires,
        an_updated_entry_expires,
        touch_sets_a_ttl,
        touch_clears_a_ttl,
        touch_lets_an_entry_expire,
        ttls_of_a_batch_are_each_their_own,
        get_many_tells_the_expiry,
        the_longest_ttl_works,
        the_shortest_ttl_works,
        a_key_written_after_it_expired_stays,
    ]
}

/// How far a server's clock may be from ours, and how much a store may round a TTL up.
const TOLERANCE: Duration = Duration::from_secs(10);

fn hour() -> Ttl {
    Ttl::from_secs(3600).expect("a valid TTL")
}

/// Writes `k` with a TTL, lets it expire, and leaves `stays` there.
async fn expired(subject: &Subject<dyn Store>) -> Result<crate::Revision, Failure> {
    subject.put("stays", json("0")).await?;
    let ack = subject.put_for("k", json("1"), subject.short_ttl()).await?;
    subject.lapse(&["k"]).await?;
    revised(ack.revision)
}

/// Checks that an entry expires a TTL after a moment: exactly by a manual clock, about by a server's.
#[track_caller]
fn assert_expiry(subject: &Subject<dyn Store>, expiry: Expiry, before: Timestamp, ttl: Ttl) {
    let Expiry::At(at) = expiry else { panic!("expected an expiry, got {expiry:?}") };
    if let Elapse::Manual(_) = subject.elapse() {
        assert_eq!(at, before.after(ttl));
        return;
    }
    let (early, late) = (before.after(ttl).since(at), at.since(subject.elapse().clock().now().after(ttl)));
    assert!(early <= TOLERANCE && late <= TOLERANCE, "{early:?} too early or {late:?} too late");
}

async fn expired_entry_is_absent_from_get(subject: Subject<dyn Store>) -> Outcome {
    expired(&subject).await?;
    assert_eq!(subject.lookup("k").await?, Lookup::missing());
    Ok(())
}

async fn expired_entry_is_absent_from_get_many(subject: Subject<dyn Store>) -> Outcome {
    expired(&subject).await?;
    assert_eq!(subject.get_many(&["k", "stays", "k"]).await?, [None, Some(json("0")), None]);
    Ok(())
}

async fn expired_entry_does_not_exist(subject: Subject<dyn Store>) -> Outcome {
    expired(&subject).await?;
    assert_eq!(subject.exist(&["k", "stays"]).await?, [false, true]);
    Ok(())
}

async fn expired_entry_is_absent_from_lists(subject: Subject<dyn Store>) -> Outcome {
    expired(&subject).await?;
    assert_eq!(subject.names("").await?, ["stays"]);
    assert!(subject.names("k").await?.is_empty());
    Ok(())
}

async fn expired_entry_is_absent_from_counts(subject: Subject<dyn Store>) -> Outcome {
    expired(&subject).await?;
    assert_eq!((subject.count("").await?, subject.count("k").await?), (1, 0));
    Ok(())
}

async fn expired_entry_is_absent_for_create(subject: Subject<dyn Store>) -> Outcome {
    expired(&subject).await?;
    let ack = subject.create("k", json("2")).await?;
    assert_eq!(ack.existed, Some(false));
    assert_value(subject.get("k").await?, &json("2"));
    assert_eq!(subject.entry("k").await?.expiry, Expiry::Never);
    Ok(())
}

async fn expired_entry_is_absent_for_create_in_a_batch(subject: Subject<dyn Store>) -> Outcome {
    expired(&subject).await?;
    let create = |key| subject.write_op(key, json("2"), WriteMode::Create, None);
    let mut answers = subject.write_many(vec![create("k"), create("stays"), create("new")]).await;
    answers.pop().unwrap()?;
    assert_conflict(answers.pop().unwrap());
    answers.pop().unwrap()?;
    assert_eq!(subject.get_many(&["k", "stays"]).await?, [Some(json("2")), Some(json("0"))]);
    Ok(())
}

async fn expired_entry_is_absent_for_update(subject: Subject<dyn Store>) -> Outcome {
    let revision = expired(&subject).await?;
    assert_conflict(subject.update("k", json("2"), revision).await);
    assert!(!subject.exists("k").await?);
    Ok(())
}

async fn expired_entry_is_absent_for_conditional_delete(subject: Subject<dyn Store>) -> Outcome {
    let revision = expired(&subject).await?;
    if subject.backend().capabilities().conditional_delete {
        assert_conflict(subject.delete_if("k", revision).await);
    }
    Ok(())
}

async fn expired_entry_is_absent_for_delete(subject: Subject<dyn Store>) -> Outcome {
    expired(&subject).await?;
    assert_eq!(subject.delete("k").await?.existed, Some(false));
    Ok(())
}

async fn expired_entry_is_absent_for_put(subject: Subject<dyn Store>) -> Outcome {
    expired(&subject).await?;
    assert_ne!(subject.put("k", json("2")).await?.existed, Some(true));
    assert_value(subject.get("k").await?, &json("2"));
    Ok(())
}

async fn expired_entry_is_not_revived_by_touch(subject: Subject<dyn Store>) -> Outcome {
    expired(&subject).await?;
    for ttl in [Some(hour()), None] {
        let ack = subject.touch("k", ttl).await?;
        assert_eq!((ack.revision, ack.existed), (None, Some(false)));
        assert_eq!(subject.get("k").await?, None);
    }
    Ok(())
}

async fn expired_entry_is_not_counted_by_clear(subject: Subject<dyn Store>) -> Outcome {
    expired(&subject).await?;
    let cleared = subject.clear("").await?;
    assert!(matches!(cleared, Some(1) | None), "{cleared:?}");
    Ok(())
}

async fn an_entry_lives_at_least_its_ttl(subject: Subject<dyn Store>) -> Outcome {
    subject.put_for("k", json("1"), hour()).await?;
    if let Elapse::Manual(clock) = subject.elapse() {
        clock.advance(hour().as_duration() - Duration::from_millis(1));
    }
    assert_value(subject.get("k").await?, &json("1"));
    assert_eq!(subject.names("").await?, ["k"]);
    assert_eq!(subject.count("").await?, 1);
    assert!(subject.exists("k").await?);
    assert_conflict(subject.create("k", json("2")).await);
    Ok(())
}

async fn an_entry_ends_with_its_ttl_to_the_millisecond(subject: Subject<dyn Store>) -> Outcome {
    let before = subject.elapse().clock().now();
    subject.put_for("k", json("1"), hour()).await?;
    assert_expiry(&subject, subject.entry("k").await?.expiry, before, hour());
    if let Elapse::Manual(clock) = subject.elapse() {
        clock.advance(hour().as_duration() - Duration::from_millis(1));
        assert!(subject.exists("k").await?);
        clock.advance(Duration::from_millis(1));
        assert!(!subject.exists("k").await?);
        assert_eq!(subject.get("k").await?, None);
    }
    Ok(())
}

async fn a_plain_put_clears_the_ttl(subject: Subject<dyn Store>) -> Outcome {
    subject.put_for("k", json("1"), hour()).await?;
    subject.put("k", json("2")).await?;
    assert_eq!(subject.entry("k").await?.expiry, Expiry::Never);
    // The same bytes too, which a store might leave as they are.
    subject.put_for("k", json("2"), hour()).await?;
    subject.put("k", json("2")).await?;
    assert_eq!(subject.entry("k").await?.expiry, Expiry::Never);
    Ok(())
}

async fn a_put_with_a_ttl_replaces_the_ttl(subject: Subject<dyn Store>) -> Outcome {
    let day = Ttl::from_secs(24 * 3600)?;
    for ttl in [hour(), day, hour()] {
        let before = subject.elapse().clock().now();
        subject.put_for("k", json("1"), ttl).await?;
        assert_expiry(&subject, subject.entry("k").await?.expiry, before, ttl);
    }
    Ok(())
}

async fn an_update_without_a_ttl_clears_it(subject: Subject<dyn Store>) -> Outcome {
    let revision = revised(subject.put_for("k", json("1"), hour()).await?.revision)?;
    subject.update("k", json("2"), revision).await?;
    assert_eq!(subject.entry("k").await?.expiry, Expiry::Never);
    Ok(())
}

async fn a_replacement_ends_when_the_value_before_it_would_have(subject: Subject<dyn Store>) -> Outcome {
    let revision = revised(subject.put_for("k", json("1"), hour()).await?.revision)?;
    let Expiry::At(before) = subject.entry("k").await?.expiry else { panic!("an entry with a TTL has an expiry") };
    let replace = subject.write_op("k", json("2"), WriteMode::Replace(revision), Some(subject.short_ttl()));
    let revision = revised(subject.write(replace).await?.revision)?;
    let entry = subject.entry("k").await?;
    assert_eq!((entry.value, entry.revision), (json("2"), revision));
    let Expiry::At(after) = entry.expiry else { panic!("the expiry was lost") };
    assert!(after.since(before) <= TOLERANCE && before.since(after) <= TOLERANCE, "{before:?} became {after:?}");
    Ok(())
}

async fn a_replacement_of_what_stays_stays(subject: Subject<dyn Store>) -> Outcome {
    let revision = revised(subject.put("k", json("1")).await?.revision)?;
    subject.write(subject.write_op("k", json("2"), WriteMode::Replace(revision), None)).await?;
    let entry = subject.entry("k").await?;
    assert_eq!((entry.value, entry.expiry), (json("2"), Expiry::Never));
    Ok(())
}

async fn a_replacement_needs_the_revision(subject: Subject<dyn Store>) -> Outcome {
    let revision = revised(subject.put("k", json("1")).await?.revision)?;
    subject.put("k", json("2")).await?;
    for key in ["k", "missing"] {
        let replace = subject.write_op(key, json("3"), WriteMode::Replace(revision), None);
        assert_conflict(subject.write(replace).await);
    }
    assert_value(subject.get("k").await?, &json("2"));
    assert_eq!(subject.get("missing").await?, None);
    Ok(())
}

async fn a_created_entry_expires(subject: Subject<dyn Store>) -> Outcome {
    subject.write(subject.write_op("k", json("1"), WriteMode::Create, Some(subject.short_ttl()))).await?;
    subject.lapse(&["k"]).await?;
    assert_eq!(subject.get("k").await?, None);
    Ok(())
}

async fn an_updated_entry_expires(subject: Subject<dyn Store>) -> Outcome {
    let revision = revised(subject.put("k", json("1")).await?.revision)?;
    let mode = WriteMode::Update(revision);
    subject.write(subject.write_op("k", json("2"), mode, Some(subject.short_ttl()))).await?;
    subject.lapse(&["k"]).await?;
    assert!(subject.names("").await?.is_empty());
    Ok(())
}

async fn touch_sets_a_ttl(subject: Subject<dyn Store>) -> Outcome {
    subject.put("k", json("1")).await?;
    let before = subject.elapse().clock().now();
    subject.touch("k", Some(hour())).await?;
    assert_expiry(&subject, subject.entry("k").await?.expiry, before, hour());
    Ok(())
}

async fn touch_clears_a_ttl(subject: Subject<dyn Store>) -> Outcome {
    subject.put_for("k", json("1"), hour()).await?;
    subject.touch("k", None).await?;
    assert_eq!(subject.entry("k").await?.expiry, Expiry::Never);
    Ok(())
}

async fn touch_lets_an_entry_expire(subject: Subject<dyn Store>) -> Outcome {
    subject.put("k", json("1")).await?;
    subject.touch("k", Some(subject.short_ttl())).await?;
    subject.lapse(&["k"]).await?;
    assert!(!subject.exists("k").await?);
    Ok(())
}

async fn ttls_of_a_batch_are_each_their_own(subject: Subject<dyn Store>) -> Outcome {
    let write = |key, ttl| subject.write_op(key, json("1"), WriteMode::Upsert, ttl);
    let batch = vec![write("a", Some(subject.short_ttl())), write("b", None), write("c", Some(hour()))];
    subject.write_all(batch).await?;
    subject.lapse(&["a"]).await?;
    assert_eq!(subject.names("").await?, ["b", "c"]);
    assert_eq!(subject.entry("b").await?.expiry, Expiry::Never);
    Ok(())
}

async fn get_many_tells_the_expiry(subject: Subject<dyn Store>) -> Outcome {
    let before = subject.elapse().clock().now();
    subject.put_for("a", json("1"), hour()).await?;
    subject.put("b", json("1")).await?;
    let keys = subject.keys(["a", "b"]);
    let options = crate::contract::GetOptions::default().with_expiry();
    let answers = subject.backend().get_many(&keys, &options, &subject.cx()).await;
    let entries: Vec<_> = answers.into_iter().map(|answer| answer.unwrap().into_entry().unwrap()).collect();
    assert_expiry(&subject, entries[0].expiry, before, hour());
    assert_eq!(entries[1].expiry, Expiry::Never);
    Ok(())
}

async fn the_longest_ttl_works(subject: Subject<dyn Store>) -> Outcome {
    let before = subject.elapse().clock().now();
    subject.put_for("k", json("1"), Ttl::MAX).await?;
    assert_value(subject.get("k").await?, &json("1"));
    assert_expiry(&subject, subject.entry("k").await?.expiry, before, Ttl::MAX);
    subject.touch("k", Some(Ttl::MAX)).await?;
    assert!(subject.exists("k").await?);
    Ok(())
}

async fn the_shortest_ttl_works(subject: Subject<dyn Store>) -> Outcome {
    subject.put_for("k", json("1"), Ttl::from_millis(1)?).await?;
    subject.lapse(&["k"]).await?;
    assert!(!subject.exists("k").await?);
    Ok(())
}

async fn a_key_written_after_it_expired_stays(subject: Subject<dyn Store>) -> Outcome {
    expired(&subject).await?;
    subject.put("k", json("2")).await?;
    subject.put_for("witness", json("1"), subject.short_ttl()).await?;
    subject.lapse(&["witness"]).await?;
    assert_value(subject.get("k").await?, &json("2"));
    assert_eq!(subject.names("").await?, ["k", "stays"]);
    Ok(())
}
