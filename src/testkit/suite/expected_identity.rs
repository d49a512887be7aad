//! `expect`: only the database that is expected answers.

use super::replay_tools::Database;
use super::tools::{assert_value, json};
use crate::contract::{
    ConflictOptions, DatabaseBackend, GetOptions, Identity, ListOptions, ListRange, ReplayOptions, Step,
};
use crate::testkit::case::cases;
use crate::testkit::{Case, Failure, Outcome};
use crate::{ErrorKind, Outage, Result, Stamp};

pub(super) fn cases() -> Vec<Case<dyn DatabaseBackend>> {
    cases!["expected_identity":
        the_expected_database_answers,
        an_earlier_canary_may_be_expected,
        any_database_answers_where_none_is_expected,
        another_database_is_refused_by_every_call,
        an_older_state_of_the_database_is_refused_by_every_call,
        nothing_is_changed_while_another_database_is_expected,
        a_ping_answers_with_the_canary_that_it_raised,
    ]
}

fn other(identity: Identity) -> Identity {
    Identity::new(identity.id ^ 1, identity.canary)
}

fn later(identity: Identity) -> Identity {
    Identity::new(identity.id, identity.canary + 1)
}

/// Makes every call but that for the identity, each with its name.
async fn every_call(subject: &Database) -> Vec<(&'static str, Result<()>)> {
    let (store, cx, key) = (subject.backend(), subject.cx(), subject.key("k"));
    let keys = [key.clone(), subject.key("list")];
    let mut answers = vec![
        ("get", store.get(&key, &GetOptions::default(), &cx).await.map(drop)),
        ("write", subject.put("k", json("2")).await.map(drop)),
        ("delete", subject.delete("k").await.map(drop)),
        ("list", store.list(&subject.prefix(""), &ListOptions::default(), &cx).await.map(drop)),
        ("count", subject.count("").await.map(drop)),
        ("clear", subject.clear("").await.map(drop)),
        ("ping", store.ping(&cx).await.map(drop)),
        ("range", store.range(&keys[1], ListRange::ALL, &cx).await.map(drop)),
        ("length", store.length(&keys[1], &cx).await.map(drop)),
        ("trim", store.trim(&keys[1], 0, &cx).await.map(drop)),
        ("apply", subject.apply(vec![subject.put_step("k", "2"), subject.append_step("list", "2")]).await.map(drop)),
        ("conflicts", store.conflicts(&ConflictOptions::default(), &cx).await.map(drop)),
        ("forget_conflict", store.forget_conflict(&key, subject.stamp(), &cx).await.map(drop)),
    ];
    let options = ReplayOptions::new(Stamp::MIN);
    let steps = vec![
        subject.put_step("k", "2"),
        subject.append_step("list", "2"),
        Step::Clear { prefix: subject.prefix(""), stamp: subject.stamp() },
        subject.delete_step("k"),
    ];
    let many = [
        (
            "get_many",
            store.get_many(&keys, &GetOptions::default(), &cx).await.into_iter().map(|a| a.map(drop)).collect(),
        ),
        ("exists", store.exists(&keys, &cx).await.into_iter().map(|answer| answer.map(drop)).collect()),
        ("write_many", {
            let writes = vec![subject.put_op("k", json("2")), subject.delete_op("list")];
            subject.write_many(writes).await.into_iter().map(|answer| answer.map(drop)).collect()
        }),
        ("append_many", {
            let items = vec![subject.append_op("list", json("2")), subject.append_op("new", json("2"))];
            store.append_many(items, &cx).await.into_iter().map(|answer| answer.map(drop)).collect()
        }),
        ("replay", store.replay(steps, &options, &cx).await.into_iter().map(|answer| answer.map(drop)).collect()),
    ];
    let many: [(_, Vec<Result<()>>); 5] = many;
    for (name, each) in many {
        assert!(each.len() >= 2, "{name} answers each item");
        answers.extend(each.into_iter().map(|answer| (name, answer)));
    }
    answers
}

/// Checks that every call is refused, as one that another database answers.
async fn assert_refused(subject: &Database) {
    for (name, answer) in every_call(subject).await {
        match answer {
            Ok(()) => panic!("{name} was answered by a database that is not the expected one"),
            Err(error) => assert_eq!(
                (error.kind(), error.outage()),
                (ErrorKind::Unavailable, Some(Outage::Foreign)),
                "{name}: {error}"
            ),
        }
    }
}

async fn assert_answered(subject: &Database) -> Result<(), Failure> {
    for (name, answer) in every_call(subject).await {
        answer.map_err(|error| Failure::new(format!("{name}: {error}")))?;
    }
    Ok(())
}

async fn identity(subject: &Database) -> Result<Identity> {
    subject.backend().identity(&subject.cx()).await
}

async fn the_expected_database_answers(subject: Database) -> Outcome {
    if subject.replays() {
        subject.put("k", json("1")).await?;
        subject.backend().expect(Some(identity(&subject).await?))?;
        assert_value(subject.get("k").await?, &json("1"));
        assert_answered(&subject).await?;
    }
    Ok(())
}

async fn an_earlier_canary_may_be_expected(subject: Database) -> Outcome {
    if subject.replays() {
        let before = identity(&subject).await?;
        subject.backend().expect(Some(before))?;
        for _ in 0..3 {
            subject.backend().ping(&subject.cx()).await?;
        }
        assert_answered(&subject).await?;
        assert!(identity(&subject).await?.canary > before.canary);
    }
    Ok(())
}

async fn any_database_answers_where_none_is_expected(subject: Database) -> Outcome {
    if subject.replays() {
        subject.backend().expect(None)?;
        assert_answered(&subject).await?;
        let identity = identity(&subject).await?;
        subject.backend().expect(Some(other(identity)))?;
        subject.backend().expect(None)?;
        assert_answered(&subject).await?;
    }
    Ok(())
}

async fn another_database_is_refused_by_every_call(subject: Database) -> Outcome {
    if subject.replays() {
        let found = identity(&subject).await?;
        subject.backend().expect(Some(other(found)))?;
        assert_refused(&subject).await;
        assert_eq!(identity(&subject).await?, found, "what is there can be seen");
        subject.backend().expect(Some(found))?;
        assert_answered(&subject).await?;
    }
    Ok(())
}

async fn an_older_state_of_the_database_is_refused_by_every_call(subject: Database) -> Outcome {
    if subject.replays() {
        subject.backend().ping(&subject.cx()).await?;
        let found = identity(&subject).await?;
        // As after a backup was restored: the canary that was seen once is gone.
        subject.backend().expect(Some(later(found)))?;
        assert_refused(&subject).await;
        assert_eq!(identity(&subject).await?, found);
        subject.backend().expect(None)?;
        assert_answered(&subject).await?;
    }
    Ok(())
}

async fn nothing_is_changed_while_another_database_is_expected(subject: Database) -> Outcome {
    if subject.replays() {
        let revision = subject.put("k", json("1")).await?.revision;
        subject.append_numbers("list", 0..3).await?;
        let found = identity(&subject).await?;
        for expected in [other(found), later(found)] {
            subject.backend().expect(Some(expected))?;
            assert_refused(&subject).await;
            subject.backend().expect(None)?;
            assert_eq!(Some(subject.revision("k").await?), revision);
            assert_eq!(subject.range("list", 0, -1).await?, ["0", "1", "2"]);
            assert_eq!(subject.names("").await?, ["k", "list"]);
            assert!(subject.conflicts().await?.is_empty());
            assert_eq!(identity(&subject).await?, found);
        }
    }
    Ok(())
}

async fn a_ping_answers_with_the_canary_that_it_raised(subject: Database) -> Outcome {
    if subject.replays() {
        let mut last = identity(&subject).await?;
        for _ in 0..3 {
            let pinged = subject.backend().ping(&subject.cx()).await?.identity;
            let pinged = pinged.ok_or_else(|| Failure::new("the ping does not say which database answered"))?;
            assert_eq!(pinged.id, last.id);
            assert!(pinged.canary > last.canary, "{pinged:?} after {last:?}");
            assert_eq!(identity(&subject).await?, pinged);
            last = pinged;
        }
    }
    Ok(())
}
