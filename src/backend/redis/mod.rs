//! A cache on a Redis or Valkey server, 6.2 or later, a single node: [`RedisCache`].
//!
//! What is stored is what any other client reads: JSON as it is, under the key as it is. Only a binary value carries a
//! byte of ours before its own, a zero, which no JSON text can begin with. A revision is the SHA-1 digest of the stored
//! bytes, so Redis itself can compare it in a script.
//!
//! One connection carries the writes, the others the reads. So writes reach the server in the order in which they were
//! sent, and one that nobody waits for any more is never overtaken by a later one. When that connection is replaced, the
//! first thing that happens on the new one is that the server drops what it may still hold of the old one.
//!
//! The user of the connection needs the commands `GET SET UNLINK EXISTS STRLEN PEXPIRE PEXPIRETIME PTTL TIME PERSIST
//! INCRBY SCAN EVAL EVALSHA HELLO SELECT`, and `agent-storage:*` among its keys for health checks. `INFO` and `CLIENT` are
//! used where they are allowed.
//!
//! This module knows neither layers nor other backends.

mod cache;
mod codec;
mod connect;
mod error;
mod lane;
mod link;
mod read;
mod scan;
mod script;
mod write;

pub use cache::RedisCache;
