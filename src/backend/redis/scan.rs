//! Listing, counting and clearing by prefix, with `SCAN`: no command that holds the server up for all its keys.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use redis::{Value as Reply, cmd};

use super::error::{self, Effect};
use super::lane::Lanes;
use crate::contract::{Context, Cursor, KeyPage, ListOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::key::{Key, KeyPrefix};

/// How many keys the server looks at in one step; a thousand take it well under a millisecond.
const MOST_LOOKED_AT: usize = 1000;
const FEWEST_LOOKED_AT: usize = 10;

/// How many steps a page may take. A prefix that few of many keys have gets empty pages rather than a late one.
const STEPS: usize = 100;

/// Lists one page.
pub(super) async fn list(lanes: &Lanes, prefix: &KeyPrefix, options: &ListOptions, cx: &Context) -> Result<KeyPage> {
    let limit = options.limit.clamp(1, ListOptions::MAX_LIMIT);
    let mut position =
        options.cursor.as_ref().map_or(Ok(Position::start()), |cursor| Position::parse(cursor, prefix))?;
    let mut look_at = limit.clamp(FEWEST_LOOKED_AT, MOST_LOOKED_AT);
    let mut page = Vec::new();
    let mut seen = HashSet::new();
    let mut steps = 0;
    loop {
        let room = limit - page.len();
        let taken = position.waiting.drain(..room.min(position.waiting.len()));
        page.extend(taken.filter(|key| seen.insert(key.clone())));
        let is_full = !position.waiting.is_empty() || page.len() >= limit || steps >= STEPS;
        let Some(at) = position.next.as_ref().filter(|_| !is_full) else { break };
        let step = scan(lanes, Behind::Acknowledged, prefix, at, look_at, cx).await?;
        if step.keys.is_empty() {
            look_at = MOST_LOOKED_AT.min(look_at * 2);
        }
        position = Position { next: step.next, waiting: step.keys };
        steps += 1;
    }
    Ok(KeyPage::new(page, position.cursor()))
}

/// Counts the keys. A scan may show a key twice, so each is remembered by a hash; two of a million keys have the same 64
/// bits with a chance of one in thirty million.
pub(super) async fn count(lanes: &Lanes, prefix: &KeyPrefix, cx: &Context) -> Result<u64> {
    let hasher = RandomState::new();
    let mut seen = HashSet::new();
    let mut next = Some(Spot::START);
    while let Some(at) = next {
        let step = scan(lanes, Behind::Acknowledged, prefix, &at, MOST_LOOKED_AT, cx).await?;
        seen.extend(step.keys.iter().map(|key| hasher.hash_one(key)));
        next = step.next;
    }
    Ok(seen.len() as u64)
}

/// Removes all keys, and says how many went.
///
/// It scans where the writes go, so that a write sent before it, whoever still waits for it, is cleared too.
pub(super) async fn clear(lanes: &Lanes, prefix: &KeyPrefix, cx: &Context) -> Result<u64> {
    let mut removed = 0;
    let mut next = Some(Spot::START);
    while let Some(at) = next {
        let step = async {
            let step = scan(lanes, Behind::Sent, prefix, &at, MOST_LOOKED_AT, cx).await?;
            Ok((unlink(lanes, &step.keys, cx).await?, step.next))
        };
        let (gone, following) = step.await.map_err(|failure| broken_off(failure, removed))?;
        removed += gone;
        next = following;
    }
    Ok(removed)
}

/// A failure after some keys went is not one of a write that was not applied.
fn broken_off(failure: Error, removed: u64) -> Error {
    if removed == 0 || failure.kind() != ErrorKind::Unavailable {
        return failure;
    }
    Error::outcome_unknown("clearing broke off in the middle; some keys are gone").with_source(failure)
}

async fn unlink(lanes: &Lanes, keys: &[Key], cx: &Context) -> Result<u64> {
    if keys.is_empty() {
        return Ok(0);
    }
    let mut command = cmd("UNLINK");
    for key in keys {
        command.arg(key.as_bytes());
    }
    match lanes.write(&command, cx).await? {
        Reply::Int(count) => u64::try_from(count).map_err(|_| error::unexpected_reply()),
        Reply::ServerError(refusal) => Err(error::refused(refusal)),
        _ => Err(error::unexpected_reply()),
    }
}

/// Where a scan goes on, and at which server: the number means nothing to another one, nor to the same one after a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Spot {
    number: u64,
    server: Option<String>,
}

impl Spot {
    const START: Self = Self { number: 0, server: None };

    /// The number for this server. One that it did not give is worth nothing, so the scan begins anew.
    fn number_for(&self, server: Option<&str>) -> u64 {
        match (&self.server, server) {
            (Some(ours), Some(server)) if ours != server => 0,
            _ => self.number,
        }
    }
}

/// What one step of a scan found.
struct Step {
    keys: Vec<Key>,
    next: Option<Spot>,
}

/// Which writes a step comes after.
#[derive(Clone, Copy, Debug)]
enum Behind {
    /// Those that were acknowledged.
    Acknowledged,
    /// Those that were sent, acknowledged or not.
    Sent,
}

async fn scan(
    lanes: &Lanes,
    behind: Behind,
    prefix: &KeyPrefix,
    at: &Spot,
    look_at: usize,
    cx: &Context,
) -> Result<Step> {
    let link = match behind {
        Behind::Acknowledged => lanes.read_link(cx).await?,
        Behind::Sent => lanes.write_link(cx).await?,
    };
    let mut command = cmd("SCAN");
    command.arg(at.number_for(link.server()));
    if !prefix.is_empty() {
        command.arg("MATCH").arg(pattern(prefix));
    }
    command.arg("COUNT").arg(look_at);
    let (cursor, found) = match link.send_one(&command, Effect::Read, cx).await? {
        Reply::Array(parts) => <[Reply; 2]>::try_from(parts).map_err(|_| error::unexpected_reply())?.into(),
        Reply::ServerError(refusal) => return Err(error::refused(refusal)),
        _ => return Err(error::unexpected_reply()),
    };
    let number: u64 = redis::from_redis_value(cursor).map_err(|_| error::unexpected_reply())?;
    let Reply::Array(found) = found else { return Err(error::unexpected_reply()) };
    let keys = found.into_iter().filter_map(|name| our_key(name, prefix)).collect();
    let next = Spot { number, server: link.server().map(str::to_owned) };
    Ok(Step { keys, next: Some(next).filter(|next| next.number != 0) })
}

/// The key of that name; none for what cannot be a key, as another client's binary names and the one that a ping writes.
fn our_key(name: Reply, prefix: &KeyPrefix) -> Option<Key> {
    let Reply::BulkString(name) = name else { return None };
    let key = Key::parse(std::str::from_utf8(&name).ok()?).ok()?;
    prefix.matches(&key).then_some(key)
}

/// The glob that fits what begins with the prefix.
fn pattern(prefix: &KeyPrefix) -> String {
    let mut pattern = String::with_capacity(prefix.as_str().len() + 1);
    for character in prefix.as_str().chars() {
        if matches!(character, '\\' | '*' | '?' | '[' | ']') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern.push('*');
    pattern
}

/// Where a listing stands: what the server said to go on from, and what it had shown beyond the last page's limit.
///
/// Those keys travel in the cursor. Asking again for the same step would not do: a table that grew meanwhile answers with
/// other keys.
struct Position {
    next: Option<Spot>,
    waiting: Vec<Key>,
}

impl Position {
    const fn start() -> Self {
        Self { next: Some(Spot::START), waiting: Vec::new() }
    }

    /// Reads what [`Position::cursor`] wrote. Control characters are in no key, so a line break separates them.
    fn parse(cursor: &Cursor, prefix: &KeyPrefix) -> Result<Self> {
        let unreadable = || Error::invalid_value("the cursor is not one that a listing of this prefix answered");
        let mut lines = cursor.as_str().split('\n');
        let next = lines.next().and_then(Self::spot).ok_or_else(unreadable)?;
        let keys = lines.map(|line| Key::parse(line).ok().filter(|key| prefix.matches(key)));
        let waiting = keys.collect::<Option<_>>().ok_or_else(unreadable)?;
        Ok(Self { next: Some(next).filter(|next| next.number != 0), waiting })
    }

    /// Reads a number, and which server gave it if that was known.
    fn spot(line: &str) -> Option<Spot> {
        let (number, server) = line.split_once(' ').map_or((line, None), |(number, server)| (number, Some(server)));
        let is_name = |server: &str| !server.is_empty() && server.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let server = server.map(str::to_owned);
        server.as_deref().is_none_or(is_name).then_some(Spot { number: number.parse().ok()?, server })
    }

    /// The cursor of the next page, if there is more.
    fn cursor(&self) -> Option<Cursor> {
        if self.next.is_none() && self.waiting.is_empty() {
            return None;
        }
        let Spot { number, server } = self.next.as_ref().unwrap_or(&Spot::START);
        let mut text = number.to_string();
        if let Some(server) = server {
            text.push(' ');
            text.push_str(server);
        }
        for key in &self.waiting {
            text.push('\n');
            text.push_str(key.as_str());
        }
        Some(Cursor::new(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_literal_in_the_pattern() {
        let prefix = KeyPrefix::parse(r"a*b?[c]\^-é").unwrap();
        assert_eq!(pattern(&prefix), r"a\*b\?\[c\]\\^-é*");
    }

    #[test]
    fn a_cursor_carries_what_waits() {
        let waiting: Vec<Key> = ["p:1", "p: 2"].map(|key| Key::parse(key).unwrap()).to_vec();
        let prefix = KeyPrefix::parse("p:").unwrap();
        let known = Spot { number: 7, server: Some("5a1b".to_owned()) };
        for next in [None, Some(Spot { server: None, ..known.clone() }), Some(known)] {
            let cursor = Position { next: next.clone(), waiting: waiting.clone() }.cursor().unwrap();
            let position = Position::parse(&cursor, &prefix).unwrap();
            assert_eq!((position.next, position.waiting), (next, waiting.clone()));
        }
        assert!(Position { next: None, waiting: Vec::new() }.cursor().is_none());
    }

    #[test]
    fn a_number_means_nothing_to_another_server() {
        let spot = Spot { number: 7, server: Some("a".to_owned()) };
        assert_eq!([Some("a"), Some("b"), None].map(|server| spot.number_for(server)), [7, 0, 7]);
        assert_eq!(Spot { server: None, ..spot }.number_for(Some("b")), 7);
    }

    #[test]
    fn a_cursor_of_something_else_is_refused() {
        let prefix = KeyPrefix::parse("p:").unwrap();
        for text in ["", "x", "-1", "1 ", "1 a b", " a", "1\n", "1\nq:1", "1\np:1\n", "99999999999999999999"] {
            let error = Position::parse(&Cursor::new(text), &prefix).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::InvalidValue, "{text:?}");
        }
    }
}
