//! The configuration's own rules, with what breaks them put at its place in the file.

use validator::Validate;

use super::node::{Node, Place, Position};
use super::reader::Reader;
use crate::config::error::Problem;
use crate::config::rules::{Broken, flatten};
use crate::config::storage::StorageConfig;

/// Other keys that may have given a field its value, nearest first.
const OTHER_KEYS: &[(&str, &[&str])] = &[
    ("host", &["url", "connectionString", "servers"]),
    ("port", &["url", "connectionString", "servers"]),
    ("database", &["url", "connectionString"]),
    ("username", &["user", "url", "connectionString"]),
    ("servers", &["url"]),
    ("tls", &["ssl", "options.ssl"]),
    ("readers", &["maxConnections"]),
    ("busyTimeout", &["connectionTimeoutMillis"]),
    ("statementTimeout", &["options.statement_timeout"]),
    ("lockTimeout", &["options.lock_timeout"]),
    ("idleInTransactionTimeout", &["options.idle_in_transaction_session_timeout"]),
    ("applicationName", &["options.application_name", "url", "connectionString"]),
    ("connectionTimeout", &["url", "connectionString"]),
    ("pool", &["maxConnections", "idleTimeoutMillis", "options.max"]),
];

/// Checks the rules, and reports what breaks them at its place in the file.
pub(super) fn check(config: &StorageConfig, storage: &Node, reader: &mut Reader<'_>) {
    for broken in broken(config) {
        let place = place(&broken.path, reader).unwrap_or_else(|| storage.heading());
        reader.problem(&place, broken.message);
    }
}

/// The broken rules of a configuration that has no file.
pub(in crate::config) fn problems(config: &StorageConfig) -> Vec<Problem> {
    let problem = |Broken { path, message }| Problem {
        file: String::new(),
        line: 0,
        column: 0,
        path: format!("storage.{}", path.join(".")),
        message,
    };
    let mut problems: Vec<Problem> = broken(config).into_iter().map(problem).collect();
    problems.sort_by(|a, b| a.path.cmp(&b.path));
    problems
}

fn broken(config: &StorageConfig) -> Vec<Broken> {
    Validate::validate(config).err().map(|errors| flatten(&errors)).unwrap_or_default()
}

/// Where the file says what a path of the configuration holds: at its own key, at one that stands for it, or at the
/// nearest mapping around it.
fn place(path: &[String], reader: &Reader<'_>) -> Option<Place> {
    let (last, parents) = path.split_last()?;
    let around = std::iter::once("storage").chain(parents.iter().map(String::as_str)).collect::<Vec<_>>().join(".");
    let others = OTHER_KEYS.iter().find(|(key, _)| key == last).map_or(&[][..], |(_, keys)| keys);
    let own = [last.clone(), format!("{last}Millis")];
    let keys = own.into_iter().chain(others.iter().map(|key| (*key).to_owned()));
    let found = keys.map(|key| format!("{around}.{key}")).find_map(|path| at(path, reader));
    found.or_else(|| place(parents, reader))
}

fn at(path: String, reader: &Reader<'_>) -> Option<Place> {
    let position: Position = reader.position(&path)?;
    Some(Place { path, position })
}
