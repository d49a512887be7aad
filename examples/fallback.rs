//! A database that goes away in the middle of a conversation, and a conversation that goes on.
//!
//! It starts a PostgreSQL of its own in a temporary folder, stops it, goes on appending, starts it again, and shows every message
//! there: in order, each once. It ends its server however it ends itself, also by Ctrl-C.
//!
//! ```text
//! cargo run --example fallback --features postgres
//! cargo run --example fallback --features postgres -- by-hand
//! ```
//!
//! With `by-hand` it goes on talking until Ctrl-C, and you are the outage: it says how to kill, freeze and thaw its server from
//! another terminal. A server that was killed is started again ten seconds later. In the end every message must be there as well.
//!
//! The programs of PostgreSQL 12 or later must be installed; their folder may be given in `STORAGE_POSTGRES_BIN`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example shows what it does")]

use std::error::Error;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use agent_storage::chain::ChainState;
use agent_storage::{Database, StorageManager};
use tempfile::TempDir;

const CONVERSATION: &str = "messages:42";

/// How long a server that was killed by hand stays away.
const AWAY: Duration = Duration::from_secs(10);

/// How long the server may take to start, and the journal to be replayed.
const PATIENCE: Duration = Duration::from_secs(60);

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

#[tokio::main]
async fn main() -> ExitCode {
    let Some(programs) = Programs::find() else {
        println!("nothing was shown: PostgreSQL is not installed (on Debian and Ubuntu: apt-get install postgresql)");
        return ExitCode::SUCCESS;
    };
    let outcome = match std::env::args().nth(1).as_deref() {
        None => tokio::select! {
            outcome = run(programs) => outcome,
            // Whichever ends first, what it leaves behind ends with it: the server too.
            () = interrupted() => {
                eprintln!("interrupted");
                return ExitCode::from(130);
            }
        },
        Some("by-hand") => by_hand(programs).await,
        Some(other) => Err(format!("there is no {other:?}: say by-hand, or nothing").into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(programs: Programs) -> Outcome<()> {
    let mut server = Server::prepare(programs)?;
    server.start().await?;
    let (manager, database) = open(&server).await?;
    let Some(mut chain) = manager.watch_database_chain().await? else { return Err("no fallback is in force".into()) };

    say(&database, 1..=3).await?;
    server.stop()?;
    println!("-- the database is stopped; what is said now goes to the journal on this machine");
    say(&database, 4..=6).await?;
    match database.get("somebody-else").await {
        Err(error) => println!("a key that only the database knows is {}, not missing", error.kind().as_str()),
        Ok(_) => return Err("a read was answered by a database that is away".into()),
    }
    if let Some(status) = manager.database_chain() {
        println!("the storage is {}: {} operations are owed", status.state.as_str(), status.pending);
    }
    server.start().await?;
    println!("-- the database is back; what it is owed is replayed");
    tokio::time::timeout(PATIENCE, chain.wait_for(|status| status.state == ChainState::Normal)).await??;
    say(&database, 7..=7).await?;

    check(&database, 7).await?;
    manager.disconnect().await?;
    Ok(())
}

/// Talks until Ctrl-C, whatever is done to the server meanwhile.
async fn by_hand(programs: Programs) -> Outcome<()> {
    let mut server = Server::prepare(programs)?;
    server.start().await?;
    println!("{}", server.manual());
    let (manager, database) = open(&server).await?;
    let Some(mut chain) = manager.watch_database_chain().await? else { return Err("no fallback is in force".into()) };
    let transitions = tokio::spawn(async move {
        let mut state = ChainState::Normal;
        while let Ok(status) = chain.wait_for(|status| status.state != state).await {
            state = status.state;
            println!("-- the storage is {}: {} operations are owed", state.as_str(), status.pending);
        }
    });
    let mut over = std::pin::pin!(interrupted());
    let mut said = 0;
    loop {
        tokio::select! {
            () = &mut over => break,
            () = tokio::time::sleep(Duration::from_millis(500)) => {}
        }
        if server.has_been_away(AWAY)? {
            server.start().await?;
            println!("{}", server.manual());
        }
        say(&database, said + 1..=said + 1).await?;
        said += 1;
    }
    if server.has_been_away(Duration::ZERO)? {
        server.start().await?;
    }
    println!("-- {said} messages were said; a server that is frozen must be thawed now");
    let Some(mut chain) = manager.watch_database_chain().await? else { return Err("no fallback is in force".into()) };
    tokio::time::timeout(PATIENCE, chain.wait_for(|status| status.state == ChainState::Normal)).await??;
    transitions.abort();
    check(&database, said).await?;
    manager.disconnect().await?;
    Ok(())
}

async fn open(server: &Server) -> Outcome<(StorageManager, Database)> {
    let manager = StorageManager::from_yaml(&server.agent_yml())?;
    let database = manager.database().await?;
    Ok((manager, database))
}

/// Whether each message is there, in order and once.
async fn check(database: &Database, messages: u32) -> Outcome<()> {
    let said: Vec<String> = database.range_json(CONVERSATION, 0, -1).await?;
    let expected: Vec<String> = (1..=messages).map(message).collect();
    if said != expected {
        return Err(format!("the conversation is not what was said: {said:?}").into());
    }
    println!("{} messages, in order, each once", said.len());
    Ok(())
}

async fn say(database: &Database, numbers: impl Iterator<Item = u32> + Send) -> Outcome<()> {
    for number in numbers {
        let ack = database.append_json(CONVERSATION, &message(number)).await?;
        println!("{}: kept, durability {}", message(number), ack.durability.as_str());
    }
    Ok(())
}

fn message(number: u32) -> String {
    format!("message {number}")
}

/// Waits for Ctrl-C, or to be ended as a service is.
async fn interrupted() {
    #[cfg(unix)]
    if let Ok(mut terminated) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => return,
            _ = terminated.recv() => return,
        }
    }
    let _ = tokio::signal::ctrl_c().await;
}

/// The folder of PostgreSQL's programs.
struct Programs(PathBuf);

impl Programs {
    const NEEDED: [&str; 4] = ["initdb", "postgres", "pg_ctl", "pg_isready"];

    fn find() -> Option<Self> {
        let folders: Vec<PathBuf> = match std::env::var_os("STORAGE_POSTGRES_BIN") {
            Some(folder) => vec![folder.into()],
            None => {
                // Debian keeps the programs of each version out of `PATH`.
                let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
                let versions = versions.map(|version| version.path().join("bin"));
                versions.chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())).collect()
            }
        };
        let has_all = |folder: &PathBuf| Self::NEEDED.iter().all(|name| folder.join(name).is_file());
        folders.into_iter().find(has_all).map(Self)
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.0.join(name));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/");
        as_another_user(&mut command);
        command
    }

    fn run(&self, name: &str, change: impl FnOnce(&mut Command)) -> Outcome<()> {
        let mut command = self.command(name);
        change(command.stderr(Stdio::piped()));
        let output = command.output()?;
        if output.status.success() {
            return Ok(());
        }
        Err(format!("{name} failed: {}", String::from_utf8_lossy(&output.stderr)).into())
    }
}

/// A PostgreSQL in a temporary folder.
struct Server {
    programs: Programs,
    folder: TempDir,
    port: u16,
    password: String,
    running: Option<Child>,
    /// When it was first seen to have ended by itself.
    ended: Option<Instant>,
}

impl Server {
    fn prepare(programs: Programs) -> Outcome<Self> {
        let folder = TempDir::new()?;
        let password = format!("{:016x}", RandomState::new().build_hasher().finish());
        let file = folder.path().join("password");
        std::fs::write(&file, &password)?;
        give_away(folder.path())?;
        give_away(&file)?;
        programs.run("initdb", |command| {
            command.args(["--no-sync", "--encoding=UTF8", "--locale=C", "--auth=scram-sha-256", "--username=agent"]);
            command.arg("--pwfile").arg(&file).arg("-D").arg(folder.path().join("data"));
        })?;
        // A port that was free a moment ago.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        Ok(Self { programs, folder, port, password, running: None, ended: None })
    }

    async fn start(&mut self) -> Outcome<()> {
        let mut command = self.programs.command("postgres");
        command.arg("-D").arg(self.data()).args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]);
        self.ended = None;
        let child = self.running.insert(command.args(["-p", &self.port.to_string()]).spawn()?);
        let began = Instant::now();
        let asked = ["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()];
        while !self.programs.command("pg_isready").args(asked).status()?.success() {
            if let Some(status) = child.try_wait()? {
                return Err(format!("PostgreSQL ended as it started: {status}").into());
            }
            if began.elapsed() > PATIENCE {
                return Err("PostgreSQL does not take connections".into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        println!("PostgreSQL runs as process {}", child.id());
        Ok(())
    }

    fn stop(&mut self) -> Outcome<()> {
        let Some(mut child) = self.running.take() else { return Ok(()) };
        let data = self.data();
        let stopped = self.programs.run("pg_ctl", |command| {
            command.args(["stop", "--mode=immediate", "-D"]).arg(data);
        });
        if stopped.is_err() {
            child.kill()?;
        }
        child.wait()?;
        stopped
    }

    /// Whether it ended by itself, or was killed, so long ago.
    fn has_been_away(&mut self, time: Duration) -> Outcome<bool> {
        let Some(child) = &mut self.running else { return Ok(true) };
        let Some(status) = child.try_wait()? else { return Ok(false) };
        if self.ended.is_none() {
            println!("-- PostgreSQL ended: {status}");
        }
        Ok(self.ended.get_or_insert_with(Instant::now).elapsed() >= time)
    }

    /// What can be done to it from another terminal.
    fn manual(&self) -> String {
        let Some(child) = &self.running else { return String::new() };
        let all = format!("{0} $(pgrep -P {0})", child.id());
        format!("   kill it: kill -9 {all}\n   freeze:  kill -STOP {all}\n   thaw:    kill -CONT {all}\n   Ctrl-C ends")
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// As an application would have it in its file. A journal stands behind PostgreSQL by default.
    fn agent_yml(&self) -> String {
        let (port, password, journal) = (self.port, &self.password, self.folder.path().join("journal"));
        let journal = journal.display();
        format!(
            "storage:\n  database:\n    type: postgres\n    host: 127.0.0.1\n    port: {port}\n    user: agent\n    password: \
             '{password}'\n    database: postgres\n    journal:\n      path: '{journal}'\n    breaker:\n      probeInterval: 200ms\n"
        )
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("PostgreSQL did not end by itself and was killed: {error}");
        }
    }
}

/// PostgreSQL does not run as root. Where this does, as in a container, the user `postgres` or `nobody` stands in.
#[cfg(unix)]
fn another_user() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let numbers = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2).map(str::parse);
        Some((fields.next()?.ok()?, fields.next()?.ok()?))
    };
    numbers("postgres").or_else(|| numbers("nobody"))
}

#[cfg(unix)]
fn as_another_user(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    if let Some((user, group)) = another_user() {
        command.uid(user).gid(group);
    }
}

#[cfg(unix)]
fn give_away(path: &Path) -> std::io::Result<()> {
    another_user().map_or(Ok(()), |(user, group)| std::os::unix::fs::chown(path, Some(user), Some(group)))
}

#[cfg(not(unix))]
fn as_another_user(_: &mut Command) {}

#[cfg(not(unix))]
fn give_away(_: &Path) -> std::io::Result<()> {
    Ok(())
}
