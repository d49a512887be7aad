//! The rules that a configuration keeps, however it was made. The structs name them in their `#[validate(..)]`.

use std::borrow::Cow;
use std::path::Path;
use std::time::Duration;

use validator::{Validate, ValidationError, ValidationErrors, ValidationErrorsKind};

use super::chain::{CacheChainConfig, CacheFallback, DatabaseFallback, Fallback, JournalConfig, MinDurability};
use super::jetstream::JetstreamConfig;
use super::postgres::PoolConfig;
use super::side::RetryConfig;
use super::sqlite::SqliteConfig;
use super::storage::{CacheBackendConfig, DatabaseBackendConfig, DatabaseConfig};
use super::tls::{Tls, TlsFiles};

type Rule = Result<(), ValidationError>;

/// The parameter that names the field which a rule of the whole struct is about.
const FIELD: &str = "field";

fn broken(message: impl Into<Cow<'static, str>>) -> ValidationError {
    ValidationError::new("rule").with_message(message.into())
}

fn holds(condition: bool, message: &'static str) -> Rule {
    if condition { Ok(()) } else { Err(broken(message)) }
}

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A deadline or the like: 1 ms to an hour.
pub(super) fn wait(duration: &Duration) -> Rule {
    holds((Duration::from_millis(1)..=HOUR).contains(duration), "must be from 1 ms to 1 hour")
}

/// A timeout that zero turns off. PostgreSQL counts milliseconds in 31 bits, which is 24 days.
pub(super) fn server_timeout(duration: &Duration) -> Rule {
    let whole = duration.is_zero() || *duration >= Duration::from_millis(1);
    holds(whole && *duration <= DAY, "must be from 1 ms to 1 day, or 0 to leave it to the server")
}

/// How long a connection is kept.
pub(super) fn lifetime(duration: &Duration) -> Rule {
    holds((Duration::from_millis(1)..=30 * DAY).contains(duration), "must be from 1 ms to 30 days")
}

/// How long a tombstone is kept: longer than a statement can be under way.
pub(super) fn retention(duration: &Duration) -> Rule {
    holds((Duration::from_secs(60)..=30 * DAY).contains(duration), "must be from 1 minute to 30 days")
}

/// How long an operation may wait in a journal: tombstones are kept for twice as long, which is at most 30 days.
pub(super) fn journal_age(duration: &Duration) -> Rule {
    holds((Duration::from_secs(60)..=15 * DAY).contains(duration), "must be from 1 minute to 15 days")
}

/// The pause between two probes: a server that is back should not be waited for longer than a minute.
pub(super) fn probe_interval(duration: &Duration) -> Rule {
    let range = Duration::from_millis(10)..=Duration::from_secs(60);
    holds(range.contains(duration), "must be from 10 ms to 1 minute")
}

/// The time over which calls are counted.
pub(super) fn window(duration: &Duration) -> Rule {
    holds((Duration::from_millis(100)..=HOUR).contains(duration), "must be from 100 ms to 1 hour")
}

/// The age at which a bucket drops an entry. NATS takes no less than 100 ms; a TTL is at most 100 years.
pub(super) fn bucket_age(duration: &Duration) -> Rule {
    holds((Duration::from_secs(1)..=36_500 * DAY).contains(duration), "must be from 1 second to 100 years")
}

/// A key prefix leaves at least half of a key (1024 bytes) to the caller.
pub(super) fn key_prefix(prefix: &str) -> Rule {
    holds(prefix.len() <= 512, "must be at most 512 bytes long")?;
    holds(!prefix.chars().any(char::is_control), "must not hold control characters")
}

/// A host name or address, without anything around it.
pub(super) fn host(host: &str) -> Rule {
    let odd = |character: char| character.is_control() || character.is_whitespace() || "/@?#[]".contains(character);
    holds(!host.is_empty() && !host.contains(odd), "must be a host name or an address, and nothing else")
}

/// The name of a bucket, as the NATS clients check it; the stream's name puts `KV_` before it, and is a file name.
pub(super) fn bucket(name: &str) -> Rule {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    let valid = (1..=200).contains(&name.len()) && name.bytes().all(plain);
    holds(valid, "must be 1 to 200 letters, digits, `_` and `-`")
}

/// A schema of our own. PostgreSQL cuts names at 63 bytes and keeps `pg_` for itself.
pub(super) fn schema(name: &str) -> Rule {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let valid = (1..=63).contains(&name.len()) && name.bytes().all(plain);
    holds(
        valid && !name.starts_with(|first: char| first.is_ascii_digit()),
        "must be 1 to 63 letters, digits and `_`, not beginning with a digit",
    )?;
    holds(!name.to_ascii_lowercase().starts_with("pg_"), "must not begin with `pg_`, which PostgreSQL keeps for itself")
}

/// A name that the server takes: not empty, without a NUL or other control characters.
pub(super) fn name(name: &str) -> Rule {
    holds(!name.is_empty() && !name.chars().any(char::is_control), "must not be empty or hold control characters")
}

/// The delays of a retry, together.
pub(super) fn retry(config: &RetryConfig) -> Rule {
    holds(config.initial_delay <= config.max_delay, "must not have an `initialDelay` longer than its `maxDelay`")?;
    holds(config.max_delay <= HOUR, "must not have a `maxDelay` longer than 1 hour")
}

/// The bounds of a pool, together.
pub(super) fn pool(config: &PoolConfig) -> Rule {
    holds(config.min <= config.max, "must not have a `min` above its `max` (`maxConnections`)")
}

/// A certificate and its key, together.
pub(super) fn tls_files(files: &TlsFiles) -> Rule {
    holds(files.cert_file.is_some() == files.key_file.is_some(), "must have both `cert` and `key`, or neither")
}

/// The file of a SQLite database. The path is not a value of the rule, for it need not be UTF-8.
pub(super) fn sqlite(config: &SqliteConfig) -> Rule {
    holds(!config.path.as_os_str().is_empty(), "must have a `path` that is not empty")?;
    let memory = config.path.file_name().is_some_and(|name| name == ":memory:");
    holds(!memory, "must not have the `path` `:memory:`; use `type: in-memory`")
}

/// The folder of a journal. The path is not a value of the rule, for it need not be UTF-8.
pub(super) fn journal(config: &JournalConfig) -> Rule {
    holds(!config.path.as_os_str().is_empty(), "must have a `path` that is not empty")
}

/// The folder of a cache's journal.
pub(super) fn cache_chain(config: &CacheChainConfig) -> Rule {
    let empty = config.journal_path.as_ref().is_some_and(|path| path.as_os_str().is_empty());
    in_field("journal", holds(!empty, "must have a `path` that is not empty"))
}

/// A database and what stands behind it, together.
pub(super) fn database(config: &DatabaseConfig) -> Rule {
    let Some(fallback) = config.effective_fallback() else { return Ok(()) };
    let rule = match fallback {
        DatabaseFallback::Memory => holds(
            config.chain.min_durability == MinDurability::Volatile,
            "must not be `in-memory` unless `minDurability` is `volatile`: what is acknowledged meanwhile would be lost with \
             the process; use `type: sqlite` to keep it on disk",
        ),
        DatabaseFallback::Sqlite => match &config.backend {
            DatabaseBackendConfig::Sqlite(primary) => holds(
                !same_path(&primary.path, &config.chain.journal.path),
                "must not have the `path` of the database itself; it is the folder of a journal",
            ),
            DatabaseBackendConfig::Memory(_) | DatabaseBackendConfig::Postgres(_) => Ok(()),
        },
    };
    in_field("fallback", rule)
}

fn same_path(first: &Path, second: &Path) -> bool {
    match (std::path::absolute(first), std::path::absolute(second)) {
        (Ok(first), Ok(second)) => first.components().eq(second.components()),
        _ => first == second,
    }
}

/// Puts a rule that looks at several fields under the name of one of them.
fn in_field(field: &'static str, rule: Rule) -> Rule {
    rule.map_err(|mut error| {
        error.add_param(Cow::Borrowed(FIELD), &field);
        error
    })
}

/// The servers and the sizes of a bucket.
pub(super) fn jetstream(config: &JetstreamConfig) -> Rule {
    holds(!config.servers.is_empty(), "must name at least one server in `servers`")?;
    let value = config.max_value_bytes.map_or(0, u64::from);
    holds(value <= config.max_bytes.unwrap_or(u64::MAX), "must not have `maxValueBytes` above `maxBytes`")
}

impl Validate for CacheBackendConfig {
    fn validate(&self) -> Result<(), ValidationErrors> {
        match self {
            Self::Memory(config) => config.validate(),
            Self::Redis(config) => config.validate(),
            Self::Jetstream(config) => config.validate(),
        }
    }
}

impl Validate for DatabaseBackendConfig {
    fn validate(&self) -> Result<(), ValidationErrors> {
        match self {
            Self::Memory(_) => Ok(()),
            Self::Sqlite(config) => config.validate(),
            Self::Postgres(config) => config.validate(),
        }
    }
}

impl Validate for Fallback<CacheFallback> {
    fn validate(&self) -> Result<(), ValidationErrors> {
        match self {
            Self::Default | Self::None => Ok(()),
            // In the document it is a list of one.
            Self::To(CacheFallback::Memory(config)) => std::slice::from_ref(config).validate(),
        }
    }
}

impl Validate for Tls {
    fn validate(&self) -> Result<(), ValidationErrors> {
        self.files().map_or(Ok(()), Validate::validate)
    }
}

/// A broken rule: the field, as the document would call it, and what is wrong with it.
#[derive(Debug)]
pub(super) struct Broken {
    /// The keys from the section down, such as `["database", "pool", "max"]`.
    pub(super) path: Vec<String>,
    pub(super) message: String,
}

/// Makes a flat list of the validator's tree, in the document's words.
pub(super) fn flatten(errors: &ValidationErrors) -> Vec<Broken> {
    let mut found = Vec::new();
    walk(errors, &mut Vec::new(), &mut found);
    found
}

fn walk(errors: &ValidationErrors, path: &mut Vec<String>, found: &mut Vec<Broken>) {
    for (field, kind) in errors.errors() {
        // These are fields of ours that the document does not have: their keys stand one level higher.
        let named = !matches!(field.as_ref(), "__all__" | "backend" | "options" | "chain" | "files");
        if named {
            path.push(camel_case(field));
        }
        match kind {
            ValidationErrorsKind::Struct(errors) => walk(errors, path, found),
            ValidationErrorsKind::List(items) => {
                let list = path.pop().unwrap_or_default();
                for (index, errors) in items {
                    path.push(format!("{list}[{index}]"));
                    walk(errors, path, found);
                    path.pop();
                }
                path.push(list);
            }
            ValidationErrorsKind::Field(errors) => found.extend(errors.iter().map(|error| {
                let field = error.params.get(FIELD).and_then(|field| field.as_str()).map(str::to_owned);
                Broken {
                    path: path.iter().cloned().chain(field).collect(),
                    message: error.message.as_deref().unwrap_or("is not valid").to_owned(),
                }
            })),
        }
        if named {
            path.pop();
        }
    }
}

fn camel_case(field: &str) -> String {
    let mut words = field.split('_');
    let mut name = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut letters = word.chars();
        name.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        name.push_str(letters.as_str());
    }
    name
}
