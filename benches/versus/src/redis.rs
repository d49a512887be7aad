//! Redis by `redis`: one multiplexed connection, a command a call; and pipelines made by hand.

use anyhow::Context;
use redis::aio::MultiplexedConnection;
use redis::{AsyncCommands, Client, Pipeline};

use crate::drive::{Contender, Shape};
use crate::workload::{Draw, Op, Workload};

/// How many pipelines are on their way at once, each on a connection of its own.
const PIPELINES: usize = 2;

/// The multiplexed connection as it comes, shared by all callers.
#[derive(Clone)]
pub struct Plain(MultiplexedConnection);

impl Plain {
    pub async fn connect(url: &str) -> anyhow::Result<Self> {
        Ok(Self(Client::open(url)?.get_multiplexed_async_connection().await?))
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
        let mut connection = self.0.clone();
        for (key, value) in work.keys.iter().zip(work.values.iter().cycle()) {
            let () = connection.set(key, value.as_ref()).await?;
        }
        Ok(())
    }

    async fn turn(&self, op: Op, draw: &mut Draw) -> anyhow::Result<()> {
        let mut connection = self.0.clone();
        match op {
            Op::Get => {
                let value: Option<Vec<u8>> = connection.get(draw.key()).await?;
                value.context("a key is missing")?;
            }
            Op::Set => {
                let () = connection.set(draw.key(), draw.text()).await?;
            }
            Op::Append => anyhow::bail!("not measured"),
        }
        Ok(())
    }
}

/// A pipeline a turn.
#[derive(Clone)]
pub struct Batched(Vec<MultiplexedConnection>);

impl Batched {
    pub async fn connect(url: &str) -> anyhow::Result<Self> {
        let client = Client::open(url)?;
        let mut connections = Vec::new();
        for _ in 0..PIPELINES {
            connections.push(client.get_multiplexed_async_connection().await?);
        }
        Ok(Self(connections))
    }
}

impl Contender for Batched {
    fn who(&self) -> String {
        "raw-best".to_owned()
    }

    fn does(&self, op: Op) -> bool {
        op != Op::Append
    }

    fn shape(&self, _op: Op, callers: usize) -> Shape {
        Shape::batches(PIPELINES, callers)
    }

    async fn fill(&self, _work: &'static Workload) -> anyhow::Result<()> {
        Ok(())
    }

    async fn turn(&self, op: Op, draw: &mut Draw) -> anyhow::Result<()> {
        let mut connection = self.0[draw.task].clone();
        let keys = draw.keys();
        let mut pipeline = Pipeline::with_capacity(keys.len());
        if op == Op::Get {
            for key in keys {
                pipeline.get(key);
            }
            let values: Vec<Vec<u8>> = pipeline.query_async(&mut connection).await?;
            anyhow::ensure!(values.len() == keys.len(), "a key is missing");
        } else {
            for key in keys {
                pipeline.set(key, draw.text()).ignore();
            }
            let () = pipeline.query_async(&mut connection).await?;
        }
        Ok(())
    }
}
