//! The [`Key`] and what can be turned into one.

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::error::{Error, Result};

/// The name of an entry: 1 to 1024 bytes of UTF-8 without control characters.
///
/// Everything else is allowed on every backend: `session:42`, `a b`, `Ünï/😀`, `50%`, `a..b`. A backend with a smaller
/// alphabet encodes, reversibly. The limit counts the configured prefix too. Keys sort by their bytes and are cheap to clone.
///
/// # Examples
///
/// ```
/// use agent_storage::Key;
///
/// let key = Key::parse("session:42")?;
/// assert_eq!(key.as_str(), "session:42");
/// assert!(Key::parse("two\nlines").is_err());
/// # Ok::<(), agent_storage::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

impl Key {
    /// The longest key, in bytes. An encoded key of this length stays below the 4096-byte control line of a NATS server.
    pub const MAX_BYTES: usize = 1024;

    /// Checks a text and makes it a key.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidKey`](crate::ErrorKind::InvalidKey) if it is empty, longer than [`Key::MAX_BYTES`], or holds a
    /// control character.
    pub fn parse(text: impl AsRef<str>) -> Result<Self> {
        let text = text.as_ref();
        if text.is_empty() {
            return Err(Error::invalid_key("a key must not be empty"));
        }
        check("key", text)?;
        Ok(Self(Arc::from(text)))
    }

    /// The key's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key's bytes, which it sorts by.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// Checks length and alphabet of a key, prefix or pattern, named by `noun`.
pub(super) fn check(noun: &str, text: &str) -> Result<()> {
    if text.len() > Key::MAX_BYTES {
        let length = text.len();
        let limit = Key::MAX_BYTES;
        return Err(Error::invalid_key(format!("a {noun} may have at most {limit} bytes, this one has {length}")));
    }
    match text.char_indices().find(|(_, character)| character.is_control()) {
        Some((at, character)) => Err(Error::invalid_key(format!(
            "a {noun} must not hold control characters, this one has U+{:04X} at byte {at}",
            u32::from(character)
        ))),
        None => Ok(()),
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:?})", &*self.0)
    }
}

impl AsRef<str> for Key {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl FromStr for Key {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

/// What the handles take where a key is meant: a [`Key`], or a text that is checked on the way in.
///
/// # Examples
///
/// ```
/// use agent_storage::{IntoKey, Key};
///
/// assert_eq!("session:42".into_key()?, Key::parse("session:42")?);
/// # Ok::<(), agent_storage::Error>(())
/// ```
pub trait IntoKey: Send {
    /// Makes the key.
    ///
    /// # Errors
    ///
    /// As [`Key::parse`].
    fn into_key(self) -> Result<Key>;
}

impl IntoKey for Key {
    fn into_key(self) -> Result<Key> {
        Ok(self)
    }
}

impl IntoKey for &Key {
    fn into_key(self) -> Result<Key> {
        Ok(self.clone())
    }
}

macro_rules! into_key_from_text {
    ($($text:ty),*) => {
        $(impl IntoKey for $text {
            fn into_key(self) -> Result<Key> {
                Key::parse(self)
            }
        })*
    };
}

into_key_from_text!(&str, String, &String, Cow<'_, str>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unusual_text_is_a_key() {
        for text in ["session:42", "a b", "Ünï/😀", "50%", "a..b", "_%*[\\", ".", ">", " "] {
            assert_eq!(Key::parse(text).unwrap().as_str(), text);
        }
    }

    #[test]
    fn length_is_counted_in_bytes() {
        assert!(Key::parse("ü".repeat(512)).is_ok());
        assert!(Key::parse("ü".repeat(513)).is_err());
        assert!(Key::parse("").is_err());
    }

    #[test]
    fn control_characters_are_refused() {
        for text in ["a\0", "a\nb", "\u{7f}", "\u{85}"] {
            assert!(Key::parse(text).is_err(), "{text:?}");
        }
    }
}
