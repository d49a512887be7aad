//! Listing, counting and clearing by prefix.

use crate::contract::{Context, Cursor, KeyPage, ListOptions, Write};
use crate::error::{Behind, Error, Result};
use crate::key::{Key, KeyPrefix};

use super::table::{Table, lock};
use super::write::{self, Stamped};

impl Table {
    /// One page in byte order. Each shard gives its first keys; the smallest of them all are the page.
    pub(super) fn list(&self, prefix: &KeyPrefix, options: &ListOptions, cx: &Context) -> Result<KeyPage> {
        let now = self.admit(cx)?.now;
        let limit = options.limit.clamp(1, ListOptions::MAX_LIMIT);
        let after = options.cursor.as_ref().map(|cursor| Key::parse(cursor.as_str())).transpose();
        let after = after.map_err(|_| Error::invalid_value("the cursor is not one that this store gave"))?;
        let after = after.as_ref().map(Key::as_str);
        let mut keys: Vec<Key> = Vec::new();
        for shard in self.shards() {
            let shard = lock(shard);
            let live = shard.records_after(prefix, after).filter(|(_, record)| record.exists(now));
            keys.extend(live.take(limit + 1).map(|(key, _)| key.clone()));
        }
        keys.sort_unstable();
        let more = keys.len() > limit;
        keys.truncate(limit);
        let next = keys.last().filter(|_| more).map(|last| Cursor::new(last.as_str()));
        Ok(KeyPage::new(keys, next))
    }

    pub(super) fn count(&self, prefix: &KeyPrefix, cx: &Context) -> Result<u64> {
        let now = self.admit(cx)?.now;
        let live =
            |shard| lock(shard).records_after(prefix, None).filter(|(_, record)| record.exists(now)).count() as u64;
        Ok(self.shards().iter().map(live).sum())
    }

    /// Removes all keys of a prefix; where it may not be stamped anew, only what is older.
    pub(super) fn clear(&self, prefix: &KeyPrefix, stamped: Stamped, cx: &Context) -> Result<u64> {
        let moment = self.admit(cx)?;
        let Stamped { stamp, attempt } = stamped;
        let (mut cleared, mut refused, mut newest) = (0, false, None);
        for shard in self.shards() {
            let mut shard = lock(shard);
            let keys: Vec<Key> = shard.records_after(prefix, None).map(|(key, _)| key.clone()).collect();
            self.with_guard(&mut shard, |shard| {
                for key in keys {
                    let delete = Write { attempt, ..Write::delete(key, stamp) };
                    match write::write(shard, delete, moment) {
                        Ok((ack, _undo)) => cleared += u64::from(ack.existed == Some(true)),
                        Err(error) => {
                            newest = newest.max(error.as_behind().and_then(|behind| behind.standing()));
                            refused = true;
                        }
                    }
                }
            });
        }
        if refused {
            return Err(attempt.refusal(Behind::after_removing(cleared).with_standing(newest)));
        }
        Ok(cleared)
    }
}
