//! Writing values: guarded by stamps, in batches, each write with its own answer.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use sqlx::postgres::PgRow;

use crate::contract::{Attempt, Write, WriteAck, WriteMode, WriteOp};
use crate::error::{Behind, Error, Result};
use crate::revision::Revision;
use crate::stamp::{HybridClock, Stamp};

use super::batch::{Columns, Finder, chunks, millis, rounds};
use super::error::{column, is_contention};
use super::session::{Session, Statement, unanswered};
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
        WriteOp::Put { mode: WriteMode::Update(_) | WriteMode::Replace(_), .. } => Class::Update,
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
    /// Whether an earlier attempt took half of a delete: value or list alone.
    begun: bool,
    /// Whether that half found something.
    existed: bool,
}

impl Pending<'_> {
    /// Whether it would replace a value that is newer than the stamp it must keep: a replacement is not judged by its stamp.
    fn precedes_expected(&self) -> bool {
        let WriteOp::Put { mode: WriteMode::Update(revision) | WriteMode::Replace(revision), .. } = &self.write.op
        else {
            return false;
        };
        self.write.attempt != Attempt::First && revision.to_stamp().is_some_and(|expected| expected >= self.stamp)
    }

    /// What a failure means for it.
    fn failed(&self, error: &Error) -> Error {
        if !self.begun {
            return error.clone();
        }
        if let Some(behind) = error.as_behind() {
            return Error::behind(Behind::in_part(u64::from(self.existed)).and(behind));
        }
        Error::outcome_unknown("a delete was interrupted after it had removed the value or the list")
            .with_source(error.clone())
    }
}

/// What a batch did so far under keys that it writes more than once: a later write must not be older than an earlier one, nor
/// overtake it.
#[derive(Debug, Default)]
struct Earlier<'a> {
    newest: HashMap<&'a str, Stamp>,
    /// Where a fixed write was behind.
    refused: HashSet<&'a str>,
}

impl Earlier<'_> {
    fn stamp_past(&self, write: &Write, clock: &HybridClock) -> Result<Stamp> {
        let key = write.key.as_str();
        if write.attempt == Attempt::Fixed && self.refused.contains(key) {
            return Err(write.attempt.refusal(Behind::NOT_BEGUN));
        }
        write.attempt.stamp_past(self.newest.get(key).copied(), write.stamp, clock)
    }
}

/// Whether the write of an answer was refused as behind.
pub(super) fn is_behind<T>(answers: &[Option<Result<T>>], index: usize) -> bool {
    matches!(answers.get(index), Some(Some(Err(error))) if error.is_behind())
}

/// What the server took of a write: of a delete, value and list each for itself.
#[derive(Debug, Default)]
struct Taken {
    /// Whether a live value was replaced, if the value was written.
    value: Option<bool>,
    /// How many items were removed, if the list was deleted.
    list: Option<i64>,
}

impl Taken {
    /// Whether all of a write was taken.
    fn is_whole(&self, op: &WriteOp) -> bool {
        self.value.is_some() && (self.list.is_some() || !matches!(op, WriteOp::Delete { .. }))
    }

    fn removed_items(&self) -> bool {
        self.list.is_some_and(|items| items > 0)
    }

    fn existed(&self) -> bool {
        self.value == Some(true) || self.removed_items()
    }
}

/// Applies writes: one answer a write, in order; those of one key are applied in order.
pub(super) async fn write_many(session: &mut Session, writes: &[Write]) -> Vec<Result<WriteAck>> {
    let mut answers: Vec<Option<Result<WriteAck>>> = writes.iter().map(|_| None).collect();
    let keys: Vec<&str> = writes.iter().map(|write| write.key.as_str()).collect();
    let rounds = rounds(&keys);
    let repeats = rounds.len() > 1;
    let mut earlier = Earlier::default();
    for round in rounds {
        let mut pending: Vec<Pending<'_>> = Vec::with_capacity(round.len());
        for index in round {
            let Some(write) = writes.get(index) else { continue };
            let stamp = match earlier.stamp_past(write, &session.clock) {
                Ok(stamp) => stamp,
                Err(error) => {
                    if let Some(slot) = answers.get_mut(index) {
                        *slot = Some(Err(error));
                    }
                    continue;
                }
            };
            if repeats {
                earlier.newest.insert(write.key.as_str(), stamp);
            }
            pending.push(Pending { index, write, stamp, begun: false, existed: false });
        }
        for classes in CLASSES {
            let of_class = |pending: &&Pending<'_>| classes.contains(&class(&pending.write.op));
            let group: Vec<Pending<'_>> = pending.iter().filter(of_class).cloned().collect();
            for chunk in chunks(group, |pending| pending.write.value_bytes()) {
                settle_chunk(session, chunk, &mut answers).await;
            }
        }
        if repeats {
            let behind = pending.iter().filter(|pending| is_behind(&answers, pending.index));
            earlier.refused.extend(behind.map(|pending| pending.write.key.as_str()));
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
        let (mut refused, mut sent): (Vec<_>, Vec<_>) = pending.into_iter().partition(Pending::precedes_expected);
        let outcome = match session.check_deadline() {
            Ok(()) if sent.is_empty() => Ok(Vec::new()),
            Ok(()) => send(session, &mut sent).await,
            Err(error) => Err(error),
        };
        let taken = match outcome {
            Ok(taken) => taken,
            Err(error) => {
                let unanswered = refused.iter().chain(&sent);
                unanswered.for_each(|pending| answer(pending.index, Err(pending.failed(&error))));
                return;
            }
        };
        for (mut pending, taken) in sent.into_iter().zip(taken) {
            if taken.removed_items() {
                session.mark_unclean(&pending.write.key);
            }
            pending.existed |= taken.existed();
            pending.begun |= taken.value.is_some() || taken.list.is_some();
            if taken.is_whole(&pending.write.op) {
                answer(pending.index, Ok(ack(&pending)));
            } else {
                refused.push(pending);
            }
        }
        if refused.is_empty() {
            return;
        }
        let standing = match standing::read(session, refused.iter().map(|pending| &pending.write.key)).await {
            Ok(standing) => standing,
            Err(error) => return refused.iter().for_each(|refused| answer(refused.index, Err(refused.failed(&error)))),
        };
        pending = Vec::with_capacity(refused.len());
        for mut refusal in refused {
            match standing.of(&refusal.write.key).and_then(|standing| judge(session, &refusal, standing)) {
                Ok(Verdict::Again(stamp)) => {
                    refusal.stamp = stamp;
                    pending.push(refusal);
                }
                Ok(Verdict::Answered(ack)) => answer(refusal.index, Ok(ack)),
                Err(error) => answer(refusal.index, Err(refusal.failed(&error))),
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
        WriteOp::Put { mode: WriteMode::Update(expected) | WriteMode::Replace(expected), .. }
            if !standing.has(*expected) =>
        {
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

/// Sends a chunk of one class, sorted by key; answers what was taken of each write.
async fn send(session: &mut Session, pending: &mut [Pending<'_>]) -> Result<Vec<Taken>> {
    let sql = Arc::clone(&session.sql);
    let deletes = pending.iter().any(|pending| matches!(pending.write.op, WriteOp::Delete { .. }));
    let text = match pending.first().map(|pending| class(&pending.write.op)) {
        Some(Class::Touch) => return touch(session, pending).await,
        Some(Class::Create) => &sql.create,
        Some(Class::Update) => &sql.update,
        _ if deletes => &sql.put_or_delete,
        _ if pending.len() == 1 => return put_one(session, pending).await,
        _ => &sql.put,
    };
    let expected = expected(session, pending);
    let columns = columns(pending)?;
    let bind = |statement: Statement| {
        let statement = statement
            .bind(columns.keys.as_slice())
            .bind(columns.stamps.as_slice())
            .bind(columns.ttls())
            .bind(columns.json())
            .bind(columns.bin());
        if expected.is_empty() { statement } else { statement.bind(expected.as_slice()) }
    };
    taken(pending, &session.write(text, bind).await?, deletes)
}

async fn put_one(session: &mut Session, pending: &[Pending<'_>]) -> Result<Vec<Taken>> {
    let sql = Arc::clone(&session.sql);
    let columns = columns(pending)?;
    let row = columns.only().ok_or_else(unanswered)?;
    let bind =
        |statement: Statement| statement.bind(row.key).bind(&row.stamp[..]).bind(row.ttl).bind(row.json).bind(row.bin);
    taken(pending, &session.write(&sql.put_one, bind).await?, false)
}

/// The stamps that updates expect, and stamps of their own that are newer.
fn expected(session: &Session, pending: &mut [Pending<'_>]) -> Vec<[u8; 16]> {
    let mut expected = Vec::new();
    for pending in pending.iter_mut() {
        if let WriteOp::Put { mode: WriteMode::Update(revision) | WriteMode::Replace(revision), .. } = &pending.write.op
        {
            // A revision that is no stamp is nobody's; nor is the oldest stamp.
            let stamp = revision.to_stamp().unwrap_or(Stamp::MIN);
            if stamp >= pending.stamp {
                pending.stamp = session.clock.issue_after(stamp);
            }
            expected.push(stamp.to_bytes());
        }
    }
    expected
}

fn columns<'a>(pending: &[Pending<'a>]) -> Result<Columns<'a>> {
    let mut columns = Columns::with_capacity(pending.len());
    for pending in pending {
        let value = match &pending.write.op {
            WriteOp::Put { value, ttl, .. } => Some((value, *ttl)),
            WriteOp::Delete { .. } | WriteOp::Touch { .. } => None,
        };
        columns.push(&pending.write.key, pending.stamp, value)?;
        if let WriteOp::Put { mode: WriteMode::Replace(_), .. } = &pending.write.op {
            columns.keep_expiry();
        }
    }
    Ok(columns)
}

async fn touch(session: &mut Session, pending: &[Pending<'_>]) -> Result<Vec<Taken>> {
    let sql = Arc::clone(&session.sql);
    let keys: Vec<&str> = pending.iter().map(|pending| pending.write.key.as_str()).collect();
    let stamps: Vec<[u8; 16]> = pending.iter().map(|pending| pending.stamp.to_bytes()).collect();
    let ttl = |pending: &Pending<'_>| match &pending.write.op {
        WriteOp::Touch { ttl } => ttl.map(millis),
        WriteOp::Put { .. } | WriteOp::Delete { .. } => None,
    };
    let ttls: Vec<Option<i64>> = pending.iter().map(ttl).collect();
    let bind = |statement: Statement| statement.bind(keys.as_slice()).bind(stamps.as_slice()).bind(ttls.as_slice());
    taken(pending, &session.write(&sql.touch, bind).await?, false)
}

/// Reads the columns key and replaced; with deletes among the writes also the number of items removed, in rows of their own.
fn taken(pending: &[Pending<'_>], rows: &[PgRow], deletes: bool) -> Result<Vec<Taken>> {
    let mut taken: Vec<Taken> = pending.iter().map(|_| Taken::default()).collect();
    let mut finder = Finder::default();
    for row in rows {
        let index = finder.find(pending, column(row, 0)?, |pending| pending.write.key.as_str());
        let of_key = index.and_then(|index| taken.get_mut(index)).ok_or_else(unanswered)?;
        of_key.value = of_key.value.or(column(row, 1)?);
        if deletes {
            of_key.list = of_key.list.or(column(row, 2)?);
        }
    }
    Ok(taken)
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
    let taken = send(session, &mut delete).await?.pop().unwrap_or_default();
    if !taken.is_whole(&pending.write.op) {
        return Err(Error::internal("a delete of locked rows was refused"));
    }
    if taken.removed_items() {
        session.mark_unclean(key);
    }
    Ok(WriteAck::primary(None, Some(true)))
}
