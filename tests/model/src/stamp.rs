//! Stamps, which order writes.

/// A hybrid logical clock's time, then its writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// What the clock showed.
    pub time: u8,
    /// The process and which of its lives it was.
    pub writer: u8,
}

impl Stamp {
    /// Before all others; no write carries it.
    pub const MIN: Self = Self { time: 0, writer: 0 };
}
