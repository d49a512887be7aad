//! Listing, counting and clearing by a literal prefix.

use super::tools::{assert_value, json};
use crate::contract::{Attempt, Listing, Store};
use crate::testkit::case::cases;
use crate::testkit::{Case, Outcome, Subject};

pub(super) fn cases() -> Vec<Case<dyn Store>> {
    cases!["listing":
        an_empty_store_lists_nothing,
        a_prefix_lists_its_keys_and_no_others,
        a_prefix_is_literal,
        a_prefix_counts_case,
        a_prefix_may_end_within_a_segment,
        a_prefix_may_be_a_whole_key,
        a_prefix_may_end_before_the_last_character,
        a_prefix_with_no_keys_lists_nothing,
        a_prefix_of_odd_characters_lists_its_keys,
        listings_come_as_the_capabilities_say,
        list_and_count_agree,
        deleted_keys_are_not_listed,
        clear_removes_what_lies_under_the_prefix,
        clear_says_how_many_keys_went,
        clear_of_nothing_is_no_error,
        clear_is_literal,
        cleared_keys_can_be_written_again,
        cleared_keys_can_be_created_again,
        clear_of_a_whole_store_leaves_nothing,
        clear_of_many_keys_works,
        clear_removes_what_a_fast_clock_wrote,
    ]
}

async fn write_names(subject: &Subject<dyn Store>, names: &[&str]) -> crate::Result<()> {
    subject.write_all(names.iter().map(|name| subject.put_op(name, json("1"))).collect()).await.map(drop)
}

/// Checks what a prefix lists and counts.
async fn assert_listed(subject: &Subject<dyn Store>, prefix: &str, expected: &[&str]) -> Outcome {
    assert_eq!(subject.names(prefix).await?, expected, "listed under {prefix:?}");
    assert_eq!(subject.count(prefix).await?, expected.len() as u64, "counted under {prefix:?}");
    Ok(())
}

async fn an_empty_store_lists_nothing(subject: Subject<dyn Store>) -> Outcome {
    assert_listed(&subject, "", &[]).await?;
    assert_listed(&subject, "a:", &[]).await
}

async fn a_prefix_lists_its_keys_and_no_others(subject: Subject<dyn Store>) -> Outcome {
    write_names(&subject, &["session:1", "session:2", "session", "sessions:1", "other:session:1", "t"]).await?;
    assert_listed(&subject, "session:", &["session:1", "session:2"]).await?;
    assert_listed(&subject, "other:", &["other:session:1"]).await?;
    assert_listed(&subject, "", &["other:session:1", "session", "session:1", "session:2", "sessions:1", "t"]).await
}

async fn a_prefix_is_literal(subject: Subject<dyn Store>) -> Outcome {
    let names = ["a%b", "a*b", "a?b", "a[b]", "a\\b", "a_b", "axb", "ab", "a.b", "a>b", "a:b"];
    write_names(&subject, &names).await?;
    for prefix in ["a%", "a*", "a?", "a[", "a\\", "a_", "a.", "a>", "a:"] {
        let expected: Vec<&str> = names.into_iter().filter(|name| name.starts_with(prefix)).collect();
        assert_listed(&subject, prefix, &expected).await?;
    }
    for prefix in ["%", "*", "?", "[a]", ".", ">", "_", "a[b]*", "\\a"] {
        assert_listed(&subject, prefix, &[]).await?;
    }
    Ok(())
}

async fn a_prefix_counts_case(subject: Subject<dyn Store>) -> Outcome {
    write_names(&subject, &["Key:1", "key:1", "KEY:1"]).await?;
    assert_listed(&subject, "key", &["key:1"]).await?;
    assert_listed(&subject, "K", &["KEY:1", "Key:1"]).await
}

async fn a_prefix_may_end_within_a_segment(subject: Subject<dyn Store>) -> Outcome {
    write_names(&subject, &["user:alice:1", "user:albert:1", "user:bob:1", "us"]).await?;
    assert_listed(&subject, "user:al", &["user:albert:1", "user:alice:1"]).await?;
    assert_listed(&subject, "us", &["us", "user:albert:1", "user:alice:1", "user:bob:1"]).await?;
    assert_listed(&subject, "user:alice:1", &["user:alice:1"]).await
}

async fn a_prefix_may_be_a_whole_key(subject: Subject<dyn Store>) -> Outcome {
    write_names(&subject, &["a", "a:", "a:b", "a/b", "ab", "b"]).await?;
    assert_listed(&subject, "a", &["a", "a/b", "a:", "a:b", "ab"]).await?;
    assert_listed(&subject, "a:", &["a:", "a:b"]).await?;
    assert_listed(&subject, "a:b", &["a:b"]).await
}

async fn a_prefix_may_end_before_the_last_character(subject: Subject<dyn Store>) -> Outcome {
    let last = '\u{10FFFF}';
    let names = ["a".to_owned(), format!("a{last}"), format!("a{last}{last}"), format!("a{last}b"), "b".to_owned()];
    let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
    write_names(&subject, &names).await?;
    names.sort_unstable();
    let under = |prefix: &str| names.iter().copied().filter(|name| name.starts_with(prefix)).collect::<Vec<_>>();
    for prefix in ["a".to_owned(), format!("a{last}"), format!("a{last}{last}")] {
        assert_listed(&subject, &prefix, &under(&prefix)).await?;
    }
    assert_listed(&subject, &last.to_string(), &[]).await
}

async fn a_prefix_with_no_keys_lists_nothing(subject: Subject<dyn Store>) -> Outcome {
    write_names(&subject, &["a:1", "c:1"]).await?;
    for prefix in ["b", "a:10", "a:2", "a;", "A", "\u{10FFFF}"] {
        assert_listed(&subject, prefix, &[]).await?;
    }
    Ok(())
}

async fn a_prefix_of_odd_characters_lists_its_keys(subject: Subject<dyn Store>) -> Outcome {
    for prefix in ["é:", "e\u{301}:", "😀", " ", "''", "a||", "50%:", "$1.", "日本/"] {
        let names = [format!("{prefix}1"), format!("{prefix}2")];
        write_names(&subject, &[&names[0], &names[1], "other"]).await?;
        assert_listed(&subject, prefix, &[&names[0], &names[1]]).await?;
    }
    Ok(())
}

async fn listings_come_as_the_capabilities_say(subject: Subject<dyn Store>) -> Outcome {
    // In most languages' order "a" comes before "B" and "é" before "f"; by bytes it is the other way round.
    let names = ["B", "a", "Z", "é", "f", "a b", "a-b", "a_b", "ab", "aB", "10", "9", "😀", "\u{ffff}", "Ä"];
    write_names(&subject, &names).await?;
    let mut expected = names.to_vec();
    expected.sort_unstable();
    for limit in [3, 100] {
        let mut listed = subject.listed("", limit).await?;
        match subject.backend().capabilities().listing {
            Listing::ByteOrder => {}
            Listing::Once => listed.sort_unstable(),
            Listing::AtLeastOnce => {
                listed.sort_unstable();
                listed.dedup();
            }
        }
        assert_eq!(listed, expected, "with pages of {limit}");
    }
    Ok(())
}

async fn list_and_count_agree(subject: Subject<dyn Store>) -> Outcome {
    let names: Vec<String> = (0..300).map(|number| format!("{}:{number}", ["a", "b", "c"][number % 3])).collect();
    subject.write_all(names.iter().map(|name| subject.put_op(name, json("1"))).collect()).await?;
    for prefix in ["", "a:", "b:1", "c:29", "d"] {
        assert_eq!(subject.count(prefix).await?, subject.names(prefix).await?.len() as u64, "{prefix:?}");
    }
    Ok(())
}

async fn deleted_keys_are_not_listed(subject: Subject<dyn Store>) -> Outcome {
    write_names(&subject, &["a", "b", "c"]).await?;
    subject.delete("b").await?;
    assert_listed(&subject, "", &["a", "c"]).await
}

async fn clear_removes_what_lies_under_the_prefix(subject: Subject<dyn Store>) -> Outcome {
    write_names(&subject, &["a:1", "a:2", "a", "ab", "b:1"]).await?;
    subject.clear("a:").await?;
    assert_listed(&subject, "", &["a", "ab", "b:1"]).await?;
    assert_eq!(subject.get("a:1").await?, None);
    Ok(())
}

async fn clear_says_how_many_keys_went(subject: Subject<dyn Store>) -> Outcome {
    write_names(&subject, &["a:1", "a:2", "b:1"]).await?;
    let cleared = subject.clear("a:").await?;
    assert!(matches!(cleared, Some(2) | None), "{cleared:?}");
    // What went does not go again.
    let cleared = subject.clear("a:").await?;
    assert!(matches!(cleared, Some(0) | None), "{cleared:?}");
    Ok(())
}

async fn clear_of_nothing_is_no_error(subject: Subject<dyn Store>) -> Outcome {
    let cleared = subject.clear("nothing:").await?;
    assert!(matches!(cleared, Some(0) | None), "{cleared:?}");
    Ok(())
}

async fn clear_is_literal(subject: Subject<dyn Store>) -> Outcome {
    write_names(&subject, &["a%b", "a*b", "a_b", "axb", "ab"]).await?;
    for (prefix, left) in
        [("a_", &["a%b", "a*b", "ab", "axb"][..]), ("a%", &["a*b", "ab", "axb"]), ("*", &["a*b", "ab", "axb"])]
    {
        subject.clear(prefix).await?;
        assert_listed(&subject, "", left).await?;
    }
    Ok(())
}

async fn cleared_keys_can_be_written_again(subject: Subject<dyn Store>) -> Outcome {
    for number in 0..3 {
        subject.put("a:1", json(number.to_string())).await?;
        assert_value(subject.get("a:1").await?, &json(number.to_string()));
        subject.clear("a:").await?;
        assert!(!subject.exists("a:1").await?);
    }
    Ok(())
}

async fn cleared_keys_can_be_created_again(subject: Subject<dyn Store>) -> Outcome {
    subject.put("a:1", json("1")).await?;
    subject.clear("").await?;
    subject.create("a:1", json("2")).await?;
    assert_value(subject.get("a:1").await?, &json("2"));
    Ok(())
}

async fn clear_of_a_whole_store_leaves_nothing(subject: Subject<dyn Store>) -> Outcome {
    write_names(&subject, &["a", "Ünï/😀", "*", "a:b:c"]).await?;
    subject.clear("").await?;
    assert_listed(&subject, "", &[]).await
}

async fn clear_of_many_keys_works(subject: Subject<dyn Store>) -> Outcome {
    let names: Vec<String> = (0..5000).map(|number| format!("a:{number}")).collect();
    subject.write_all(names.iter().map(|name| subject.put_op(name, json("1"))).collect()).await?;
    subject.put("b", json("1")).await?;
    let cleared = subject.clear("a:").await?;
    assert!(matches!(cleared, Some(5000) | None), "{cleared:?}");
    assert_listed(&subject, "", &["b"]).await
}

async fn clear_removes_what_a_fast_clock_wrote(subject: Subject<dyn Store>) -> Outcome {
    subject.put("a:1", json("1")).await?;
    let slow = subject.slow_clock();
    subject.backend().clear(&subject.prefix("a:"), slow.issue(), Attempt::First, &subject.cx()).await?;
    assert_listed(&subject, "", &[]).await?;
    subject.write(crate::contract::Write::put(subject.key("a:1"), json("2"), slow.issue())).await?;
    assert_value(subject.get("a:1").await?, &json("2"));
    Ok(())
}
