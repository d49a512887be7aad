//! Reading values and asking what is there.

use std::collections::{HashMap, HashSet};

use crate::contract::{Entry, GetOptions, Identity, Lookup};
use crate::error::{Error, Result};
use crate::key::Key;

use super::batch::{chunks, distinct};
use super::error::column;
use super::record;
use super::session::{Session, unanswered};

/// Reads values: one answer a key, in the order of the keys.
pub(super) async fn get_many(session: &mut Session, keys: &[Key], options: GetOptions) -> Vec<Result<Lookup>> {
    let mut found: HashMap<String, Result<Entry>> = HashMap::new();
    let mut failed: HashMap<&str, Error> = HashMap::new();
    let sql = std::sync::Arc::clone(&session.sql);
    for chunk in chunks(distinct(keys), |_| 0) {
        match session.read(&sql.get, |statement| statement.bind(chunk.as_slice())).await {
            Ok(rows) => {
                for row in &rows {
                    let Ok(key) = column::<&str>(row, 0) else { continue };
                    let entry = record::entry(row, options).map(|(entry, stamp)| {
                        session.clock.observe(stamp);
                        entry
                    });
                    found.insert(key.to_owned(), entry);
                }
            }
            Err(error) => failed.extend(chunk.into_iter().map(|key| (key, error.clone()))),
        }
    }
    let answer = |key: &Key| match (found.get(key.as_str()), failed.get(key.as_str())) {
        (_, Some(error)) => Err(error.clone()),
        (Some(entry), None) => entry.clone().map(Lookup::Found),
        (None, None) => Ok(Lookup::missing()),
    };
    keys.iter().map(answer).collect()
}

/// Says of each key whether a value or a list with items is there.
pub(super) async fn exists(session: &mut Session, keys: &[Key]) -> Vec<Result<bool>> {
    let mut there: HashSet<String> = HashSet::new();
    let mut failed: HashMap<&str, Error> = HashMap::new();
    let sql = std::sync::Arc::clone(&session.sql);
    for chunk in chunks(distinct(keys), |_| 0) {
        let answer = session.read(&sql.exists, |statement| statement.bind(chunk.as_slice())).await;
        let keys = answer.and_then(|rows| rows.iter().map(|row| column::<String>(row, 0)).collect::<Result<Vec<_>>>());
        match keys {
            Ok(keys) => there.extend(keys),
            Err(error) => failed.extend(chunk.into_iter().map(|key| (key, error.clone()))),
        }
    }
    let answer = |key: &Key| match failed.get(key.as_str()) {
        Some(error) => Err(error.clone()),
        None => Ok(there.contains(key.as_str())),
    };
    keys.iter().map(answer).collect()
}

/// Proves that the server takes writes; answers its version.
pub(super) async fn ping(session: &mut Session) -> Result<String> {
    let sql = std::sync::Arc::clone(&session.sql);
    // A canary raised twice, or unseen, harms nothing.
    let rows = session.read(&sql.ping, |statement| statement).await?;
    column(rows.first().ok_or_else(unanswered)?, 0)
}

/// Says which database this is.
pub(super) async fn identity(session: &mut Session) -> Result<Identity> {
    let sql = std::sync::Arc::clone(&session.sql);
    let rows = session.read(&sql.identity, |statement| statement).await?;
    let row = rows.first().ok_or_else(|| Error::corrupt("the table `meta` of the schema is empty"))?;
    let id: [u8; 16] = column::<&[u8]>(row, 0)?
        .try_into()
        .map_err(|_| Error::corrupt("the stored identity of the database is not 16 bytes long"))?;
    Ok(Identity::new(u128::from_be_bytes(id), record::number(row, 1)?))
}
