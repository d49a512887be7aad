//! A PostgreSQL server: [`PostgresConfig`].

use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use validator::Validate;

use super::rules;
use super::tls::TlsFiles;

/// A PostgreSQL database: where the server is, who we are, and how many connections to hold.
#[derive(Clone, Debug, Validate)]
#[non_exhaustive]
pub struct PostgresConfig {
    /// The server's host name or address. `localhost` by default.
    #[validate(custom(function = "rules::host"))]
    pub host: String,
    /// The server's port; it is also part of a socket's name. 5432 by default.
    #[validate(range(min = 1, message = "must be from 1 to 65535"))]
    pub port: u16,
    /// The folder of the server's Unix socket; used instead of the host when it is there.
    pub socket_dir: Option<PathBuf>,
    /// The database's name. `postgres` by default; in a file, the name of the user.
    #[validate(custom(function = "rules::name"))]
    pub database: String,
    /// The user (role). `postgres` by default.
    #[validate(custom(function = "rules::name"))]
    pub username: String,
    /// The password.
    pub password: Option<SecretString>,
    /// Whether the connection is encrypted, and what is checked. Not used on a Unix socket.
    #[validate(nested)]
    pub tls: PostgresTls,
    /// The connections that are held.
    #[validate(nested)]
    pub pool: PoolConfig,
    /// How long making a connection may take. 5 s by default.
    #[validate(custom(function = "rules::wait"))]
    pub connection_timeout: Duration,
    /// After how long the server ends a statement. 30 s by default; zero leaves it to the server. What a fallback replays may take
    /// longer, up to two minutes.
    #[validate(custom(function = "rules::server_timeout"))]
    pub statement_timeout: Duration,
    /// After how long the server gives up waiting for a lock. 3 s by default: a definite answer before the 4 s are over
    /// that a chain leaves the server of a call's usual 5 s. Zero leaves it to the server.
    #[validate(custom(function = "rules::server_timeout"))]
    pub lock_timeout: Duration,
    /// After how long the server ends a transaction that does nothing, but for a replay. 30 s by default; zero leaves it to the server.
    #[validate(custom(function = "rules::server_timeout"))]
    pub idle_in_transaction_timeout: Duration,
    /// The schema that holds our tables and nothing else; it is made if missing. `agent_storage` by default.
    #[validate(custom(function = "rules::schema"))]
    pub schema: String,
    /// What the server shows as the client's name. `agent-storage` by default.
    #[validate(custom(function = "rules::name"))]
    pub application_name: String,
    /// Whether a pooler in transaction mode (PgBouncer, Supavisor) stands before the server: nothing is then kept in a
    /// session, neither prepared statements nor settings. `false` by default.
    pub transaction_pooler: bool,
    /// How long a deleted key leaves a mark that outvotes a statement which lands late. 15 minutes by default.
    #[validate(custom(function = "rules::retention"))]
    pub tombstone_retention: Duration,
}

impl PostgresConfig {
    /// Makes a configuration for a server, everything else as by default.
    #[must_use]
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self { host: host.into(), port, ..Self::default() }
    }
}

impl Default for PostgresConfig {
    fn default() -> Self {
        Self {
            host: "localhost".to_owned(),
            port: 5432,
            socket_dir: None,
            database: "postgres".to_owned(),
            username: "postgres".to_owned(),
            password: None,
            tls: PostgresTls::default(),
            pool: PoolConfig::default(),
            connection_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(30),
            lock_timeout: Duration::from_secs(3),
            idle_in_transaction_timeout: Duration::from_secs(30),
            schema: "agent_storage".to_owned(),
            application_name: "agent-storage".to_owned(),
            transaction_pooler: false,
            tombstone_retention: Duration::from_secs(15 * 60),
        }
    }
}

/// Whether a connection to PostgreSQL is encrypted, and what is checked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Validate)]
#[non_exhaustive]
pub struct PostgresTls {
    /// What is demanded of the connection.
    pub mode: TlsMode,
    /// The certificates.
    #[validate(nested)]
    pub files: TlsFiles,
}

impl PostgresTls {
    /// Makes one of a mode, with the operating system's authorities and no certificate of our own.
    #[must_use]
    pub fn new(mode: TlsMode) -> Self {
        Self { mode, files: TlsFiles::default() }
    }
}

/// What is demanded of a connection, in libpq's words (`sslmode`).
///
/// Only [`TlsMode::VerifyFull`] (`ssl: true`) protects against somebody between us and the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum TlsMode {
    /// Plain text.
    Disable,
    /// Encrypted if the server offers it, else plain text; nothing is checked. The default, as in libpq.
    #[default]
    Prefer,
    /// Encrypted; the certificate is not checked.
    Require,
    /// Encrypted; the certificate is checked, the host name is not.
    VerifyCa,
    /// Encrypted; certificate and host name are checked.
    VerifyFull,
}

/// The connections held to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Validate)]
#[validate(schema(function = "rules::pool"))]
#[non_exhaustive]
pub struct PoolConfig {
    /// How many are kept open when there is nothing to do. 0 by default.
    pub min: u32,
    /// How many there are at most. 10 by default.
    #[validate(range(min = 1, max = 1000, message = "must be from 1 to 1000"))]
    pub max: u32,
    /// How long a call waits for a free one; its own deadline may be sooner. 30 s by default.
    #[validate(custom(function = "rules::wait"))]
    pub acquire_timeout: Duration,
    /// After how long an unused one is closed. 10 minutes by default.
    #[validate(custom(function = "rules::lifetime"))]
    pub idle_timeout: Duration,
    /// After how long any is closed and made anew. 2 hours by default.
    #[validate(custom(function = "rules::lifetime"))]
    pub max_lifetime: Duration,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            min: 0,
            max: 10,
            acquire_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(10 * 60),
            max_lifetime: Duration::from_secs(2 * 3600),
        }
    }
}
