//! Apache OpenDAL, in a program of its own that this one builds, starts and tells what to do.
//!
//! Its SQLite service links another `libsqlite3-sys` than the library, so the two cannot share a program.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::Mutex;

use crate::drive::{Runner, Sample};
use crate::workload::{Op, Workload};

/// The program, built.
#[derive(Clone, Debug)]
pub struct Program(PathBuf);

impl Program {
    /// Builds the program; that takes a few minutes the first time.
    pub async fn build() -> anyhow::Result<Self> {
        let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("opendal");
        let target = package.join("target");
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "--release", "--locked", "--manifest-path"]).arg(package.join("Cargo.toml"));
        build.arg("--target-dir").arg(&target);
        anyhow::ensure!(build.status().await?.success(), "benches/versus/opendal cannot be built");
        let name = format!("agent-storage-versus-opendal{}", std::env::consts::EXE_SUFFIX);
        Ok(Self(target.join("release").join(name)))
    }
}

/// The program at work on one store. It ends when this is dropped.
pub struct OpenDal(Mutex<Pipes>);

struct Pipes {
    _child: Child,
    requests: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Pipes {
    async fn ask(&mut self, request: &Value) -> anyhow::Result<Value> {
        self.requests.write_all(format!("{request}\n").as_bytes()).await?;
        let answer = self.answers.next_line().await?.context("OpenDAL's program ended")?;
        Ok(serde_json::from_str(&answer)?)
    }
}

impl OpenDal {
    /// Starts the program on a store: `postgres`, `sqlite` or `redis`.
    pub async fn start(program: &Program, backend: &str, address: &str) -> anyhow::Result<Self> {
        let mut command = Command::new(&program.0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn()?;
        let requests = child.stdin.take().context("no pipe")?;
        let answers = BufReader::new(child.stdout.take().context("no pipe")?).lines();
        let mut pipes = Pipes { _child: child, requests, answers };
        pipes.ask(&json!({ "backend": backend, "address": address })).await?;
        Ok(Self(Mutex::new(pipes)))
    }
}

#[async_trait]
impl Runner for OpenDal {
    fn who(&self) -> String {
        "opendal".to_owned()
    }

    fn does(&self, op: Op) -> bool {
        op != Op::Append
    }

    /// It has done so when it started.
    async fn fill(&self, _work: &'static Workload) -> anyhow::Result<()> {
        Ok(())
    }

    async fn run(&self, op: Op, callers: usize, length: Duration, _work: &'static Workload) -> anyhow::Result<Sample> {
        let request = json!({ "op": op.to_string(), "callers": callers, "seconds": length.as_secs_f64() });
        let mut answer = self.0.lock().await.ask(&request).await?;
        if let Some(error) = answer.get("error") {
            anyhow::bail!("opendal: {error}");
        }
        Ok(serde_json::from_value(answer["sample"].take())?)
    }
}
