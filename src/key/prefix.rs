//! The [`KeyPrefix`].

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::name::{Key, check};
use crate::error::{Error, Result};

/// The literal beginning of keys: 0 to 1024 bytes of UTF-8 without control characters.
///
/// Literal means that `_ % * [ \` stand for themselves, and that case counts. The empty prefix fits every key.
///
/// # Examples
///
/// ```
/// use agent_storage::{Key, KeyPrefix};
///
/// let prefix = KeyPrefix::parse("session:")?;
/// assert!(prefix.matches(&Key::parse("session:42")?));
/// # Ok::<(), agent_storage::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyPrefix(Arc<str>);

impl KeyPrefix {
    /// Checks a text and makes it a prefix.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidKey`](crate::ErrorKind::InvalidKey) if it is longer than [`Key::MAX_BYTES`], or holds a control
    /// character.
    pub fn parse(text: impl AsRef<str>) -> Result<Self> {
        let text = text.as_ref();
        check("key prefix", text)?;
        Ok(Self(Arc::from(text)))
    }

    /// The prefix that fits every key.
    #[must_use]
    pub fn empty() -> Self {
        Self(Arc::from(""))
    }

    /// The prefix's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is the empty prefix.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a key begins with the prefix.
    #[must_use]
    pub fn matches(&self, key: &Key) -> bool {
        key.as_str().starts_with(&*self.0)
    }

    /// Puts the prefix before a key.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidKey`](crate::ErrorKind::InvalidKey) if the two together are too long.
    pub fn join(&self, key: &Key) -> Result<Key> {
        if self.is_empty() { Ok(key.clone()) } else { Key::join(&self.0, key) }
    }

    /// Puts the prefix before another prefix.
    ///
    /// # Errors
    ///
    /// As [`KeyPrefix::join`].
    pub fn join_prefix(&self, inner: &Self) -> Result<Self> {
        if self.is_empty() { Ok(inner.clone()) } else { Self::parse(format!("{}{inner}", self.0)) }
    }

    /// Takes the prefix off a key that begins with it, and has more than it.
    #[must_use]
    pub fn strip(&self, key: &Key) -> Option<Key> {
        if self.is_empty() {
            return Some(key.clone());
        }
        key.as_str().strip_prefix(&*self.0).and_then(|rest| Key::parse(rest).ok())
    }

    /// The smallest text that sorts after every key with this prefix, by bytes; `None` if there is none.
    ///
    /// With it a prefix listing is a range: `prefix <= key < upper bound`. Only the last character that has a successor is
    /// raised, so the bound is valid UTF-8, and UTF-8 sorts by bytes as its characters do by number.
    #[must_use]
    pub fn upper_bound(&self) -> Option<String> {
        let mut characters: Vec<char> = self.0.chars().collect();
        while let Some(last) = characters.pop() {
            if let Some(next) = successor(last) {
                characters.push(next);
                return Some(characters.into_iter().collect());
            }
        }
        None
    }
}

/// The character after this one, past the gap of the surrogates.
fn successor(character: char) -> Option<char> {
    match character {
        '\u{D7FF}' => Some('\u{E000}'),
        char::MAX => None,
        other => char::from_u32(u32::from(other) + 1),
    }
}

impl Default for KeyPrefix {
    fn default() -> Self {
        Self::empty()
    }
}

impl fmt::Display for KeyPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for KeyPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyPrefix({:?})", &*self.0)
    }
}

impl FromStr for KeyPrefix {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_upper_bound_is_past_every_key_with_the_prefix() {
        for text in ["a", "a\u{10FFFF}", "z\u{D7FF}", "session:", "😀"] {
            let bound = KeyPrefix::parse(text).unwrap().upper_bound().unwrap();
            assert!(format!("{text}\u{10FFFF}\u{10FFFF}").as_bytes() < bound.as_bytes(), "{text}");
            assert!(!bound.starts_with(text));
        }
        assert_eq!(KeyPrefix::empty().upper_bound(), None);
        assert_eq!(KeyPrefix::parse("\u{10FFFF}").unwrap().upper_bound(), None);
    }

    #[test]
    fn the_prefix_counts_towards_the_limit() {
        let prefix = KeyPrefix::parse("tenant:").unwrap();
        let key = Key::parse("k".repeat(Key::MAX_BYTES)).unwrap();
        assert!(prefix.join(&key).is_err());
        let joined = prefix.join(&Key::parse("a").unwrap()).unwrap();
        assert_eq!(joined.as_str(), "tenant:a");
        assert_eq!(prefix.strip(&joined).unwrap().as_str(), "a");
        assert_eq!(prefix.strip(&Key::parse("tenant:").unwrap()), None);
    }
}
