//! Keys of every alphabet are kept apart.

use super::tools::{assert_value, json, longest, peek};
use crate::contract::Store;
use crate::testkit::case::cases;
use crate::testkit::{Case, Outcome, Subject};

pub(super) fn cases() -> Vec<Case<dyn Store>> {
    cases!["keys":
        odd_keys_are_distinct,
        odd_keys_are_listed_as_they_were_written,
        odd_keys_exist_and_are_deleted_alone,
        normal_forms_are_distinct,
        case_counts,
        separators_do_not_collide,
        a_key_and_its_extensions_live_side_by_side,
        the_longest_key_works,
        the_longest_key_of_wide_characters_works,
        keys_that_differ_in_their_last_byte_are_distinct,
    ]
}

/// Keys that some store's alphabet, pattern language, quoting or path handling treats in its own way.
const ODD: &[&str] = &[
    "a:b",
    "a/b",
    "a.b",
    "a|b",
    "a||b",
    "a_b",
    "a-b",
    "a=b",
    "a\\b",
    "a b",
    "a,b",
    "a;b",
    "a+b",
    "a%3Ab",
    "a%2Fb",
    "a..b",
    "a::b",
    "a//b",
    "a:.b",
    "a.:b",
    ".a",
    "a.",
    ":a",
    "a:",
    "/a",
    "a/",
    "..",
    ".",
    "/",
    ":",
    "_",
    "%",
    "50%",
    "%%",
    "*",
    "a*",
    ">",
    "a.>",
    "?",
    "[",
    "[a]",
    "]",
    "{",
    "{a}b",
    "}",
    "(",
    ")",
    "'",
    "''",
    "\"",
    "`",
    "$",
    "$1",
    "${x}",
    "#",
    "~",
    "^",
    "!",
    "&",
    "<",
    "@",
    " ",
    "  ",
    " a",
    "a ",
    "null",
    "0",
    "-1",
    "true",
    "a\u{a0}b",
    "Ünï/😀",
    "日本",
    "עברית",
    "\u{202e}rtl",
    "\u{200b}",
    "\u{feff}",
    "\u{fffd}",
    "\u{ffff}",
    "\u{10ffff}",
    "$KV.bucket.a",
    "_INBOX.a",
    "KV_a",
    "'; DROP TABLE kv; --",
];

fn value_of(index: usize) -> crate::Value {
    json(format!("[{index}]"))
}

async fn write_odd(subject: &Subject<dyn Store>) -> crate::Result<()> {
    let writes = ODD.iter().enumerate().map(|(index, key)| subject.put_op(key, value_of(index))).collect();
    subject.write_all(writes).await.map(drop)
}

async fn odd_keys_are_distinct(subject: Subject<dyn Store>) -> Outcome {
    write_odd(&subject).await?;
    for (index, key) in ODD.iter().enumerate() {
        assert_eq!(peek(subject.get(key).await?), format!("[{index}]"), "{key:?}");
    }
    for (index, value) in subject.get_many(ODD).await?.into_iter().enumerate() {
        assert_eq!(peek(value), format!("[{index}]"), "{:?}", ODD[index]);
    }
    Ok(())
}

async fn odd_keys_are_listed_as_they_were_written(subject: Subject<dyn Store>) -> Outcome {
    write_odd(&subject).await?;
    let mut expected = ODD.to_vec();
    expected.sort_unstable();
    assert_eq!(subject.names("").await?, expected);
    assert_eq!(subject.count("").await?, ODD.len() as u64);
    Ok(())
}

async fn odd_keys_exist_and_are_deleted_alone(subject: Subject<dyn Store>) -> Outcome {
    write_odd(&subject).await?;
    for (done, key) in ODD.iter().enumerate() {
        assert!(subject.exists(key).await?, "{key:?}");
        assert_eq!(subject.delete(key).await?.existed, Some(true), "{key:?}");
        assert!(!subject.exists(key).await?, "{key:?}");
        assert_eq!(subject.count("").await?, (ODD.len() - done - 1) as u64, "after {key:?}");
    }
    Ok(())
}

async fn normal_forms_are_distinct(subject: Subject<dyn Store>) -> Outcome {
    let (composed, decomposed) = ("caf\u{e9}", "cafe\u{301}");
    subject.put(composed, json("1")).await?;
    assert_eq!(subject.get(decomposed).await?, None);
    subject.put(decomposed, json("2")).await?;
    assert_value(subject.get(composed).await?, &json("1"));
    assert_value(subject.get(decomposed).await?, &json("2"));
    Ok(())
}

async fn case_counts(subject: Subject<dyn Store>) -> Outcome {
    subject.put("key", json("1")).await?;
    subject.put("KEY", json("2")).await?;
    assert_value(subject.get("key").await?, &json("1"));
    assert_eq!(subject.get("Key").await?, None);
    assert_eq!(subject.delete("KEY").await?.existed, Some(true));
    assert!(subject.exists("key").await?);
    Ok(())
}

async fn separators_do_not_collide(subject: Subject<dyn Store>) -> Outcome {
    subject.put("a:b", json("1")).await?;
    for other in ["a/b", "a.b", "a||b", "a_b", "a%3Ab", "a=3Ab", "a\\:b"] {
        assert_eq!(peek(subject.get(other).await?), "(missing)", "{other:?} is not a:b");
    }
    Ok(())
}

async fn a_key_and_its_extensions_live_side_by_side(subject: Subject<dyn Store>) -> Outcome {
    let names = ["a", "a.", "a/", "a:", "a:b", "a:b:c", "ab"];
    subject.write_all(names.iter().map(|name| subject.put_op(name, json("1"))).collect()).await?;
    subject.delete("a:b").await?;
    assert_eq!(subject.names("").await?, ["a", "a.", "a/", "a:", "a:b:c", "ab"]);
    subject.delete("a").await?;
    assert_eq!(subject.names("").await?, ["a.", "a/", "a:", "a:b:c", "ab"]);
    Ok(())
}

async fn the_longest_key_works(subject: Subject<dyn Store>) -> Outcome {
    for begin in ["plain", "a:b:", "50% of it: ", "\"'", ">*>*"] {
        let name = longest(&subject, begin);
        subject.put(&name, json("1")).await?;
        assert_value(subject.get(&name).await?, &json("1"));
        assert_eq!(subject.names(begin).await?, [name.as_str()]);
        assert_eq!(subject.delete(&name).await?.existed, Some(true));
    }
    Ok(())
}

async fn the_longest_key_of_wide_characters_works(subject: Subject<dyn Store>) -> Outcome {
    let room = subject.longest_name();
    for character in ["é", "€", "😀", "*", ":", "%", " "] {
        let name = character.repeat(room / character.len());
        subject.put(&name, json("1")).await?;
        assert_value(subject.get(&name).await?, &json("1"));
        assert_value(subject.get_many(&[&name]).await?.remove(0), &json("1"));
        assert_eq!(subject.names(character).await?, [name.as_str()]);
        subject.delete(&name).await?;
    }
    Ok(())
}

async fn keys_that_differ_in_their_last_byte_are_distinct(subject: Subject<dyn Store>) -> Outcome {
    let long = longest(&subject, "");
    let (first, second) = (format!("{}1", &long[1..]), format!("{}2", &long[1..]));
    subject.put(&first, json("1")).await?;
    subject.put(&second, json("2")).await?;
    assert_value(subject.get(&first).await?, &json("1"));
    assert_value(subject.get(&second).await?, &json("2"));
    Ok(())
}
