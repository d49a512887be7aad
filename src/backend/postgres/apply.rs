//! Several steps in one transaction, all or nothing.

use crate::contract::{Append, Step, StepAck, Write, WriteOp};
use crate::error::{Behind, Error, ErrorKind, Result};
use crate::key::Key;
use crate::stamp::Stamp;

use super::batch::distinct;
use super::error::is_contention;
use super::list::{append_many, trim};
use super::session::Session;
use super::standing::{lock_lists, lock_values};
use super::write::write_many;

/// Applies steps in order, or none: the error is that of the first step that failed.
pub(super) async fn apply(session: &mut Session, steps: Vec<Step>) -> Result<Vec<StepAck>> {
    if steps.iter().any(|step| step.key().is_none()) {
        return Err(Error::unsupported("a clear cannot be part of a transaction"));
    }
    if steps.is_empty() {
        return Ok(Vec::new());
    }
    loop {
        session.check_deadline()?;
        session.begin().await?;
        match attempt(session, &steps).await {
            Ok(acks) => return session.commit().await.map(|()| acks),
            Err(error) => {
                session.rollback().await;
                session.take_unclean();
                if !is_contention(&error) {
                    return Err(undone(error));
                }
            }
        }
    }
}

/// What was applied of a step before the commit was undone with it.
fn undone(error: Error) -> Error {
    if let Some(behind) = error.as_behind() {
        return Error::behind(Behind::NOT_BEGUN.with_standing(behind.standing()));
    }
    if error.kind() != ErrorKind::OutcomeUnknown {
        return error;
    }
    let undone = Error::unavailable("the transaction was interrupted before its commit, and is undone");
    let undone = error.outage().into_iter().fold(undone, Error::with_outage);
    undone.with_source(error)
}

/// The answers, or what went wrong first: after that the server refuses the rest of the transaction, which says nothing.
fn all<T>(answers: Vec<Result<T>>) -> Result<Vec<T>> {
    let mut errors = answers.iter().filter_map(|answer| answer.as_ref().err());
    match errors.clone().find(|error| error.kind() != ErrorKind::Internal).or_else(|| errors.next()) {
        Some(error) => Err(error.clone()),
        None => answers.into_iter().collect(),
    }
}

async fn attempt(session: &mut Session, steps: &[Step]) -> Result<Vec<StepAck>> {
    lock(session, steps).await?;
    let mut acks = Vec::with_capacity(steps.len());
    let mut rest = steps;
    while let Some(step) = rest.first() {
        // Neighbours of a kind share their round trips.
        let alike =
            rest.iter().take_while(|next| std::mem::discriminant(*next) == std::mem::discriminant(step)).count();
        let (group, later) = rest.split_at(alike);
        rest = later;
        match step {
            Step::Write(_) => {
                let writes: Vec<Write> = group.iter().filter_map(as_write).cloned().collect();
                acks.extend(all(write_many(session, &writes).await)?.into_iter().map(StepAck::Write));
            }
            Step::Append(_) => {
                let items: Vec<Append> = group.iter().filter_map(as_append).cloned().collect();
                acks.extend(all(append_many(session, &items).await)?.into_iter().map(StepAck::Append));
            }
            Step::Trim { .. } => {
                for (key, keep_last) in group.iter().filter_map(as_trim) {
                    acks.push(StepAck::Trim(trim(session, key, keep_last, stamp_of_delete(later, key)).await?));
                }
            }
            Step::Clear { .. } => return Err(Error::unsupported("a clear cannot be part of a transaction")),
            Step::Expired { .. } => return Err(Error::unsupported("a put that has ended can only be replayed")),
        }
    }
    Ok(acks)
}

/// Locks all that the steps touch, sorted, values before lists, so that transactions cannot deadlock.
async fn lock(session: &mut Session, steps: &[Step]) -> Result<()> {
    let values = distinct(steps.iter().filter_map(as_write).map(|write| &write.key));
    let lists = distinct(steps.iter().filter(|step| touches_list(step)).filter_map(Step::key));
    if !values.is_empty() {
        lock_values(session, &values).await?;
    }
    if !lists.is_empty() {
        lock_lists(session, &lists).await?;
    }
    Ok(())
}

/// The stamp of the first delete of a key among steps.
fn stamp_of_delete(steps: &[Step], key: &Key) -> Option<Stamp> {
    let mut deletes = steps.iter().filter_map(as_write).filter(|write| write.key == *key);
    deletes.find(|write| matches!(write.op, WriteOp::Delete { .. })).map(|write| write.stamp)
}

fn touches_list(step: &Step) -> bool {
    !matches!(step, Step::Write(Write { op: WriteOp::Put { .. } | WriteOp::Touch { .. }, .. }))
}

fn as_write(step: &Step) -> Option<&Write> {
    match step {
        Step::Write(write) => Some(write),
        _ => None,
    }
}

fn as_append(step: &Step) -> Option<&Append> {
    match step {
        Step::Append(append) => Some(append),
        _ => None,
    }
}

fn as_trim(step: &Step) -> Option<(&Key, u64)> {
    match step {
        Step::Trim { key, keep_last } => Some((key, *keep_last)),
        _ => None,
    }
}
