//! A Redis or Valkey server: [`RedisConfig`].

use std::time::Duration;

use secrecy::SecretString;
use validator::Validate;

use super::rules;
use super::tls::Tls;

/// A Redis cache: where the server is, who we are, and how many connections to hold.
#[derive(Clone, Debug, Validate)]
#[non_exhaustive]
pub struct RedisConfig {
    /// The server's host name or address. `127.0.0.1` by default.
    #[validate(custom(function = "rules::host"))]
    pub host: String,
    /// The server's port. 6379 by default.
    #[validate(range(min = 1, message = "must be from 1 to 65535"))]
    pub port: u16,
    /// The user, for servers with access control lists. Without one, a password is that of the default user.
    pub username: Option<String>,
    /// The password.
    pub password: Option<SecretString>,
    /// The number of the logical database. 0 by default; a server has 16 unless it is configured otherwise.
    pub database: u32,
    /// Whether the connection is encrypted. Off by default.
    #[validate(nested)]
    pub tls: Tls,
    /// How many connections are held. Each carries any number of calls at once. 2 by default.
    #[validate(range(min = 1, max = 1000, message = "must be from 1 to 1000"))]
    pub max_connections: u32,
    /// How long making a connection may take. 5 s by default.
    #[validate(custom(function = "rules::wait"))]
    pub connection_timeout: Duration,
}

impl Default for RedisConfig {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port: 6379,
            username: None,
            password: None,
            database: 0,
            tls: Tls::Off,
            max_connections: 2,
            connection_timeout: Duration::from_secs(5),
        }
    }
}

impl RedisConfig {
    /// Makes a configuration for a server, everything else as by default.
    #[must_use]
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self { host: host.into(), port, ..Self::default() }
    }
}
