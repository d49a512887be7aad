//! Reading, writing, deleting, touching; what acknowledgements say.

use super::tools::{assert_value, binary, json, peek, revised};
use crate::contract::{Durability, Expiry, Freshness, Lookup, RevisionKind, Store};
use crate::testkit::case::cases;
use crate::testkit::{Case, Outcome, Subject};

pub(super) fn cases() -> Vec<Case<dyn Store>> {
    cases!["writes":
        a_key_that_was_never_written_is_missing,
        a_write_is_read_back,
        a_later_write_replaces_an_earlier_one,
        a_smaller_value_replaces_a_larger_one,
        an_identical_write_is_acknowledged,
        delete_says_whether_the_key_existed,
        a_deleted_key_is_missing_everywhere,
        a_deleted_key_can_be_written_again,
        put_tells_the_truth_about_what_was_there,
        a_put_has_the_revision_that_is_read,
        each_write_has_another_revision,
        a_written_again_key_has_another_revision,
        get_many_shows_the_same_revision,
        delete_has_no_revision,
        exists_agrees_with_get,
        writes_of_one_key_touch_no_other,
        reads_come_from_the_primary,
        expiry_is_told_only_if_asked,
        a_write_is_as_durable_as_the_capabilities_say,
        clones_of_a_value_are_written_alike,
    ]
}

async fn a_key_that_was_never_written_is_missing(subject: Subject<dyn Store>) -> Outcome {
    assert_eq!(subject.lookup("k").await?, Lookup::missing());
    assert_eq!(subject.get_many(&["k"]).await?, [None]);
    assert!(!subject.exists("k").await?);
    assert_eq!(subject.count("").await?, 0);
    Ok(())
}

async fn a_write_is_read_back(subject: Subject<dyn Store>) -> Outcome {
    subject.put("k", json(r#"{"a":1}"#)).await?;
    assert_value(subject.get("k").await?, &json(r#"{"a":1}"#));
    Ok(())
}

async fn a_later_write_replaces_an_earlier_one(subject: Subject<dyn Store>) -> Outcome {
    for number in 0..20 {
        subject.put("k", json(number.to_string())).await?;
        assert_eq!(peek(subject.get("k").await?), number.to_string());
    }
    assert_eq!(subject.count("").await?, 1);
    Ok(())
}

async fn a_smaller_value_replaces_a_larger_one(subject: Subject<dyn Store>) -> Outcome {
    subject.put("k", binary(vec![7; 100_000])).await?;
    subject.put("k", binary([])).await?;
    assert_value(subject.get("k").await?, &binary([]));
    Ok(())
}

async fn an_identical_write_is_acknowledged(subject: Subject<dyn Store>) -> Outcome {
    subject.put("k", json("1")).await?;
    subject.put("k", json("1")).await?;
    assert_value(subject.get("k").await?, &json("1"));
    Ok(())
}

async fn delete_says_whether_the_key_existed(subject: Subject<dyn Store>) -> Outcome {
    assert_eq!(subject.delete("k").await?.existed, Some(false));
    subject.put("k", json("1")).await?;
    assert_eq!(subject.delete("k").await?.existed, Some(true));
    assert_eq!(subject.delete("k").await?.existed, Some(false));
    Ok(())
}

async fn a_deleted_key_is_missing_everywhere(subject: Subject<dyn Store>) -> Outcome {
    subject.put("k", json("1")).await?;
    subject.delete("k").await?;
    assert_eq!(subject.lookup("k").await?, Lookup::missing());
    assert_eq!(subject.get_many(&["k", "k"]).await?, [None, None]);
    assert!(!subject.exists("k").await?);
    assert!(subject.names("").await?.is_empty());
    assert_eq!(subject.count("k").await?, 0);
    Ok(())
}

async fn a_deleted_key_can_be_written_again(subject: Subject<dyn Store>) -> Outcome {
    for number in 0..5 {
        subject.put("k", json(number.to_string())).await?;
        subject.delete("k").await?;
    }
    subject.put("k", json("5")).await?;
    assert_value(subject.get("k").await?, &json("5"));
    assert_eq!(subject.names("").await?, ["k"]);
    Ok(())
}

async fn put_tells_the_truth_about_what_was_there(subject: Subject<dyn Store>) -> Outcome {
    // A store that cannot tell without another round trip says nothing.
    assert_ne!(subject.put("k", json("1")).await?.existed, Some(true));
    assert_ne!(subject.put("k", json("2")).await?.existed, Some(false));
    subject.delete("k").await?;
    assert_ne!(subject.put("k", json("3")).await?.existed, Some(true));
    Ok(())
}

async fn a_put_has_the_revision_that_is_read(subject: Subject<dyn Store>) -> Outcome {
    for value in [json("1"), json("2"), binary([0]), json("null")] {
        let ack = subject.put("k", value).await?;
        assert_eq!(revised(ack.revision)?, subject.revision("k").await?);
    }
    Ok(())
}

async fn each_write_has_another_revision(subject: Subject<dyn Store>) -> Outcome {
    let first = revised(subject.put("k", json("1")).await?.revision)?;
    let second = revised(subject.put("k", json("2")).await?.revision)?;
    let third = revised(subject.put("k", json("1")).await?.revision)?;
    assert_ne!(first, second);
    let digest = subject.backend().capabilities().revision == RevisionKind::Digest;
    assert_eq!(first == third, digest, "only digests of identical values are identical");
    Ok(())
}

async fn a_written_again_key_has_another_revision(subject: Subject<dyn Store>) -> Outcome {
    let first = revised(subject.put("k", json("1")).await?.revision)?;
    subject.delete("k").await?;
    let second = revised(subject.put("k", json("2")).await?.revision)?;
    assert_ne!(first, second);
    Ok(())
}

async fn get_many_shows_the_same_revision(subject: Subject<dyn Store>) -> Outcome {
    let ack = subject.put("k", json("1")).await?;
    let keys = subject.keys(["k"]);
    let mut answers = subject.backend().get_many(&keys, &Default::default(), &subject.cx()).await;
    let entry = answers.remove(0)?.into_entry();
    assert_eq!(entry.map(|entry| entry.revision), ack.revision);
    Ok(())
}

async fn delete_has_no_revision(subject: Subject<dyn Store>) -> Outcome {
    subject.put("k", json("1")).await?;
    assert_eq!(subject.delete("k").await?.revision, None);
    Ok(())
}

async fn exists_agrees_with_get(subject: Subject<dyn Store>) -> Outcome {
    subject.put("a", json("null")).await?;
    subject.put("b", binary([])).await?;
    assert_eq!(subject.exist(&["a", "x", "b", "a", "A"]).await?, [true, false, true, true, false]);
    assert!(subject.exist(&[]).await?.is_empty());
    Ok(())
}

async fn writes_of_one_key_touch_no_other(subject: Subject<dyn Store>) -> Outcome {
    subject.put("a", json("1")).await?;
    let before = subject.entry("a").await?;
    subject.put("b", json("2")).await?;
    subject.delete("b").await?;
    subject.create("c", json("3")).await?;
    assert_eq!(subject.entry("a").await?, before);
    Ok(())
}

async fn reads_come_from_the_primary(subject: Subject<dyn Store>) -> Outcome {
    subject.put("k", json("1")).await?;
    assert_eq!(subject.lookup("k").await?.freshness(), Freshness::Primary);
    assert_eq!(subject.lookup("missing").await?.freshness(), Freshness::Primary);
    Ok(())
}

async fn expiry_is_told_only_if_asked(subject: Subject<dyn Store>) -> Outcome {
    subject.put("k", json("1")).await?;
    let entry = subject.lookup("k").await?.into_entry();
    assert_eq!(entry.map(|entry| entry.expiry), Some(Expiry::NotAsked));
    assert_eq!(subject.entry("k").await?.expiry, Expiry::Never);
    Ok(())
}

async fn a_write_is_as_durable_as_the_capabilities_say(subject: Subject<dyn Store>) -> Outcome {
    let promised = subject.backend().capabilities().durability;
    let acknowledged = subject.put("k", json("1")).await?.durability;
    // `Primary` stands for what the primary makes of a write, which in a memory is nothing lasting.
    assert!(acknowledged == promised || acknowledged == Durability::Primary, "{acknowledged:?} is not {promised:?}");
    assert_eq!(subject.delete("k").await?.durability, acknowledged);
    Ok(())
}

async fn clones_of_a_value_are_written_alike(subject: Subject<dyn Store>) -> Outcome {
    let value = json(r#"{"shared":true}"#);
    subject.write_all(["a", "b"].map(|key| subject.put_op(key, value.clone())).into()).await?;
    assert_value(subject.get("a").await?, &value);
    assert_value(subject.get("b").await?, &value);
    Ok(())
}
