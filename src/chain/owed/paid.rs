//! [`Paid`]: what of the debts was paid.

use std::collections::HashMap;

use crate::chain::journal::{Effect, Header};
use crate::key::{Key, KeyPrefix};
use crate::stamp::Stamp;

/// The newest stamps of what was paid of a key that is still owed something.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Paid {
    /// Of what wrote the value, or deleted it.
    pub(super) value: Option<Stamp>,
    /// Of what deleted value and list.
    pub(super) deleted: Option<Stamp>,
    pub(super) appended: Option<Stamp>,
}

/// The newest stamps of what is paid by one replay.
#[derive(Debug, Default)]
pub(super) struct PaidNow<'a> {
    keys: HashMap<&'a Key, Paid>,
    clears: Vec<(&'a KeyPrefix, Stamp)>,
}

impl<'a> PaidNow<'a> {
    pub(super) fn of(debts: impl Iterator<Item = &'a Header>) -> Self {
        let mut paid = Self::default();
        for Header { stamp, effect, .. } in debts {
            match effect {
                Effect::Put(key, _) => paid.keys.entry(key).or_default().note_value(*stamp),
                Effect::Delete(key) => paid.keys.entry(key).or_default().note_delete(*stamp),
                Effect::Clear(prefix) => paid.clears.push((prefix, *stamp)),
                Effect::Append(_) => {}
            }
        }
        paid
    }

    /// The newest stamp of what replaces an effect, by this and by what was paid of its key before.
    pub(super) fn since(&self, effect: &Effect, before: Paid) -> Option<Stamp> {
        let now = |key| self.keys.get(key).copied().unwrap_or_default();
        let cleared = |text: &str| {
            self.clears.iter().filter(|(prefix, _)| text.starts_with(prefix.as_str())).map(|(_, stamp)| *stamp).max()
        };
        match effect {
            Effect::Put(key, _) => now(key).value.max(before.value).max(cleared(key.as_str())),
            Effect::Delete(key) | Effect::Append(key) => {
                now(key).deleted.max(before.deleted).max(cleared(key.as_str()))
            }
            Effect::Clear(prefix) => cleared(prefix.as_str()),
        }
    }
}

impl Paid {
    pub(super) fn note_value(&mut self, stamp: Stamp) {
        self.value = self.value.max(Some(stamp));
    }

    pub(super) fn note_delete(&mut self, stamp: Stamp) {
        self.note_value(stamp);
        self.deleted = self.deleted.max(Some(stamp));
    }
}
