//! A private PostgreSQL.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Server;
use crate::support::process::{self, Launch, Process};

/// The superuser, who makes databases and looks on.
const SUPERUSER: &str = "postgres";

/// The role the tests log in with: it owns their databases and is no superuser, as in production.
const USER: &str = "agent";

/// The password of both.
const PASSWORD: &str = "correct-horse";

static SHARED: OnceLock<Postgres> = OnceLock::new();

/// How a PostgreSQL is set up.
pub struct PostgresOptions {
    /// How many connections it takes; 200 by default.
    pub max_connections: u32,
    /// Whether a commit waits for the disk; not by default.
    pub fsync: bool,
    /// Further settings of `postgresql.conf`.
    pub settings: Vec<(&'static str, String)>,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self { max_connections: 200, fsync: false, settings: Vec::new() }
    }
}

/// A PostgreSQL with password authentication, whose databases are in UTF8 and sort by a language's rules: `COLLATE "C"` must
/// be asked for where byte order is meant.
pub struct Postgres {
    process: Process,
    bin: PathBuf,
    databases: AtomicU64,
}

impl Postgres {
    /// The one of this test process, started on first use. Do not freeze, kill or stop it: others use it too.
    pub fn shared() -> &'static Self {
        SHARED.get_or_init(|| Self::start(PostgresOptions::default()))
    }

    /// Starts one of its own; it ends when dropped.
    pub fn start(options: PostgresOptions) -> Self {
        let server = Self::start_in(options, init);
        server.query("postgres", &format!("CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}'"));
        server
    }

    /// Starts one with a copy of the data folder of another one, as it was when that was stopped.
    pub fn start_with(data: &Path) -> Self {
        Self::start_in(PostgresOptions::default(), |_, folder| {
            give_to_user(folder);
            copy_folder(data, &folder.join("data"));
        })
    }

    fn start_in(options: PostgresOptions, prepare: impl FnOnce(&Path, &Path)) -> Self {
        let bin = Server::Postgres.locate().expect("PostgreSQL is installed").to_owned();
        let launch = |port: u16, folder: &Path| Launch {
            command: server_command(&bin, folder, port, &options),
            ready: {
                let mut ask = Command::new(bin.join("pg_isready"));
                ask.args(["-q", "-h", "127.0.0.1", "-t", "2", "-p", &port.to_string()]);
                let ask = std::sync::Mutex::new(ask);
                Box::new(move || ask.lock().is_ok_and(|mut ask| ask.status().is_ok_and(|status| status.success())))
            },
        };
        let process = Process::start(|folder| prepare(&bin, folder), launch);
        Self { process, bin, databases: AtomicU64::new(0) }
    }

    /// Has it offer TLS from now on, with `server.pem`, its key `server.key`, and `ca.pem` for those of clients.
    pub fn offer_tls(&self, certificates: &Path) {
        for (setting, name) in [("cert", "server.pem"), ("key", "server.key"), ("ca", "ca.pem")] {
            let file = self.folder().join(name);
            std::fs::copy(certificates.join(name), &file).expect("the server's folder takes files");
            give_to_user(&file);
            #[cfg(unix)]
            std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600))
                .expect("the file is ours");
            self.query("postgres", &format!("ALTER SYSTEM SET ssl_{setting}_file = '{}'", file.display()));
        }
        self.query("postgres", "ALTER SYSTEM SET ssl = on");
        self.query("postgres", "SELECT pg_reload_conf()");
        assert!(process::wait_until(|| self.query("postgres", "SHOW ssl") == "on"), "TLS is not offered");
    }

    /// Makes an empty database and says its name.
    pub fn create_database(&self) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.query("postgres", &format!("CREATE DATABASE {name} OWNER {USER}"));
        name
    }

    /// Removes a database, with whoever is connected to it.
    pub fn drop_database(&self, name: &str) {
        self.query("postgres", &format!("UPDATE pg_database SET datallowconn = false WHERE datname = '{name}'"));
        let end = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'");
        self.query("postgres", &end);
        assert!(
            process::wait_until(|| self.try_query("postgres", &format!("DROP DATABASE IF EXISTS {name}")).is_ok()),
            "{name} cannot be dropped"
        );
    }

    /// The role to log in with; it owns the databases and is no superuser.
    pub fn user(&self) -> &'static str {
        USER
    }

    /// The role's password.
    pub fn password(&self) -> &'static str {
        PASSWORD
    }

    /// The URL of a database for the role, with its password.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{USER}:{PASSWORD}@{}:{}/{database}", self.host(), self.port())
    }

    /// Runs SQL as the superuser, over a connection of its own: the rows a line each, the columns separated by `|`.
    pub fn query(&self, database: &str, sql: &str) -> String {
        self.try_query(database, sql).unwrap_or_else(|problem| panic!("{sql}: {problem}"))
    }

    /// As [`Postgres::query`], with what the server said if it refuses.
    pub fn try_query(&self, database: &str, sql: &str) -> Result<String, String> {
        let mut psql = Command::new(self.bin.join("psql"));
        psql.args([
            "-X",
            "-q",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-h",
            self.host(),
            "-U",
            SUPERUSER,
            "-d",
            database,
        ]);
        psql.args(["-p", &self.port().to_string(), "-c", sql]);
        psql.env("PGPASSWORD", PASSWORD).env("PGCONNECT_TIMEOUT", "10").env("PGCLIENTENCODING", "UTF8");
        let output = psql.output().expect("psql can be started");
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned()),
            false => Err(String::from_utf8_lossy(&output.stderr).trim_end().to_owned()),
        }
    }

    /// Freezes one backend, by the number that its connection reads from `pg_backend_pid()`; all others run on.
    pub fn freeze_backend(&self, pid: u32) {
        assert!(process::children_of(self.pid()).contains(&pid), "{pid} is no backend of this server");
        process::freeze_family(pid);
    }

    /// Lets a frozen backend run on.
    pub fn thaw_backend(&self, pid: u32) {
        process::thaw_family(pid);
    }
}

impl Deref for Postgres {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

pub(super) fn stop_shared() {
    if let Some(server) = SHARED.get() {
        server.kill();
    }
}

/// Copies a data folder with owners and modes: the server is particular about them.
pub fn copy_folder(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp can be started");
    assert!(copied.success(), "{} cannot be copied", from.display());
}

fn server_command(bin: &Path, folder: &Path, port: u16, options: &PostgresOptions) -> Command {
    let mut command = Command::new(bin.join("postgres"));
    command.arg("-D").arg(folder.join("data"));
    let fsync = if options.fsync { "on" } else { "off" };
    let settings = [
        ("port", port.to_string()),
        ("listen_addresses", "127.0.0.1".to_owned()),
        ("unix_socket_directories", String::new()),
        ("max_connections", options.max_connections.to_string()),
        ("fsync", fsync.to_owned()),
        ("full_page_writes", fsync.to_owned()),
    ];
    for (name, value) in settings.iter().chain(&options.settings) {
        command.arg("-c").arg(format!("{name}={value}"));
    }
    as_user(&mut command);
    command
}

/// Makes the data folder, with databases that sort as English does where this PostgreSQL can.
fn init(bin: &Path, folder: &Path) {
    let password = folder.join("password");
    std::fs::write(&password, PASSWORD).expect("a file can be written");
    give_to_user(folder);
    give_to_user(&password);
    // From version 15 a whole cluster can sort by ICU, which needs no locale of the system.
    let icu: &[&str] = &["--locale=C", "--locale-provider=icu", "--icu-locale=en-US"];
    let outcomes = [icu, &["--locale=en_US.UTF-8"], &["--locale=C"]].map(|locale| {
        // Each is tried only if those before it failed.
        if folder.join("data/PG_VERSION").exists() {
            return String::new();
        }
        let mut command = Command::new(bin.join("initdb"));
        command.args(["--no-sync", "--encoding=UTF8", "--auth=scram-sha-256", "-U", SUPERUSER]);
        command.args(locale).arg("--pwfile").arg(&password).arg("-D").arg(folder.join("data"));
        command.current_dir(folder);
        as_user(&mut command);
        let output = command.output().expect("initdb can be started");
        String::from_utf8_lossy(&output.stderr).into_owned()
    });
    assert!(folder.join("data/PG_VERSION").exists(), "initdb failed: {outcomes:#?}");
}

/// The user and group to run as when the tests run as root, which PostgreSQL refuses to.
#[cfg(unix)]
fn other_user() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let numbers = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2).map(str::parse);
        Some((fields.next()?.ok()?, fields.next()?.ok()?))
    };
    Some(numbers("postgres").or_else(|| numbers("nobody")).expect("a user besides root"))
}

#[cfg(unix)]
pub(super) fn as_user(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    if let Some((user, group)) = other_user() {
        command.uid(user).gid(group);
    }
}

/// Gives a file or folder to the user that the server runs as.
#[cfg(unix)]
pub fn give_to_user(path: &Path) {
    if let Some((user, group)) = other_user() {
        std::os::unix::fs::chown(path, Some(user), Some(group)).expect("root can give a file away");
    }
}

#[cfg(not(unix))]
pub(super) fn as_user(_: &mut Command) {}

#[cfg(not(unix))]
pub fn give_to_user(_: &Path) {}
