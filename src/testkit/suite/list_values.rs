//! Lists beside the values of the same keys.

use super::tools::{assert_conflict, assert_value, json, revised};
use crate::contract::{DatabaseBackend, Write, WriteMode};
use crate::testkit::case::cases;
use crate::testkit::{Case, Outcome, Subject};

type Database = Subject<dyn DatabaseBackend>;

pub(super) fn cases() -> Vec<Case<dyn DatabaseBackend>> {
    cases!["list_values":
        delete_removes_value_and_list,
        delete_says_that_a_list_existed,
        a_delete_by_a_slow_clock_removes_the_list,
        a_put_leaves_the_list,
        create_sees_values_only,
        a_conditional_delete_removes_the_list_too,
        an_expired_value_leaves_its_list,
        a_list_exists_and_is_listed_once,
        a_value_read_shows_no_list,
        an_emptied_list_does_not_exist,
        clear_removes_lists,
        deletes_in_a_batch_remove_lists,
        a_put_after_a_delete_in_a_batch_leaves_no_list,
        many_lists_are_listed_and_counted,
    ]
}

async fn delete_removes_value_and_list(subject: Database) -> Outcome {
    subject.put("k", json("1")).await?;
    subject.append("k", json("2")).await?;
    assert_eq!(subject.delete("k").await?.existed, Some(true));
    assert_eq!((subject.get("k").await?, subject.length("k").await?), (None, 0));
    assert!(!subject.exists("k").await? && subject.names("").await?.is_empty());
    assert_eq!(subject.delete("k").await?.existed, Some(false));
    Ok(())
}

async fn delete_says_that_a_list_existed(subject: Database) -> Outcome {
    subject.append("k", json("1")).await?;
    assert_eq!(subject.delete("k").await?.existed, Some(true));
    assert_eq!(subject.delete("k").await?.existed, Some(false));
    Ok(())
}

async fn a_delete_by_a_slow_clock_removes_the_list(subject: Database) -> Outcome {
    subject.append_numbers("k", 0..3).await?;
    let delete = Write::delete(subject.key("k"), subject.slow_clock().issue());
    assert_eq!(subject.write(delete).await?.existed, Some(true));
    assert_eq!(subject.length("k").await?, 0);
    assert!(!subject.exists("k").await?);
    Ok(())
}

async fn a_put_leaves_the_list(subject: Database) -> Outcome {
    subject.append("k", json("1")).await?;
    assert_ne!(subject.put("k", json("2")).await?.existed, Some(true), "the list is no value");
    subject.append("k", json("3")).await?;
    assert_eq!(subject.range("k", 0, -1).await?, ["1", "3"]);
    assert_value(subject.get("k").await?, &json("2"));
    Ok(())
}

async fn create_sees_values_only(subject: Database) -> Outcome {
    subject.append("k", json("1")).await?;
    subject.create("k", json("2")).await?;
    assert_eq!(subject.length("k").await?, 1);
    assert_value(subject.get("k").await?, &json("2"));
    Ok(())
}

async fn a_conditional_delete_removes_the_list_too(subject: Database) -> Outcome {
    if subject.backend().capabilities().conditional_delete {
        let old = revised(subject.put("k", json("1")).await?.revision)?;
        subject.append("k", json("1")).await?;
        let seen = revised(subject.put("k", json("2")).await?.revision)?;
        assert_conflict(subject.delete_if("k", old).await);
        assert_eq!(subject.length("k").await?, 1);
        subject.delete_if("k", seen).await?;
        assert!(!subject.exists("k").await?);
        assert_eq!(subject.length("k").await?, 0);
    }
    Ok(())
}

async fn an_expired_value_leaves_its_list(subject: Database) -> Outcome {
    subject.append("k", json("1")).await?;
    subject.write(subject.write_op("k", json("2"), WriteMode::Upsert, Some(subject.short_ttl()))).await?;
    subject.lapse(&["k"]).await?;
    assert_eq!((subject.get("k").await?, subject.length("k").await?), (None, 1));
    assert!(subject.exists("k").await?);
    assert_eq!(subject.names("").await?, ["k"]);
    assert_eq!(subject.count("").await?, 1);
    assert_eq!(subject.delete("k").await?.existed, Some(true));
    Ok(())
}

async fn a_list_exists_and_is_listed_once(subject: Database) -> Outcome {
    subject.append_numbers("list", 0..3).await?;
    subject.append("both", json("1")).await?;
    subject.put("both", json("1")).await?;
    subject.put("value", json("1")).await?;
    assert_eq!(subject.exist(&["list", "both", "value", "none"]).await?, [true, true, true, false]);
    assert_eq!(subject.count("").await?, 3);
    for limit in 1..5 {
        assert_eq!(subject.listed("", limit).await?, ["both", "list", "value"], "with pages of {limit}");
    }
    Ok(())
}

async fn a_value_read_shows_no_list(subject: Database) -> Outcome {
    subject.append("list", json("1")).await?;
    assert_eq!(subject.get("list").await?, None);
    assert_eq!(subject.get_many(&["list"]).await?, [None]);
    let touched = subject.touch("list", Some(crate::Ttl::from_secs(60)?)).await?;
    assert_eq!((touched.existed, touched.revision), (Some(false), None));
    assert_eq!(subject.length("list").await?, 1);
    Ok(())
}

async fn an_emptied_list_does_not_exist(subject: Database) -> Outcome {
    subject.append_numbers("list", 0..3).await?;
    subject.trim("list", 0).await?;
    assert!(!subject.exists("list").await?);
    assert!(subject.names("").await?.is_empty());
    assert_eq!(subject.count("").await?, 0);
    assert_eq!(subject.delete("list").await?.existed, Some(false));
    Ok(())
}

async fn clear_removes_lists(subject: Database) -> Outcome {
    subject.append("a:list", json("1")).await?;
    subject.append("a:both", json("1")).await?;
    subject.put("a:both", json("1")).await?;
    subject.append("b:list", json("1")).await?;
    let cleared = subject.clear("a:").await?;
    assert!(matches!(cleared, Some(2) | None), "{cleared:?}");
    assert_eq!((subject.length("a:list").await?, subject.length("b:list").await?), (0, 1));
    assert_eq!(subject.names("").await?, ["b:list"]);
    Ok(())
}

async fn deletes_in_a_batch_remove_lists(subject: Database) -> Outcome {
    subject.append("list", json("1")).await?;
    subject.append("both", json("1")).await?;
    subject.put("both", json("1")).await?;
    let deletes = ["list", "none", "both", "list"].map(|key| subject.delete_op(key)).into();
    let existed: Vec<_> = subject.write_all(deletes).await?.iter().map(|ack| ack.existed).collect();
    assert_eq!(existed, [Some(true), Some(false), Some(true), Some(false)]);
    assert_eq!((subject.length("list").await?, subject.length("both").await?), (0, 0));
    assert_eq!(subject.count("").await?, 0);
    Ok(())
}

async fn a_put_after_a_delete_in_a_batch_leaves_no_list(subject: Database) -> Outcome {
    subject.append("k", json("1")).await?;
    let acks = subject.write_all(vec![subject.delete_op("k"), subject.put_op("k", json("2"))]).await?;
    assert_eq!(acks[0].existed, Some(true));
    assert_eq!(subject.length("k").await?, 0);
    assert_value(subject.get("k").await?, &json("2"));
    Ok(())
}

async fn many_lists_are_listed_and_counted(subject: Database) -> Outcome {
    let names: Vec<String> = (0..500).map(|number| format!("k{number:03}")).collect();
    subject.append_many(names.iter().map(|name| subject.append_op(name, json("1"))).collect()).await?;
    subject.write_all(names.iter().step_by(2).map(|name| subject.put_op(name, json("1"))).collect()).await?;
    for limit in [7, 100, 1000] {
        assert_eq!(subject.listed("k", limit).await?, names, "with pages of {limit}");
    }
    assert_eq!(subject.count("k").await?, 500);
    assert_eq!(subject.names("k49").await?, names[490..]);
    let cleared = subject.clear("k").await?;
    assert!(matches!(cleared, Some(500) | None), "{cleared:?}");
    assert_eq!(subject.count("").await?, 0);
    Ok(())
}
