//! Lists against vectors.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_oneof};

use crate::contract::{
    Append, AppendAck, Attempt, DatabaseBackend, ItemId, ListRange, Step, StepAck, Write, WriteMode, WriteOp,
};
use crate::testkit::case::cases;
use crate::testkit::{Case, Outcome, Subject};
use crate::{HybridClock, Stamp, Value};

use super::super::tools::json;
use super::explore::explore;
use super::store::hold;

pub(in super::super) fn cases() -> Vec<Case<dyn DatabaseBackend>> {
    cases!["model": random_lists_hold_what_vectors_would_hold]
}

const NAMES: [&str; 3] = ["l", "l:m", "n"];

/// One operation, in numbers that choose.
#[derive(Clone, Debug)]
enum Op {
    Append(Vec<(usize, Item)>),
    Change(Change),
    Apply(Vec<Change>),
    /// A transaction whose last step fails.
    ApplyInVain(Vec<Change>),
    Clear {
        slow: bool,
    },
    Range {
        name: usize,
        start: i64,
        end: i64,
    },
}

#[derive(Clone, Debug)]
enum Change {
    Append(usize, Item),
    Trim { name: usize, keep_last: u64 },
    Put { name: usize },
    Delete { name: usize, slow: bool },
}

#[derive(Clone, Debug)]
struct Item {
    /// One of a few names, so that some come twice; or the stamp.
    id: Option<u8>,
    value: u8,
    slow: bool,
}

fn sequences() -> impl Strategy<Value = Vec<Op>, Tree: Send> + Send {
    let name = 0..NAMES.len();
    let item = (proptest::option::of(0..6_u8), any::<u8>(), any::<bool>());
    let item = item.prop_map(|(id, value, slow)| Item { id, value, slow });
    let change = prop_oneof![
        4 => (name.clone(), item.clone()).prop_map(|(name, item)| Change::Append(name, item)),
        2 => (name.clone(), 0..5_u64).prop_map(|(name, keep_last)| Change::Trim { name, keep_last }),
        1 => name.clone().prop_map(|name| Change::Put { name }),
        1 => (name.clone(), any::<bool>()).prop_map(|(name, slow)| Change::Delete { name, slow }),
    ];
    let op = prop_oneof![
        4 => vec((name.clone(), item), 0..8).prop_map(Op::Append),
        3 => change.clone().prop_map(Op::Change),
        2 => vec(change.clone(), 0..6).prop_map(Op::Apply),
        1 => vec(change, 0..6).prop_map(Op::ApplyInVain),
        1 => any::<bool>().prop_map(|slow| Op::Clear { slow }),
        2 => (name, -8..8_i64, -8..8_i64).prop_map(|(name, start, end)| Op::Range { name, start, end }),
        1 => Just(Op::Range { name: 0, start: 0, end: -1 }),
    ];
    vec(op, 1..25)
}

/// One list as a vector, with the names it knows and the position that no new item may be below.
#[derive(Clone, Debug, Default)]
struct List {
    items: Vec<(u64, String, Value)>,
    known: BTreeMap<String, u64>,
    floor: u64,
    has_value: bool,
    /// Raised by each delete: whether a deleted list still knows its names is left open, so names are not used over it.
    generation: usize,
}

impl List {
    fn exists(&self) -> bool {
        self.has_value || !self.items.is_empty()
    }

    fn delete(&mut self) {
        self.items.clear();
        self.known.clear();
        self.has_value = false;
    }

    fn append(&mut self, item: &Append, ack: AppendAck) -> Outcome {
        let id = item.item_id.to_string();
        let known = self.known.get(&id).copied();
        hold(ack.existed == Some(known.is_some()), || format!("{id} says that existed is {:?}", ack.existed))?;
        let position = ack.position.unwrap_or_default();
        if known.is_some() {
            return hold(ack.position == known, || format!("{id} is at {:?}, not {known:?}", ack.position));
        }
        let floor = self.floor;
        hold(ack.position.is_some() && position >= floor, || format!("{:?} is below {floor}", ack.position))?;
        self.floor = position + 1;
        self.known.insert(id.clone(), position);
        self.items.push((position, id, item.value.clone()));
        Ok(())
    }

    fn trim(&mut self, keep_last: u64) -> u64 {
        let gone = (self.items.len() as u64).saturating_sub(keep_last);
        self.items.drain(..gone as usize);
        gone
    }
}

struct Model {
    subject: Subject<dyn DatabaseBackend>,
    slow: HybridClock,
    lists: Vec<List>,
}

async fn random_lists_hold_what_vectors_would_hold(subject: Subject<dyn DatabaseBackend>) -> Outcome {
    explore(&subject, sequences(), |subject, ops| Model::new(subject).run(ops)).await
}

impl Model {
    fn new(subject: Subject<dyn DatabaseBackend>) -> Self {
        let slow = subject.slow_clock();
        Self { subject, slow, lists: vec![List::default(); NAMES.len()] }
    }

    async fn run(mut self, ops: Vec<Op>) -> Outcome {
        for op in ops {
            match op {
                Op::Append(items) => self.append(items).await?,
                Op::Change(change) => self.change(change).await?,
                Op::Apply(changes) => self.apply(changes).await?,
                Op::ApplyInVain(changes) => self.apply_in_vain(changes).await?,
                Op::Clear { slow } => self.clear(slow).await?,
                Op::Range { name, start, end } => self.range(name, ListRange::new(start, end)).await?,
            }
            self.compare().await?;
        }
        Ok(())
    }

    fn stamp(&self, slow: bool) -> Stamp {
        if slow { self.slow.issue() } else { self.subject.stamp() }
    }

    fn append_of(&self, name: usize, item: &Item) -> Append {
        let stamp = self.stamp(item.slow);
        let append = Append::new(self.subject.key(NAMES[name]), json(item.value.to_string()), stamp);
        let generation = self.lists[name].generation;
        match item.id {
            Some(id) => append.with_item_id(ItemId::parse(format!("{generation}-{id}")).expect("a valid id")),
            None => append,
        }
    }

    /// The step of a change; names of the list are renewed where it deletes.
    fn step_of(&mut self, change: &Change) -> Step {
        match change {
            Change::Append(name, item) => Step::Append(self.append_of(*name, item)),
            Change::Trim { name, keep_last } => {
                Step::Trim { key: self.subject.key(NAMES[*name]), keep_last: *keep_last }
            }
            Change::Put { name } => Step::Write(self.subject.put_op(NAMES[*name], json("1"))),
            Change::Delete { name, slow } => {
                self.lists[*name].generation += 1;
                Step::Write(Write::delete(self.subject.key(NAMES[*name]), self.stamp(*slow)))
            }
        }
    }

    async fn append(&mut self, items: Vec<(usize, Item)>) -> Outcome {
        let appends: Vec<Append> = items.iter().map(|(name, item)| self.append_of(*name, item)).collect();
        let acks = self.subject.append_many(appends.clone()).await?;
        for (((name, _), append), ack) in items.iter().zip(&appends).zip(acks) {
            self.lists[*name].append(append, ack)?;
        }
        Ok(())
    }

    async fn change(&mut self, change: Change) -> Outcome {
        let ack = match self.step_of(&change) {
            Step::Append(append) => {
                let ack = self.subject.append_item(append.clone()).await?;
                return self.settle(&change, &Step::Append(append), StepAck::Append(ack));
            }
            Step::Write(write) => StepAck::Write(self.subject.write(write).await?),
            Step::Trim { key, keep_last } => {
                StepAck::Trim(self.subject.backend().trim(&key, keep_last, &self.subject.cx()).await?)
            }
            Step::Clear { .. } | Step::Expired { .. } => return Ok(()),
        };
        let step = Step::Trim { key: self.subject.key(NAMES[0]), keep_last: 0 };
        self.settle(&change, &step, ack)
    }

    async fn apply(&mut self, changes: Vec<Change>) -> Outcome {
        let steps: Vec<Step> = changes.iter().map(|change| self.step_of(change)).collect();
        let acks = self.subject.apply(steps.clone()).await?;
        hold(acks.len() == steps.len(), || "not one answer a step".to_owned())?;
        for ((change, step), ack) in changes.iter().zip(&steps).zip(acks) {
            self.settle(change, step, ack)?;
        }
        Ok(())
    }

    async fn apply_in_vain(&mut self, changes: Vec<Change>) -> Outcome {
        let mut steps: Vec<Step> = changes.iter().map(|change| self.step_of(change)).collect();
        let mode = WriteMode::Update(crate::Revision::from_stamp(Stamp::MIN));
        let op = WriteOp::Put { value: json("1"), mode, ttl: None };
        steps.push(Step::Write(Write::new(self.subject.key("vain"), op, self.subject.stamp())));
        let error = self.subject.apply(steps).await.err();
        hold(error.as_ref().is_some_and(crate::Error::is_conflict), || format!("expected a conflict, got {error:?}"))
    }

    /// Checks the answer of a step, and does to the vector what was done to the list.
    fn settle(&mut self, change: &Change, step: &Step, ack: StepAck) -> Outcome {
        match (change, step, ack) {
            (Change::Append(name, _), Step::Append(append), StepAck::Append(ack)) => {
                self.lists[*name].append(append, ack)
            }
            (Change::Trim { name, keep_last }, _, StepAck::Trim(told)) => {
                let gone = self.lists[*name].trim(*keep_last);
                hold(told == gone, || format!("trim says {told}, not {gone}"))
            }
            (Change::Put { name }, _, StepAck::Write(_)) => {
                self.lists[*name].has_value = true;
                Ok(())
            }
            (Change::Delete { name, .. }, _, StepAck::Write(ack)) => {
                let existed = self.lists[*name].exists();
                self.lists[*name].delete();
                hold(ack.existed == Some(existed), || format!("delete says {:?}, not {existed}", ack.existed))
            }
            (change, _, ack) => hold(false, || format!("{change:?} was answered by {ack:?}")),
        }
    }

    async fn clear(&mut self, slow: bool) -> Outcome {
        let backend = self.subject.backend();
        let cleared =
            backend.clear(&self.subject.prefix("l"), self.stamp(slow), Attempt::First, &self.subject.cx()).await?;
        let under = self.lists.iter_mut().zip(NAMES).filter(|(_, name)| name.starts_with('l'));
        let mut gone = 0;
        for (list, _) in under {
            gone += u64::from(list.exists());
            list.delete();
            list.generation += 1;
        }
        hold(cleared.is_none_or(|cleared| cleared == gone), || format!("clear says {cleared:?}, not {gone}"))
    }

    async fn range(&self, name: usize, range: ListRange) -> Outcome {
        let read = self.subject.items(NAMES[name], range).await?;
        let items = &self.lists[name].items;
        let expected = match range.resolve(items.len() as u64) {
            Some((first, last)) => &items[first as usize..=last as usize],
            None => &[],
        };
        let same = read.len() == expected.len()
            && read.iter().zip(expected).all(|(item, (position, id, value))| {
                item.position == *position && item.id.as_str() == id && item.value == *value
            });
        hold(same, || format!("{:?} holds {read:?} in {range:?}, not {expected:?}", NAMES[name]))
    }

    async fn compare(&self) -> Outcome {
        for (name, list) in NAMES.iter().zip(&self.lists) {
            let length = self.subject.length(name).await?;
            hold(length == list.items.len() as u64, || format!("{name:?} has {length}, not {}", list.items.len()))?;
        }
        for name in 0..NAMES.len() {
            self.range(name, ListRange::ALL).await?;
        }
        let there: Vec<bool> = self.lists.iter().map(List::exists).collect();
        let exist = self.subject.exist(&NAMES).await?;
        hold(exist == there, || format!("exists says {exist:?}, not {there:?}"))?;
        let expected: Vec<&str> =
            NAMES.into_iter().zip(&there).filter(|(_, there)| **there).map(|(name, _)| name).collect();
        let names = self.subject.names("").await?;
        hold(names == expected, || format!("lists {names:?}, not {expected:?}"))?;
        let count = self.subject.count("").await?;
        hold(count == expected.len() as u64, || format!("counts {count}"))
    }
}
