//! NATS JetStream by `async-nats`: its key-value store; and multi-last direct gets and pipelined publishes made by hand.

use anyhow::Context as _;
use async_nats::Client;
use async_nats::jetstream::kv::{Config, Store};
use async_nats::jetstream::stream::StorageType;
use async_nats::jetstream::{self, Context};
use futures_util::{StreamExt, future};

use crate::drive::{Contender, Shape};
use crate::workload::{Draw, Op, Workload};

/// How many batches are on their way at once.
const BATCHES: usize = 2;

const BUCKET: &str = "raw";

/// The library's bucket, as the stage configures it.
const OURS: &str = "ours";

/// The status of the message that ends a batch.
const END_OF_BATCH: u16 = 204;

/// NATS takes no `:` in a key.
fn name(key: &str) -> String {
    key.replace(':', ".")
}

/// The key-value store as it comes.
#[derive(Clone)]
pub struct Plain(Store);

impl Plain {
    pub async fn connect(url: &str) -> anyhow::Result<Self> {
        let context = jetstream::new(async_nats::connect(url).await?);
        let config = Config { bucket: BUCKET.to_owned(), history: 1, storage: StorageType::File, ..Config::default() };
        Ok(Self(context.create_key_value(config).await?))
    }
}

impl Contender for Plain {
    fn who(&self) -> String {
        "raw".to_owned()
    }

    fn does(&self, op: Op) -> bool {
        op != Op::Append
    }

    async fn fill(&self, work: &'static Workload) -> anyhow::Result<()> {
        for (key, value) in work.keys.iter().zip(work.values.iter().cycle()) {
            self.0.put(name(key), value.clone()).await?;
        }
        Ok(())
    }

    async fn turn(&self, op: Op, draw: &mut Draw) -> anyhow::Result<()> {
        match op {
            Op::Get => drop(self.0.get(name(draw.key())).await?.context("a key is missing")?),
            Op::Set => drop(self.0.put(name(draw.key()), draw.value()).await?),
            Op::Append => anyhow::bail!("not measured"),
        }
        Ok(())
    }
}

/// One request for many keys, and publishes that are all sent before the first is acknowledged.
#[derive(Clone)]
pub struct Batched {
    client: Client,
    context: Context,
    bucket: &'static str,
}

impl Batched {
    pub async fn connect(url: &str) -> anyhow::Result<Self> {
        Self::on(url, BUCKET).await
    }

    /// Reads what the library wrote: with the headers that it writes, which the server passes on with each read.
    pub async fn on_ours(url: &str) -> anyhow::Result<Self> {
        Self::on(url, OURS).await
    }

    async fn on(url: &str, bucket: &'static str) -> anyhow::Result<Self> {
        let client = async_nats::connect(url).await?;
        Ok(Self { context: jetstream::new(client.clone()), client, bucket })
    }

    async fn get(&self, keys: &[&str]) -> anyhow::Result<()> {
        let subjects: Vec<String> = keys.iter().map(|key| format!("$KV.{}.{}", self.bucket, name(key))).collect();
        let request = serde_json::to_vec(&serde_json::json!({ "multi_last": subjects }))?;
        let inbox = self.client.new_inbox();
        let mut replies = self.client.subscribe(inbox.clone()).await?;
        let subject = format!("$JS.API.DIRECT.GET.KV_{}", self.bucket);
        self.client.publish_with_reply(subject, inbox, request.into()).await?;
        let mut found = 0;
        while let Some(message) = replies.next().await {
            match message.status {
                None => found += 1,
                Some(status) if status.as_u16() == END_OF_BATCH => break,
                Some(status) => anyhow::bail!("the server answered {status}"),
            }
        }
        anyhow::ensure!(found == keys.len(), "a key is missing");
        Ok(())
    }
}

impl Contender for Batched {
    fn who(&self) -> String {
        if self.bucket == OURS { "raw-best, our records".to_owned() } else { "raw-best".to_owned() }
    }

    fn does(&self, op: Op) -> bool {
        op == Op::Get || op == Op::Set && self.bucket != OURS
    }

    fn shape(&self, _op: Op, callers: usize) -> Shape {
        Shape::batches(BATCHES, callers)
    }

    async fn fill(&self, _work: &'static Workload) -> anyhow::Result<()> {
        Ok(())
    }

    async fn turn(&self, op: Op, draw: &mut Draw) -> anyhow::Result<()> {
        if op == Op::Get {
            return self.get(draw.keys()).await;
        }
        let mut acks = Vec::with_capacity(draw.batch);
        for key in draw.keys() {
            acks.push(
                self.context.publish(format!("$KV.{}.{}", self.bucket, name(key)), draw.value()).await?.into_future(),
            );
        }
        future::try_join_all(acks).await?;
        Ok(())
    }
}
