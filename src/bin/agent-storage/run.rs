//! From arguments to an exit code: connects what the command needs, and ends cleanly whatever happens.

use std::path::Path;
use std::time::Duration;

use agent_storage::config::{DatabaseFallback, Fallback};
use agent_storage::{StorageConfig, StorageManager};
use tokio::signal;

use crate::arguments::{Arguments, Command, ConflictsCommand, JournalCommand, ListCommand, ValueCommand};
use crate::check;
use crate::exit::{Exit, Failure, complain};
use crate::output::Output;

/// How long closing may take after a Ctrl-C when nothing was being written.
const PATIENCE: Duration = Duration::from_millis(500);

/// Runs a command to its end, or to the first Ctrl-C or SIGTERM. Then what was being written is finished and the stores are closed; the
/// second one does not wait for that.
pub(crate) async fn run(arguments: Arguments) -> Exit {
    let output = Output::default();
    let on_its_way = arguments.command.on_its_way();
    let manager = match prepare(&arguments) {
        Ok(manager) => manager,
        Err(failure) => return check::refuse(&arguments, failure, &output).await,
    };
    let exit = tokio::select! {
        result = execute(arguments, &manager, &output) => result.unwrap_or_else(|failure| failure.report()),
        signal = interrupt() => {
            if let Some(what) = on_its_way {
                complain(&format!("interrupted; {what} (Ctrl-C again does not wait for it)"));
            }
            signal
        }
    };
    // A read that is given up leaves nothing to wait for; a write does, also on a server that hangs.
    let interrupted = matches!(exit, Exit::Interrupted | Exit::Terminated);
    let patience = if interrupted && on_its_way.is_none() { PATIENCE } else { Duration::MAX };
    let end = async {
        output.settle().await;
        let _ = tokio::time::timeout(patience, close(&manager)).await;
    };
    tokio::select! {
        () = end => exit,
        signal = interrupt() => signal,
    }
}

/// Reads the configuration, if the command needs one, and connects nothing.
fn prepare(arguments: &Arguments) -> Result<StorageManager, Failure> {
    let only_values = matches!(arguments.command, Command::Values(_));
    if arguments.cache && !only_values {
        let reason = match arguments.command {
            Command::Lists(_) => "lists are kept in the database; leave out --cache",
            _ => "--cache has no meaning here; leave it out",
        };
        return Err(Failure::Input(reason.to_owned()));
    }
    if matches!(arguments.command, Command::Schema) {
        return Ok(StorageManager::in_memory());
    }
    load(&arguments.config, &arguments.command)
}

fn load(path: &Path, command: &Command) -> Result<StorageManager, Failure> {
    // The problems one by one, for `check --json`; a manager made of a file has them as one text.
    let mut config = StorageConfig::from_file(path)?;
    for warning in config.warnings() {
        complain(&format!("warning: {warning}"));
    }
    if matches!(command, Command::Check(_)) {
        // A mark says that somebody must delete what is old in the cache; to look is not to start in its place.
        config.cache.chain.journal_path = None;
    }
    if matches!(command, Command::Values(_) | Command::Lists(_) | Command::Conflicts(_)) {
        // What stood in, in memory, would end with this process, and with it what it acknowledged.
        config.cache.fallback = Fallback::None;
        if matches!(config.database.fallback, Fallback::To(DatabaseFallback::Memory)) {
            config.database.fallback = Fallback::None;
        }
    }
    Ok(StorageManager::new(config))
}

async fn execute(arguments: Arguments, manager: &StorageManager, output: &Output) -> Result<Exit, Failure> {
    match arguments.command {
        Command::Check(check) => check.run(&arguments.config, manager, output).await,
        Command::Schema => {
            output.line(format!("{:#}", StorageConfig::json_schema())).await?;
            Ok(Exit::Done)
        }
        Command::Conflicts(command) => command.run(&manager.database().await?, output).await,
        Command::Reconcile(command) => command.run(manager, output).await,
        Command::Journal(command) => command.run(manager, output).await,
        Command::Values(command) if arguments.cache => command.run(&manager.cache().await?, output).await,
        Command::Values(command) => command.run(&manager.database().await?, output).await,
        Command::Lists(command) => command.run(&manager.database().await?, output).await,
    }
}

async fn close(manager: &StorageManager) {
    if let Err(error) = manager.disconnect().await {
        complain(&format!("warning: the stores could not be closed in time: {error}"));
    }
}

/// Waits for the next Ctrl-C or SIGTERM. A process that cannot be told of it is ended by it, as by default.
async fn interrupt() -> Exit {
    let interrupted = async {
        match signal::ctrl_c().await {
            Ok(()) => Exit::Interrupted,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        exit = interrupted => exit,
        exit = terminated() => exit,
    }
}

#[cfg(unix)]
async fn terminated() -> Exit {
    let Ok(mut signals) = signal::unix::signal(signal::unix::SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    signals.recv().await;
    Exit::Terminated
}

#[cfg(not(unix))]
async fn terminated() -> Exit {
    std::future::pending().await
}

impl Command {
    /// What may be going on when it is broken off, if it changes what is stored.
    const fn on_its_way(&self) -> Option<&'static str> {
        match self {
            Self::Conflicts(ConflictsCommand::Resolve { .. })
            | Self::Journal(JournalCommand::Drop { .. })
            | Self::Values(ValueCommand::Set(_) | ValueCommand::Delete { .. })
            | Self::Lists(ListCommand::Append { .. } | ListCommand::Trim { .. }) => {
                Some("a write that had begun may have been applied")
            }
            Self::Reconcile(_) | Self::Journal(JournalCommand::Retry { .. }) => {
                Some("what was not replayed stays in the journal")
            }
            _ => None,
        }
    }
}
