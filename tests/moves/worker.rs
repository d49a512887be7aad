//! A process that calls the library as an application does, one call after the other as it is told.
//!
//! It is this program, started anew with the path of its configuration in the environment.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use agent_storage::chain::{ChainState, ChainStatus, DatabaseChain};
use agent_storage::contract::{Durability, Freshness};
use agent_storage::{Database, Result, StorageManager, Value};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::line::{Action, Answer, Call, Command, Reply, State};

const ORDERS: &str = "MOVES_WORKER";

/// Gives a command the configuration that the process is to use.
pub(crate) fn give_orders(command: &mut std::process::Command, config: &str) {
    command.env(ORDERS, config);
}

/// The path of the configuration, where this process is a worker.
pub(crate) fn orders() -> Option<String> {
    std::env::var(ORDERS).ok()
}

pub(crate) fn run(config: &str) -> ExitCode {
    let (sender, receiver) = unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(std::result::Result::ok) {
            let _ = sender.send(serde_json::from_str(&line).unwrap());
        }
        // The parent is gone, or waits for the end.
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(serve(config, receiver));
    ExitCode::SUCCESS
}

async fn serve(config: &str, mut orders: UnboundedReceiver<Command>) {
    let worker = match Worker::start(config).await {
        Ok(worker) => worker,
        Err(error) => return tell(&Reply::Failed(format!("{}: {error}", error.kind()))),
    };
    tell(&Reply::State(worker.state()));
    while let Some(command) = orders.recv().await {
        let is_last = matches!(command, Command::Disconnect);
        tell(&worker.obey(command).await);
        if is_last {
            return;
        }
    }
}

struct Worker {
    manager: StorageManager,
    database: Database,
    chain: Arc<DatabaseChain>,
}

impl Worker {
    async fn start(config: &str) -> Result<Self> {
        let manager = StorageManager::from_file(config)?;
        let database = manager.database().await?;
        let chain = manager.open_database_chain().await?.expect("the configuration names a fallback");
        Ok(Self { manager, database, chain })
    }

    fn state(&self) -> State {
        let ChainStatus { state, fenced, pending, parked, left_journals, reason, .. } = self.chain.status();
        State {
            name: state.as_str().to_owned(),
            fenced,
            pending,
            parked,
            left: left_journals.len(),
            known: self.chain.known_primary().map(|known| format!("{:032x}", known.id)),
            reason: reason.map(|reason| reason.to_string()),
        }
    }

    async fn obey(&self, command: Command) -> Reply {
        match command {
            Command::Call(call) => Reply::Called(
                self.call(call)
                    .await
                    .unwrap_or_else(|error| Answer::Failed { kind: error.kind().to_string(), why: error.to_string() }),
            ),
            Command::Tell => Reply::State(self.state()),
            Command::Settle(millis) => {
                let mut watch = self.chain.watch();
                let settled = watch.wait_for(|status| status.state == ChainState::Normal);
                let _ = tokio::time::timeout(Duration::from_millis(millis), settled).await;
                Reply::State(self.state())
            }
            Command::Accept => match self.chain.accept_primary().await {
                Ok(accepted) => Reply::Accepted { taken_over: accepted.taken_over, told: accepted.told },
                Err(error) => Reply::Failed(error.to_string()),
            },
            Command::Disconnect => match self.manager.disconnect().await {
                Ok(()) => Reply::Ended,
                Err(error) => Reply::Failed(error.to_string()),
            },
        }
    }

    async fn call(&self, call: Call) -> Result<Answer> {
        let (key, value) = (call.key.as_str(), Value::from_integer(call.value));
        let written = |durability| Answer::Written { local: durability == Durability::Local };
        Ok(match call.action {
            Action::Set => written(self.database.set(key, value).await?.durability),
            Action::Delete => written(self.database.delete(key).await?.durability),
            // How many there were is not known where it waits for the primary.
            Action::Clear => Answer::Written { local: self.database.clear(key).await?.is_none() },
            Action::Append => written(self.database.append(key, value).await?.durability),
            Action::Get => {
                let lookup = self.database.lookup(key).await?;
                let pending = lookup.freshness() == Freshness::LocalPending;
                let value = lookup.into_value().map(|value| value.decode().unwrap());
                Answer::Read { value, pending }
            }
            Action::Range => Answer::Items(self.database.range_json(key, 0, -1).await?),
        })
    }
}

/// One write a line: whoever is killed leaves whole ones.
fn tell(reply: &Reply) {
    let mut text = serde_json::to_string(reply).unwrap();
    text.push('\n');
    let mut out = std::io::stdout().lock();
    if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}
