//! Writes, one or many: to the primary, to what stands in, or a part to each.
//!
//! | | closed, key not dirty | closed, key dirty | open |
//! |---|---|---|---|
//! | put, delete | the primary; in doubt: what stands in | what stands in | what stands in |
//! | touch | the primary; in doubt: unknown | what stands in | what stands in |
//! | with a condition | the primary; in doubt: unknown | unavailable | unavailable |
//!
//! What stands in takes makes its key dirty. What has a condition does not, in doubt either: whether or not it was applied, what stands
//! at the primary is the truth, and may be somebody else's lock.

use std::collections::HashSet;
use std::sync::Arc;

use crate::chain::gate::{Attempt, Call, away, is_of_the_primary, unsettled};
use crate::chain::in_flight::{Entered, Scope};
use crate::contract::{self, Context, ToEnd, Write, WriteAck, WriteOp};
use crate::error::{Error, Result};
use crate::key::Key;

use super::core::Core;
use super::fallback;
use super::guarded::still_dirty;

/// Sends each write where it belongs: one answer a write, in their order. The keys are held until every write is settled.
///
/// A primary may go on with a write though the caller went away. So do these, and hold their keys until then: or it might land over what
/// was written since.
pub(super) async fn write_many(core: &Arc<Core>, writes: Vec<Write>, cx: &Context) -> Vec<Result<WriteAck>> {
    let count = writes.len();
    let entered = match enter(core, &writes, cx).await {
        Ok(entered) => entered,
        Err(error) => return vec![Err(error); count],
    };
    let (core, deadline) = (Arc::clone(core), *cx);
    let work = async move {
        let _entered = entered;
        Batch::new(&core, writes).run(&deadline).await
    };
    cx.limit(ToEnd::new(work)).await.unwrap_or_else(|| vec![Err(late()); count])
}

/// The deadline passed while it was noted on the disk that the primary must not be read.
pub(super) fn late() -> Error {
    Error::outcome_unknown("the write was not settled at its deadline; it may yet be applied")
}

async fn enter(core: &Core, writes: &[Write], cx: &Context) -> Result<Entered> {
    core.admit(cx)?;
    let keys = writes.iter().map(|write| write.key.clone()).collect();
    let entered = core.in_flight.enter(Scope::Keys(keys), cx).await?;
    core.admit(cx)?;
    Ok(entered)
}

struct Batch<'a> {
    core: &'a Core,
    writes: Vec<Write>,
    /// What the primary answered; `None` where it was not asked.
    answers: Vec<Option<Result<WriteAck>>>,
}

/// What is done here for a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Here {
    /// It is applied, and its acknowledgement is the answer, unless the primary acknowledged it.
    Apply,
    /// Its key is forgotten: what the primary applied after a write in doubt cannot be applied here.
    Forget,
}

impl<'a> Batch<'a> {
    fn new(core: &'a Core, writes: Vec<Write>) -> Self {
        Self { core, answers: writes.iter().map(|_| None).collect(), writes }
    }

    async fn run(mut self, cx: &Context) -> Vec<Result<WriteAck>> {
        self.ask_primary(cx).await;
        let here = self.left_to_do();
        if !here.is_empty() {
            self.do_here(here).await;
        }
        let unanswered = || Err(Error::internal("a write of a batch was not answered"));
        self.answers.into_iter().map(|answer| answer.unwrap_or_else(unanswered)).collect()
    }

    /// Sends to the primary what may be sent there.
    async fn ask_primary(&mut self, cx: &Context) {
        let core = self.core;
        // The later writes of a key go where the first of them goes.
        let mut here: HashSet<&Key> = HashSet::new();
        let mut sent = Vec::with_capacity(self.writes.len());
        for (at, Write { key, .. }) in self.writes.iter().enumerate() {
            if here.contains(key) || core.stands_in_for(key) {
                here.insert(key);
            } else {
                sent.push(at);
            }
        }
        let batch: Vec<Write> = sent.iter().filter_map(|at| self.writes.get(*at).cloned()).collect();
        if batch.is_empty() {
            return;
        }
        let shortened = core.keeping_reserve(cx);
        // Of those that are not sent nothing comes late; that they count as such only delays what is done for their keys.
        let given_up = core.late.watch(&self.writes, shortened.deadline);
        let answers = match core.attempt(Call::Write, send(core, batch, &shortened)).await {
            Attempt::Answered(answers) => {
                given_up.answered();
                answers
            }
            Attempt::NotSent => {
                given_up.answered();
                sent.iter().map(|_| Err(away())).collect()
            }
            Attempt::BrokenOff => {
                drop(given_up);
                sent.iter().map(|_| Err(unsettled())).collect()
            }
        };
        for (at, answer) in sent.into_iter().zip(answers) {
            if let Some(slot) = self.answers.get_mut(at) {
                *slot = Some(answer);
            }
        }
    }

    /// Decides what is done here: for what was not sent, for what the primary left in doubt, and for what follows that.
    fn left_to_do(&mut self) -> Vec<(usize, Here)> {
        let is_open = self.core.gate.is_open();
        let mut in_doubt: HashSet<&Key> = HashSet::new();
        let mut here = Vec::new();
        for (at, (write, answer)) in self.writes.iter().zip(&mut self.answers).enumerate() {
            let can_take = fallback::can_take(write);
            match answer {
                None if can_take => here.push((at, Here::Apply)),
                None => *answer = Some(Err(if is_open { away() } else { still_dirty() })),
                Some(Err(error)) if is_in_doubt(write, error) => {
                    let is_touch = matches!(write.op, WriteOp::Touch { .. });
                    if can_take && (is_open || !is_touch) {
                        in_doubt.insert(&write.key);
                        here.push((at, Here::Apply));
                    }
                }
                Some(Ok(_)) if in_doubt.contains(&write.key) => {
                    here.push((at, if can_take { Here::Apply } else { Here::Forget }));
                }
                Some(_) => {}
            }
        }
        here
    }

    async fn do_here(&mut self, here: Vec<(usize, Here)>) {
        let (core, writes) = (self.core, &self.writes);
        let keys = here.iter().filter_map(|(at, _)| writes.get(*at)).map(|write| &write.key);
        if let Err(error) = core.make_dirty(|dirty| keys.for_each(|key| dirty.add_key(key))).await {
            return here.into_iter().for_each(|(at, _)| self.answer(at, Err(error.clone())));
        }
        for (at, here) in here {
            let Some(write) = self.writes.get(at) else { continue };
            let key = write.key.clone();
            let applied = match here {
                Here::Apply => fallback::write(core, write.clone()).await,
                Here::Forget => fallback::forget(core, &key).await.map(|()| WriteAck::primary(None, None)),
            };
            if applied.is_err() && self.answers.get(at).is_some_and(Option::is_some) {
                // It may stand at the primary, and does not stand here: then nothing must.
                let _ = fallback::forget(core, &key).await;
            }
            self.answer(at, applied);
        }
    }

    /// Answers a write, unless the primary acknowledged it. Where its outcome at the primary is open, a failure here leaves it open.
    fn answer(&mut self, at: usize, answer: Result<WriteAck>) {
        match self.answers.get_mut(at) {
            Some(Some(Ok(_))) | None => {}
            Some(Some(Err(_))) if answer.is_err() => {}
            Some(slot) => *slot = Some(answer),
        }
    }
}

/// Whether it is open what became of a write, or the primary could not be used for it. A repeat of a write that finds something newer
/// leaves its first attempt open, but is an answer.
fn is_in_doubt(write: &Write, error: &Error) -> bool {
    let is_refused_repeat = write.attempt == contract::Attempt::Repeat && error.outage().is_none();
    is_of_the_primary(error) && !is_refused_repeat
}

/// Sends a batch to the primary; a single write by itself, which costs it less.
async fn send(core: &Core, mut batch: Vec<Write>, cx: &Context) -> Vec<Result<WriteAck>> {
    match (batch.pop(), batch.is_empty()) {
        (Some(write), true) => vec![core.primary.write(write, cx).await],
        (Some(write), false) => {
            batch.push(write);
            core.primary.write_many(batch, cx).await
        }
        (None, _) => Vec::new(),
    }
}
