//! Runs Apache OpenDAL as the benchmark tells it to: a line of JSON in, a line of JSON out.
#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "a benchmark fails by panicking")]

#[path = "../../src/drive.rs"]
#[allow(dead_code, reason = "the other contenders use the rest")]
mod drive;
#[path = "../../src/workload.rs"]
#[allow(dead_code, reason = "the other contenders use the rest")]
mod workload;

use std::io::{BufRead, Write};
use std::time::Duration;

use anyhow::Context;
use opendal::services::{Postgresql, Redis, Sqlite};
use opendal::{Operator, Result};
use serde::Deserialize;

use crate::drive::{Contender, Runner, Sample};
use crate::workload::{Draw, Op, Workload};

/// What is asked for first: a store.
#[derive(Deserialize)]
#[serde(tag = "backend", rename_all = "lowercase")]
enum Store {
    Postgres { address: String },
    Sqlite { address: String },
    Redis { address: String },
}

/// What is asked for then, any number of times: a run.
#[derive(Deserialize)]
struct Request {
    op: String,
    callers: usize,
    seconds: f64,
}

/// An operator as it comes.
#[derive(Clone)]
struct OpenDal(Operator);

impl OpenDal {
    fn open(store: Store) -> Result<Self> {
        Ok(Self(match store {
            Store::Postgres { address } => {
                Operator::new(Postgresql::default().connection_string(&address).table("opendal"))?
            }
            Store::Sqlite { address } => Operator::new(Sqlite::default().connection_string(&address).table("opendal"))?,
            Store::Redis { address } => Operator::new(Redis::default().endpoint(&address).root("/opendal"))?,
        }))
    }
}

impl Contender for OpenDal {
    fn who(&self) -> String {
        "opendal".to_owned()
    }

    fn does(&self, op: Op) -> bool {
        op != Op::Append
    }

    async fn fill(&self, work: &'static Workload) -> anyhow::Result<()> {
        for (key, value) in work.keys.iter().zip(work.values.iter().cycle()) {
            self.0.write(key, value.clone()).await?;
        }
        Ok(())
    }

    async fn turn(&self, op: Op, draw: &mut Draw) -> anyhow::Result<()> {
        if op == Op::Get {
            anyhow::ensure!(!self.0.read(draw.key()).await?.is_empty(), "a key is missing");
        } else {
            self.0.write(draw.key(), draw.value()).await?;
        }
        Ok(())
    }
}

fn main() -> anyhow::Result<()> {
    let work = Workload::make();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut lines = std::io::stdin().lock().lines();
    let store = lines.next().context("no store was named")??;
    runtime.block_on(async {
        let operator = OpenDal::open(serde_json::from_str(&store)?)?;
        Runner::fill(&operator, work).await?;
        answer(&serde_json::json!("ready"))?;
        for line in lines {
            let request: Request = serde_json::from_str(&line?)?;
            match run(&operator, &request, work).await {
                Ok(sample) => answer(&serde_json::json!({ "sample": sample }))?,
                Err(error) => answer(&serde_json::json!({ "error": format!("{error:#}") }))?,
            }
        }
        Ok(())
    })
}

async fn run(operator: &OpenDal, request: &Request, work: &'static Workload) -> anyhow::Result<Sample> {
    let op = if request.op == "get" { Op::Get } else { Op::Set };
    Runner::run(operator, op, request.callers, Duration::from_secs_f64(request.seconds), work).await
}

fn answer(answer: &serde_json::Value) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{answer}")?;
    out.flush()
}
