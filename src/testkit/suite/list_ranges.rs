//! Ranges of lists, as `LRANGE` has them.

use super::tools::json;
use crate::contract::{DatabaseBackend, ListRange};
use crate::testkit::case::cases;
use crate::testkit::{Case, Outcome, Subject};

type Database = Subject<dyn DatabaseBackend>;

pub(super) fn cases() -> Vec<Case<dyn DatabaseBackend>> {
    cases!["list_ranges":
        a_missing_list_is_empty,
        every_small_range_is_as_lrange_has_it,
        ranges_of_a_trimmed_list_count_from_its_head,
        ranges_of_a_list_with_gaps_count_items,
        the_last_items_of_a_long_list_are_read,
        ranges_at_the_ends_of_the_numbers_work,
        the_last_none_is_empty,
    ]
}

/// Checks every range with ends from -8 to 8 against the same range of a vector.
async fn assert_ranges(subject: &Database, key: &str, expected: &[String]) -> Outcome {
    for start in -8..=8 {
        for end in -8..=8 {
            let range = ListRange::new(start, end);
            let resolved = range.resolve(expected.len() as u64);
            let model = resolved.map_or(&[][..], |(first, last)| &expected[first as usize..=last as usize]);
            assert_eq!(subject.range(key, start, end).await?, model, "from {start} to {end}");
        }
    }
    Ok(())
}

fn numbers(range: std::ops::Range<u64>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

async fn a_missing_list_is_empty(subject: Database) -> Outcome {
    subject.put("value", json("1")).await?;
    for key in ["missing", "value"] {
        assert!(subject.range(key, 0, -1).await?.is_empty());
        assert!(subject.range(key, -1, -1).await?.is_empty());
        assert_eq!(subject.length(key).await?, 0);
    }
    Ok(())
}

async fn every_small_range_is_as_lrange_has_it(subject: Database) -> Outcome {
    subject.append_numbers("list", 0..5).await?;
    assert_ranges(&subject, "list", &numbers(0..5)).await
}

async fn ranges_of_a_trimmed_list_count_from_its_head(subject: Database) -> Outcome {
    subject.append_numbers("list", 0..9).await?;
    subject.trim("list", 4).await?;
    assert_ranges(&subject, "list", &numbers(5..9)).await
}

async fn ranges_of_a_list_with_gaps_count_items(subject: Database) -> Outcome {
    // Repeated items, deletes and trims are where positions have gaps, if a store leaves any.
    subject.append_numbers("list", 90..95).await?;
    subject.delete("list").await?;
    for number in 0..6 {
        let item = subject.append_op("list", json(number.to_string()));
        subject.append_item(item.clone()).await?;
        subject.append_item(item).await?;
    }
    subject.trim("list", 5).await?;
    subject.append_numbers("list", 6..8).await?;
    assert_ranges(&subject, "list", &numbers(1..8)).await
}

async fn the_last_items_of_a_long_list_are_read(subject: Database) -> Outcome {
    for begin in (0..10_000).step_by(2500) {
        subject.append_numbers("list", begin..begin + 2500).await?;
    }
    for count in [1, 10, 100] {
        let items = subject.items("list", ListRange::last(count)).await?;
        assert_eq!(items.len() as u64, count);
        assert_eq!(items[0].value, json((10_000 - count).to_string()));
    }
    assert_eq!(subject.range("list", 0, 2).await?, ["0", "1", "2"]);
    assert_eq!(subject.range("list", 7000, 7001).await?, ["7000", "7001"]);
    assert_eq!(subject.range("list", -3000, -2999).await?, ["7000", "7001"]);
    Ok(())
}

async fn ranges_at_the_ends_of_the_numbers_work(subject: Database) -> Outcome {
    subject.append_numbers("list", 0..3).await?;
    assert_eq!(subject.range("list", i64::MIN, i64::MAX).await?, numbers(0..3));
    assert_eq!(subject.range("list", 1, i64::MAX).await?, numbers(1..3));
    assert_eq!(subject.range("list", i64::MIN, 1).await?, numbers(0..2));
    assert!(subject.range("list", i64::MAX, i64::MIN).await?.is_empty());
    assert!(subject.range("list", i64::MAX, i64::MAX).await?.is_empty());
    assert!(subject.range("list", i64::MIN, i64::MIN).await?.is_empty());
    Ok(())
}

async fn the_last_none_is_empty(subject: Database) -> Outcome {
    subject.append_numbers("list", 0..3).await?;
    assert!(subject.items("list", ListRange::last(0)).await?.is_empty());
    assert_eq!(subject.items("list", ListRange::last(u64::MAX)).await?.len(), 3);
    Ok(())
}
