//! What the tests need: which servers are installed, and where; and whether disks can be mounted.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The servers that must be there, by name and separated by commas; a missing one makes its tests fail.
const REQUIRE: &str = "STORAGE_REQUIRE";

/// Where `scripts/test` installs the NATS server, beneath the package's folder.
const PRIVATE_NATS: &str = "target/servers/nats/bin/nats-server";

/// A kind of server that a test needs, or what else may not be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Server {
    /// PostgreSQL 12 or later; its folder of programs may be given in `STORAGE_POSTGRES_BIN`.
    Postgres,
    /// Redis 6.2 or later, or Valkey; its program may be given in `STORAGE_REDIS_SERVER`.
    Redis,
    /// NATS 2.11 or later; its program may be given in `STORAGE_NATS_SERVER`.
    Nats,
    /// PgBouncer; its program may be given in `STORAGE_PGBOUNCER`.
    PgBouncer,
    /// Small disks, mounted where nobody else sees them: it takes root on Linux.
    Mounts,
}

impl Server {
    const ALL: [Self; 5] = [Self::Postgres, Self::Redis, Self::Nats, Self::PgBouncer, Self::Mounts];

    /// The name in `STORAGE_REQUIRE`: that of the crate's feature, where it has one.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Redis => "redis",
            Self::Nats => "jetstream",
            Self::PgBouncer => "pgbouncer",
            Self::Mounts => "mounts",
        }
    }

    /// The program, or for PostgreSQL the folder of its programs; or why there is none.
    pub fn locate(self) -> Result<&'static Path, &'static str> {
        static FOUND: [OnceLock<Result<PathBuf, String>>; Server::ALL.len()] =
            [const { OnceLock::new() }; Server::ALL.len()];
        let found = FOUND[self as usize].get_or_init(|| match self {
            _ if cfg!(not(unix)) => Err("servers are only started on Unix".to_owned()),
            Self::Postgres => find_postgres(),
            Self::Redis => find_redis(),
            Self::Nats => find_nats(),
            Self::PgBouncer => find_pgbouncer(),
            Self::Mounts => find_mounts(),
        });
        found.as_deref().map_err(String::as_str)
    }

    /// Whether `STORAGE_REQUIRE` names it.
    pub fn is_required(self) -> bool {
        static REQUIRED: OnceLock<BTreeSet<Server>> = OnceLock::new();
        REQUIRED.get_or_init(|| parse_required(&std::env::var(REQUIRE).unwrap_or_default())).contains(&self)
    }
}

fn parse_required(text: &str) -> BTreeSet<Server> {
    let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
    let server = |name| Server::ALL.into_iter().find(|server| server.name() == name);
    names.map(|name| server(name).unwrap_or_else(|| panic!("{REQUIRE} names an unknown server: {name}"))).collect()
}

fn find_postgres() -> Result<PathBuf, String> {
    let folders = match std::env::var_os("STORAGE_POSTGRES_BIN") {
        Some(folder) => vec![PathBuf::from(folder)],
        None => versioned_folders().into_iter().chain(path_folders()).collect(),
    };
    let complete = |folder: &PathBuf| {
        ["initdb", "postgres", "psql", "pg_isready"].iter().all(|program| folder.join(program).is_file())
    };
    let usable = folders.into_iter().filter(complete).filter_map(|folder| {
        let version = version_of(&folder.join("postgres"), "(PostgreSQL) ")?;
        (version >= (12, 0)).then_some((version, folder))
    });
    let newest = usable.max_by_key(|(version, _)| *version);
    newest.map(|(_, folder)| folder).ok_or_else(|| "no PostgreSQL 12 or later with its programs was found".to_owned())
}

/// Debian keeps the programs of each version out of `PATH`.
fn versioned_folders() -> Vec<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    versions.map(|version| version.path().join("bin")).collect()
}

fn find_redis() -> Result<PathBuf, String> {
    let programs = candidates("STORAGE_REDIS_SERVER", &["redis-server", "valkey-server"]);
    first_from(programs, "v=", (6, 2)).ok_or_else(|| "no redis-server 6.2 or later was found".to_owned())
}

fn find_nats() -> Result<PathBuf, String> {
    let mut programs = candidates("STORAGE_NATS_SERVER", &["nats-server"]);
    // Also from a package within this one, as the benchmark is.
    programs.extend(Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|folder| folder.join(PRIVATE_NATS)));
    first_from(programs, "nats-server: v", (2, 11)).ok_or_else(|| "no nats-server 2.11 or later was found".to_owned())
}

/// Debian keeps it where only root looks.
fn find_pgbouncer() -> Result<PathBuf, String> {
    let mut programs = candidates("STORAGE_PGBOUNCER", &["pgbouncer"]);
    programs.push(PathBuf::from("/usr/sbin/pgbouncer"));
    first_from(programs, "PgBouncer ", (1, 12)).ok_or_else(|| "no pgbouncer was found".to_owned())
}

/// The program that gives a process mounts of its own, if it may.
fn find_mounts() -> Result<PathBuf, String> {
    let program = PathBuf::from("unshare");
    let mut mount = Command::new(&program);
    mount.args(["--mount", "mount", "-t", "tmpfs", "none", "/tmp"]);
    let mounted = mount.output().is_ok_and(|output| output.status.success());
    mounted.then_some(program).ok_or_else(|| "no disk can be mounted; it takes root".to_owned())
}

fn candidates(variable: &str, names: &[&str]) -> Vec<PathBuf> {
    match std::env::var_os(variable) {
        Some(program) => vec![PathBuf::from(program)],
        None => names.iter().flat_map(|name| path_folders().into_iter().map(move |folder| folder.join(name))).collect(),
    }
}

fn path_folders() -> Vec<PathBuf> {
    std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default()
}

fn first_from(programs: Vec<PathBuf>, before_version: &str, minimum: (u32, u32)) -> Option<PathBuf> {
    programs
        .into_iter()
        .filter(|program| program.is_file())
        .find(|program| version_of(program, before_version).is_some_and(|version| version >= minimum))
}

/// The major and minor number that follow `before` in what `program --version` prints.
fn version_of(program: &Path, before: &str) -> Option<(u32, u32)> {
    let output = Command::new(program).arg("--version").output().ok()?;
    parse_version(&String::from_utf8_lossy(&output.stdout), before)
}

fn parse_version(text: &str, before: &str) -> Option<(u32, u32)> {
    let (_, version) = text.split_once(before)?;
    let mut numbers = version.split(|character: char| !character.is_ascii_digit()).map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next().flatten().unwrap_or(0)))
}
