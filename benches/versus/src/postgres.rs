//! PostgreSQL by `sqlx`: a pool of ten, a statement a call; and batches made by hand.

use anyhow::Context;
use sqlx::postgres::{PgPool, PgPoolOptions};

use crate::drive::{Contender, Shape};
use crate::workload::{Draw, Op, Workload};

/// How many batches are on their way at once: measured to be best on two cores.
const BATCHES: usize = 2;

const GET: &str = "SELECT value::text FROM kv WHERE key = $1";
const SET: &str = "INSERT INTO kv (key, value) VALUES ($1, $2::json)
    ON CONFLICT (key) DO UPDATE SET value = excluded.value";
const APPEND: &str = "INSERT INTO item (list, value) VALUES ($1, $2::json)";

const GET_MANY: &str = "SELECT key, value::text FROM kv WHERE key = ANY($1)";
const SET_MANY: &str = "INSERT INTO kv (key, value) SELECT key, value::json
    FROM unnest($1::text[], $2::text[]) AS w (key, value) ORDER BY key
    ON CONFLICT (key) DO UPDATE SET value = excluded.value";
const APPEND_MANY: &str = "INSERT INTO item (list, value) SELECT list, value::json
    FROM unnest($1::text[], $2::text[]) AS w (list, value)";

const TABLES: [&str; 2] = [
    "CREATE TABLE IF NOT EXISTS kv (key text PRIMARY KEY, value json NOT NULL)",
    "CREATE TABLE IF NOT EXISTS item (id bigserial PRIMARY KEY, list text NOT NULL, value json NOT NULL)",
];

/// Makes the table that OpenDAL is pointed at.
pub async fn make_opendal_table(url: &str) -> anyhow::Result<()> {
    let pool = PgPoolOptions::new().connect(url).await?;
    sqlx::query("CREATE TABLE opendal (key text PRIMARY KEY, value bytea NOT NULL)").execute(&pool).await?;
    pool.close().await;
    Ok(())
}

/// The pool as it comes, one statement a call.
#[derive(Clone)]
pub struct Plain(PgPool);

impl Plain {
    pub async fn connect(url: &str) -> anyhow::Result<Self> {
        let pool = PgPoolOptions::new().max_connections(10).connect(url).await?;
        for table in TABLES {
            sqlx::query(table).execute(&pool).await?;
        }
        Ok(Self(pool))
    }
}

impl Contender for Plain {
    fn who(&self) -> String {
        "raw".to_owned()
    }

    fn does(&self, _op: Op) -> bool {
        true
    }

    async fn fill(&self, work: &'static Workload) -> anyhow::Result<()> {
        for (key, value) in work.keys.iter().zip(work.values.iter().cycle()) {
            sqlx::query(SET).bind(key).bind(std::str::from_utf8(value)?).execute(&self.0).await?;
        }
        Ok(())
    }

    async fn turn(&self, op: Op, draw: &mut Draw) -> anyhow::Result<()> {
        match op {
            Op::Get => {
                let value: Option<String> = sqlx::query_scalar(GET).bind(draw.key()).fetch_optional(&self.0).await?;
                value.context("a key is missing")?;
            }
            Op::Set => {
                sqlx::query(SET).bind(draw.key()).bind(draw.text()).execute(&self.0).await?;
            }
            Op::Append => {
                sqlx::query(APPEND).bind(draw.list()).bind(draw.text()).execute(&self.0).await?;
            }
        }
        Ok(())
    }
}

/// Batches of arrays over a few connections that are not tested each time they are taken.
#[derive(Clone)]
pub struct Batched(PgPool);

impl Batched {
    pub async fn connect(url: &str) -> anyhow::Result<Self> {
        let options = PgPoolOptions::new().max_connections(BATCHES as u32).test_before_acquire(false);
        Ok(Self(options.connect(url).await?))
    }
}

impl Contender for Batched {
    fn who(&self) -> String {
        "raw-best".to_owned()
    }

    fn does(&self, _op: Op) -> bool {
        true
    }

    fn shape(&self, _op: Op, callers: usize) -> Shape {
        Shape::batches(BATCHES, callers)
    }

    async fn fill(&self, _work: &'static Workload) -> anyhow::Result<()> {
        Ok(())
    }

    async fn turn(&self, op: Op, draw: &mut Draw) -> anyhow::Result<()> {
        match op {
            Op::Get => {
                let keys = draw.keys();
                let rows: Vec<(String, String)> = sqlx::query_as(GET_MANY).bind(keys).fetch_all(&self.0).await?;
                anyhow::ensure!(rows.len() == keys.len(), "a key is missing");
            }
            Op::Set => {
                sqlx::query(SET_MANY).bind(draw.keys()).bind(draw.texts()).execute(&self.0).await?;
            }
            Op::Append => {
                let lists: Vec<&str> = (0..draw.batch).map(|_| draw.list()).collect();
                sqlx::query(APPEND_MANY).bind(lists).bind(draw.texts()).execute(&self.0).await?;
            }
        }
        Ok(())
    }
}
