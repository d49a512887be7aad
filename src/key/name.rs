//! The [`Key`] and what can be turned into one.

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::str::FromStr;

use smol_str::{SmolStr, SmolStrBuilder};

use crate::error::{Error, Result};

/// The name of an entry: 1 to 1024 bytes of UTF-8 without control characters.
///
/// Everything else is allowed on every backend: `session:42`, `a b`, `Ünï/😀`, `50%`, `a..b`. A backend with a smaller
/// alphabet encodes, reversibly. The limit counts the configured prefix too. Keys sort by their bytes and are cheap to clone; one of
/// up to 23 bytes takes no memory beside itself.
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
pub struct Key(SmolStr);

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
        Ok(Self(SmolStr::new(text)))
    }

    /// Puts a key together from two parts that have been checked.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidKey`](crate::ErrorKind::InvalidKey) if the two together are too long.
    pub(super) fn join(prefix: &str, rest: &Self) -> Result<Self> {
        check_length("key", prefix.len() + rest.0.len())?;
        let mut joined = SmolStrBuilder::new();
        joined.push_str(prefix);
        joined.push_str(&rest.0);
        Ok(Self(joined.finish()))
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
    check_length(noun, text.len())?;
    if !may_hold_control(text.as_bytes()) {
        return Ok(());
    }
    match text.char_indices().find(|(_, character)| character.is_control()) {
        Some((at, character)) => Err(Error::invalid_key(format!(
            "a {noun} must not hold control characters, this one has U+{:04X} at byte {at}",
            u32::from(character)
        ))),
        None => Ok(()),
    }
}

/// Whether bytes of UTF-8 may hold a control character: one is below the space, is DEL, or begins with 0xC2. Eight bytes are looked
/// at as one word; the last word overlaps the one before it.
fn may_hold_control(bytes: &[u8]) -> bool {
    let (words, _) = bytes.as_chunks::<8>();
    let in_word = |word: &[u8; 8]| word_may_hold_control(u64::from_ne_bytes(*word));
    match bytes.last_chunk() {
        Some(last) => words.iter().any(in_word) || in_word(last),
        None => bytes.iter().any(|byte| *byte < b' ' || *byte == 0x7f || *byte == 0xc2),
    }
}

/// The bit tricks `hasless` and `haszero` (Anderson, "Bit Twiddling Hacks").
const fn word_may_hold_control(word: u64) -> bool {
    const ONES: u64 = u64::from_ne_bytes([0x01; 8]);
    const HIGH: u64 = u64::from_ne_bytes([0x80; 8]);
    let below_space = word.wrapping_sub(ONES * 0x20) & !word;
    let (del, lead) = (word ^ (ONES * 0x7f), word ^ (ONES * 0xc2));
    let (is_del, is_lead) = (del.wrapping_sub(ONES) & !del, lead.wrapping_sub(ONES) & !lead);
    (below_space | is_del | is_lead) & HIGH != 0
}

fn check_length(noun: &str, length: usize) -> Result<()> {
    if length <= Key::MAX_BYTES {
        return Ok(());
    }
    let limit = Key::MAX_BYTES;
    Err(Error::invalid_key(format!("a {noun} may have at most {limit} bytes, this one has {length}")))
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
        for character in '\0'..='\u{1000}' {
            for text in
                [format!("{character}"), format!("a long key{character}"), format!("ü{character} and more to come")]
            {
                assert_eq!(Key::parse(&text).is_err(), character.is_control(), "{text:?}");
            }
        }
    }
}
