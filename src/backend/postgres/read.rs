//! Reading values and asking what is there.

use std::sync::Arc;
use std::time::Instant;

use sqlx::postgres::PgRow;

use crate::contract::{GetOptions, Identity, Lookup};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::stamp::Stamp;

use super::batch::{Finder, MAX_ROWS};
use super::error::column;
use super::expected;
use super::record;
use super::session::{Session, unanswered};
use super::sql::Text;

/// Reads values: one answer a key, in the order of the keys.
pub(super) async fn get_many(session: &mut Session, keys: &[Key], options: GetOptions) -> Vec<Result<Lookup>> {
    let (sql, clock) = (Arc::clone(&session.sql), Arc::clone(&session.clock));
    let read = |row: &PgRow| {
        let (entry, stamp) = record::entry(row, options)?;
        clock.observe(stamp);
        Ok(Lookup::Found(entry))
    };
    ask(session, &sql.get, keys, &Lookup::missing(), read).await
}

/// Says of each key whether a value or a list with items is there.
pub(super) async fn exists(session: &mut Session, keys: &[Key]) -> Vec<Result<bool>> {
    let sql = Arc::clone(&session.sql);
    ask(session, &sql.exists, keys, &false, |_| Ok(true)).await
}

/// The newest stamps of values and tombstones, in the order of the keys.
pub(super) async fn stamps(session: &mut Session, keys: &[Key]) -> Result<Vec<Option<Stamp>>> {
    let sql = Arc::clone(&session.sql);
    ask(session, &sql.value_stamps, keys, &None, |row| record::stamp(row, 1)).await.into_iter().collect()
}

/// Sends a statement over keys that answers a row for each that is there, beginning with the key.
async fn ask<T: Clone + Send + Sync>(
    session: &mut Session,
    text: &Text,
    keys: &[Key],
    absent: &T,
    read: impl Fn(&PgRow) -> Result<T> + Send + Sync,
) -> Vec<Result<T>> {
    let sorted = Sorted::new(keys);
    let mut answers: Vec<Result<T>> = Vec::with_capacity(sorted.texts.len());
    for chunk in sorted.texts.chunks(MAX_ROWS) {
        let rows = session.read(text, |statement| statement.bind(chunk)).await;
        match rows.and_then(|rows| of_chunk(chunk, &rows, absent, &read)) {
            Ok(of_chunk) => answers.extend(of_chunk),
            Err(error) => answers.extend(chunk.iter().map(|_| Err(error.clone()))),
        }
    }
    sorted.places.iter().map(|place| answers.get(*place).cloned().unwrap_or_else(|| Err(unanswered()))).collect()
}

fn of_chunk<T: Clone>(
    chunk: &[&str],
    rows: &[PgRow],
    absent: &T,
    read: impl Fn(&PgRow) -> Result<T>,
) -> Result<Vec<Result<T>>> {
    let mut answers: Vec<Result<T>> = chunk.iter().map(|_| Ok(absent.clone())).collect();
    let mut finder = Finder::default();
    for row in rows {
        let index = finder.find(chunk, column(row, 0)?, |text| text);
        // A row of another key would leave the one that was asked for missing.
        *index.and_then(|index| answers.get_mut(index)).ok_or_else(unanswered)? = read(row);
    }
    Ok(answers)
}

/// The texts of keys, sorted, each once, and where that of each key is.
struct Sorted<'a> {
    texts: Vec<&'a str>,
    places: Vec<usize>,
}

impl<'a> Sorted<'a> {
    fn new(keys: &'a [Key]) -> Self {
        let mut order: Vec<(&str, usize)> = keys.iter().map(Key::as_str).zip(0..).collect();
        order.sort_unstable();
        let mut texts: Vec<&str> = Vec::with_capacity(keys.len());
        let mut places = vec![0; keys.len()];
        for (text, index) in order {
            if texts.last() != Some(&text) {
                texts.push(text);
            }
            if let Some(place) = places.get_mut(index) {
                *place = texts.len() - 1;
            }
        }
        Self { texts, places }
    }
}

/// Proves that the server takes writes; answers which database it is, and its version.
pub(super) async fn ping(session: &mut Session) -> Result<(Identity, String)> {
    let sql = Arc::clone(&session.sql);
    session.become_probe();
    let asked = Instant::now();
    // A canary raised twice, or unseen, harms nothing.
    let rows = session.read(&sql.ping, |statement| statement).await?;
    let row = rows.first().ok_or_else(no_meta)?;
    session.server_clock.note(asked, column(row, 3)?);
    Ok((expected::identity(row)?, column(row, 2)?))
}

/// Says which database this is.
pub(super) async fn identity(session: &mut Session) -> Result<Identity> {
    let sql = Arc::clone(&session.sql);
    let rows = session.look(&sql.identity).await?;
    expected::identity(rows.first().ok_or_else(no_meta)?)
}

fn no_meta() -> Error {
    Error::corrupt("the table `meta` of the schema is empty")
}
