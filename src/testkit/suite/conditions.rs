//! Conditions: create, update, conditional delete. Losing is a conflict.

use super::tools::{assert_conflict, assert_kind, assert_value, binary, json, peek, revised};
use crate::contract::{GetOptions, RevisionKind, Store, Write, WriteMode, WriteOp};
use crate::testkit::case::cases;
use crate::testkit::{Case, Outcome, Subject};
use crate::{ErrorKind, Revision, Stamp, Ttl};

pub(super) fn cases() -> Vec<Case<dyn Store>> {
    cases!["conditions":
        create_writes_what_is_not_there,
        create_of_what_is_there_is_a_conflict,
        create_after_delete_works,
        create_over_an_empty_value_is_a_conflict,
        update_of_the_seen_revision_writes,
        update_of_an_old_revision_is_a_conflict,
        update_of_a_missing_key_never_inserts,
        update_of_a_deleted_key_never_inserts,
        update_of_a_recreated_key_is_a_conflict,
        update_with_a_foreign_revision_is_a_conflict,
        update_with_another_keys_revision_is_a_conflict,
        a_chain_of_updates_works,
        update_to_the_same_value_works,
        update_tells_json_from_binary,
        conditional_delete_of_the_seen_revision_deletes,
        conditional_delete_of_an_old_revision_is_a_conflict,
        conditional_delete_of_a_missing_key_is_a_conflict,
        conditional_delete_with_a_foreign_revision_is_a_conflict,
        a_conflict_is_not_transient,
        a_touched_entry_has_the_revision_that_is_read,
        touch_keeps_the_value,
        touch_of_a_missing_key_is_no_error_and_writes_nothing,
        a_revision_survives_its_text,
        a_value_read_without_its_revision_is_the_same,
    ]
}

/// Revisions of every kind that no entry of the suite has.
fn foreign_revisions() -> [Revision; 7] {
    [
        Revision::NOT_ASKED,
        Revision::from_stamp(Stamp::MIN),
        Revision::from_stamp(Stamp::from_bytes([0x7f; 16])),
        Revision::from_sequence(0),
        Revision::from_sequence(u64::MAX),
        Revision::from_digest([0; 20]),
        Revision::from_digest([0xff; 20]),
    ]
}

/// Deletes by a revision where the store can; otherwise checks that it says so.
async fn can_delete_if(subject: &Subject<dyn Store>) -> crate::Result<bool> {
    let can = subject.backend().capabilities().conditional_delete;
    if !can {
        let revision = revised(subject.put("probe", json("1")).await?.revision).expect("a revision");
        assert_kind(subject.delete_if("probe", revision).await, ErrorKind::Unsupported);
        assert!(subject.exists("probe").await?);
    }
    Ok(can)
}

async fn create_writes_what_is_not_there(subject: Subject<dyn Store>) -> Outcome {
    let ack = subject.create("k", json("1")).await?;
    assert_eq!(ack.existed, Some(false));
    assert_eq!(revised(ack.revision)?, subject.revision("k").await?);
    assert_value(subject.get("k").await?, &json("1"));
    Ok(())
}

async fn create_of_what_is_there_is_a_conflict(subject: Subject<dyn Store>) -> Outcome {
    subject.put("k", json("1")).await?;
    let before = subject.entry("k").await?;
    assert_conflict(subject.create("k", json("2")).await);
    assert_conflict(subject.create("k", json("1")).await);
    assert_eq!(subject.entry("k").await?, before);
    Ok(())
}

async fn create_after_delete_works(subject: Subject<dyn Store>) -> Outcome {
    for number in 0..3 {
        subject.create("k", json(number.to_string())).await?;
        assert_eq!(peek(subject.get("k").await?), number.to_string());
        subject.delete("k").await?;
    }
    Ok(())
}

async fn create_over_an_empty_value_is_a_conflict(subject: Subject<dyn Store>) -> Outcome {
    for empty in [binary([]), json("null"), json("\"\"")] {
        subject.put("k", empty.clone()).await?;
        assert_conflict(subject.create("k", json("1")).await);
        assert_value(subject.get("k").await?, &empty);
    }
    Ok(())
}

async fn update_of_the_seen_revision_writes(subject: Subject<dyn Store>) -> Outcome {
    subject.put("k", json("1")).await?;
    let seen = subject.revision("k").await?;
    let ack = subject.update("k", json("2"), seen).await?;
    assert_ne!(ack.existed, Some(false));
    assert_eq!(revised(ack.revision)?, subject.revision("k").await?);
    assert_value(subject.get("k").await?, &json("2"));
    Ok(())
}

async fn update_of_an_old_revision_is_a_conflict(subject: Subject<dyn Store>) -> Outcome {
    let old = revised(subject.put("k", json("1")).await?.revision)?;
    subject.put("k", json("2")).await?;
    assert_conflict(subject.update("k", json("3"), old).await);
    assert_value(subject.get("k").await?, &json("2"));
    Ok(())
}

async fn update_of_a_missing_key_never_inserts(subject: Subject<dyn Store>) -> Outcome {
    let other = revised(subject.put("other", json("1")).await?.revision)?;
    for revision in foreign_revisions().into_iter().chain([other]) {
        assert_conflict(subject.update("k", json("1"), revision).await);
        assert_eq!(subject.get("k").await?, None);
    }
    Ok(())
}

async fn update_of_a_deleted_key_never_inserts(subject: Subject<dyn Store>) -> Outcome {
    let revision = revised(subject.put("k", json("1")).await?.revision)?;
    subject.delete("k").await?;
    assert_conflict(subject.update("k", json("2"), revision).await);
    assert!(!subject.exists("k").await?);
    Ok(())
}

async fn update_of_a_recreated_key_is_a_conflict(subject: Subject<dyn Store>) -> Outcome {
    let revision = revised(subject.put("k", json("1")).await?.revision)?;
    subject.delete("k").await?;
    subject.put("k", json("2")).await?;
    assert_conflict(subject.update("k", json("3"), revision).await);
    assert_value(subject.get("k").await?, &json("2"));
    Ok(())
}

async fn update_with_a_foreign_revision_is_a_conflict(subject: Subject<dyn Store>) -> Outcome {
    subject.put("k", json("1")).await?;
    for revision in foreign_revisions() {
        assert_conflict(subject.update("k", json("2"), revision).await);
        assert_value(subject.get("k").await?, &json("1"));
    }
    Ok(())
}

async fn update_with_another_keys_revision_is_a_conflict(subject: Subject<dyn Store>) -> Outcome {
    subject.put("a", json("1")).await?;
    let other = revised(subject.put("b", json("2")).await?.revision)?;
    assert_conflict(subject.update("a", json("3"), other).await);
    assert_value(subject.get("a").await?, &json("1"));
    Ok(())
}

async fn a_chain_of_updates_works(subject: Subject<dyn Store>) -> Outcome {
    let mut revision = revised(subject.create("k", json("0")).await?.revision)?;
    for number in 1..20 {
        revision = revised(subject.update("k", json(number.to_string()), revision).await?.revision)?;
    }
    assert_value(subject.get("k").await?, &json("19"));
    Ok(())
}

async fn update_to_the_same_value_works(subject: Subject<dyn Store>) -> Outcome {
    let first = revised(subject.put("k", json("1")).await?.revision)?;
    let second = revised(subject.update("k", json("1"), first).await?.revision)?;
    if subject.backend().capabilities().revision != RevisionKind::Digest {
        assert_ne!(first, second);
        assert_conflict(subject.update("k", json("2"), first).await);
    }
    subject.update("k", json("2"), second).await?;
    Ok(())
}

async fn update_tells_json_from_binary(subject: Subject<dyn Store>) -> Outcome {
    let as_json = revised(subject.put("k", json("1")).await?.revision)?;
    subject.put("k", binary("1")).await?;
    assert_conflict(subject.update("k", json("2"), as_json).await);
    Ok(())
}

async fn conditional_delete_of_the_seen_revision_deletes(subject: Subject<dyn Store>) -> Outcome {
    if can_delete_if(&subject).await? {
        let revision = revised(subject.put("k", json("1")).await?.revision)?;
        let ack = subject.delete_if("k", revision).await?;
        assert_ne!(ack.existed, Some(false));
        assert_eq!(ack.revision, None);
        assert!(!subject.exists("k").await?);
    }
    Ok(())
}

async fn conditional_delete_of_an_old_revision_is_a_conflict(subject: Subject<dyn Store>) -> Outcome {
    if can_delete_if(&subject).await? {
        let old = revised(subject.put("k", json("1")).await?.revision)?;
        subject.put("k", json("2")).await?;
        assert_conflict(subject.delete_if("k", old).await);
        assert_value(subject.get("k").await?, &json("2"));
    }
    Ok(())
}

async fn conditional_delete_of_a_missing_key_is_a_conflict(subject: Subject<dyn Store>) -> Outcome {
    if can_delete_if(&subject).await? {
        let revision = revised(subject.put("k", json("1")).await?.revision)?;
        assert_conflict(subject.delete_if("never", revision).await);
        subject.delete("k").await?;
        assert_conflict(subject.delete_if("k", revision).await);
    }
    Ok(())
}

async fn conditional_delete_with_a_foreign_revision_is_a_conflict(subject: Subject<dyn Store>) -> Outcome {
    if can_delete_if(&subject).await? {
        subject.put("k", json("1")).await?;
        for revision in foreign_revisions() {
            assert_conflict(subject.delete_if("k", revision).await);
            assert!(subject.exists("k").await?);
        }
    }
    Ok(())
}

async fn a_conflict_is_not_transient(subject: Subject<dyn Store>) -> Outcome {
    subject.put("k", json("1")).await?;
    let error = subject.create("k", json("2")).await.unwrap_err();
    assert!(error.is_conflict() && !error.is_transient(), "{error}");
    Ok(())
}

async fn a_touched_entry_has_the_revision_that_is_read(subject: Subject<dyn Store>) -> Outcome {
    subject.put("k", json("1")).await?;
    for ttl in [Some(Ttl::from_secs(3600)?), None] {
        let ack = subject.touch("k", ttl).await?;
        assert_ne!(ack.existed, Some(false));
        let revision = subject.revision("k").await?;
        assert_eq!(revised(ack.revision)?, revision);
        subject.update("k", json("2"), revision).await?;
    }
    Ok(())
}

async fn touch_keeps_the_value(subject: Subject<dyn Store>) -> Outcome {
    for value in [json(r#"{"a":1,"a":2}"#), binary([0, 255]), json("null")] {
        subject.put("k", value.clone()).await?;
        subject.touch("k", Some(Ttl::from_secs(3600)?)).await?;
        assert_value(subject.get("k").await?, &value);
        subject.touch("k", None).await?;
        assert_value(subject.get("k").await?, &value);
    }
    Ok(())
}

async fn touch_of_a_missing_key_is_no_error_and_writes_nothing(subject: Subject<dyn Store>) -> Outcome {
    for ttl in [None, Some(Ttl::from_secs(3600)?)] {
        let ack = subject.touch("k", ttl).await?;
        assert_eq!((ack.revision, ack.existed), (None, Some(false)));
        assert!(!subject.exists("k").await?);
        assert_eq!(subject.count("").await?, 0);
    }
    subject.create("k", json("1")).await?;
    Ok(())
}

async fn a_revision_survives_its_text(subject: Subject<dyn Store>) -> Outcome {
    let revision = revised(subject.put("k", json("1")).await?.revision)?;
    let revision: Revision = revision.to_string().parse()?;
    let op = WriteOp::Put { value: json("2"), mode: WriteMode::Update(revision), ttl: None };
    subject.write(Write::new(subject.key("k"), op, subject.stamp())).await?;
    Ok(())
}

async fn a_value_read_without_its_revision_is_the_same(subject: Subject<dyn Store>) -> Outcome {
    for (key, value) in [("a", json("1")), ("b", binary([0, 1]))] {
        subject.put_for(key, value, Ttl::from_secs(3600)?).await?;
    }
    let (backend, keys, cx) = (subject.backend(), subject.keys(["a", "b", "missing"]), subject.cx());
    for options in [GetOptions::default(), GetOptions::default().with_expiry()] {
        let without = options.without_revision();
        let mut answers = backend.get_many(&keys, &without, &cx).await;
        answers.push(backend.get(&subject.key("a"), &without, &cx).await);
        let mut expected = backend.get_many(&keys, &options, &cx).await;
        expected.push(backend.get(&subject.key("a"), &options, &cx).await);
        for (answer, expected) in answers.into_iter().zip(expected) {
            let (found, mut expected) = (answer?.into_entry(), expected?.into_entry());
            if found.as_ref().is_some_and(|found| found.revision == Revision::NOT_ASKED) {
                expected.as_mut().into_iter().for_each(|expected| expected.revision = Revision::NOT_ASKED);
            }
            assert_eq!(found, expected);
        }
    }
    Ok(())
}
