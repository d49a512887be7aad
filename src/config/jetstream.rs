//! A NATS JetStream key-value bucket: [`JetstreamConfig`].

use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use validator::Validate;

use super::rules;
use super::tls::Tls;

/// A JetStream cache: where the servers are, who we are, and how the bucket is made.
///
/// The bucket keeps one value a key: a deeper history would bring an older value back when a newer one expires.
#[derive(Clone, Debug, Validate)]
#[validate(schema(function = "rules::jetstream", skip_on_field_errors = false))]
#[non_exhaustive]
pub struct JetstreamConfig {
    /// The servers of one cluster, at least one; any of them may be used. `127.0.0.1:4222` by default.
    #[validate(nested)]
    pub servers: Vec<NatsServer>,
    /// Who we are to the server.
    pub auth: NatsAuth,
    /// Whether the connection must be encrypted. With [`Tls::Off`] it still is if the server demands it.
    #[validate(nested)]
    pub tls: Tls,
    /// The bucket's name: letters, digits, `_` and `-`. `agent-storage` by default.
    #[validate(custom(function = "rules::bucket"))]
    pub bucket: String,
    /// Whether a bucket that is missing is made. `true` by default.
    pub create_bucket: bool,
    /// How many servers hold the bucket: 1 to 5, best odd. 1 by default.
    #[validate(range(min = 1, max = 5, message = "must be from 1 to 5"))]
    pub replicas: u8,
    /// Where the servers keep the bucket. On disk by default.
    pub storage: StreamStorage,
    /// The bytes the bucket may take; a write beyond them fails. No limit of its own by default.
    #[validate(range(min = 1, max = 9_223_372_036_854_775_807_u64, message = "must be from 1 to 8 EiB"))]
    pub max_bytes: Option<u64>,
    /// The bytes one value may take, besides the server's own limit (1 MiB unless configured otherwise).
    #[validate(range(min = 1, max = 2_147_483_647_u32, message = "must be from 1 byte to 2 GiB"))]
    pub max_value_bytes: Option<u32>,
    /// How long an entry lives that was written without a TTL of its own. For ever by default.
    #[validate(custom(function = "rules::bucket_age"))]
    pub ttl: Option<Duration>,
    /// Whether the servers compress what they keep on disk. `false` by default.
    pub compression: bool,
    /// A few words that the server shows beside the bucket's name.
    pub description: Option<String>,
    /// On which servers of a larger system the bucket may live.
    pub placement: Option<Placement>,
    /// Which servers answer reads. The leader by default.
    pub reads: ReadFrom,
    /// How long making a connection may take. 5 s by default.
    #[validate(custom(function = "rules::wait"))]
    pub connection_timeout: Duration,
}

impl Default for JetstreamConfig {
    fn default() -> Self {
        Self {
            servers: vec![NatsServer::default()],
            auth: NatsAuth::None,
            tls: Tls::Off,
            bucket: "agent-storage".to_owned(),
            create_bucket: true,
            replicas: 1,
            storage: StreamStorage::File,
            max_bytes: None,
            max_value_bytes: None,
            ttl: None,
            compression: false,
            description: None,
            placement: None,
            reads: ReadFrom::Leader,
            connection_timeout: Duration::from_secs(5),
        }
    }
}

impl JetstreamConfig {
    /// Makes a configuration for one server, everything else as by default.
    #[must_use]
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self { servers: vec![NatsServer::new(host, port)], ..Self::default() }
    }
}

/// The address of a NATS server.
#[derive(Clone, Debug, PartialEq, Eq, Validate)]
#[non_exhaustive]
pub struct NatsServer {
    /// The host name or address.
    #[validate(custom(function = "rules::host"))]
    pub host: String,
    /// The port for clients.
    #[validate(range(min = 1, message = "must be from 1 to 65535"))]
    pub port: u16,
}

impl NatsServer {
    /// Makes an address.
    #[must_use]
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self { host: host.into(), port }
    }
}

impl Default for NatsServer {
    /// `127.0.0.1:4222`.
    fn default() -> Self {
        Self::new("127.0.0.1", 4222)
    }
}

/// Who we are to a NATS server.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum NatsAuth {
    /// Nobody in particular.
    #[default]
    None,
    /// A user with a password.
    User {
        /// The user's name.
        username: String,
        /// The user's password.
        password: SecretString,
    },
    /// A token that all clients share.
    Token(SecretString),
    /// A `.creds` file with a user's JWT and seed.
    CredentialsFile(PathBuf),
    /// The seed of an NKey (`SU...`).
    NkeySeed(SecretString),
}

/// Where a server keeps a bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum StreamStorage {
    /// On disk.
    #[default]
    File,
    /// In memory: gone when the server ends.
    Memory,
}

/// On which servers of a larger system a bucket may live.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Placement {
    /// The cluster's name.
    pub cluster: Option<String>,
    /// Tags that each server must carry.
    pub tags: Vec<String>,
}

/// Which servers answer reads of a bucket with several replicas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadFrom {
    /// The leader: a read sees every write that was acknowledged before it.
    #[default]
    Leader,
    /// Any replica: spreads the load, but may answer with an older value, or with none, right after a write.
    Direct,
}
