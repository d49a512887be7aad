//! Pages and cursors of a listing.

use std::collections::BTreeSet;

use super::tools::{Task, assert_kind, json, together};
use crate::ErrorKind;
use crate::contract::{Cursor, ListOptions, Store};
use crate::testkit::case::cases;
use crate::testkit::{Case, Outcome, Subject};

pub(super) fn cases() -> Vec<Case<dyn Store>> {
    cases!["paging":
        every_page_size_lists_every_key,
        a_listing_of_many_pages_is_complete,
        pages_keep_to_the_prefix,
        a_cursor_survives_the_deletion_of_its_key,
        a_cursor_survives_inserts,
        a_cursor_survives_a_clear,
        a_key_that_is_there_throughout_is_listed,
        a_cursor_that_is_none_is_refused_or_harmless,
        a_cursor_that_no_store_gives_is_refused,
        a_page_size_of_zero_is_brought_into_bounds,
        expired_and_deleted_keys_do_not_end_a_listing,
    ]
}

/// Writes keys `k000` and on; names them.
async fn numbered(subject: &Subject<dyn Store>, count: usize) -> crate::Result<Vec<String>> {
    let names: Vec<String> = (0..count).map(|number| format!("k{number:03}")).collect();
    subject.write_all(names.iter().map(|name| subject.put_op(name, json("1"))).collect()).await?;
    Ok(names)
}

/// Lists the pages that follow a cursor.
async fn rest(subject: &Subject<dyn Store>, limit: usize, mut cursor: Option<Cursor>) -> crate::Result<Vec<String>> {
    let mut names = Vec::new();
    while let Some(at) = cursor {
        let (page, next) = subject.page("", limit, Some(at)).await?;
        names.extend(page);
        cursor = next;
    }
    Ok(names)
}

async fn every_page_size_lists_every_key(subject: Subject<dyn Store>) -> Outcome {
    let names = numbered(&subject, 13).await?;
    for limit in 1..=14 {
        let listed: BTreeSet<String> = subject.listed("", limit).await?.into_iter().collect();
        assert!(listed.iter().eq(names.iter()), "with pages of {limit}: {listed:?}");
    }
    Ok(())
}

async fn a_listing_of_many_pages_is_complete(subject: Subject<dyn Store>) -> Outcome {
    let names: Vec<String> = (0..3000).map(|number| format!("k:{number:05}")).collect();
    subject.write_all(names.iter().map(|name| subject.put_op(name, json("1"))).collect()).await?;
    for limit in [97, ListOptions::DEFAULT_LIMIT, ListOptions::MAX_LIMIT] {
        let listed: BTreeSet<String> = subject.listed("k:", limit).await?.into_iter().collect();
        assert!(listed.iter().eq(names.iter()), "{} keys with pages of {limit}", listed.len());
    }
    Ok(())
}

async fn pages_keep_to_the_prefix(subject: Subject<dyn Store>) -> Outcome {
    let names: Vec<String> = (0..50).map(|number| format!("{}{number}", ["a", "a:", "b", "b:"][number % 4])).collect();
    subject.write_all(names.iter().map(|name| subject.put_op(name, json("1"))).collect()).await?;
    for prefix in ["a", "a:", "b", "b:"] {
        let expected: BTreeSet<&String> = names.iter().filter(|name| name.starts_with(prefix)).collect();
        let listed: BTreeSet<String> = subject.listed(prefix, 2).await?.into_iter().collect();
        assert!(listed.iter().eq(expected), "{prefix:?}: {listed:?}");
    }
    Ok(())
}

async fn a_cursor_survives_the_deletion_of_its_key(subject: Subject<dyn Store>) -> Outcome {
    let names = numbered(&subject, 20).await?;
    let (first, cursor) = subject.page("", 5, None).await?;
    subject.write_all(first.iter().map(|name| subject.delete_op(name)).collect()).await?;
    let later = rest(&subject, 5, cursor).await?;
    let seen: BTreeSet<String> = first.into_iter().chain(later).collect();
    assert!(seen.iter().eq(names.iter()), "{seen:?}");
    Ok(())
}

async fn a_cursor_survives_inserts(subject: Subject<dyn Store>) -> Outcome {
    let names = numbered(&subject, 20).await?;
    let (mut seen, mut cursor) = subject.page("", 3, None).await?;
    let mut round = 0;
    while let Some(at) = cursor {
        round += 1;
        // Before, among and after what is still to come.
        for text in ["a", "k0", "z"] {
            subject.put(&format!("{text}{round}-new"), json("1")).await?;
        }
        assert!(round < 10_000, "the cursor runs in circles");
        let (page, next) = subject.page("", 3, Some(at)).await?;
        seen.extend(page);
        // A few are enough; a listing that follows its inserts for ever is none of this case's matter.
        cursor = if round < 40 { next } else { None };
    }
    if round < 40 {
        assert!(names.iter().all(|name| seen.contains(name)), "{seen:?}");
    }
    Ok(())
}

async fn a_cursor_survives_a_clear(subject: Subject<dyn Store>) -> Outcome {
    numbered(&subject, 20).await?;
    let (_, cursor) = subject.page("", 5, None).await?;
    subject.clear("").await?;
    let later = rest(&subject, 5, cursor).await?;
    // A store that lists a snapshot may still show them.
    assert!(later.len() <= 20, "{later:?}");
    assert!(subject.names("").await?.is_empty());
    Ok(())
}

async fn a_key_that_is_there_throughout_is_listed(subject: Subject<dyn Store>) -> Outcome {
    let names = numbered(&subject, 50).await?;
    let churn = subject.clone();
    let churning = async move {
        for round in 0..30 {
            let name = |number: usize| format!("k{:03}-churn", (round * 7 + number) % 50);
            churn.write_all((0..10).map(|number| churn.put_op(&name(number), json("1"))).collect()).await?;
            churn.write_all((0..10).map(|number| churn.delete_op(&name(number))).collect()).await?;
        }
        Ok(())
    };
    let listing = async move {
        for limit in [1, 4, 7, 100] {
            let listed: BTreeSet<String> = subject.listed("", limit).await?.into_iter().collect();
            let lost: Vec<&String> = names.iter().filter(|name| !listed.contains(*name)).collect();
            assert!(lost.is_empty(), "not listed with pages of {limit}: {lost:?}");
        }
        Ok(())
    };
    together([Box::pin(churning) as Task, Box::pin(listing)]).await
}

async fn a_cursor_that_is_none_is_refused_or_harmless(subject: Subject<dyn Store>) -> Outcome {
    numbered(&subject, 5).await?;
    for text in ["", "garbage", "-1", "99999999999999999999999999", "k002\u{0}", "'; --", "😀", &"x".repeat(5000)] {
        match subject.page("", 2, Some(Cursor::new(text))).await {
            Ok((page, _)) => assert!(page.len() <= 5, "{text:?}"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::InvalidValue, "{text:?}: {error}"),
        }
    }
    assert_eq!(subject.names("").await?.len(), 5);
    Ok(())
}

async fn a_cursor_that_no_store_gives_is_refused(subject: Subject<dyn Store>) -> Outcome {
    numbered(&subject, 5).await?;
    for text in ["", "\u{0}", "k002\u{0}"] {
        assert_kind(subject.page("", 2, Some(Cursor::new(text))).await, ErrorKind::InvalidValue);
    }
    Ok(())
}

async fn a_page_size_of_zero_is_brought_into_bounds(subject: Subject<dyn Store>) -> Outcome {
    let names = numbered(&subject, 3).await?;
    let mut options = ListOptions::default();
    for limit in [0, usize::MAX] {
        options.limit = limit;
        options.cursor = None;
        let mut seen = BTreeSet::new();
        for _ in 0..1000 {
            let page = subject.backend().list(&subject.prefix(""), &options, &subject.cx()).await?;
            seen.extend(page.keys);
            options.cursor = page.next;
            if options.cursor.is_none() {
                break;
            }
        }
        assert_eq!(seen.len(), names.len(), "with a limit of {limit}");
    }
    Ok(())
}

async fn expired_and_deleted_keys_do_not_end_a_listing(subject: Subject<dyn Store>) -> Outcome {
    let names = numbered(&subject, 60).await?;
    let ttl = Some(subject.short_ttl());
    let mode = crate::contract::WriteMode::Upsert;
    let middle: Vec<&str> = names[10..30].iter().map(String::as_str).collect();
    subject.write_all(middle.iter().map(|name| subject.write_op(name, json("2"), mode, ttl)).collect()).await?;
    subject.write_all(names[30..50].iter().map(|name| subject.delete_op(name)).collect()).await?;
    subject.lapse(&middle).await?;
    let listed: BTreeSet<String> = subject.listed("", 3).await?.into_iter().collect();
    assert!(listed.iter().eq(names[..10].iter().chain(&names[50..])), "{listed:?}");
    Ok(())
}
