//! Making a connection: address, credentials, encryption, socket settings.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo,
    ProtocolVersion, RedisConnectionInfo, TlsCertificates,
};
use secrecy::ExposeSecret;

use super::error;
use super::link::{Health, Link, Peer};
use crate::config::{RedisConfig, TlsFiles};
use crate::error::{Error, Result};

/// How long a connection is idle before the kernel asks whether the other side is there, and how often it asks again.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(10);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(3);

/// How long sent bytes may stay unconfirmed before the kernel gives the connection up; its own limit is near 15 minutes.
const UNCONFIRMED_LIMIT: Duration = Duration::from_secs(5);

/// Makes connections as the configuration says.
pub(super) struct Connector {
    config: RedisConfig,
}

impl Connector {
    /// Checks the configuration as far as that needs no connection.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if no host is given, or one of certificate and key without the other.
    pub(super) fn new(config: &RedisConfig) -> Result<Self> {
        if config.host.is_empty() {
            return Err(Error::config("a Redis server needs a `host`"));
        }
        if let Some(files) = config.tls.files()
            && files.cert_file.is_some() != files.key_file.is_some()
        {
            return Err(Error::config("a client certificate needs both `certFile` and `keyFile`"));
        }
        Ok(Self { config: config.clone() })
    }

    /// Makes a connection, and has the server drop what it may still hold of the one it replaces.
    pub(super) async fn connect(&self, replaced: Option<&Peer>) -> Result<Link> {
        let connecting = async {
            let health = Arc::new(Health::default());
            let watched = Arc::clone(&health);
            // The client library reports nothing but its end this way, as we never subscribe.
            let notice_end = move |_| {
                watched.retire();
                Ok::<_, std::convert::Infallible>(())
            };
            let settings = AsyncConnectionConfig::new()
                .set_response_timeout(None)
                .set_connection_timeout(None)
                .set_push_sender(notice_end);
            let client = self.client().await?;
            let connection = client.get_multiplexed_async_connection_with_config(&settings);
            Link::introduce(connection.await.map_err(error::connecting)?, health, replaced).await
        };
        let limited = tokio::time::timeout(self.config.connection_timeout, connecting);
        limited.await.unwrap_or_else(|_| Err(error::connecting_timed_out()))
    }

    async fn client(&self) -> Result<Client> {
        let info = self.connection_info().map_err(error::connecting)?;
        let Some(files) = self.config.tls.files() else {
            return Client::open(info).map_err(error::connecting);
        };
        // The client library takes the process's provider and panics where there is none.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let certificates = read_certificates(files.clone()).await?;
        Client::build_with_tls(info, certificates)
            .map_err(|error| Error::config("a certificate or key file for Redis is not in PEM form").with_source(error))
    }

    fn connection_info(&self) -> redis::RedisResult<ConnectionInfo> {
        let RedisConfig { host, port, username, password, database, tls, .. } = &self.config;
        let address = if tls.files().is_some() {
            ConnectionAddr::TcpTls { host: host.clone(), port: *port, insecure: false, tls_params: None }
        } else {
            ConnectionAddr::Tcp(host.clone(), *port)
        };
        // The third protocol is what lets the client library tell us at once that a connection ended.
        let mut login = RedisConnectionInfo::default()
            .set_protocol(ProtocolVersion::RESP3)
            .set_lib_name(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"))
            .set_db(i64::from(*database));
        if let Some(username) = username {
            login = login.set_username(username);
        }
        if let Some(password) = password {
            login = login.set_password(password.expose_secret());
        }
        Ok(address.into_connection_info()?.set_tcp_settings(socket_settings()).set_redis_settings(login))
    }
}

fn socket_settings() -> TcpSettings {
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_EVERY);
    let settings = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive);
    #[cfg(any(target_os = "linux", target_os = "android", target_os = "fuchsia"))]
    let settings = settings.set_user_timeout(UNCONFIRMED_LIMIT);
    #[cfg(not(any(target_os = "linux", target_os = "android", target_os = "fuchsia")))]
    let _ = UNCONFIRMED_LIMIT;
    settings
}

/// Reads the files anew for each connection, so that renewed certificates are taken up.
async fn read_certificates(files: TlsFiles) -> Result<TlsCertificates> {
    let reading = tokio::task::spawn_blocking(move || {
        let client_tls = match (&files.cert_file, &files.key_file) {
            (Some(certificate), Some(key)) => {
                Some(ClientTlsConfig { client_cert: read(certificate)?, client_key: read(key)? })
            }
            _ => None,
        };
        let root_cert = files.ca_file.as_deref().map(read).transpose()?;
        Ok(TlsCertificates { client_tls, root_cert })
    });
    reading.await.map_err(|error| Error::internal("the certificates could not be read").with_source(error))?
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path)
        .map_err(|error| Error::config(format!("cannot read {}: {}", path.display(), error.kind())).with_source(error))
}
