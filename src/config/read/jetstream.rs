//! `type: jetstream`.

use secrecy::ExposeSecret;

use super::node::Place;
use super::reader::{Field, Reader};
use super::redis::{at, encryption};
use super::section::{agree, section, set};
use super::url::{Parts, UrlText, shown, split};
use super::value::{Bytes, FilePath, Millis, NoEffect, Secret, Span, words};
use crate::config::jetstream::{JetstreamConfig, NatsAuth, NatsServer, Placement, ReadFrom, StreamStorage};
use crate::config::tls::{Tls, TlsFiles};

words!(StreamStorage { "file" => File, "memory" => Memory });
words!(ReadFrom { "leader" => Leader, "direct" => Direct });

section! {
    /// A NATS JetStream key-value bucket, server 2.11 or later.
    JetstreamSection {
        /// A server, as `nats://host:port`, or several with commas between them; `tls://` is encrypted.
        "url" => url: UrlText;
        /// The servers of one cluster, each as `nats://host:port` or `host:port`.
        "servers" => servers: Vec<UrlText> = ["nats://127.0.0.1:4222"];
        /// The user's name.
        "username" => username: String;
        /// The user's password. Best from a variable: `$NATS_PASSWORD`.
        "password" => password: Secret;
        /// A token that all clients share.
        "token" => token: Secret;
        /// A `.creds` file with a user's JWT and seed.
        "credentialsFile" => credentials_file: FilePath;
        /// The seed of an NKey (`SU...`).
        "nkeySeed" => nkey_seed: Secret;
        /// Whether the connection is encrypted, the certificate checked; or a mapping with the files for it.
        "tls" => tls: Tls = false;
        /// Another name for `tls`.
        "ssl" => ssl: Tls;
        /// The bucket's name: letters, digits, `_` and `-`.
        "bucket" => bucket: String = "agent-storage";
        /// Whether a bucket that is missing is made.
        "createBucket" => create_bucket: bool = true;
        /// How many servers hold the bucket: 1 to 5, best odd.
        "replicas" => replicas: u8 = 1;
        /// Where the servers keep the bucket.
        "storage" => storage: StreamStorage = "file";
        /// The bytes the bucket may take; a write beyond them fails. No limit of its own by default.
        "maxBytes" => max_bytes: Bytes;
        /// The bytes one value may take, besides the server's own limit.
        "maxValueBytes" => max_value_bytes: Bytes;
        /// How long an entry lives that was written without a TTL of its own. For ever by default.
        "ttl" => ttl: Span;
        /// Whether the servers compress what they keep on disk.
        "compression" => compression: bool = false;
        /// A few words that the server shows beside the bucket's name.
        "description" => description: String;
        /// On which servers of a larger system the bucket may live.
        "placement" => placement: PlacementSection;
        /// Which servers answer reads: the leader, or any replica (`direct`), which may answer with an older value.
        "reads" => reads: ReadFrom = "leader";
        /// How long making a connection may take.
        "connectionTimeout" => connection_timeout: Span = "5s";
        /// `connectionTimeout` in milliseconds.
        "connectionTimeoutMillis" => connection_timeout_millis: Millis;
        /// Has no effect: one connection carries any number of calls at once.
        "maxConnections" => _max_connections: NoEffect;
        /// Has no effect: the connection stays open.
        "idleTimeoutMillis" => _idle_timeout_millis: NoEffect;
        /// Has no effect: options of another client library.
        "options" => _options: NoEffect;
    }
}

section! {
    /// On which servers of a larger system the bucket may live.
    PlacementSection {
        /// The cluster's name.
        "cluster" => cluster: String;
        /// Tags that each server must carry.
        "tags" => tags: Vec<String>;
    }
}

impl JetstreamSection {
    /// Brings together what is said by URLs and by parts.
    pub(super) fn config(self, reader: &mut Reader<'_>) -> JetstreamConfig {
        let mut config = JetstreamConfig::default();
        let mut urls = Urls::default();
        urls.read(self.url, self.servers, reader);
        set(&mut config.servers, urls.servers);
        let tls = agree(self.tls, self.ssl, reader);
        set(&mut config.tls, encryption(urls.tls, tls, reader));
        let credentials = Credentials {
            username: agree(urls.username, self.username, reader),
            password: agree(urls.password, self.password, reader),
            token: agree(urls.token, self.token, reader),
            credentials_file: self.credentials_file,
            nkey_seed: self.nkey_seed,
        };
        config.auth = credentials.auth(reader);

        set(&mut config.bucket, self.bucket);
        set(&mut config.create_bucket, self.create_bucket);
        set(&mut config.replicas, self.replicas);
        set(&mut config.storage, self.storage);
        config.max_bytes = self.max_bytes.map(|field| field.value.0);
        config.max_value_bytes = self.max_value_bytes.map(|field| u32::try_from(field.value.0).unwrap_or(u32::MAX));
        config.ttl = self.ttl.map(|field| field.value.0);
        if let Some(compression) = &self.compression
            && compression.value
            && config.storage == StreamStorage::Memory
        {
            reader.warn(&compression.place, "has no effect on a bucket in memory; take it out, or set `storage: file`");
        }
        set(&mut config.compression, self.compression);
        config.description = self.description.map(|field| field.value);
        let placement = self.placement.map(|field| Placement {
            cluster: field.value.cluster.map(|field| field.value),
            tags: field.value.tags.map(|field| field.value).unwrap_or_default(),
        });
        config.placement = placement.filter(|placement| *placement != Placement::default());
        set(&mut config.reads, self.reads);
        let millis = self.connection_timeout_millis.map(|field| field.map(Span::from));
        set(&mut config.connection_timeout, agree(self.connection_timeout, millis, reader));
        config
    }
}

/// What the URLs of all servers say together.
#[derive(Default)]
struct Urls {
    servers: Option<Field<Vec<NatsServer>>>,
    username: Option<Field<String>>,
    password: Option<Field<Secret>>,
    token: Option<Field<Secret>>,
    tls: Option<Field<Tls>>,
}

impl Urls {
    fn read(&mut self, url: Option<Field<UrlText>>, list: Option<Field<Vec<UrlText>>>, reader: &mut Reader<'_>) {
        let url = url.map(|field| field.map(|text| addresses(&text)));
        let list = list.map(|field| field.map(|texts| texts.iter().flat_map(addresses).collect()));
        let Some(Field { value: texts, place }) = agree(url, list, reader) else { return };
        let count = texts.len();
        let mut servers = Vec::new();
        for text in texts {
            match split(&text, &["nats", "tls"], "nats://host:port") {
                Ok(parts) => servers.push(self.server(parts, &place, reader)),
                Err(message) => reader.problem(&place, message),
            }
        }
        // One that was wrong is reported; that fewer are left is no further problem.
        self.servers = (servers.len() == count).then_some(Field { value: servers, place });
    }

    fn server(&mut self, parts: Parts, place: &Place, reader: &mut Reader<'_>) -> NatsServer {
        for (name, _) in &parts.query {
            reader.warn(place, format!("has a parameter `{}` that has no effect", shown(name)));
        }
        if parts.path.is_some() {
            reader.problem(place, "has a path behind the port; NATS has none");
        }
        // A user without a password is a token, as the NATS clients have it.
        let (username, token) = match (parts.username, &parts.password) {
            (Some(token), None) => (None, Secret::new(&token)),
            (username, _) => (username, None),
        };
        // `nats://` leaves it open whether the connection is encrypted; one server that must be means all.
        let tls = (parts.scheme == "tls").then(|| Tls::Verified(TlsFiles::default()));
        self.username = agree(self.username.take(), at(place, username), reader);
        self.password = agree(self.password.take(), at(place, parts.password), reader);
        self.token = agree(self.token.take(), at(place, token), reader);
        self.tls = self.tls.take().or(at(place, tls));
        let default = NatsServer::default();
        NatsServer::new(parts.host.unwrap_or(default.host), parts.port.unwrap_or(default.port))
    }
}

/// The URLs of a text with commas; an address without a scheme is a plain one.
fn addresses(text: &UrlText) -> Vec<String> {
    let texts = text.0.0.expose_secret().split(',').map(str::trim).filter(|text| !text.is_empty());
    texts.map(|text| if text.contains("://") { text.to_owned() } else { format!("nats://{text}") }).collect()
}

/// The ways to say who we are, of which one may be used.
struct Credentials {
    username: Option<Field<String>>,
    password: Option<Field<Secret>>,
    token: Option<Field<Secret>>,
    credentials_file: Option<Field<FilePath>>,
    nkey_seed: Option<Field<Secret>>,
}

impl Credentials {
    fn auth(self, reader: &mut Reader<'_>) -> NatsAuth {
        self.refuse_several(reader);
        match (self.username, self.password) {
            (Some(username), Some(password)) => {
                return NatsAuth::User { username: username.value, password: password.value.0 };
            }
            (Some(lone), None) => reader.problem(&lone.place, "needs a `password` beside it"),
            (None, Some(lone)) => reader.problem(&lone.place, "needs a `username` beside it"),
            (None, None) => {}
        }
        if let Some(token) = self.token {
            NatsAuth::Token(token.value.0)
        } else if let Some(file) = self.credentials_file {
            NatsAuth::CredentialsFile(file.value.0)
        } else if let Some(seed) = self.nkey_seed {
            NatsAuth::NkeySeed(seed.value.0)
        } else {
            NatsAuth::None
        }
    }

    fn refuse_several(&self, reader: &mut Reader<'_>) {
        let mut ways = [
            self.username.as_ref().map(|field| &field.place),
            self.token.as_ref().map(|field| &field.place),
            self.credentials_file.as_ref().map(|field| &field.place),
            self.nkey_seed.as_ref().map(|field| &field.place),
        ]
        .into_iter()
        .flatten();
        if let (Some(first), Some(second)) = (ways.next(), ways.next()) {
            reader.problem(second, format!("is a second way to say who we are, beside `{}`; keep one", first.path));
        }
    }
}
