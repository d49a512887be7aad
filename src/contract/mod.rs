//! The contract between callers and backends.
