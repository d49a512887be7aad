//! `replay`: steps that may have been applied before, each once in effect.

use super::tools::{assert_kind, assert_value, json};
use crate::contract::{Append, DatabaseBackend, ReplayOptions, ReplayOutcome, Step, Write};
use crate::testkit::case::cases;
use crate::testkit::{Case, Outcome, Subject};
use crate::{ErrorKind, Result, Stamp};

type Database = Subject<dyn DatabaseBackend>;

pub(super) fn cases() -> Vec<Case<dyn DatabaseBackend>> {
    cases!["replay":
        replay_agrees_with_the_capabilities,
        a_replayed_write_is_applied_once,
        a_replayed_append_is_applied_once,
        a_replayed_write_loses_against_a_newer_one_of_another_writer,
        a_replayed_write_does_not_undo_a_newer_one_of_its_own_writer,
        a_replayed_delete_leaves_a_mark_where_nothing_was,
        a_replayed_clear_spares_newer_entries,
    ]
}

impl Database {
    async fn replay(&self, steps: Vec<Step>) -> Result<Vec<ReplayOutcome>> {
        self.backend().replay(steps, &self.replay_options(), &self.cx()).await.into_iter().collect()
    }

    /// As of a journal whose oldest operation is older than all that a case writes.
    fn replay_options(&self) -> ReplayOptions {
        ReplayOptions::new(Stamp::MIN, vec![self.stamp().writer()])
    }

    /// Whether the store replays; one that does not is checked by the first case.
    fn replays(&self) -> bool {
        self.backend().capabilities().replay
    }
}

fn put(subject: &Database, value: &str, stamp: Stamp) -> Step {
    Step::Write(Write::put(subject.key("k"), json(value), stamp))
}

async fn replay_agrees_with_the_capabilities(subject: Database) -> Outcome {
    assert!(subject.backend().replay(Vec::new(), &subject.replay_options(), &subject.cx()).await.is_empty());
    let steps = vec![put(&subject, "1", subject.stamp()), put(&subject, "2", subject.stamp())];
    let answers = subject.backend().replay(steps, &subject.replay_options(), &subject.cx()).await;
    assert_eq!(answers.len(), 2);
    for answer in answers {
        if subject.replays() {
            assert_eq!(answer?, ReplayOutcome::Applied);
        } else {
            assert_kind(answer, ErrorKind::Unsupported);
            assert!(!subject.exists("k").await?);
        }
    }
    Ok(())
}

async fn a_replayed_write_is_applied_once(subject: Database) -> Outcome {
    if subject.replays() {
        let step = put(&subject, "1", subject.stamp());
        assert_eq!(subject.replay(vec![step.clone()]).await?, [ReplayOutcome::Applied]);
        assert_eq!(subject.replay(vec![step]).await?, [ReplayOutcome::AlreadyApplied]);
        assert_value(subject.get("k").await?, &json("1"));
    }
    Ok(())
}

async fn a_replayed_append_is_applied_once(subject: Database) -> Outcome {
    if subject.replays() {
        let item = |value: &str| Step::Append(Append::new(subject.key("list"), json(value), subject.stamp()));
        let steps = vec![item("1"), item("2")];
        assert_eq!(subject.replay(steps.clone()).await?, [ReplayOutcome::Applied; 2]);
        assert_eq!(subject.replay(steps).await?, [ReplayOutcome::AlreadyApplied; 2]);
        assert_eq!(subject.range("list", 0, -1).await?, ["1", "2"]);
    }
    Ok(())
}

async fn a_replayed_write_loses_against_a_newer_one_of_another_writer(subject: Database) -> Outcome {
    if subject.replays() {
        let older = subject.slow_clock().issue();
        let newer = subject.put_op("k", json("2"));
        let winner = newer.stamp;
        subject.write(newer).await?;
        assert_eq!(subject.replay(vec![put(&subject, "1", older)]).await?, [ReplayOutcome::Superseded { winner }]);
        assert_value(subject.get("k").await?, &json("2"));
    }
    Ok(())
}

async fn a_replayed_write_does_not_undo_a_newer_one_of_its_own_writer(subject: Database) -> Outcome {
    if subject.replays() {
        let older = subject.stamp();
        subject.put("k", json("2")).await?;
        assert_eq!(subject.replay(vec![put(&subject, "1", older)]).await?, [ReplayOutcome::AlreadyApplied]);
        assert_value(subject.get("k").await?, &json("2"));
    }
    Ok(())
}

async fn a_replayed_delete_leaves_a_mark_where_nothing_was(subject: Database) -> Outcome {
    if subject.replays() {
        let older = subject.stamp();
        let delete = Step::Write(subject.delete_op("k"));
        assert_eq!(subject.replay(vec![delete]).await?, [ReplayOutcome::Applied]);
        assert_eq!(subject.replay(vec![put(&subject, "1", older)]).await?, [ReplayOutcome::AlreadyApplied]);
        assert!(!subject.exists("k").await?);
    }
    Ok(())
}

async fn a_replayed_clear_spares_newer_entries(subject: Database) -> Outcome {
    if subject.replays() {
        subject.put("a", json("1")).await?;
        let clear = Step::Clear { prefix: subject.prefix(""), stamp: subject.stamp() };
        subject.put("b", json("2")).await?;
        subject.replay(vec![clear.clone()]).await?;
        subject.replay(vec![clear]).await?;
        assert_eq!(subject.names("").await?, ["b"]);
    }
    Ok(())
}
