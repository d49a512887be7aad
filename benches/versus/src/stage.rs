//! One store with its server, and everybody who is measured on it.

use std::path::Path;

use anyhow::Context;
use tempfile::TempDir;

use crate::drive::Runner;
use crate::library::{Library, Variant};
use crate::opendal::{OpenDal, Program};
use crate::support::{Nats, Postgres, PostgresOptions, Process, Redis, Server};
use crate::workload::Workload;
use crate::{jetstream, memory, postgres, redis, sqlite};

/// What is measured on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Backend {
    Postgres,
    Sqlite,
    Redis,
    Jetstream,
    Memory,
}

impl Backend {
    pub const ALL: [Self; 5] = [Self::Postgres, Self::Sqlite, Self::Redis, Self::Jetstream, Self::Memory];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Sqlite => "sqlite",
            Self::Redis => "redis",
            Self::Jetstream => "jetstream",
            Self::Memory => "memory",
        }
    }
}

/// A store whose server runs for as long as this is there.
pub enum Stage {
    Postgres { server: Postgres, ours: String, theirs: String, journal: TempDir },
    Sqlite(TempDir),
    Redis(Redis),
    Jetstream(Nats),
    Memory,
}

impl Stage {
    /// Starts what the store needs, with its data in a folder of its own within `folder`.
    pub fn set(backend: Backend, folder: &Path) -> anyhow::Result<Self> {
        warn_of_memory(folder);
        // The first call counts, and there is one folder in a run.
        let _ = tempfile::env::override_temp_dir(folder);
        let needed = |server: Server| server.locate().map_err(anyhow::Error::msg);
        Ok(match backend {
            Backend::Postgres => {
                needed(Server::Postgres)?;
                let settings = vec![("synchronous_commit", "on".to_owned()), ("shared_buffers", "256MB".to_owned())];
                let server = Postgres::start(PostgresOptions { fsync: true, settings, ..PostgresOptions::default() });
                let (ours, theirs) = (server.create_database(), server.create_database());
                let journal = tempfile::tempdir().context("no folder for the journal")?;
                Self::Postgres { server, ours, theirs, journal }
            }
            Backend::Sqlite => Self::Sqlite(tempfile::tempdir().context("no folder for SQLite")?),
            Backend::Redis => {
                needed(Server::Redis)?;
                Self::Redis(Redis::start(&[]))
            }
            Backend::Jetstream => {
                needed(Server::Nats)?;
                Self::Jetstream(Nats::start(true, ""))
            }
            Backend::Memory => Self::Memory,
        })
    }

    /// The configuration of the library's side of this store.
    pub fn config(&self) -> String {
        match self {
            Self::Postgres { server, ours, journal, .. } => {
                let (url, journal) = (server.url(ours), journal.path().display());
                format!("type: postgres, url: '{url}', journal: {{ path: '{journal}' }}")
            }
            Self::Sqlite(folder) => format!("type: sqlite, path: '{}'", folder.path().join("ours.db").display()),
            Self::Redis(server) => format!("type: redis, url: '{}', keyPrefix: 'ours:'", server.url()),
            Self::Jetstream(server) => format!("type: jetstream, url: '{}', bucket: ours", server.url()),
            Self::Memory => "type: in-memory".to_owned(),
        }
    }

    /// Our side of this store.
    pub async fn library(&self, variant: Variant) -> anyhow::Result<Library> {
        match self {
            Self::Postgres { .. } | Self::Sqlite(_) => Library::database(&self.config(), variant).await,
            Self::Redis(_) | Self::Jetstream(_) => Library::cache(&self.config(), variant).await,
            Self::Memory => Library::memory().await,
        }
    }

    /// The process of its server.
    pub fn process(&self) -> anyhow::Result<&Process> {
        match self {
            Self::Postgres { server, .. } => Ok(server),
            Self::Redis(server) => Ok(server),
            Self::Jetstream(server) => Ok(server),
            Self::Sqlite(_) | Self::Memory => anyhow::bail!("{} has no server", self.backend().name()),
        }
    }

    /// Whether a variant differs from the default: memory is never batched, and it and SQLite have no fallback.
    const fn knows(&self, variant: Variant) -> bool {
        match variant {
            Variant::Default => true,
            Variant::Lanes(_) | Variant::Unbatched => !matches!(self, Self::Memory),
            Variant::Unchained => !matches!(self, Self::Memory | Self::Sqlite(_)),
        }
    }

    /// Everybody, in the order they take their turns in a round.
    pub async fn contenders(
        &self,
        variants: &[Variant],
        opendal: Option<&Program>,
        work: &'static Workload,
    ) -> anyhow::Result<Vec<Box<dyn Runner>>> {
        let mut contenders: Vec<Box<dyn Runner>> = Vec::new();
        for variant in variants {
            if self.knows(*variant) {
                contenders.push(Box::new(self.library(*variant).await?));
            }
        }
        match self {
            Self::Postgres { server, theirs, .. } => {
                let url = server.url(theirs);
                contenders.push(Box::new(postgres::Plain::connect(&url).await?));
                contenders.push(Box::new(postgres::Batched::connect(&url).await?));
            }
            Self::Sqlite(folder) => {
                let path = folder.path().join("theirs.db");
                contenders.push(Box::new(sqlite::Plain::open(&path)?));
                contenders.push(Box::new(sqlite::Batched::open(&path)?));
                contenders.push(Box::new(sqlite::Loop::open(&path)?));
            }
            Self::Redis(server) => {
                contenders.push(Box::new(redis::Plain::connect(&server.url()).await?));
                contenders.push(Box::new(redis::Batched::connect(&server.url()).await?));
            }
            Self::Jetstream(server) => {
                contenders.push(Box::new(jetstream::Plain::connect(&server.url()).await?));
                contenders.push(Box::new(jetstream::Batched::connect(&server.url()).await?));
                contenders.push(Box::new(jetstream::Batched::on_ours(&server.url()).await?));
            }
            Self::Memory => {
                contenders.push(Box::new(memory::Backend::new(work)?));
                contenders.push(Box::new(memory::Moka::new()));
                contenders.push(Box::new(memory::Quick::new()));
            }
        }
        if let (Some(program), Some(address)) = (opendal, self.opendal_address().await?) {
            contenders.push(Box::new(OpenDal::start(program, self.backend().name(), &address).await?));
        }
        Ok(contenders)
    }

    /// Where OpenDAL finds this store, with the table it needs; none if it has no service for it.
    async fn opendal_address(&self) -> anyhow::Result<Option<String>> {
        Ok(match self {
            Self::Postgres { server, theirs, .. } => {
                let url = server.url(theirs);
                postgres::make_opendal_table(&url).await?;
                Some(url)
            }
            Self::Sqlite(folder) => {
                let path = folder.path().join("opendal.db");
                sqlite::make_opendal_table(&path)?;
                Some(format!("sqlite://{}", path.display()))
            }
            Self::Redis(server) => Some(format!("redis://{}:{}", server.host(), server.port())),
            Self::Jetstream(_) | Self::Memory => None,
        })
    }

    pub const fn backend(&self) -> Backend {
        match self {
            Self::Postgres { .. } => Backend::Postgres,
            Self::Sqlite(_) => Backend::Sqlite,
            Self::Redis(_) => Backend::Redis,
            Self::Jetstream(_) => Backend::Jetstream,
            Self::Memory => Backend::Memory,
        }
    }
}

/// A file system in memory forces nothing to a disk, so what is measured on it means little.
fn warn_of_memory(folder: &Path) {
    const TMPFS_MAGIC: i64 = 0x0102_1994;
    #[cfg(target_os = "linux")]
    if rustix::fs::statfs(folder).is_ok_and(|stat| i64::from(stat.f_type) == TMPFS_MAGIC) {
        eprintln!("{} is in memory: durable writes cost nothing there. Choose a disk with --folder.", folder.display());
    }
}
