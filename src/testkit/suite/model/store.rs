//! Values against a map.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_oneof};

use crate::contract::{Attempt, Expiry, GetOptions, Store, Write, WriteAck, WriteMode, WriteOp};
use crate::testkit::case::cases;
use crate::testkit::{Case, Elapse, Failure, Outcome, Subject};
use crate::{HybridClock, Result, Revision, Stamp, Timestamp, Ttl, Value};

use super::super::tools::{binary, json, show};
use super::explore::explore;

pub(in super::super) fn cases() -> Vec<Case<dyn Store>> {
    cases!["model": random_writes_leave_what_a_map_would_hold]
}

const NAMES: [&str; 5] = ["a", "a:b", "a:c", "b", "é*"];
const PREFIXES: [&str; 4] = ["", "a", "a:", "b"];

/// One operation, in numbers that choose.
#[derive(Clone, Debug)]
enum Op {
    Write(Change),
    Batch(Vec<Change>),
    Clear {
        prefix: usize,
        slow: bool,
    },
    /// Lets the short TTL pass, where the clock is in the suite's hand.
    Pass,
}

#[derive(Clone, Debug)]
struct Change {
    name: usize,
    what: What,
    /// Whether the stamp is of a clock an hour behind.
    slow: bool,
}

#[derive(Clone, Debug)]
enum What {
    Put { value: usize, mode: Mode, ttl: Option<Life> },
    Delete(Option<Seen>),
    Touch(Option<Life>),
}

#[derive(Clone, Copy, Debug)]
enum Mode {
    Upsert,
    Create,
    Update(Seen),
}

/// Which revision a condition names.
#[derive(Clone, Copy, Debug)]
enum Seen {
    Current,
    Earlier,
}

#[derive(Clone, Copy, Debug)]
enum Life {
    Short,
    Long,
}

fn sequences() -> impl Strategy<Value = Vec<Op>, Tree: Send> + Send {
    let seen = prop_oneof![Just(Seen::Current), Just(Seen::Earlier)];
    let mode = prop_oneof![3 => Just(Mode::Upsert), 2 => Just(Mode::Create), 3 => seen.clone().prop_map(Mode::Update)];
    let life = prop_oneof![2 => Just(None), 1 => Just(Some(Life::Short)), 1 => Just(Some(Life::Long))];
    let what = prop_oneof![
        5 => (0..4_usize, mode, life.clone()).prop_map(|(value, mode, ttl)| What::Put { value, mode, ttl }),
        2 => proptest::option::of(seen).prop_map(What::Delete),
        1 => life.prop_map(What::Touch),
    ];
    let change = (0..NAMES.len(), what, any::<bool>()).prop_map(|(name, what, slow)| Change { name, what, slow });
    let op = prop_oneof![
        5 => change.clone().prop_map(Op::Write),
        3 => vec(change, 0..8).prop_map(Op::Batch),
        1 => (0..PREFIXES.len(), any::<bool>()).prop_map(|(prefix, slow)| Op::Clear { prefix, slow }),
        1 => Just(Op::Pass),
    ];
    vec(op, 1..30)
}

#[derive(Clone, Debug)]
struct Cell {
    value: Value,
    revision: Revision,
    expires: Option<Timestamp>,
}

/// The map, and what a sequence needs to go on.
struct Model {
    subject: Subject<dyn Store>,
    slow: HybridClock,
    cells: BTreeMap<usize, Cell>,
    earlier: BTreeMap<usize, Revision>,
}

async fn random_writes_leave_what_a_map_would_hold(subject: Subject<dyn Store>) -> Outcome {
    explore(&subject, sequences(), |subject, ops| Model::new(subject).run(ops)).await
}

impl Model {
    fn new(subject: Subject<dyn Store>) -> Self {
        let slow = subject.slow_clock();
        Self { subject, slow, cells: BTreeMap::new(), earlier: BTreeMap::new() }
    }

    async fn run(mut self, ops: Vec<Op>) -> Outcome {
        for op in ops {
            match op {
                Op::Write(change) => {
                    let write = self.write_of(&change);
                    let answer = self.subject.write(write.clone()).await;
                    self.settle(&change, &write, answer)?;
                }
                Op::Batch(changes) => {
                    let writes: Vec<Write> = changes.iter().map(|change| self.write_of(change)).collect();
                    let answers = self.subject.write_many(writes.clone()).await;
                    hold(answers.len() == writes.len(), || "not one answer a write".to_owned())?;
                    for ((change, write), answer) in changes.iter().zip(&writes).zip(answers) {
                        self.settle(change, write, answer)?;
                    }
                }
                Op::Clear { prefix, slow } => self.clear(PREFIXES[prefix], slow).await?,
                Op::Pass => self.pass().await,
            }
            self.compare().await?;
        }
        Ok(())
    }

    fn stamp(&self, slow: bool) -> Stamp {
        if slow { self.slow.issue() } else { self.subject.stamp() }
    }

    fn now(&self) -> Timestamp {
        self.subject.elapse().clock().now()
    }

    /// A TTL; by a server's clock, which cannot be moved, none is short.
    fn ttl(&self, life: Life) -> Ttl {
        match (life, self.subject.elapse()) {
            (Life::Short, Elapse::Manual(_)) => self.subject.short_ttl(),
            _ => Ttl::MAX,
        }
    }

    fn live(&self, name: usize) -> Option<&Cell> {
        self.cells.get(&name).filter(|cell| cell.expires.is_none_or(|at| at > self.now()))
    }

    /// The revision that a condition names; one of no entry if there is none.
    fn revision(&self, name: usize, seen: Seen) -> Revision {
        let known = match seen {
            Seen::Current => self.cells.get(&name).map(|cell| cell.revision),
            Seen::Earlier => self.earlier.get(&name).copied(),
        };
        known.unwrap_or_else(|| Revision::from_stamp(Stamp::MIN))
    }

    fn write_of(&self, change: &Change) -> Write {
        let op = match &change.what {
            What::Put { value, mode, ttl } => WriteOp::Put {
                value: value_of(*value),
                mode: match mode {
                    Mode::Upsert => WriteMode::Upsert,
                    Mode::Create => WriteMode::Create,
                    Mode::Update(seen) => WriteMode::Update(self.revision(change.name, *seen)),
                },
                ttl: ttl.map(|life| self.ttl(life)),
            },
            What::Delete(seen) => WriteOp::Delete { only_if: seen.map(|seen| self.revision(change.name, seen)) },
            What::Touch(life) => WriteOp::Touch { ttl: life.map(|life| self.ttl(life)) },
        };
        Write::new(self.subject.key(NAMES[change.name]), op, self.stamp(change.slow))
    }

    /// Checks an answer against the map, and does to the map what was done to the store.
    fn settle(&mut self, change: &Change, write: &Write, answer: Result<WriteAck>) -> Outcome {
        let (name, before) = (change.name, self.live(change.name).cloned());
        let current = before.as_ref().map(|cell| cell.revision);
        let allowed = match &write.op {
            WriteOp::Put { mode: WriteMode::Create, .. } => before.is_none(),
            WriteOp::Put { mode: WriteMode::Update(revision), .. } | WriteOp::Delete { only_if: Some(revision) } => {
                current == Some(*revision)
            }
            _ => true,
        };
        let told = format!("{change:?} on {:?}", before.as_ref().map(|cell| show(&cell.value)));
        let ack = match answer {
            Ok(ack) => {
                hold(allowed, || format!("{told} was applied, and should be a conflict"))?;
                ack
            }
            Err(error) => return hold(!allowed && error.is_conflict(), || format!("{told} failed: {error}")),
        };
        let existed = ack.existed.is_none_or(|existed| existed == before.is_some());
        hold(existed, || format!("{told} says that existed is {:?}", ack.existed))?;
        let after = match (&write.op, before) {
            (WriteOp::Put { value, ttl, .. }, _) => Some((value.clone(), *ttl)),
            (WriteOp::Touch { ttl }, Some(cell)) => Some((cell.value, *ttl)),
            _ => None,
        };
        hold(ack.revision.is_some() == after.is_some(), || format!("{told} says its revision is {:?}", ack.revision))?;
        self.earlier.extend(self.cells.remove(&name).map(|cell| (name, cell.revision)));
        if let Some(((value, ttl), revision)) = after.zip(ack.revision) {
            let expires = ttl.map(|ttl| self.now().after(ttl));
            self.cells.insert(name, Cell { value, revision, expires });
        }
        Ok(())
    }

    async fn clear(&mut self, prefix: &str, slow: bool) -> Outcome {
        let backend = self.subject.backend();
        let cleared =
            backend.clear(&self.subject.prefix(prefix), self.stamp(slow), Attempt::First, &self.subject.cx()).await?;
        let under: Vec<usize> = (0..NAMES.len()).filter(|name| NAMES[*name].starts_with(prefix)).collect();
        let live = under.iter().filter(|name| self.live(**name).is_some()).count() as u64;
        hold(cleared.is_none_or(|cleared| cleared == live), || format!("clear says {cleared:?}, not {live}"))?;
        for name in under {
            self.earlier.extend(self.cells.remove(&name).map(|cell| (name, cell.revision)));
        }
        Ok(())
    }

    async fn pass(&self) {
        if let Elapse::Manual(_) = self.subject.elapse() {
            self.subject.elapse().pass(self.subject.short_ttl().as_duration()).await;
        }
    }

    /// Reads everything and compares it with the map.
    async fn compare(&self) -> Outcome {
        let (backend, cx) = (self.subject.backend(), self.subject.cx());
        let options = GetOptions::default().with_expiry();
        let answers = backend.get_many(&self.subject.keys(NAMES), &options, &cx).await;
        for (name, answer) in answers.into_iter().enumerate() {
            let (entry, cell) = (answer?.into_entry(), self.live(name));
            let seen = entry.as_ref().map(|entry| (&entry.value, entry.revision, entry.expiry == Expiry::Never));
            let expected = cell.map(|cell| (&cell.value, cell.revision, cell.expires.is_none()));
            hold(seen == expected, || format!("{:?} is {entry:?}, not {cell:?}", NAMES[name]))?;
        }
        let exist = self.subject.exist(&NAMES).await?;
        let live: Vec<bool> = (0..NAMES.len()).map(|name| self.live(name).is_some()).collect();
        hold(exist == live, || format!("exists says {exist:?}, not {live:?}"))?;
        for prefix in PREFIXES {
            let under = |name: &usize| NAMES[*name].starts_with(prefix) && live[*name];
            let expected: Vec<&str> = (0..NAMES.len()).filter(under).map(|name| NAMES[name]).collect();
            let names = self.subject.names(prefix).await?;
            hold(names == expected, || format!("{prefix:?} lists {names:?}, not {expected:?}"))?;
            let count = self.subject.count(prefix).await?;
            hold(count == expected.len() as u64, || format!("{prefix:?} counts {count}"))?;
        }
        Ok(())
    }
}

fn value_of(number: usize) -> Value {
    match number {
        0 => json("1"),
        1 => json("null"),
        2 => binary([0]),
        _ => json(r#"{"a":1,"a":2}"#),
    }
}

/// What must hold; a failure, rather than a panic, so that the sequence can be shrunk.
#[track_caller]
pub(super) fn hold(holds: bool, otherwise: impl FnOnce() -> String) -> Outcome {
    if holds { Ok(()) } else { Err(Failure::new(otherwise())) }
}
