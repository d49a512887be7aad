//! Replay: steps that may have been applied before, each once in effect.
//!
//! The keys are locked, in order, before anything is looked at. So what the steps are judged by stands until they are written, and
//! a normal write of one of the keys, which waits meanwhile, judges what it then finds.

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::postgres::PgRow;

use crate::contract::{Append, AppendOrder, ReplayOptions, ReplayOutcome, Step, Write, WriteOp};
use crate::error::{Error, Result};
use crate::key::{Key, KeyPrefix};
use crate::stamp::Stamp;
use crate::time::Timestamp;

use super::batch::{Columns, chunks, distinct};
use super::conflict;
use super::error::{column, fails_inside, is_contention};
use super::failure::{broken_off, is_of_all, of_all, of_step};
use super::judge::{Changed, Judge, Loss, Standing};
use super::list::forget;
use super::record;
use super::scan::{CLEAR_BATCH, Under};
use super::sentence::List;
use super::session::{Session, Statement, unanswered};
use super::standing::{lock_lists, lock_values};

/// Replays steps in order, in one transaction but for the clears among them; each answers for itself.
///
/// # Errors
///
/// What is of all steps alike: `Unavailable`, `OutcomeUnknown` or `Closed`, for none of them is to blame.
pub(super) async fn replay(
    session: &mut Session,
    steps: &[Step],
    options: &ReplayOptions,
) -> Result<Vec<Result<ReplayOutcome>>> {
    let mut answers = Vec::with_capacity(steps.len());
    let mut order = AppendOrder::default();
    for part in steps.chunk_by(|a, b| a.key().is_some() && b.key().is_some()) {
        let answered = match part {
            [Step::Clear { prefix, stamp }] => clear(session, prefix, *stamp, options).await.map(|answer| vec![answer]),
            steps => Transaction { steps, options, loss: Loss::OfDelete }.run(session, &mut order).await,
        };
        // What came before is in the database already, whatever becomes of the rest.
        answers.extend(answered.map_err(|failure| broken_off(failure, !answers.is_empty()))?);
    }
    Ok(answers)
}

/// Deletes every key of a prefix that is there, page by page.
async fn clear(
    session: &mut Session,
    prefix: &KeyPrefix,
    stamp: Stamp,
    options: &ReplayOptions,
) -> Result<Result<ReplayOutcome>> {
    let (gc_floor, _) = memory(session).await?;
    if stamp < gc_floor {
        return Ok(Ok(ReplayOutcome::TooOld { floor: gc_floor }));
    }
    let (sql, mut under, mut applied, mut failure) = (Arc::clone(&session.sql), Under::new(prefix), false, None);
    loop {
        let bind = |statement: Statement| under.bind(statement).bind(record::signed(CLEAR_BATCH as u64));
        let page = session.read(&under.scans(&sql).clear_keys, bind).await;
        let page = page.map_err(|failure| broken_off(failure, applied))?;
        // A row without a valid key is none of ours.
        let keys = page.iter().map(|row| Ok(Key::parse(column::<&str>(row, 0)?).ok())).collect::<Result<Vec<_>>>()?;
        let steps: Vec<Step> = keys.into_iter().flatten().map(|key| Step::Write(Write::delete(key, stamp))).collect();
        let answers =
            Transaction { steps: &steps, options, loss: Loss::OfClear }.run(session, &mut AppendOrder::default()).await;
        for answer in answers.map_err(|failure| broken_off(failure, applied))? {
            match answer {
                Ok(too_old @ ReplayOutcome::TooOld { .. }) => return Ok(Ok(too_old)),
                Ok(_) => applied = true,
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        match page.last().filter(|_| page.len() >= CLEAR_BATCH) {
            Some(last) => under.after = column(last, 0)?,
            None => return Ok(failure.map_or(Ok(ReplayOutcome::Applied), Err)),
        }
    }
}

/// Steps that are applied together.
struct Transaction<'a> {
    steps: &'a [Step],
    options: &'a ReplayOptions,
    loss: Loss,
}

impl<'a> Transaction<'a> {
    /// Applies them, again where others collide with them. If they fail by what one of them is, they are applied apart, so that
    /// the others are.
    async fn run(&self, session: &mut Session, order: &mut AppendOrder) -> Result<Vec<Result<ReplayOutcome>>> {
        let mut apart = false;
        if self.steps.is_empty() {
            return Ok(Vec::new());
        }
        loop {
            session.check_deadline()?;
            session.begin().await?;
            session.outlast_limits().await?;
            let mut after = order.clone();
            let outcome =
                if apart { self.apart(session, &mut after).await } else { self.together(session, &mut after).await };
            match outcome {
                Ok(answers) => {
                    session.commit().await?;
                    *order = after;
                    return Ok(answers);
                }
                Err(error) => {
                    session.rollback().await;
                    session.take_unclean();
                    if is_contention(&error) {
                        continue;
                    }
                    if apart || is_of_all(&error) {
                        return Err(of_all(error));
                    }
                    apart = true;
                }
            }
        }
    }

    async fn together(&self, session: &mut Session, order: &mut AppendOrder) -> Result<Vec<Result<ReplayOutcome>>> {
        self.lock(session).await?;
        self.apply(session, self.steps, order).await
    }

    /// Halves the steps until those that fail stand alone.
    async fn apart(&self, session: &mut Session, order: &mut AppendOrder) -> Result<Vec<Result<ReplayOutcome>>> {
        self.lock(session).await?;
        let (mut answers, mut inside) = (Vec::with_capacity(self.steps.len()), None);
        let mut parts = vec![self.steps];
        while let Some(part) = parts.pop() {
            session.save().await?;
            let mut after = order.clone();
            let error = match self.tolerant(session, part, &mut after).await {
                Ok(applied) => {
                    *order = after;
                    answers.extend(applied);
                    session.release().await?;
                    continue;
                }
                Err(error) if is_of_all(&error) => return Err(error),
                Err(error) => error,
            };
            session.take_back().await?;
            if let [step] = part {
                if fails_inside(&error) {
                    inside.get_or_insert_with(|| error.clone());
                }
                let answer = Err(of_step(error));
                order.note(step, &answer);
                answers.push(answer);
            } else {
                let (first, second) = part.split_at(part.len() / 2);
                parts.extend([second, first]);
            }
        }
        // No step is to blame where none was written.
        match inside.filter(|_| !answers.iter().any(|answer| matches!(answer, Ok(ReplayOutcome::Applied)))) {
            Some(error) => Err(error),
            None => Ok(answers),
        }
    }

    /// Applies steps also where a list's row was lost and its items were not.
    async fn tolerant(
        &self,
        session: &mut Session,
        steps: &'a [Step],
        order: &mut AppendOrder,
    ) -> Result<Vec<Result<ReplayOutcome>>> {
        let appends: Vec<&Append> = steps.iter().filter_map(as_append).collect();
        forget_stored(session, &appends).await?;
        self.apply(session, steps, order).await
    }

    /// Locks all that the steps touch, sorted, values before lists.
    async fn lock(&self, session: &mut Session) -> Result<()> {
        let values = distinct(self.steps.iter().filter(|step| touches_value(step)).filter_map(Step::key));
        let lists = distinct(self.steps.iter().filter(|step| touches_list(step)).filter_map(Step::key));
        if !values.is_empty() {
            lock_values(session, &values).await?;
        }
        if !lists.is_empty() {
            lock_lists(session, &lists).await?;
        }
        Ok(())
    }

    async fn apply(
        &self,
        session: &mut Session,
        steps: &'a [Step],
        order: &mut AppendOrder,
    ) -> Result<Vec<Result<ReplayOutcome>>> {
        let clock = Arc::clone(&session.clock);
        let values = read_values(session, steps).await?;
        let lists = read_lists(session, steps, self.options).await?;
        // Last: what was forgotten before it was looked for is older than this.
        let (gc_floor, now) = memory(session).await.map_err(of_all)?;
        let (options, loss) = (self.options, self.loss);
        let mut judge = Judge { options, clock: &clock, loss, gc_floor, now, values, lists, lost: Vec::new() };
        let answers = judge.steps(steps, order);
        let Judge { values, lists, lost, .. } = judge;
        // Before what lost is overwritten.
        conflict::keep(session, lost, now).await?;
        write_values(session, changed_values(values)).await?;
        write_lists(session, &lists).await?;
        Ok(answers)
    }
}

fn touches_value(step: &Step) -> bool {
    matches!(step, Step::Write(_) | Step::Expired { .. }) && step.check_replayable().is_ok()
}

fn touches_list(step: &Step) -> bool {
    deletes(step) || matches!(step, Step::Append(_))
}

fn deletes(step: &Step) -> bool {
    matches!(step, Step::Write(Write { op: WriteOp::Delete { only_if: None }, .. }))
}

fn as_append(step: &Step) -> Option<&Append> {
    match step {
        Step::Append(append) => Some(append),
        _ => None,
    }
}

/// From where on deletes are remembered, and the server's time.
async fn memory(session: &mut Session) -> Result<(Stamp, Timestamp)> {
    let sql = Arc::clone(&session.sql);
    let rows = session.read(&sql.memory, |statement| statement).await?;
    let row = rows.first().ok_or_else(|| Error::corrupt("the table `meta` of the schema is empty"))?;
    Ok((Stamp::from_slice(column(row, 0)?)?, Timestamp::from_millis(record::number(row, 1)?)))
}

async fn read_values<'a>(session: &mut Session, steps: &'a [Step]) -> Result<HashMap<&'a Key, Standing<'a>>> {
    let keys = by_text(steps.iter().filter(|step| touches_value(step)).filter_map(Step::key));
    if keys.is_empty() {
        return Ok(HashMap::new());
    }
    let texts: Vec<&str> = keys.keys().copied().collect();
    let sql = Arc::clone(&session.sql);
    let rows = session.read(&sql.value_stamps, |statement| statement.bind(texts.as_slice())).await?;
    let read = |row: &PgRow| {
        let key = keys.get(column::<&str>(row, 0)?).copied().ok_or_else(unanswered)?;
        Ok((key, Standing::stored(record::stamp(row, 1)?)))
    };
    rows.iter().map(read).collect()
}

async fn read_lists<'a>(
    session: &mut Session,
    steps: &'a [Step],
    options: &ReplayOptions,
) -> Result<HashMap<&'a Key, List<'a>>> {
    let keys = by_text(steps.iter().filter(|step| touches_list(step)).filter_map(Step::key));
    if keys.is_empty() {
        return Ok(HashMap::new());
    }
    let texts: Vec<&str> = keys.keys().copied().collect();
    let sql = Arc::clone(&session.sql);
    let rows = session.read(&sql.list_heads, |statement| statement.bind(texts.as_slice())).await?;
    let mut lists = HashMap::with_capacity(rows.len());
    for row in &rows {
        let key = keys.get(column::<&str>(row, 0)?).copied().ok_or_else(unanswered)?;
        let floor = record::stamp(row, 1)?.filter(|floor| *floor > Stamp::MIN);
        let max_stamp = record::stamp(row, 2)?.unwrap_or(Stamp::MIN);
        lists.insert(key, List::stored(floor, max_stamp, record::number(row, 3)?, record::number(row, 4)?));
    }
    read_items(session, steps, options, &mut lists).await?;
    read_known(session, steps, &mut lists).await?;
    Ok(lists)
}

/// Looks at the items of lists that are deleted. Where nobody changed a list since the outage began, all of it goes, unseen.
async fn read_items<'a>(
    session: &mut Session,
    steps: &'a [Step],
    options: &ReplayOptions,
    lists: &mut HashMap<&'a Key, List<'a>>,
) -> Result<()> {
    let mut oldest: HashMap<&Key, Stamp> = HashMap::new();
    for step in steps.iter().filter(|step| deletes(step)) {
        if let Step::Write(Write { key, stamp, .. }) = step {
            oldest.entry(key).and_modify(|oldest| *oldest = stamp.min(oldest).to_owned()).or_insert(*stamp);
        }
    }
    let asked = oldest.into_iter().filter(|(key, oldest)| {
        lists.get(key).is_some_and(|list| list.length() > 0 && list.max_stamp >= options.since.min(*oldest))
    });
    let keys = by_text(asked.map(|(key, _)| key));
    if keys.is_empty() {
        return Ok(());
    }
    let texts: Vec<&str> = keys.keys().copied().collect();
    let sql = Arc::clone(&session.sql);
    let rows = session.read(&sql.item_stamps, |statement| statement.bind(texts.as_slice())).await?;
    for row in &rows {
        let list = keys.get(column::<&str>(row, 0)?).and_then(|key| lists.get_mut(key)).ok_or_else(unanswered)?;
        list.read(record::number(row, 1)?, record::stamp(row, 2)?.unwrap_or(Stamp::MIN));
    }
    Ok(())
}

/// Looks which items are stored already.
async fn read_known<'a>(
    session: &mut Session,
    steps: &'a [Step],
    lists: &mut HashMap<&'a Key, List<'a>>,
) -> Result<()> {
    let appends: Vec<&Append> = steps.iter().filter_map(as_append).collect();
    if appends.is_empty() {
        return Ok(());
    }
    let keys: Vec<&str> = appends.iter().map(|append| append.key.as_str()).collect();
    let ids: Vec<&str> = appends.iter().map(|append| append.item_id.as_str()).collect();
    let sql = Arc::clone(&session.sql);
    let bind = |statement: Statement| statement.bind(keys.as_slice()).bind(ids.as_slice());
    for row in &session.read(&sql.known_items, bind).await? {
        let index = usize::try_from(record::number(row, 0)?).unwrap_or_default().wrapping_sub(1);
        let append = appends.get(index).ok_or_else(unanswered)?;
        let list = lists.get_mut(&append.key).ok_or_else(unanswered)?;
        let stamp = record::stamp(row, 2)?.unwrap_or(Stamp::MIN);
        list.know(append.item_id.as_str(), record::number(row, 1)?, stamp);
    }
    Ok(())
}

/// What is to be stored under the keys whose values changed.
fn changed_values<'a>(values: HashMap<&'a Key, Standing<'a>>) -> Vec<(&'a Key, Changed<'a>)> {
    values.into_iter().filter_map(|(key, standing)| Some((key, standing.changed()?))).collect()
}

async fn write_values(session: &mut Session, values: Vec<(&Key, Changed<'_>)>) -> Result<()> {
    for chunk in chunks(values, |(_, (_, value))| value.map_or(0, |(value, _)| value.len())) {
        let mut columns = Columns::with_capacity(chunk.len());
        for (key, (stamp, value)) in &chunk {
            columns.push(key, *stamp, value.map(|(value, _)| (value, None)))?;
        }
        let moment = |(_, (_, value)): &(_, Changed<'_>)| value.and_then(|(_, expires_at)| expires_at);
        let expiries: Vec<Option<i64>> =
            chunk.iter().map(|value| moment(value).map(|at| record::signed(at.as_millis()))).collect();
        let sql = Arc::clone(&session.sql);
        let bind = |statement: Statement| {
            statement
                .bind(columns.keys.as_slice())
                .bind(columns.stamps.as_slice())
                .bind(expiries.as_slice())
                .bind(columns.json())
                .bind(columns.bin())
        };
        let rows = session.write(&sql.put_values, bind).await?;
        all_taken(rows.len(), chunk.len())?;
    }
    Ok(())
}

async fn write_lists(session: &mut Session, lists: &HashMap<&Key, List<'_>>) -> Result<()> {
    let changed: Vec<(&Key, &List<'_>)> =
        lists.iter().filter(|(_, list)| list.changed).map(|(key, list)| (*key, list)).collect();
    if changed.is_empty() {
        return Ok(());
    }
    write_heads(session, &changed).await?;
    move_items(session, &changed).await?;
    let (mut appended, mut stored) = (Vec::new(), Vec::new());
    for (key, list) in &changed {
        for (position, append) in list.appended() {
            appended.push((*key, position, append));
            stored.extend(list.was_stored(append).then_some(append));
        }
    }
    forget_stored(session, &stored).await?;
    for chunk in chunks(appended, |(_, _, append)| append.value.len()) {
        write_items(session, &chunk).await?;
    }
    changed.iter().filter(|(_, list)| list.removed.is_some_and(|removed| removed > 0)).for_each(|(key, _)| {
        session.mark_unclean(key);
    });
    Ok(())
}

async fn write_heads(session: &mut Session, lists: &[(&Key, &List<'_>)]) -> Result<()> {
    let keys: Vec<&str> = lists.iter().map(|(key, _)| key.as_str()).collect();
    let floors: Vec<[u8; 16]> = lists.iter().map(|(_, list)| list.floor.unwrap_or(Stamp::MIN).to_bytes()).collect();
    let stamps: Vec<[u8; 16]> = lists.iter().map(|(_, list)| list.max_stamp.to_bytes()).collect();
    let firsts: Vec<i64> = lists.iter().map(|(_, list)| record::signed(list.first)).collect();
    let nexts: Vec<i64> = lists.iter().map(|(_, list)| record::signed(list.next)).collect();
    let removed: Vec<Option<i64>> = lists.iter().map(|(_, list)| list.removed.map(record::signed)).collect();
    let unused: Vec<bool> = lists.iter().map(|(_, list)| !list.used).collect();
    let sql = Arc::clone(&session.sql);
    let bind = |statement: Statement| {
        statement
            .bind(keys.as_slice())
            .bind(floors.as_slice())
            .bind(stamps.as_slice())
            .bind(firsts.as_slice())
            .bind(nexts.as_slice())
            .bind(removed.as_slice())
            .bind(unused.as_slice())
    };
    let rows = session.write(&sql.put_heads, bind).await?;
    all_taken(rows.len(), lists.len())
}

async fn move_items(session: &mut Session, lists: &[(&Key, &List<'_>)]) -> Result<()> {
    let (mut keys, mut sources, mut targets) = (Vec::new(), Vec::new(), Vec::new());
    for (key, list) in lists {
        for (source, target) in list.moved() {
            keys.push(key.as_str());
            sources.push(record::signed(source));
            targets.push(record::signed(target));
        }
    }
    if keys.is_empty() {
        return Ok(());
    }
    let sql = Arc::clone(&session.sql);
    let bind = |statement: Statement| statement.bind(keys.as_slice()).bind(sources.as_slice()).bind(targets.as_slice());
    let rows = session.write(&sql.move_items, bind).await?;
    all_taken(rows.len(), keys.len())
}

async fn write_items(session: &mut Session, items: &[(&Key, u64, &Append)]) -> Result<()> {
    let mut columns = Columns::with_capacity(items.len());
    for (key, _, append) in items {
        columns.push(key, append.stamp, Some((&append.value, None)))?;
    }
    let positions: Vec<i64> = items.iter().map(|(_, position, _)| record::signed(*position)).collect();
    let ids: Vec<&str> = items.iter().map(|(_, _, append)| append.item_id.as_str()).collect();
    let sql = Arc::clone(&session.sql);
    let bind = |statement: Statement| {
        statement
            .bind(columns.keys.as_slice())
            .bind(columns.stamps.as_slice())
            .bind(positions.as_slice())
            .bind(ids.as_slice())
            .bind(columns.json())
            .bind(columns.bin())
    };
    session.write(&sql.put_items, bind).await.map(drop)
}

/// Makes room for items whose ids are those of deleted ones that are not cleaned up yet.
async fn forget_stored(session: &mut Session, items: &[&Append]) -> Result<()> {
    if items.is_empty() {
        return Ok(());
    }
    let keys: Vec<&str> = items.iter().map(|append| append.key.as_str()).collect();
    let ids: Vec<&str> = items.iter().map(|append| append.item_id.as_str()).collect();
    forget(session, &keys, &ids).await.map(drop)
}

/// The rows are locked, so each must take what it was judged to take.
fn all_taken(taken: usize, sent: usize) -> Result<()> {
    if taken == sent { Ok(()) } else { Err(Error::internal("a replay of locked rows was refused")) }
}

/// Keys by their texts, each once.
fn by_text<'a>(keys: impl Iterator<Item = &'a Key>) -> HashMap<&'a str, &'a Key> {
    keys.map(|key| (key.as_str(), key)).collect()
}
