//! SQLite by `rusqlite`: a connection behind a lock, a transaction a call; and batches made by hand.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use rusqlite::{Connection, Transaction};
use tokio::task::{block_in_place, spawn_blocking};

use crate::drive::{Contender, Shape};
use crate::workload::{Draw, Op, Workload};

const GET: &str = "SELECT value FROM kv WHERE key = ?1";
const SET: &str = "INSERT INTO kv (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value";
const APPEND: &str = "INSERT INTO item (list, value) VALUES (?1, ?2)";

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS kv (key TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS item (id INTEGER PRIMARY KEY, list TEXT NOT NULL, value TEXT NOT NULL);";

fn open(path: &Path) -> anyhow::Result<Arc<Mutex<Connection>>> {
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.execute_batch(TABLES)?;
    Ok(Arc::new(Mutex::new(connection)))
}

fn lock(connection: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    connection.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read(connection: &Connection, key: &str) -> anyhow::Result<String> {
    Ok(connection.prepare_cached(GET)?.query_row([key], |row| row.get(0))?)
}

/// Makes the table that OpenDAL is pointed at, in a file that keeps a write-ahead log.
pub fn make_opendal_table(path: &Path) -> anyhow::Result<()> {
    let table = "CREATE TABLE opendal (key TEXT NOT NULL PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID";
    Ok(lock(&*open(path)?).execute_batch(table)?)
}

/// Each call on a thread for blocking work, with the connection to itself, and a commit of its own.
#[derive(Clone)]
pub struct Plain(Arc<Mutex<Connection>>);

impl Plain {
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        open(path).map(Self)
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
        let mut connection = lock(&self.0);
        let transaction = connection.transaction()?;
        for (key, value) in work.keys.iter().zip(work.values.iter().cycle()) {
            transaction.execute(SET, (key, std::str::from_utf8(value)?))?;
        }
        Ok(transaction.commit()?)
    }

    async fn turn(&self, op: Op, draw: &mut Draw) -> anyhow::Result<()> {
        let connection = Arc::clone(&self.0);
        match op {
            Op::Get => {
                let key = draw.key();
                spawn_blocking(move || read(&lock(&connection), key)).await??;
            }
            Op::Set => {
                let (key, value) = (draw.key(), draw.text());
                spawn_blocking(move || lock(&connection).prepare_cached(SET)?.execute((key, value))).await??;
            }
            Op::Append => {
                let (list, value) = (draw.list(), draw.text());
                spawn_blocking(move || lock(&connection).prepare_cached(APPEND)?.execute((list, value))).await??;
            }
        }
        Ok(())
    }
}

/// One thread that does nothing else: as many calls as there are callers in one transaction.
#[derive(Clone)]
pub struct Batched(Arc<Mutex<Connection>>);

impl Batched {
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        open(path).map(Self)
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
        Shape::batches(1, callers)
    }

    async fn fill(&self, _work: &'static Workload) -> anyhow::Result<()> {
        Ok(())
    }

    async fn turn(&self, op: Op, draw: &mut Draw) -> anyhow::Result<()> {
        block_in_place(|| {
            let mut connection = lock(&self.0);
            let transaction = connection.transaction()?;
            each(&transaction, op, draw)?;
            transaction.commit().context("the batch was not committed")
        })
    }
}

fn each(transaction: &Transaction<'_>, op: Op, draw: &mut Draw) -> anyhow::Result<()> {
    match op {
        Op::Get => {
            for key in draw.keys() {
                read(transaction, key)?;
            }
        }
        Op::Set => {
            let mut statement = transaction.prepare_cached(SET)?;
            for key in draw.keys() {
                statement.execute((key, draw.text()))?;
            }
        }
        Op::Append => {
            let mut statement = transaction.prepare_cached(APPEND)?;
            for _ in 0..draw.batch {
                statement.execute((draw.list(), draw.text()))?;
            }
        }
    }
    Ok(())
}

/// A prepared statement in a loop on one thread, without a transaction around it.
#[derive(Clone)]
pub struct Loop(Arc<Mutex<Connection>>);

impl Loop {
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        open(path).map(Self)
    }
}

impl Contender for Loop {
    fn who(&self) -> String {
        "raw-loop".to_owned()
    }

    fn does(&self, op: Op) -> bool {
        op == Op::Get
    }

    fn shape(&self, _op: Op, callers: usize) -> Shape {
        Shape::batches(1, callers)
    }

    async fn fill(&self, _work: &'static Workload) -> anyhow::Result<()> {
        Ok(())
    }

    async fn turn(&self, _op: Op, draw: &mut Draw) -> anyhow::Result<()> {
        block_in_place(|| {
            let connection = lock(&self.0);
            draw.keys().iter().try_for_each(|key| read(&connection, key).map(drop))
        })
    }
}
