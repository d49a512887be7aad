//! The real servers the tests run against, each on a free port with its data in a folder of its own.

mod find;
mod nats;
mod pgbouncer;
mod postgres;
mod redis;

pub use find::Server;
pub use nats::Nats;
pub use pgbouncer::PgBouncer;
pub use postgres::{Postgres, PostgresOptions, copy_folder, give_to_user};
pub use redis::Redis;

/// Ends the shared servers that were started. The harness calls it at the end, because a static is never dropped.
pub fn stop_shared() {
    nats::stop_shared();
    postgres::stop_shared();
    redis::stop_shared();
}
