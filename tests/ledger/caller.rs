//! What a task of a writer calls, one call after the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use agent_storage::chain::{ChainState, DatabaseChain};
use agent_storage::contract::{AppendAck, Durability, Freshness, StepAck, WriteAck};
use agent_storage::{Database, Error, Result, SetOptions, Ttl, Value};

use crate::line::{Action, Answer, Line};
use crate::random::Random;
use crate::writer::{digits, now, set_clock, stamp, tell, value_of};

/// The longest pause between two calls of a task, in milliseconds.
const PAUSE: u64 = 25;

/// How long what is brief lasts, in milliseconds.
pub(crate) const BRIEF: u64 = 400;

/// How many items a trim leaves.
pub(crate) const KEPT: u64 = 10;

/// What makes calls one after the other.
pub(crate) struct Caller {
    pub(crate) process: i64,
    pub(crate) ahead: u64,
    pub(crate) chain: Arc<DatabaseChain>,
    pub(crate) database: Database,
    pub(crate) calls: Arc<AtomicU64>,
    pub(crate) random: Random,
}

/// What is called next.
enum Order {
    One(Action, String),
    SetMany(Vec<String>),
    AppendMany(Vec<String>),
    /// All or nothing: a value and an item of each of two lists.
    Transaction {
        value: String,
        lists: [String; 2],
    },
}

impl Order {
    /// What is told of it: a call each.
    fn parts(&self) -> Vec<(Action, String)> {
        let all = |action, keys: &[String]| keys.iter().map(|key| (action, key.clone())).collect();
        match self {
            Self::One(action, key) => vec![(*action, key.clone())],
            Self::SetMany(keys) => all(Action::Set, keys),
            Self::AppendMany(keys) => all(Action::Append, keys),
            Self::Transaction { value, lists } => {
                let appends = lists.iter().map(|list| (Action::Append, list.clone()));
                std::iter::once((Action::Set, value.clone())).chain(appends).collect()
            }
        }
    }
}

impl Caller {
    pub(crate) async fn run(mut self, finish: Arc<AtomicBool>) {
        while !finish.load(Ordering::SeqCst) {
            let order = self.choose();
            let parts = order.parts();
            let first = self.calls.fetch_add(parts.len() as u64, Ordering::SeqCst);
            let bundle = matches!(order, Order::Transaction { .. }).then_some(first);
            set_clock(self.ahead);
            let (after, away) = (stamp(), self.away());
            for (call, (action, key)) in (first..).zip(parts) {
                tell(&Line::Begun { call, action, key, after: after.clone(), at: now(), away, bundle });
            }
            let answers = self.give(order, first).await;
            let before = stamp();
            for (call, answer) in (first..).zip(answers) {
                tell(&Line::Ended { call, answer, before: before.clone(), at: now(), away: self.away() });
            }
            tokio::time::sleep(Duration::from_millis(self.random.below(PAUSE))).await;
        }
    }

    fn away(&self) -> Option<u64> {
        let status = self.chain.status();
        (status.state == ChainState::Degraded).then(|| status.since.as_millis())
    }

    /// A kind of key for each kind of life: values that are never deleted, some that are, some that end, some that are cleared, numbers;
    /// and lists that are never deleted, some that are, some that are trimmed.
    fn choose(&mut self) -> Order {
        let (kind, number) = (self.random.below(133), self.random.below(4));
        let (four, two) = (|name: &str| format!("{name}{number}"), |name: &str| format!("{name}{}", number % 2));
        let (action, key) = match kind {
            0..16 => (Action::Set, four("set")),
            16..24 => (Action::Get, four("set")),
            24..33 => (Action::Set, four("deleted")),
            33..40 => (Action::Delete, four("deleted")),
            40..50 => (Action::Create, four("deleted")),
            50..58 => (Action::Get, four("deleted")),
            58..72 => (Action::Append, two("list")),
            72..76 => (Action::Length, two("list")),
            76..84 => (Action::Append, two("both")),
            84..87 => (Action::Set, two("both")),
            87..90 => (Action::Delete, two("both")),
            90..95 => (Action::Brief, four("brief")),
            95..97 => (Action::Set, four("brief")),
            97..103 => (Action::Get, four("brief")),
            103..108 => (Action::Set, four("cleared")),
            108..112 => (Action::Get, four("cleared")),
            112..113 => (Action::Clear, "cleared".to_owned()),
            113..118 => (Action::Count, two("count")),
            118..124 => (Action::Append, two("trimmed")),
            124..126 => (Action::Trim, two("trimmed")),
            126..128 => return Order::SetMany(["set0", "set1", "deleted0", "both0"].map(str::to_owned).into()),
            128..130 => return Order::AppendMany(["list0", "list1", "trimmed0", "list0"].map(str::to_owned).into()),
            _ => return Order::Transaction { value: four("set"), lists: ["list0", "list1"].map(str::to_owned) },
        };
        Order::One(action, key)
    }

    /// Has an answer for each part, the first of which has this number.
    async fn give(&self, order: Order, first: u64) -> Vec<Answer> {
        let value = |part: usize| Value::from_integer(value_of(self.process, first + part as u64));
        let valued = |keys: Vec<String>| keys.into_iter().enumerate().map(|(part, key)| (key, value(part)));
        let database = &self.database;
        match order {
            Order::One(action, key) => vec![answer(self.call(action, &key, value(0)).await)],
            Order::SetMany(keys) => {
                let acks = database.set_many(valued(keys).collect::<Vec<_>>()).await;
                acks.into_iter().map(|ack| answer(ack.map(written))).collect()
            }
            Order::AppendMany(keys) => {
                let acks = database.append_many(valued(keys).collect::<Vec<_>>()).await;
                acks.into_iter().map(|ack| answer(ack.map(appended))).collect()
            }
            Order::Transaction { value: key, lists: [one, other] } => {
                let transaction = database.transaction().set(key, value(0)).unwrap();
                let transaction = transaction.append(one, value(1)).unwrap().append(other, value(2)).unwrap();
                match transaction.commit().await {
                    Ok(acks) => acks.into_iter().map(step).collect(),
                    Err(error) => vec![failed(&error); 3],
                }
            }
        }
    }

    async fn call(&self, action: Action, key: &str, value: Value) -> Result<Answer> {
        let database = &self.database;
        Ok(match action {
            Action::Set => written(database.set(key, value).await?),
            Action::Brief => {
                let brief = SetOptions::new().with_ttl(Ttl::from_millis(BRIEF)?);
                written(database.set_with(key, value, brief).await?)
            }
            Action::Create => written(database.set_with(key, value, SetOptions::new().if_absent()).await?),
            Action::Delete => written(database.delete(key).await?),
            Action::Clear => {
                // How many there are is not known where it waits for the primary.
                Answer::Written { stamp: None, local: database.clear(key).await?.is_none() }
            }
            Action::Count => {
                let mut counted = 0;
                let add = |old: Option<i64>| {
                    counted = old.unwrap_or(0) + 1;
                    Ok(counted)
                };
                database.update_json(key, add).await?;
                Answer::Counted(counted)
            }
            Action::Append => appended(database.append(key, value).await?),
            Action::Trim => {
                database.trim(key, KEPT).await?;
                Answer::Trimmed
            }
            Action::Get => {
                let lookup = database.lookup(key).await?;
                let pending = lookup.freshness() == Freshness::LocalPending;
                let entry = lookup.into_entry();
                let stamp = entry.as_ref().and_then(|entry| entry.revision.to_stamp()).map(digits);
                Answer::Read { value: entry.map(|entry| entry.value.decode().unwrap()), stamp, pending }
            }
            Action::Length => Answer::Length(database.length(key).await?),
        })
    }
}

fn answer(answer: Result<Answer>) -> Answer {
    answer.unwrap_or_else(|error| failed(&error))
}

fn failed(error: &Error) -> Answer {
    Answer::Failed(error.kind().to_string())
}

fn written(ack: WriteAck) -> Answer {
    let stamp = ack.revision.and_then(|revision| revision.to_stamp()).map(digits);
    Answer::Written { stamp, local: ack.durability == Durability::Local }
}

fn appended(ack: AppendAck) -> Answer {
    Answer::Written { stamp: None, local: ack.durability == Durability::Local }
}

fn step(ack: StepAck) -> Answer {
    match ack {
        StepAck::Write(ack) => written(ack),
        StepAck::Append(ack) => appended(ack),
        other => panic!("nothing was trimmed: {other:?}"),
    }
}
