//! Writing values: guarded by stamps, in batches, each write with its own answer.

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::postgres::PgRow;

use crate::contract::{Write, WriteAck, WriteMode, WriteOp};
use crate::error::{Error, Result};
use crate::revision::Revision;
use crate::stamp::Stamp;

use super::batch::{Columns, chunks, millis, rounds};
use super::error::{column, is_contention};
use super::session::{Session, Statement};
use super::standing::{self, Standing};

/// Which statement a write goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Class {
    Put,
    Create,
    Update,
    Touch,
    Delete,
    DeleteIf,
}

const CLASSES: [&[Class]; 5] =
    [&[Class::Put, Class::Delete], &[Class::Create], &[Class::Update], &[Class::Touch], &[Class::DeleteIf]];

fn class(op: &WriteOp) -> Class {
    match op {
        WriteOp::Put { mode: WriteMode::Upsert, .. } => Class::Put,
        WriteOp::Put { mode: WriteMode::Create, .. } => Class::Create,
        WriteOp::Put { mode: WriteMode::Update(_), .. } => Class::Update,
        WriteOp::Touch { .. } => Class::Touch,
        WriteOp::Delete { only_if: None } => Class::Delete,
        WriteOp::Delete { only_if: Some(_) } => Class::DeleteIf,
    }
}

/// A write that has no answer yet.
#[derive(Clone, Debug)]
struct Pending<'a> {
    index: usize,
    write: &'a Write,
    /// The stamp it is sent with: its own, or a newer one where that was behind.
    stamp: Stamp,
    /// Whether an earlier attempt, which took only half of a delete, found something.
    existed: bool,
}

/// What the server says of a write that it took, whole or, of a delete, in part.
struct Taken {
    whole: bool,
    existed: bool,
    removed_items: bool,
}

/// Applies writes: one answer a write, in order; those of one key are applied in order.
pub(super) async fn write_many(session: &mut Session, writes: &[Write]) -> Vec<Result<WriteAck>> {
    let mut answers: Vec<Option<Result<WriteAck>>> = writes.iter().map(|_| None).collect();
    // A later write of a key must not be older than an earlier one of the same batch.
    let mut newest: HashMap<&str, Stamp> = HashMap::new();
    for round in rounds(writes.iter().map(|write| &write.key)) {
        let mut pending: Vec<Pending<'_>> = Vec::with_capacity(round.len());
        for index in round {
            let Some(write) = writes.get(index) else { continue };
            let stamp = match newest.get(write.key.as_str()) {
                Some(earlier) if *earlier >= write.stamp => session.clock.issue_after(*earlier),
                _ => write.stamp,
            };
            newest.insert(write.key.as_str(), stamp);
            pending.push(Pending { index, write, stamp, existed: false });
        }
        pending.sort_unstable_by(|a, b| a.write.key.cmp(&b.write.key));
        for classes in CLASSES {
            let of_class = |pending: &&Pending<'_>| classes.contains(&class(&pending.write.op));
            let group: Vec<Pending<'_>> = pending.iter().filter(of_class).cloned().collect();
            for chunk in chunks(group, |pending| pending.write.value_bytes()) {
                settle_chunk(session, chunk, &mut answers).await;
            }
        }
    }
    let unanswered = || Err(Error::internal("a write of a batch was not answered"));
    answers.into_iter().map(|answer| answer.unwrap_or_else(unanswered)).collect()
}

/// Sends a chunk of one statement until each of its writes has an answer.
async fn settle_chunk(session: &mut Session, mut pending: Vec<Pending<'_>>, answers: &mut [Option<Result<WriteAck>>]) {
    let mut answer = |index: usize, result: Result<WriteAck>| {
        if let Some(slot) = answers.get_mut(index) {
            *slot = Some(result);
        }
    };
    if pending.iter().any(|pending| class(&pending.write.op) == Class::DeleteIf) {
        for pending in pending {
            let result = delete_if(session, &pending).await;
            answer(pending.index, result);
        }
        return;
    }
    while !pending.is_empty() {
        let sent = match session.check_deadline() {
            Ok(()) => send(session, &mut pending).await,
            Err(error) => Err(error),
        };
        let mut taken = match sent {
            Ok(taken) => taken,
            Err(error) => return pending.iter().for_each(|pending| answer(pending.index, Err(error.clone()))),
        };
        let mut refused = Vec::new();
        for mut pending in pending {
            match taken.remove(pending.write.key.as_str()) {
                Some(taken) => {
                    pending.existed |= taken.existed;
                    if taken.removed_items {
                        session.mark_unclean(&pending.write.key);
                    }
                    if taken.whole {
                        answer(pending.index, Ok(ack(&pending)));
                    } else {
                        refused.push(pending);
                    }
                }
                None => refused.push(pending),
            }
        }
        if refused.is_empty() {
            return;
        }
        let standing = match standing::read(session, refused.iter().map(|pending| &pending.write.key)).await {
            Ok(standing) => standing,
            // None of them was applied as a whole, and all that came of them was answered.
            Err(error) => return refused.iter().for_each(|pending| answer(pending.index, Err(error.clone()))),
        };
        pending = Vec::with_capacity(refused.len());
        for mut refusal in refused {
            match standing.of(&refusal.write.key).and_then(|standing| judge(session, &refusal, standing)) {
                Ok(Verdict::Again(stamp)) => {
                    refusal.stamp = stamp;
                    pending.push(refusal);
                }
                Ok(Verdict::Answered(ack)) => answer(refusal.index, Ok(ack)),
                Err(error) => answer(refusal.index, Err(error)),
            }
        }
    }
}

/// What becomes of a write that was refused.
enum Verdict {
    Answered(WriteAck),
    /// It is sent again with this stamp.
    Again(Stamp),
}

fn judge(session: &Session, refusal: &Pending<'_>, standing: Standing) -> Result<Verdict> {
    match &refusal.write.op {
        WriteOp::Put { mode: WriteMode::Create, .. } if standing.live => {
            return Err(Error::conflict("the key has a value already"));
        }
        WriteOp::Put { mode: WriteMode::Update(expected), .. } if !standing.has(*expected) => {
            return Err(other_revision());
        }
        WriteOp::Touch { .. } if !standing.live => return Ok(Verdict::Answered(WriteAck::primary(None, Some(false)))),
        _ => {}
    }
    standing.newer(&session.clock, refusal.stamp, refusal.write.attempt).map(Verdict::Again)
}

fn other_revision() -> Error {
    Error::conflict("the value under the key does not have the expected revision")
}

fn ack(pending: &Pending<'_>) -> WriteAck {
    let revision = match &pending.write.op {
        WriteOp::Delete { .. } => None,
        WriteOp::Put { .. } | WriteOp::Touch { .. } => Some(Revision::from_stamp(pending.stamp)),
    };
    WriteAck::primary(revision, Some(pending.existed))
}

/// Sends a chunk of one class; answers what was taken, by key.
async fn send(session: &mut Session, pending: &mut [Pending<'_>]) -> Result<HashMap<String, Taken>> {
    let sql = Arc::clone(&session.sql);
    let classes: Vec<Class> = pending.iter().map(|pending| class(&pending.write.op)).collect();
    if classes.contains(&Class::Touch) {
        return touch(session, pending).await;
    }
    let mut expected = Vec::new();
    for pending in pending.iter_mut() {
        if let WriteOp::Put { mode: WriteMode::Update(revision), .. } = &pending.write.op {
            // A revision that is no stamp is nobody's; nor is the oldest stamp.
            let stamp = revision.to_stamp().unwrap_or(Stamp::MIN);
            if stamp >= pending.stamp {
                pending.stamp = session.clock.issue_after(stamp);
            }
            expected.push(stamp.to_bytes());
        }
    }
    let mut columns = Columns::default();
    for pending in pending.iter() {
        let value = match &pending.write.op {
            WriteOp::Put { value, ttl, .. } => Some((value, *ttl)),
            WriteOp::Delete { .. } | WriteOp::Touch { .. } => None,
        };
        columns.push(&pending.write.key, pending.stamp, value)?;
    }
    let deletes = classes.iter().any(|class| matches!(class, Class::Delete | Class::DeleteIf));
    let text = match classes.first() {
        Some(Class::Create) => &sql.create,
        Some(Class::Update) => &sql.update,
        _ if deletes => &sql.put_or_delete,
        _ => &sql.put,
    };
    let bind = |statement: Statement| {
        let statement = statement
            .bind(columns.keys.as_slice())
            .bind(columns.stamps.as_slice())
            .bind(columns.kinds.as_slice())
            .bind(columns.ttls.as_slice())
            .bind(columns.json.as_slice())
            .bind(columns.bin.as_slice());
        if expected.is_empty() { statement } else { statement.bind(expected.as_slice()) }
    };
    let rows = session.write(text, bind).await?;
    rows.iter().map(if deletes { taken_of_two } else { taken_of_one }).collect()
}

async fn touch(session: &mut Session, pending: &[Pending<'_>]) -> Result<HashMap<String, Taken>> {
    let sql = Arc::clone(&session.sql);
    let keys: Vec<&str> = pending.iter().map(|pending| pending.write.key.as_str()).collect();
    let stamps: Vec<[u8; 16]> = pending.iter().map(|pending| pending.stamp.to_bytes()).collect();
    let ttl = |pending: &Pending<'_>| match &pending.write.op {
        WriteOp::Touch { ttl } => ttl.map(millis),
        WriteOp::Put { .. } | WriteOp::Delete { .. } => None,
    };
    let ttls: Vec<Option<i64>> = pending.iter().map(ttl).collect();
    let bind = |statement: Statement| statement.bind(keys.as_slice()).bind(stamps.as_slice()).bind(ttls.as_slice());
    session.write(&sql.touch, bind).await?.iter().map(taken_of_one).collect()
}

/// Reads the columns key and existed.
fn taken_of_one(row: &PgRow) -> Result<(String, Taken)> {
    Ok((column(row, 0)?, Taken { whole: true, existed: column(row, 1)?, removed_items: false }))
}

/// Reads the columns key, value replaced, items removed, deletes: the two in the middle are NULL where the half was refused.
fn taken_of_two(row: &PgRow) -> Result<(String, Taken)> {
    let (replaced, removed, deletes): (Option<bool>, Option<i64>, bool) =
        (column(row, 1)?, column(row, 2)?, column(row, 3)?);
    let removed_items = removed.is_some_and(|removed| removed > 0);
    let taken = Taken {
        whole: replaced.is_some() && (removed.is_some() || !deletes),
        existed: replaced == Some(true) || removed_items,
        removed_items,
    };
    Ok((column(row, 0)?, taken))
}

/// Deletes value and list if the value has the revision: both or nothing, so in a transaction.
async fn delete_if(session: &mut Session, pending: &Pending<'_>) -> Result<WriteAck> {
    if session.in_transaction() {
        return delete_if_locked(session, pending).await;
    }
    loop {
        session.begin().await?;
        let outcome = delete_if_locked(session, pending).await;
        match &outcome {
            Ok(_) => session.commit().await?,
            Err(error) => {
                session.rollback().await;
                if is_contention(error) {
                    session.check_deadline()?;
                    continue;
                }
            }
        }
        return outcome;
    }
}

async fn delete_if_locked(session: &mut Session, pending: &Pending<'_>) -> Result<WriteAck> {
    let key = &pending.write.key;
    standing::lock_values(session, &[key.as_str()]).await?;
    standing::lock_lists(session, &[key.as_str()]).await?;
    let standing = standing::read(session, [key]).await?.of(key)?;
    let WriteOp::Delete { only_if: Some(expected) } = &pending.write.op else {
        return Err(Error::internal("a delete without a condition was sent as one with it"));
    };
    let holds = standing.has(*expected);
    let mine = !standing.live && standing.stamp == Some(pending.stamp);
    if !holds && !mine {
        return Err(other_revision());
    }
    let stamp =
        if mine { pending.stamp } else { standing.newer(&session.clock, pending.stamp, pending.write.attempt)? };
    let mut delete = [Pending { stamp, ..pending.clone() }];
    let taken = send(session, &mut delete).await?.remove(key.as_str());
    match taken {
        Some(taken) if taken.whole => {
            if taken.removed_items {
                session.mark_unclean(key);
            }
            Ok(WriteAck::primary(None, Some(true)))
        }
        _ => Err(Error::internal("a delete of locked rows was refused")),
    }
}
