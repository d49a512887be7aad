//! Which database this is.

use super::tools::json;
use crate::contract::DatabaseBackend;
use crate::testkit::case::cases;
use crate::testkit::{Case, Outcome, Subject};

type Database = Subject<dyn DatabaseBackend>;

pub(super) fn cases() -> Vec<Case<dyn DatabaseBackend>> {
    cases!["identity":
        the_identity_stays,
        the_canary_rises_with_a_ping_and_never_falls,
        clearing_keeps_the_identity,
    ]
}

async fn the_identity_stays(subject: Database) -> Outcome {
    let first = subject.backend().identity(&subject.cx()).await?;
    assert_ne!(first.id, 0);
    for number in 0..3 {
        subject.put("k", json(number.to_string())).await?;
        assert_eq!(subject.backend().identity(&subject.cx()).await?.id, first.id);
    }
    Ok(())
}

async fn the_canary_rises_with_a_ping_and_never_falls(subject: Database) -> Outcome {
    let mut last = subject.backend().identity(&subject.cx()).await?.canary;
    for _ in 0..3 {
        subject.backend().ping(&subject.cx()).await?;
        let now = subject.backend().identity(&subject.cx()).await?.canary;
        assert!(now > last, "{now} after {last}");
        last = now;
        subject.put("k", json("1")).await?;
        assert!(subject.backend().identity(&subject.cx()).await?.canary >= last);
    }
    Ok(())
}

async fn clearing_keeps_the_identity(subject: Database) -> Outcome {
    subject.put("k", json("1")).await?;
    subject.backend().ping(&subject.cx()).await?;
    let before = subject.backend().identity(&subject.cx()).await?;
    subject.clear("").await?;
    let after = subject.backend().identity(&subject.cx()).await?;
    assert_eq!(after.id, before.id);
    assert!(after.canary >= before.canary);
    Ok(())
}
