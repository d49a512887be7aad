//! `type: redis`.

use secrecy::ExposeSecret;

use super::node::Place;
use super::reader::{Field, Reader};
use super::section::{agree, section, set};
use super::url::{UrlText, shown, split};
use super::value::{Millis, NoEffect, Secret, Span};
use crate::config::redis::RedisConfig;
use crate::config::tls::{Tls, TlsFiles};

section! {
    /// A Redis or Valkey server, version 6.2 or later.
    RedisSection {
        /// The server and who we are, as `redis://user:password@host:port/database`; `rediss://` is encrypted.
        "url" => url: UrlText;
        /// The server's host name or address.
        "host" => host: String = "127.0.0.1";
        /// The server's port.
        "port" => port: u16 = 6379;
        /// The user; without one, a password is that of the default user.
        "username" => username: String;
        /// The password. Best from a variable: `$REDIS_PASSWORD`.
        "password" => password: Secret;
        /// The number of the logical database.
        "database" => database: u32 = 0;
        /// Whether the connection is encrypted, the certificate checked; or a mapping with the files for it.
        "tls" => tls: Tls = false;
        /// Another name for `tls`.
        "ssl" => ssl: Tls;
        /// How many connections are held, each of which carries any number of calls at once.
        "maxConnections" => max_connections: u32 = 2;
        /// How long making a connection may take.
        "connectionTimeout" => connection_timeout: Span = "5s";
        /// `connectionTimeout` in milliseconds.
        "connectionTimeoutMillis" => connection_timeout_millis: Millis;
        /// Has no effect: the connections stay open.
        "idleTimeoutMillis" => _idle_timeout_millis: NoEffect;
        /// Has no effect: options of another client library.
        "options" => _options: NoEffect;
    }
}

/// What a URL says.
#[derive(Default)]
struct FromUrl {
    host: Option<Field<String>>,
    port: Option<Field<u16>>,
    username: Option<Field<String>>,
    password: Option<Field<Secret>>,
    database: Option<Field<u32>>,
    tls: Option<Field<Tls>>,
}

impl RedisSection {
    /// Brings together what is said by URL and by parts.
    pub(super) fn config(self, reader: &mut Reader<'_>) -> RedisConfig {
        let url = self.url.map(|url| from_url(&url, reader)).unwrap_or_default();
        let mut config = RedisConfig::default();
        set(&mut config.host, agree(url.host, self.host, reader));
        set(&mut config.port, agree(url.port, self.port, reader));
        let username = agree(url.username, self.username, reader).filter(|field| !field.value.is_empty());
        config.password = agree(url.password, self.password, reader).map(|field| field.value.0);
        let is_lone = |username: &&Field<String>| config.password.is_none() && username.value != "default";
        if let Some(lone) = username.as_ref().filter(is_lone) {
            // The client library would log in as the user `default`.
            reader.problem(&lone.place, "needs a `password` beside it; a user without one takes any");
        }
        config.username = username.map(|field| field.value);
        set(&mut config.database, agree(url.database, self.database, reader));
        let tls = agree(self.tls, self.ssl, reader);
        set(&mut config.tls, encryption(url.tls, tls, reader));
        set(&mut config.max_connections, self.max_connections);
        let millis = self.connection_timeout_millis.map(|field| field.map(Span::from));
        set(&mut config.connection_timeout, agree(self.connection_timeout, millis, reader));
        config
    }
}

/// The scheme says whether, the keys with which files. A plain scheme beside `tls: true` is a contradiction.
pub(super) fn encryption(
    scheme: Option<Field<Tls>>,
    keys: Option<Field<Tls>>,
    reader: &mut Reader<'_>,
) -> Option<Field<Tls>> {
    if let (Some(scheme), Some(keys)) = (&scheme, &keys)
        && scheme.value.files().is_some() != keys.value.files().is_some()
    {
        let message = format!("contradicts the scheme of `{}`; change one of them", scheme.place.path);
        reader.problem(&keys.place, message);
    }
    keys.or(scheme)
}

fn from_url(url: &Field<UrlText>, reader: &mut Reader<'_>) -> FromUrl {
    const SCHEMES: &[&str] = &["redis", "rediss", "valkey", "valkeys"];
    let parts = match split(url.value.0.0.expose_secret(), SCHEMES, "redis://user:password@host:port/database") {
        Ok(parts) => parts,
        Err(message) => {
            reader.problem(&url.place, message);
            return FromUrl::default();
        }
    };
    for (name, _) in &parts.query {
        reader.warn(&url.place, format!("has a parameter `{}` that has no effect", shown(name)));
    }
    let encrypted = matches!(parts.scheme.as_str(), "rediss" | "valkeys");
    let tls = if encrypted { Tls::Verified(TlsFiles::default()) } else { Tls::Off };
    let place = &url.place;
    FromUrl {
        host: at(place, parts.host),
        port: at(place, parts.port),
        username: at(place, parts.username),
        password: at(place, parts.password),
        database: parts.path.and_then(|path| database(place, &path, reader)),
        tls: at(place, Some(tls)),
    }
}

fn database(place: &Place, path: &str, reader: &mut Reader<'_>) -> Option<Field<u32>> {
    let number = path.parse().ok();
    if number.is_none() {
        reader.problem(place, "must end with the number of a database, as in `redis://host:port/0`, or with the port");
    }
    at(place, number)
}

/// A part of a URL, at the URL's place.
pub(super) fn at<T>(place: &Place, value: Option<T>) -> Option<Field<T>> {
    value.map(|value| Field { value, place: place.clone() })
}
