//! The stores that need no server: `type: in-memory` and `type: sqlite`.

use super::reader::Reader;
use super::section::{agree, section, set};
use super::value::{Bytes, FilePath, Millis, NoEffect, Span, words};
use crate::config::memory::{MemoryCacheConfig, MemoryDatabaseConfig};
use crate::config::sqlite::{SqliteConfig, Synchronous};

section! {
    /// A cache in the process's memory; it evicts, and never grows beyond its bounds.
    MemoryCacheSection {
        /// The bytes that keys and values may take together.
        "maxBytes" => max_bytes: Bytes = "64MiB";
        /// The number of entries it may hold.
        "maxEntries" => max_entries: u64 = 100_000;
        /// Has no effect: there is nothing to connect to.
        "maxConnections" => _max_connections: NoEffect;
        /// Has no effect: there is nothing to connect to.
        "idleTimeoutMillis" => _idle_timeout_millis: NoEffect;
        /// Has no effect: there is nothing to connect to.
        "connectionTimeoutMillis" => _connection_timeout_millis: NoEffect;
        /// Has no effect: options of another library.
        "options" => _options: NoEffect;
    }
}

impl MemoryCacheSection {
    pub(super) fn config(self) -> MemoryCacheConfig {
        let mut config = MemoryCacheConfig::default();
        set(&mut config.max_bytes, self.max_bytes);
        set(&mut config.max_entries, self.max_entries);
        config
    }
}

section! {
    /// A database in the process's memory; everything is gone when the process ends.
    MemoryDatabaseSection {
        /// Has no effect: there is nothing to connect to.
        "maxConnections" => _max_connections: NoEffect;
        /// Has no effect: there is nothing to connect to.
        "idleTimeoutMillis" => _idle_timeout_millis: NoEffect;
        /// Has no effect: there is nothing to connect to.
        "connectionTimeoutMillis" => _connection_timeout_millis: NoEffect;
        /// Has no effect: options of another library.
        "options" => _options: NoEffect;
    }
}

impl MemoryDatabaseSection {
    pub(super) fn config(self) -> MemoryDatabaseConfig {
        MemoryDatabaseConfig::default()
    }
}

words!(Synchronous { "full" => Full, "normal" => Normal });

section! {
    /// A SQLite file on this machine.
    SqliteSection {
        /// The file; it and its folder are made if missing. A relative path begins at the folder of this file.
        "path" => path: FilePath = ".agent-storage/agent.db";
        /// The file's name in the folder `.agent-storage` beside this file; use `path` instead.
        "database" => database: String;
        /// Whether a commit waits for the disk (`full`), or may be lost when the machine loses power (`normal`).
        "synchronous" => synchronous: Synchronous = "full";
        /// How many connections read side by side; one more writes.
        "readers" => readers: u32 = 4;
        /// Another name for `readers`.
        "maxConnections" => max_connections: u32;
        /// How long a call waits for a lock that another process holds.
        "busyTimeout" => busy_timeout: Span = "5s";
        /// `busyTimeout` in milliseconds.
        "connectionTimeoutMillis" => connection_timeout_millis: Millis;
        /// How long a deleted key leaves a mark that outvotes a write which lands late.
        "tombstoneRetention" => tombstone_retention: Span = "15m";
        /// Has no effect: the connections stay open.
        "idleTimeoutMillis" => _idle_timeout_millis: NoEffect;
        /// Has no effect: options of another client library.
        "options" => _options: NoEffect;
    }
}

impl SqliteSection {
    pub(super) fn config(self, reader: &mut Reader<'_>) -> SqliteConfig {
        let mut config = SqliteConfig::default();
        if let (Some(path), Some(database)) = (&self.path, &self.database) {
            reader.warn(&database.place, format!("has no effect beside `{}`; take it out", path.place.path));
        }
        config.path = match (self.path, self.database) {
            (Some(path), _) => path.value.0,
            (None, Some(name)) if is_file_name(&name.value) => {
                reader.base().join(config.path.with_file_name(name.value))
            }
            (None, Some(name)) => {
                reader.problem(&name.place, "expected the name of a file without a folder; use `path` for a path");
                config.path
            }
            (None, None) => reader.base().join(config.path),
        };
        set(&mut config.synchronous, self.synchronous);
        set(&mut config.readers, agree(self.readers, self.max_connections, reader));
        let millis = self.connection_timeout_millis.map(|field| field.map(Span::from));
        set(&mut config.busy_timeout, agree(self.busy_timeout, millis, reader));
        set(&mut config.tombstone_retention, self.tombstone_retention);
        config
    }
}

fn is_file_name(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\\', '\0'])
}
