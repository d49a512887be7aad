//! From a configuration to what the client library takes.

use std::time::Duration;

use secrecy::ExposeSecret;
use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgSslMode};

use crate::config::{PostgresConfig, TlsFiles, TlsMode};
use crate::error::{Error, Result};

/// The longest name PostgreSQL keeps, in bytes (`NAMEDATALEN` less one); longer ones are cut silently.
const MAX_IDENTIFIER_BYTES: usize = 63;

/// The variables that the client library takes up where the configuration has nothing to set in their place.
const INHERITED: [&str; 4] = ["PGOPTIONS", "PGSSLROOTCERT", "PGSSLCERT", "PGSSLKEY"];

/// Makes the options of a connection. Everything that the environment (`PGHOST`, `PGUSER`, ..) could decide is set.
pub(super) fn connect_options(config: &PostgresConfig) -> PgConnectOptions {
    warn_of_environment(config);
    let mut options = PgConnectOptions::new_without_pgpass()
        .host(&config.host)
        .port(config.port)
        .username(&config.username)
        .password(config.password.as_ref().map_or("", ExposeSecret::expose_secret))
        .database(&config.database)
        .application_name(&config.application_name)
        // No column is a float, and PgBouncer refuses the parameter unless it is told to ignore it.
        .extra_float_digits(None)
        .ssl_mode(ssl_mode(config))
        .disable_statement_logging();
    if let Some(folder) = &config.socket_dir {
        options = options.socket(folder);
    }
    let files = &config.tls.files;
    if let Some(file) = &files.ca_file {
        options = options.ssl_root_cert(file);
    }
    if let Some(file) = &files.cert_file {
        options = options.ssl_client_cert(file);
    }
    if let Some(file) = &files.key_file {
        options = options.ssl_client_key(file);
    }
    if config.transaction_pooler { options } else { options.options(session_settings(config)) }
}

/// The certificate files that a connection reads.
pub(super) fn used_files(config: &PostgresConfig) -> TlsFiles {
    match ssl_mode(config) {
        PgSslMode::Disable => TlsFiles::default(),
        _ => config.tls.files.clone(),
    }
}

/// Says which of the files cannot be read, if that is why there is no connection: the client library says the same of a socket.
pub(super) fn unreadable(files: &TlsFiles, error: &sqlx::Error) -> Option<Error> {
    use std::io::ErrorKind::{IsADirectory, NotFound, PermissionDenied};
    let is_of_a_file = |error: &std::io::Error| matches!(error.kind(), NotFound | PermissionDenied | IsADirectory);
    if !matches!(error, sqlx::Error::Io(error) if is_of_a_file(error)) {
        return None;
    }
    [&files.ca_file, &files.cert_file, &files.key_file].into_iter().flatten().find_map(|path| {
        let error = std::fs::read(path).err()?;
        Some(Error::config(format!("cannot read {}: {}", path.display(), error.kind())).with_source(error))
    })
}

fn ssl_mode(config: &PostgresConfig) -> PgSslMode {
    match config.tls.mode {
        _ if config.socket_dir.is_some() => PgSslMode::Disable,
        TlsMode::Disable => PgSslMode::Disable,
        TlsMode::Prefer => PgSslMode::Prefer,
        TlsMode::Require => PgSslMode::Require,
        TlsMode::VerifyCa => PgSslMode::VerifyCa,
        TlsMode::VerifyFull => PgSslMode::VerifyFull,
    }
}

/// The settings of a session. The statements rely on READ COMMITTED, whatever server or role have as their default: a
/// statement that waited for a lock must go on with the newest row.
fn session_settings(config: &PostgresConfig) -> Vec<(&'static str, String)> {
    let mut settings = vec![
        ("default_transaction_isolation", "read committed".to_owned()),
        // Each statement has one good plan. Without this, a read by an array of keys is planned anew each time, which takes
        // longer than the read of one key.
        ("plan_cache_mode", "force_generic_plan".to_owned()),
        // That plan is made when a session first needs it, perhaps while the tables are empty, and must be good for full ones: it
        // looks keys up by their index, one by one and in order.
        ("enable_seqscan", "off".to_owned()),
        ("enable_bitmapscan", "off".to_owned()),
        ("enable_hashjoin", "off".to_owned()),
        ("enable_mergejoin", "off".to_owned()),
    ];
    settings.extend(timeouts(config));
    settings
}

/// The time limits that the server holds, in its own unit of milliseconds. A zero leaves the server's own.
pub(super) fn timeouts(config: &PostgresConfig) -> impl Iterator<Item = (&'static str, String)> + use<> {
    [
        ("statement_timeout", config.statement_timeout),
        ("lock_timeout", config.lock_timeout),
        ("idle_in_transaction_session_timeout", config.idle_in_transaction_timeout),
    ]
    .into_iter()
    .filter(|(_, limit)| !limit.is_zero())
    .map(|(name, limit)| (name, milliseconds(limit)))
}

/// A time as the server takes it, which keeps times in 32 bits.
pub(super) fn milliseconds(time: Duration) -> String {
    time.as_millis().clamp(1, i32::MAX as u128).to_string()
}

/// After what time at the earliest these limits end a transaction that waits for nobody's lock.
pub(super) fn shortest_limit(config: &PostgresConfig) -> Duration {
    let limits = [config.statement_timeout, config.idle_in_transaction_timeout];
    limits.into_iter().filter(|limit| !limit.is_zero()).min().unwrap_or(Duration::MAX)
}

/// The client library has no way to unset these.
fn warn_of_environment(config: &PostgresConfig) {
    let files = &config.tls.files;
    let set = [false, files.ca_file.is_some(), files.cert_file.is_some(), files.key_file.is_some()];
    for (name, _) in INHERITED.into_iter().zip(set).filter(|(name, set)| !set && std::env::var_os(name).is_some()) {
        tracing::warn!("the environment variable {name} takes part in connections to PostgreSQL; unset it");
    }
}

/// Checks the name of the schema and quotes it.
///
/// # Errors
///
/// [`ErrorKind::Config`](crate::ErrorKind::Config) if PostgreSQL would refuse or shorten it.
pub(super) fn quoted_schema(name: &str) -> Result<String> {
    let acceptable = !name.is_empty()
        && name.len() <= MAX_IDENTIFIER_BYTES
        && !name.chars().any(char::is_control)
        && !name.starts_with("pg_")
        && name != "information_schema";
    if !acceptable {
        return Err(Error::config(format!(
            "the schema must be a name of 1 to {MAX_IDENTIFIER_BYTES} bytes that does not begin with pg_"
        )));
    }
    Ok(format!("\"{}\"", name.replace('"', "\"\"")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_is_quoted_whatever_its_name() {
        assert_eq!(quoted_schema("agent_storage").unwrap(), "\"agent_storage\"");
        assert_eq!(quoted_schema("a\"; DROP").unwrap(), "\"a\"\"; DROP\"");
    }

    #[test]
    fn a_schema_that_postgres_would_refuse_or_shorten_is_refused() {
        for name in ["", "pg_catalog", "information_schema", "a\0b", &"s".repeat(64)] {
            assert!(quoted_schema(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn no_parameter_is_sent_that_a_pooler_refuses() {
        let options = format!("{:?}", connect_options(&PostgresConfig::new("db", 1)));
        assert!(options.contains("extra_float_digits: None"), "{options}");
    }

    #[test]
    fn nothing_but_the_transaction_pooler_goes_without_settings() {
        let mut config = PostgresConfig::new("db", 1);
        let direct = connect_options(&config);
        assert!(direct.get_options().unwrap().contains("statement_timeout=30000"));
        assert!(direct.get_options().unwrap().contains("default_transaction_isolation=read\\ committed"));
        config.transaction_pooler = true;
        assert!(!connect_options(&config).get_options().unwrap_or_default().contains("timeout"));
    }

    #[test]
    fn the_password_is_not_shown() {
        let mut config = PostgresConfig::new("db", 1);
        config.password = Some("hush".into());
        assert!(!format!("{config:?}").contains("hush"));
    }
}
