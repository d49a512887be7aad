//! `type: postgres`.

use std::net::IpAddr;
use std::path::PathBuf;

use super::node::Place;
use super::postgres_url::from_url;
use super::reader::{Field, Reader};
use super::section::{agree, section, set};
use super::url::UrlText;
use super::value::{FilePath, Millis, NoEffect, Secret, Span};
use crate::config::postgres::{PoolConfig, PostgresConfig, PostgresTls, TlsMode};

section! {
    /// A PostgreSQL server, version 12 or later.
    PostgresSection {
        /// The server and who we are, as `postgres://user:password@host:port/database?sslmode=verify-full`.
        "url" => url: UrlText;
        /// Another name for `url`.
        "connectionString" => connection_string: UrlText;
        /// The server's host name or address; a path is the folder of its socket.
        "host" => host: String = "localhost";
        /// The server's port.
        "port" => port: u16 = 5432;
        /// The folder of the server's Unix socket, used instead of a host.
        "socketDir" => socket_dir: FilePath;
        /// The database's name; by default that of the user.
        "database" => database: String = "postgres";
        /// The user (role).
        "username" => username: String = "postgres";
        /// Another name for `username`.
        "user" => user: String;
        /// The password. Best from a variable: `$POSTGRES_PASSWORD`.
        "password" => password: Secret;
        /// Whether the connection is encrypted: `true` checks certificate and host name, `false` is plain text. By default
        /// it is encrypted if the server offers it, and nothing is checked.
        "ssl" => ssl: PostgresTls = "prefer";
        /// Another name for `ssl`.
        "tls" => tls: PostgresTls;
        /// The connections that are held.
        "pool" => pool: PoolSection;
        /// Another name for `pool.max`.
        "maxConnections" => max_connections: u32;
        /// `pool.idleTimeout` in milliseconds.
        "idleTimeoutMillis" => idle_timeout_millis: Millis;
        /// How long making a connection may take.
        "connectionTimeout" => connection_timeout: Span = "5s";
        /// `connectionTimeout` in milliseconds.
        "connectionTimeoutMillis" => connection_timeout_millis: Millis;
        /// After how long the server ends a statement; `0s` leaves it to the server.
        "statementTimeout" => statement_timeout: Span = "30s";
        /// After how long the server gives up waiting for a lock; `0s` leaves it to the server.
        "lockTimeout" => lock_timeout: Span = "3s";
        /// After how long the server ends a transaction that does nothing; `0s` leaves it to the server.
        "idleInTransactionTimeout" => idle_in_transaction_timeout: Span = "30s";
        /// The schema that holds our tables and nothing else; it is made if missing.
        "schema" => schema: String = "agent_storage";
        /// What the server shows as the client's name.
        "applicationName" => application_name: String = "agent-storage";
        /// Whether a pooler in transaction mode, such as PgBouncer, stands before the server.
        "transactionPooler" => transaction_pooler: bool = false;
        /// How long a deleted key leaves a mark that outvotes a statement which lands late.
        "tombstoneRetention" => tombstone_retention: Span = "15m";
        /// The same settings as Node.js clients write them.
        "options" => options: OptionsSection;
    }
}

section! {
    /// The connections that are held to the server.
    PoolSection {
        /// How many are kept open when there is nothing to do.
        "min" => min: u32 = 0;
        /// How many there are at most.
        "max" => max: u32 = 10;
        /// How long a call waits for a free one; its own deadline may be sooner.
        "acquireTimeout" => acquire_timeout: Span = "30s";
        /// `acquireTimeout` in milliseconds.
        "acquireTimeoutMillis" => acquire_timeout_millis: Millis;
        /// After how long an unused one is closed.
        "idleTimeout" => idle_timeout: Span = "10m";
        /// `idleTimeout` in milliseconds.
        "idleTimeoutMillis" => idle_timeout_millis: Millis;
        /// After how long any is closed and made anew.
        "maxLifetime" => max_lifetime: Span = "2h";
        /// `maxLifetime` in milliseconds.
        "maxLifetimeMillis" => max_lifetime_millis: Millis;
    }
}

section! {
    /// Settings as Node.js clients write them.
    OptionsSection {
        /// As `ssl` beside `options`.
        "ssl" => ssl: PostgresTls;
        /// As `applicationName`.
        "application_name" => application_name: String;
        /// As `statementTimeout`, in milliseconds.
        "statement_timeout" => statement_timeout: Millis;
        /// As `lockTimeout`, in milliseconds.
        "lock_timeout" => lock_timeout: Millis;
        /// As `idleInTransactionTimeout`, in milliseconds.
        "idle_in_transaction_session_timeout" => idle_in_transaction_timeout: Millis;
        /// As `pool.max`.
        "max" => max: u32;
        /// Has no effect: every call has a deadline, `timeout`.
        "query_timeout" => _query_timeout: NoEffect;
        /// Has no effect.
        "keepAlive" => _keep_alive: NoEffect;
        /// Has no effect.
        "keepAliveInitialDelayMillis" => _keep_alive_delay: NoEffect;
        /// Has no effect.
        "allowExitOnIdle" => _allow_exit_on_idle: NoEffect;
    }
}

impl PostgresSection {
    /// Brings together what is said by URL, by parts and by options.
    pub(super) fn config(self, place: &Place, reader: &mut Reader<'_>) -> PostgresConfig {
        let url = agree(self.url, self.connection_string, reader);
        let url = url.map(|url| from_url(&url, reader)).unwrap_or_default();
        let options = self.options.map_or_else(OptionsSection::default, |field| field.value);
        let millis = |field: Option<Field<Millis>>| field.map(|field| field.map(Span::from));
        let mut config = PostgresConfig::default();

        let pool = self.pool.map_or_else(PoolSection::default, |field| field.value);
        let max = agree(self.max_connections, options.max, reader);
        config.pool = pool.config(max, millis(self.idle_timeout_millis), reader);

        let keys = agree(agree(self.ssl, self.tls, reader), options.ssl, reader);
        let ssl = agree_on_tls(url.tls.clone(), keys, reader);
        let username = agree(agree(url.username, self.username, reader), self.user, reader);
        set(&mut config.username, username.filter(|field| !field.value.is_empty()));
        let database = agree(url.database, self.database, reader);
        config.database = database.map_or_else(|| config.username.clone(), |field| field.value);
        config.password = agree(url.password, self.password, reader).map(|field| field.value.0);
        let endpoint = Endpoint { host: self.host, socket_dir: self.socket_dir };
        endpoint.fill(&mut config, url.host, url.socket_dir, reader);
        set(&mut config.port, agree(url.port, self.port, reader));
        warn_of_tls(&config, ssl.as_ref(), place, reader);
        set(&mut config.tls, ssl);

        let timeout = agree(self.connection_timeout, millis(self.connection_timeout_millis), reader);
        set(&mut config.connection_timeout, agree(url.connection_timeout, timeout, reader));
        let timeout = agree(self.statement_timeout, millis(options.statement_timeout), reader);
        set(&mut config.statement_timeout, timeout);
        set(&mut config.lock_timeout, agree(self.lock_timeout, millis(options.lock_timeout), reader));
        let timeout = agree(self.idle_in_transaction_timeout, millis(options.idle_in_transaction_timeout), reader);
        set(&mut config.idle_in_transaction_timeout, timeout);

        set(&mut config.schema, self.schema);
        let name = agree(self.application_name, options.application_name, reader);
        set(&mut config.application_name, agree(url.application_name, name, reader));
        set(&mut config.transaction_pooler, agree(url.transaction_pooler, self.transaction_pooler, reader));
        set(&mut config.tombstone_retention, self.tombstone_retention);
        config
    }
}

impl PoolSection {
    fn config(self, max: Option<Field<u32>>, idle: Option<Field<Span>>, reader: &mut Reader<'_>) -> PoolConfig {
        let millis = |field: Option<Field<Millis>>| field.map(|field| field.map(Span::from));
        let mut pool = PoolConfig::default();
        set(&mut pool.min, self.min);
        set(&mut pool.max, agree(self.max, max, reader));
        set(&mut pool.acquire_timeout, agree(self.acquire_timeout, millis(self.acquire_timeout_millis), reader));
        let inside = agree(self.idle_timeout, millis(self.idle_timeout_millis), reader);
        set(&mut pool.idle_timeout, agree(inside, idle, reader));
        set(&mut pool.max_lifetime, agree(self.max_lifetime, millis(self.max_lifetime_millis), reader));
        pool
    }
}

/// Where the server is, as the keys say it.
struct Endpoint {
    host: Option<Field<String>>,
    socket_dir: Option<Field<FilePath>>,
}

impl Endpoint {
    fn fill(
        self,
        config: &mut PostgresConfig,
        url_host: Option<Field<String>>,
        url_socket: Option<Field<FilePath>>,
        reader: &mut Reader<'_>,
    ) {
        // A host that is a path is the folder of a socket, as in libpq.
        let (host, by_host) = match self.host {
            Some(host) if host.value.starts_with('/') => (None, Some(host.map(|dir| FilePath(PathBuf::from(dir))))),
            host => (host, None),
        };
        let socket = agree(agree(url_socket, self.socket_dir, reader), by_host, reader);
        let host = agree(url_host, host, reader);
        if let (Some(host), Some(socket)) = (&host, &socket) {
            reader.problem(&socket.place, format!("contradicts `{}`: give a host or a socket", host.place.path));
        }
        set(&mut config.host, host);
        config.socket_dir = socket.map(|socket| socket.value.0);
    }
}

/// The URL says which mode, and perhaps which files; the keys may add files to the same mode.
fn agree_on_tls(
    url: Option<Field<PostgresTls>>,
    keys: Option<Field<PostgresTls>>,
    reader: &mut Reader<'_>,
) -> Option<Field<PostgresTls>> {
    match (url, keys) {
        (Some(url), Some(mut keys)) => {
            if url.value.mode != keys.value.mode {
                let message = format!("says something else than the `sslmode` of `{}`; give it once", url.place.path);
                reader.problem(&keys.place, message);
            }
            let (ours, theirs) = (&mut keys.value.files, url.value.files);
            ours.ca_file = ours.ca_file.take().or(theirs.ca_file);
            ours.cert_file = ours.cert_file.take().or(theirs.cert_file);
            ours.key_file = ours.key_file.take().or(theirs.key_file);
            Some(keys)
        }
        (url, keys) => keys.or(url),
    }
}

/// Says when a connection that leaves this machine can be read or answered by somebody else.
fn warn_of_tls(config: &PostgresConfig, ssl: Option<&Field<PostgresTls>>, place: &Place, reader: &mut Reader<'_>) {
    if config.socket_dir.is_some() || is_local(&config.host) {
        return;
    }
    match ssl {
        None => reader.warn(
            place,
            "does not say whether the connection is encrypted: it is if the server offers it, but nothing is checked; \
             add `ssl: true` (checked), or `ssl: false` if the network is trusted",
        ),
        Some(ssl) if matches!(ssl.value.mode, TlsMode::Prefer | TlsMode::Require) => {
            reader.warn(&ssl.place, "does not check who answers; `ssl: true` (`sslmode=verify-full`) does")
        }
        Some(ssl) if ssl.value.mode == TlsMode::VerifyCa => reader.warn(
            &ssl.place,
            "takes whoever has a certificate of an authority that `ca` or the system trusts, whatever the name; `ssl: true` \
             (`sslmode=verify-full`) checks the name",
        ),
        Some(_) => {}
    }
}

fn is_local(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}
