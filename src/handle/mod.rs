//! What callers hold: `Cache` and `Database`.
