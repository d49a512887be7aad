//! The work that every contender is given: the same keys and values, drawn alike.

use std::fmt;

use bytes::Bytes;

/// How many keys there are: more than any batch holds, few enough to stay in every store's memory.
pub const KEYS: usize = 4096;
/// How many lists are appended to.
pub const LISTS: usize = 256;
/// The bytes of a value.
pub const VALUE_BYTES: usize = 200;

const VALUES: usize = 64;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Op {
    /// A value is read.
    Get,
    /// A value is written over an older one.
    Set,
    /// An item is put at the tail of a list.
    Append,
}

impl Op {
    pub const ALL: [Self; 3] = [Self::Get, Self::Set, Self::Append];
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Get => "get",
            Self::Set => "set",
            Self::Append => "append",
        })
    }
}

/// All keys, lists and values.
#[derive(Debug)]
pub struct Workload {
    pub keys: Vec<String>,
    pub lists: Vec<String>,
    pub values: Vec<Bytes>,
    /// The keys in a random order, twice over, so that every window of it holds distinct keys.
    windows: Vec<&'static str>,
}

impl Workload {
    /// Makes the workload, the same in every run. It is there for as long as the process is.
    pub fn make() -> &'static Self {
        let key = |index| format!("session:{index:05}");
        let keys: Vec<String> = (0..KEYS).map(key).collect();
        let lists = (0..LISTS).map(|index| format!("history:{index:05}")).collect();
        let values = (0..VALUES).map(value).collect();
        let mut order: Vec<&'static str> = keys.iter().map(|key| &*key.clone().leak()).collect();
        let mut random = Random::new(1);
        for last in (1..KEYS).rev() {
            order.swap(last, random.below(last + 1));
        }
        let windows = [order.as_slice(), order.as_slice()].concat();
        Box::leak(Box::new(Self { keys, lists, values, windows }))
    }
}

/// A JSON object of [`VALUE_BYTES`] bytes, as an agent keeps for a message.
fn value(index: usize) -> Bytes {
    let head = format!(r#"{{"id":{},"role":"assistant","tokens":512,"final":true,"text":""#, 10_000 + index);
    let text: String =
        "It is what was asked for, and a little more. ".chars().cycle().take(VALUE_BYTES - head.len() - 2).collect();
    Bytes::from(format!(r#"{head}{text}"}}"#))
}

/// What one task draws its keys and values from.
#[derive(Debug)]
pub struct Draw {
    /// Which of a contender's tasks this is.
    pub task: usize,
    /// How many operations the task does at a turn.
    pub batch: usize,
    work: &'static Workload,
    random: Random,
}

impl Draw {
    pub fn new(work: &'static Workload, task: usize, batch: usize) -> Self {
        Self { task, batch, work, random: Random::new(task as u64 + 2) }
    }

    pub fn index(&mut self) -> usize {
        self.random.below(KEYS)
    }

    pub fn key(&mut self) -> &'static str {
        let index = self.index();
        &self.work.keys[index]
    }

    pub fn list(&mut self) -> &'static str {
        &self.work.lists[self.random.below(LISTS)]
    }

    pub fn value(&mut self) -> Bytes {
        self.work.values[self.random.below(VALUES)].clone()
    }

    pub fn text(&mut self) -> &'static str {
        std::str::from_utf8(&self.work.values[self.random.below(VALUES)]).expect("the values are text")
    }

    /// As many distinct keys as a turn has operations.
    pub fn keys(&mut self) -> &'static [&'static str] {
        let start = self.random.below(KEYS);
        &self.work.windows[start..start + self.batch]
    }

    /// As many values as a turn has operations.
    pub fn texts(&mut self) -> Vec<&'static str> {
        (0..self.batch).map(|_| self.text()).collect()
    }
}

/// The generator xorshift64*: cheaper than what is measured.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let drawn = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32;
        ((drawn * bound as u64) >> 32) as usize
    }
}
