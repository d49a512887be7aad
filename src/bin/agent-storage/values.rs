//! The commands that a cache and a database both have.

use agent_storage::handle::{Handle, HandleBackend};
use agent_storage::{KeyPrefix, SetOptions};

use crate::arguments::{Set, ValueCommand};
use crate::exit::{Exit, Failure, complain};
use crate::output::Output;

impl ValueCommand {
    pub(crate) async fn run<B>(self, store: &Handle<B>, output: &Output) -> Result<Exit, Failure>
    where
        B: HandleBackend + ?Sized,
    {
        match self {
            Self::Get { key, show_revision } => {
                let Some(entry) = store.lookup(&key).await?.into_entry() else { return Ok(missing("value")) };
                if show_revision {
                    complain(&entry.revision.to_string());
                }
                output.write(entry.value.into_bytes()).await?;
                Ok(Exit::Done)
            }
            Self::Set(set) => set.run(store, output).await,
            Self::Delete { key } => {
                let ack = store.delete(&key).await?;
                Ok(if ack.existed == Some(false) { missing("entry") } else { Exit::Done })
            }
            Self::Exists { key } => {
                let exists = store.exists(&key).await?;
                output.report(exists).await?;
                Ok(if exists { Exit::Done } else { Exit::Missing })
            }
            Self::List { prefix, limit } => list(store, &prefix, limit.map(u64::from), output).await,
            Self::Count { prefix } => {
                output.line(store.count(prefix.as_str()).await?).await?;
                Ok(Exit::Done)
            }
        }
    }
}

impl Set {
    async fn run<B: HandleBackend + ?Sized>(self, store: &Handle<B>, output: &Output) -> Result<Exit, Failure> {
        let mut options = SetOptions::new();
        options.ttl = self.ttl;
        if self.if_absent {
            options = options.if_absent();
        }
        if let Some(revision) = self.if_revision {
            options = options.if_revision(revision);
        }
        let ack = store.set_with(self.key, self.value.read().await?, options).await?;
        if let Some(revision) = ack.revision.filter(|_| self.show_revision) {
            output.line(revision).await?;
        }
        Ok(Exit::Done)
    }
}

async fn list<B>(store: &Handle<B>, prefix: &KeyPrefix, limit: Option<u64>, output: &Output) -> Result<Exit, Failure>
where
    B: HandleBackend + ?Sized,
{
    let mut keys = store.list(prefix.as_str())?;
    let mut lines = output.lines();
    let mut left = limit.unwrap_or(u64::MAX);
    while left > 0
        && let Some(key) = keys.next().await
    {
        lines.push(key?.as_bytes()).await?;
        left -= 1;
    }
    lines.finish().await?;
    Ok(Exit::Done)
}

fn missing(what: &str) -> Exit {
    complain(&format!("there is no {what} under this key"));
    Exit::Missing
}
