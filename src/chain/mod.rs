//! Fallback: what keeps a database and a cache usable while their primary is away, and what brings the two together again.

mod journal;
