//! Counters of caches.

use super::tools::{assert_kind, assert_value, binary, json, together};
use crate::contract::{CacheBackend, Expiry, IncrementOptions};
use crate::testkit::case::cases;
use crate::testkit::{Case, Outcome, Subject};
use crate::{ErrorKind, Result, Ttl, Value};

pub(super) fn cases() -> Vec<Case<dyn CacheBackend>> {
    cases!["counters":
        increment_agrees_with_the_capabilities,
        a_missing_counter_begins_at_zero,
        a_counter_goes_up_and_down,
        an_increment_by_zero_creates_and_reads,
        a_counter_reads_as_decimal_text,
        a_written_number_is_a_counter,
        a_counter_that_overflows_stays_as_it_was,
        a_counter_reaches_both_ends,
        what_is_not_an_integer_is_not_counted,
        a_ttl_is_set_when_the_counter_is_made,
        a_counter_keeps_the_ttl_it_has,
        a_counter_that_stays_gets_no_ttl,
        an_expired_counter_begins_anew,
        a_deleted_counter_begins_anew,
        concurrent_increments_are_all_counted,
        of_concurrent_increments_each_has_its_own_answer,
        a_counter_has_a_revision_like_any_value,
        an_expired_deadline_counts_nothing,
        the_longest_key_counts,
    ]
}

impl Subject<dyn CacheBackend> {
    async fn increment(&self, key: &str, by: i64) -> Result<i64> {
        self.backend().increment(&self.key(key), by, &IncrementOptions::default(), &self.cx()).await
    }

    async fn increment_for(&self, key: &str, by: i64, ttl: Ttl) -> Result<i64> {
        self.backend().increment(&self.key(key), by, &IncrementOptions::default().with_ttl(ttl), &self.cx()).await
    }

    /// Whether the store counts; one that does not is checked by the first case.
    fn counts(&self) -> bool {
        self.backend().capabilities().increment
    }
}

async fn increment_agrees_with_the_capabilities(subject: Subject<dyn CacheBackend>) -> Outcome {
    let answer = subject.increment("k", 1).await;
    if subject.counts() {
        assert_eq!(answer?, 1);
    } else {
        assert_kind(answer, ErrorKind::Unsupported);
        assert!(!subject.exists("k").await?);
    }
    Ok(())
}

async fn a_missing_counter_begins_at_zero(subject: Subject<dyn CacheBackend>) -> Outcome {
    if subject.counts() {
        assert_eq!(subject.increment("up", 5).await?, 5);
        assert_eq!(subject.increment("down", -5).await?, -5);
        assert_eq!(subject.names("").await?, ["down", "up"]);
    }
    Ok(())
}

async fn a_counter_goes_up_and_down(subject: Subject<dyn CacheBackend>) -> Outcome {
    if subject.counts() {
        for (by, expected) in [(1, 1), (1, 2), (40, 42), (-50, -8), (8, 0), (-1, -1)] {
            assert_eq!(subject.increment("k", by).await?, expected);
        }
    }
    Ok(())
}

async fn an_increment_by_zero_creates_and_reads(subject: Subject<dyn CacheBackend>) -> Outcome {
    if subject.counts() {
        assert_eq!(subject.increment("k", 0).await?, 0);
        assert_value(subject.get("k").await?, &json("0"));
        subject.put("k", json("7")).await?;
        assert_eq!(subject.increment("k", 0).await?, 7);
    }
    Ok(())
}

async fn a_counter_reads_as_decimal_text(subject: Subject<dyn CacheBackend>) -> Outcome {
    if subject.counts() {
        for (by, text) in [(1, "1"), (i64::MAX - 1, "9223372036854775807"), (i64::MIN, "-1"), (-41, "-42")] {
            subject.increment("k", by).await?;
            assert_value(subject.get("k").await?, &json(text));
        }
    }
    Ok(())
}

async fn a_written_number_is_a_counter(subject: Subject<dyn CacheBackend>) -> Outcome {
    if subject.counts() {
        for number in [0, 41, -41, i64::MAX - 1, i64::MIN] {
            subject.put("k", Value::from_integer(number)).await?;
            assert_eq!(subject.increment("k", 1).await?, number + 1);
        }
    }
    Ok(())
}

async fn a_counter_that_overflows_stays_as_it_was(subject: Subject<dyn CacheBackend>) -> Outcome {
    if subject.counts() {
        let ends = [(i64::MAX, 1), (i64::MAX, i64::MAX), (i64::MIN, -1), (i64::MIN, i64::MIN), (-2, i64::MIN)];
        for (number, by) in ends {
            subject.put("k", Value::from_integer(number)).await?;
            assert_kind(subject.increment("k", by).await, ErrorKind::InvalidValue);
            assert_value(subject.get("k").await?, &Value::from_integer(number));
        }
    }
    Ok(())
}

async fn a_counter_reaches_both_ends(subject: Subject<dyn CacheBackend>) -> Outcome {
    if subject.counts() {
        assert_eq!(subject.increment("max", i64::MAX).await?, i64::MAX);
        assert_eq!(subject.increment("min", i64::MIN).await?, i64::MIN);
        assert_eq!(subject.increment("max", i64::MIN).await?, -1);
        assert_eq!(subject.increment("min", i64::MAX).await?, -1);
        // Beyond 2^53, where a number type of Lua or JavaScript would round.
        subject.put("k", json("9007199254740992")).await?;
        assert_eq!(subject.increment("k", 1).await?, 9_007_199_254_740_993);
    }
    Ok(())
}

async fn what_is_not_an_integer_is_not_counted(subject: Subject<dyn CacheBackend>) -> Outcome {
    if subject.counts() {
        let texts =
            ["\"1\"", "1.0", "1.5", "1e3", " 1", "1 ", "-0", "9223372036854775808", "null", "{}", "[1]", "\"\""];
        for value in texts.into_iter().map(json).chain([binary("1"), binary([]), binary([0])]) {
            subject.put("k", value.clone()).await?;
            assert_kind(subject.increment("k", 1).await, ErrorKind::WrongType);
            assert_value(subject.get("k").await?, &value);
        }
    }
    Ok(())
}

async fn a_ttl_is_set_when_the_counter_is_made(subject: Subject<dyn CacheBackend>) -> Outcome {
    if subject.counts() {
        subject.increment_for("k", 1, subject.short_ttl()).await?;
        subject.lapse(&["k"]).await?;
        assert!(!subject.exists("k").await?);
    }
    Ok(())
}

async fn a_counter_keeps_the_ttl_it_has(subject: Subject<dyn CacheBackend>) -> Outcome {
    if subject.counts() {
        subject.increment_for("k", 1, Ttl::from_secs(3600)?).await?;
        let made = subject.entry("k").await?.expiry;
        assert!(matches!(made, Expiry::At(_)), "{made:?}");
        subject.increment("k", 1).await?;
        assert_eq!(subject.entry("k").await?.expiry, made);
        subject.increment_for("k", 1, Ttl::from_secs(7200)?).await?;
        assert_eq!(subject.entry("k").await?.expiry, made);
        assert_value(subject.get("k").await?, &json("3"));
    }
    Ok(())
}

async fn a_counter_that_stays_gets_no_ttl(subject: Subject<dyn CacheBackend>) -> Outcome {
    if subject.counts() {
        subject.increment("k", 1).await?;
        subject.increment_for("k", 1, Ttl::from_secs(3600)?).await?;
        assert_eq!(subject.entry("k").await?.expiry, Expiry::Never);
    }
    Ok(())
}

async fn an_expired_counter_begins_anew(subject: Subject<dyn CacheBackend>) -> Outcome {
    if subject.counts() {
        subject.put_for("k", json("41"), subject.short_ttl()).await?;
        subject.put_for("word", json("\"x\""), subject.short_ttl()).await?;
        subject.lapse(&["k", "word"]).await?;
        assert_eq!(subject.increment("k", 1).await?, 1);
        assert_eq!(subject.entry("k").await?.expiry, Expiry::Never);
        assert_eq!(subject.increment("word", 1).await?, 1);
    }
    Ok(())
}

async fn a_deleted_counter_begins_anew(subject: Subject<dyn CacheBackend>) -> Outcome {
    if subject.counts() {
        subject.increment("k", 41).await?;
        subject.delete("k").await?;
        assert_eq!(subject.increment("k", 1).await?, 1);
    }
    Ok(())
}

/// Increments a key from 32 tasks, ten times each, and returns all the answers.
async fn from_everywhere(
    subject: &Subject<dyn CacheBackend>,
) -> std::result::Result<Vec<i64>, crate::testkit::Failure> {
    let answers = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    together((0..32).map(|_| {
        let (subject, answers) = (subject.clone(), answers.clone());
        async move {
            for _ in 0..10 {
                let answer = subject.increment("k", 1).await?;
                answers.lock().unwrap().push(answer);
            }
            Ok(())
        }
    }))
    .await?;
    let answers = answers.lock().unwrap().clone();
    Ok(answers)
}

async fn concurrent_increments_are_all_counted(subject: Subject<dyn CacheBackend>) -> Outcome {
    if subject.counts() {
        from_everywhere(&subject).await?;
        assert_value(subject.get("k").await?, &json("320"));
    }
    Ok(())
}

async fn of_concurrent_increments_each_has_its_own_answer(subject: Subject<dyn CacheBackend>) -> Outcome {
    if subject.counts() {
        let mut answers = from_everywhere(&subject).await?;
        answers.sort_unstable();
        assert!(answers.iter().copied().eq(1..=320), "{answers:?}");
    }
    Ok(())
}

async fn a_counter_has_a_revision_like_any_value(subject: Subject<dyn CacheBackend>) -> Outcome {
    if subject.counts() {
        subject.increment("k", 1).await?;
        let first = subject.revision("k").await?;
        subject.increment("k", 1).await?;
        let second = subject.revision("k").await?;
        assert_ne!(first, second);
        super::tools::assert_conflict(subject.update("k", json("9"), first).await);
        subject.update("k", json("10"), second).await?;
        assert_eq!(subject.increment("k", 1).await?, 11);
    }
    Ok(())
}

async fn an_expired_deadline_counts_nothing(subject: Subject<dyn CacheBackend>) -> Outcome {
    if subject.counts() {
        let late = crate::contract::Context::with_timeout(std::time::Duration::ZERO);
        let answer = subject.backend().increment(&subject.key("k"), 1, &IncrementOptions::default(), &late).await;
        assert_kind(answer, ErrorKind::Unavailable);
        assert!(!subject.exists("k").await?);
    }
    Ok(())
}

async fn the_longest_key_counts(subject: Subject<dyn CacheBackend>) -> Outcome {
    if subject.counts() {
        let key = super::tools::longest(&subject, "hits: 50% *");
        assert_eq!(subject.increment(&key, 1).await?, 1);
        assert_eq!(subject.increment(&key, 1).await?, 2);
    }
    Ok(())
}
