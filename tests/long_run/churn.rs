//! Entries come and go without end, each under a key of its own: what is left of them goes too.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use agent_storage::backend::postgres::PostgresDatabase;
use agent_storage::backend::sqlite::SqliteDatabase;
use agent_storage::config::{PostgresConfig, SqliteConfig};
use agent_storage::{Database, SetOptions, Ttl, Value};

use crate::support::{Postgres, PostgresOptions, Server, Suite};
use crate::{limit, say};

/// How long tombstones are kept here.
const RETENTION: Duration = Duration::from_secs(1);

const WRITERS: u64 = 8;

/// The pause of a writer after each entry that came and went.
const PAUSE: Duration = Duration::from_millis(4);

/// The part of what was written that may be there at the end.
const LEFT: u64 = 4;

/// How few entries are too few to say anything.
const FEW: u64 = 4000;

/// Long enough for a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn tests(suite: &mut Suite, length: Duration) {
    let name = "a_table_under_churn_keeps_its_size";
    suite.test_within(limit(length), format!("{name}::postgres"), &[Server::Postgres], move || postgres(length));
    suite.test_within(limit(length), format!("{name}::sqlite"), &[], move || sqlite(length));
}

async fn postgres(length: Duration) {
    // What the server does once a minute by default, it does each second here.
    let vacuum = [
        ("autovacuum_naptime", "1s"),
        ("autovacuum_vacuum_cost_delay", "0"),
        ("autovacuum_vacuum_scale_factor", "0"),
        ("autovacuum_vacuum_threshold", "500"),
    ];
    let settings = vacuum.map(|(name, value)| (name, value.to_owned())).to_vec();
    let server = Postgres::start(PostgresOptions { settings, ..PostgresOptions::default() });
    let name = server.create_database();
    let mut config = PostgresConfig::new(server.host(), server.port());
    config.database.clone_from(&name);
    config.username = server.user().to_owned();
    config.password = Some(server.password().into());
    config.tombstone_retention = RETENTION;
    let database = Database::new(Arc::new(PostgresDatabase::new(&config).unwrap()));
    // Makes the tables.
    database.ping().await.unwrap();
    let size = || {
        let sql = "SELECT count(*) FROM agent_storage.kv; SELECT pg_total_relation_size('agent_storage.kv')";
        let answer = server.query(&name, sql);
        let mut numbers = answer.lines().map(|line| line.trim().parse().unwrap());
        Size { rows: numbers.next().unwrap(), bytes: numbers.next().unwrap() }
    };
    keeps_its_size(database, length, size).await;
}

async fn sqlite(length: Duration) {
    let folder = tempfile::tempdir().unwrap();
    let path: PathBuf = folder.path().join("churn.db");
    let mut config = SqliteConfig::at(&path);
    config.tombstone_retention = RETENTION;
    let database = Database::new(Arc::new(SqliteDatabase::new(&config)));
    // Makes the file.
    database.ping().await.unwrap();
    let look = rusqlite::Connection::open_with_flags(&path, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let number = move |sql| u64::try_from(look.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap()).unwrap();
    let pages = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size";
    let size = move || Size { rows: number("SELECT count(*) FROM kv"), bytes: number(pages) };
    keeps_its_size(database, length, size).await;
}

/// How large a table is.
#[derive(Clone, Copy, Debug, Default)]
struct Size {
    rows: u64,
    bytes: u64,
}

impl Size {
    fn max(self, other: Self) -> Self {
        Self { rows: self.rows.max(other.rows), bytes: self.bytes.max(other.bytes) }
    }
}

/// Looks at the table from time to time while entries come and go.
async fn keeps_its_size(database: Database, length: Duration, mut size: impl FnMut() -> Size + Send) {
    let (ended, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| tokio::spawn(churn(database.clone(), writer, Arc::clone(&ended), Arc::clone(&written))))
        .collect();
    let (began, mut peaks) = (Instant::now(), [Size::default(); 2]);
    let settled = |last: Size, written: u64| written >= FEW && last.rows * LEFT <= written;
    let last = loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let last = size();
        let elapsed = began.elapsed();
        let half = usize::from(elapsed * 2 > length);
        peaks[half] = peaks[half].max(last);
        if elapsed > length && settled(last, written.load(Ordering::Relaxed)) {
            break last;
        }
        assert!(elapsed < length + PATIENCE, "{last:?} of {written:?} entries are left");
    };
    ended.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    say(&format!(
        "{written:?} entries, at most {:?} in the first half and {:?} in the second, {last:?} at last",
        peaks[0], peaks[1]
    ));
    if length >= PATIENCE {
        assert!(peaks[1].rows <= 2 * peaks[0].rows && peaks[1].bytes <= 2 * peaks[0].bytes, "{peaks:?}");
    }
    // All of it goes in the end.
    let gone = async {
        while size().rows > 0 {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("nothing stays");
}

/// Writes entries that are deleted or expire.
async fn churn(database: Database, writer: u64, ended: Arc<AtomicBool>, written: Arc<AtomicU64>) {
    let ttl = SetOptions::new().with_ttl(Ttl::from_millis(500).unwrap());
    let value = Value::json(format!("{:0>200}", 1).replace('0', " ")).unwrap();
    let mut number = 0;
    while !ended.load(Ordering::Relaxed) {
        let key = format!("churn:{writer}:{number}");
        if number % 2 == 0 {
            database.set(&key, value.clone()).await.unwrap();
            database.delete(&key).await.unwrap();
        } else {
            database.set_with(&key, value.clone(), ttl).await.unwrap();
        }
        number += 1;
        written.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(PAUSE).await;
    }
}
