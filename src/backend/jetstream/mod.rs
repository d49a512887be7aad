//! The JetStream cache: a NATS key-value bucket, readable and writable by any other NATS client.
//!
//! A value is the payload of the last message of its subject, as `nats kv get` shows it; what else there is to know about it
//! (format, exact expiry, stamp) stands in the message's headers. The revision of an entry is its message's sequence. Whatever
//! depends on what is stored is a compare-and-set on that sequence, so that it is safe against every other client.
//!
//! | file | its noun |
//! |---|---|
//! | `cache` | [`JetstreamCache`], the contract |
//! | `connect` | making a session, one attempt at a time |
//! | `session` | one connection, used until it is lost and never again |
//! | `bucket` | the stream behind the bucket: made, or checked |
//! | `fence` | what keeps an earlier connection from writing |
//! | `unanswered` | the writes of a connection that went unanswered |
//! | `codec` | keys as subjects, and back |
//! | `record` | a stored message, and the headers it is written with |
//! | `read`, `write`, `list` | the operations |
//! | `publish` | one message, and what JetStream says to it |
//! | `scan` | a walk over the keys, which listing, counting and clearing share |
//! | `tail` | the end of such a walk |
//! | `error` | the client's errors as ours |

mod batch;
mod bucket;
mod cache;
mod codec;
mod connect;
mod error;
mod fence;
mod list;
mod publish;
mod read;
mod record;
mod scan;
mod session;
mod tail;
mod unanswered;
mod write;

pub use cache::JetstreamCache;
