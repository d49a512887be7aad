//! `postgres://user:password@host:port/database?parameter=value`, as libpq, Node.js and Prisma write it.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::ExposeSecret;

use super::node::Place;
use super::reader::{Field, Reader};
use super::redis::at;
use super::url::{Parts, UrlText, shown, split};
use super::value::{FilePath, Secret, Span};
use crate::config::postgres::{PostgresTls, TlsMode};

/// What a URL says.
#[derive(Default)]
pub(super) struct FromUrl {
    pub(super) host: Option<Field<String>>,
    pub(super) port: Option<Field<u16>>,
    pub(super) socket_dir: Option<Field<FilePath>>,
    pub(super) database: Option<Field<String>>,
    pub(super) username: Option<Field<String>>,
    pub(super) password: Option<Field<Secret>>,
    pub(super) tls: Option<Field<PostgresTls>>,
    pub(super) connection_timeout: Option<Field<Span>>,
    pub(super) application_name: Option<Field<String>>,
    pub(super) transaction_pooler: Option<Field<bool>>,
}

/// Takes a URL apart, or reports what is wrong with it.
pub(super) fn from_url(url: &Field<UrlText>, reader: &mut Reader<'_>) -> FromUrl {
    const EXAMPLE: &str = "postgres://user:password@host:port/database";
    match split(url.value.0.0.expose_secret(), &["postgres", "postgresql"], EXAMPLE) {
        Ok(parts) => from_parts(parts, &url.place, reader),
        Err(message) => {
            reader.problem(&url.place, message);
            FromUrl::default()
        }
    }
}

fn from_parts(parts: Parts, place: &Place, reader: &mut Reader<'_>) -> FromUrl {
    let mut found = FromUrl {
        port: at(place, parts.port),
        database: at(place, parts.path),
        username: at(place, parts.username),
        password: at(place, parts.password),
        ..FromUrl::default()
    };
    if let Some(host) = parts.host {
        found.host_or_socket(place, host);
    }
    for (name, value) in parts.query.iter().filter(|(_, value)| !value.is_empty()) {
        if let Err(message) = found.parameter(place, name, value, reader) {
            reader.problem(place, message);
        }
    }
    found
}

impl FromUrl {
    /// A host that begins with a slash is the folder of a socket.
    fn host_or_socket(&mut self, place: &Place, host: String) {
        if host.starts_with('/') {
            self.socket_dir = at(place, Some(FilePath(PathBuf::from(host))));
        } else {
            self.host = at(place, Some(host));
        }
    }

    fn parameter(&mut self, place: &Place, name: &str, value: &str, reader: &mut Reader<'_>) -> Result<(), String> {
        match name {
            "host" => self.host_or_socket(place, value.to_owned()),
            "port" => self.port = at(place, Some(value.parse().map_err(|_| "has a `port` that is not one")?)),
            "user" => self.username = at(place, Some(value.to_owned())),
            "password" => self.password = at(place, Secret::new(value)),
            "dbname" => self.database = at(place, Some(value.to_owned())),
            "application_name" => self.application_name = at(place, Some(value.to_owned())),
            "connect_timeout" => {
                let seconds = value.parse().map_err(|_| "has a `connect_timeout` that is not a number of seconds")?;
                self.connection_timeout = at(place, Some(Span(Duration::from_secs(seconds))));
            }
            "pgbouncer" => self.transaction_pooler = at(place, Some(value == "true")),
            "sslmode" | "ssl" => self.tls(place).mode = mode(value)?,
            "sslrootcert" | "sslcert" | "sslkey" => self.file(place, name, reader.base().join(value)),
            _ => reader.warn(place, format!("has a parameter `{}` that has no effect", shown(name))),
        }
        Ok(())
    }

    /// The encryption; a file without a mode means that the certificate is to be checked.
    fn tls(&mut self, place: &Place) -> &mut PostgresTls {
        let verified = || Field { value: PostgresTls::new(TlsMode::VerifyFull), place: place.clone() };
        &mut self.tls.get_or_insert_with(verified).value
    }

    fn file(&mut self, place: &Place, name: &str, path: PathBuf) {
        let files = &mut self.tls(place).files;
        match name {
            "sslrootcert" => files.ca_file = Some(path),
            "sslcert" => files.cert_file = Some(path),
            _ => files.key_file = Some(path),
        }
    }
}

/// A mode in libpq's words, or in those of Node.js. `allow` would begin in plain text; what we do instead is at least as safe.
fn mode(value: &str) -> Result<TlsMode, String> {
    Ok(match value {
        "disable" | "false" | "0" => TlsMode::Disable,
        "allow" | "prefer" => TlsMode::Prefer,
        "require" | "no-verify" => TlsMode::Require,
        "verify-ca" => TlsMode::VerifyCa,
        "verify-full" | "true" | "1" => TlsMode::VerifyFull,
        _ => {
            let known = "`disable`, `prefer`, `require`, `verify-ca`, `verify-full`";
            return Err(format!("has an `sslmode` that is not known; known are {known}"));
        }
    })
}
