//! The [`KeyPattern`].

use std::fmt;

use super::name::{Key, check};
use super::prefix::KeyPrefix;
use crate::error::Result;

/// A glob over whole keys: `*` stands for any number of characters, `?` for one, `\` takes the next one literally.
///
/// A `\` at the very end stands for itself. Brackets have no meaning. Matching takes time proportional to pattern times key at
/// worst, never more.
///
/// # Examples
///
/// ```
/// use agent_storage::KeyPattern;
///
/// let pattern = KeyPattern::parse("session:*:title")?;
/// assert!(pattern.matches("session:42:title"));
/// assert!(!pattern.matches("session:42"));
/// assert_eq!(pattern.literal_prefix()?.as_str(), "session:");
/// # Ok::<(), agent_storage::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct KeyPattern {
    text: String,
    parts: Vec<Part>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Literal(char),
    AnyOne,
    AnyRun,
}

impl KeyPattern {
    /// Checks a text and makes it a pattern.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidKey`](crate::ErrorKind::InvalidKey) if it is longer than [`Key::MAX_BYTES`], or holds a control
    /// character.
    pub fn parse(text: impl AsRef<str>) -> Result<Self> {
        let text = text.as_ref();
        check("key pattern", text)?;
        let mut parts = Vec::new();
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            match character {
                '*' if parts.last() == Some(&Part::AnyRun) => {}
                '*' => parts.push(Part::AnyRun),
                '?' => parts.push(Part::AnyOne),
                '\\' => parts.push(Part::Literal(characters.next().unwrap_or('\\'))),
                other => parts.push(Part::Literal(other)),
            }
        }
        Ok(Self { text: text.to_owned(), parts })
    }

    /// The pattern's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The literal beginning that every match has, which a store can list by.
    ///
    /// # Errors
    ///
    /// As [`KeyPattern::parse`].
    pub fn literal_prefix(&self) -> Result<KeyPrefix> {
        let literal = self.parts.iter().map_while(|part| match part {
            Part::Literal(character) => Some(*character),
            Part::AnyOne | Part::AnyRun => None,
        });
        KeyPrefix::parse(literal.collect::<String>())
    }

    /// Whether the whole text fits the pattern.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        // The classic two-cursor match: on a mismatch, let the last run take one character more.
        let text: Vec<char> = text.chars().collect();
        let (mut at, mut part) = (0, 0);
        let mut last_run: Option<(usize, usize)> = None;
        while let Some(&character) = text.get(at) {
            match self.parts.get(part) {
                Some(Part::AnyRun) => {
                    last_run = Some((part, at));
                    part += 1;
                }
                Some(Part::AnyOne) => (at, part) = (at + 1, part + 1),
                Some(Part::Literal(literal)) if *literal == character => (at, part) = (at + 1, part + 1),
                _ => match &mut last_run {
                    Some((run, taken)) => {
                        *taken += 1;
                        (at, part) = (*taken, *run + 1);
                    }
                    None => return false,
                },
            }
        }
        self.parts.iter().skip(part).all(|rest| *rest == Part::AnyRun)
    }

    /// Whether a key fits the pattern.
    #[must_use]
    pub fn matches_key(&self, key: &Key) -> bool {
        self.matches(key.as_str())
    }
}

impl fmt::Debug for KeyPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyPattern({:?})", self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(pattern: &str, text: &str) -> bool {
        KeyPattern::parse(pattern).unwrap().matches(text)
    }

    #[test]
    fn globs_fit_whole_keys() {
        assert!(fits("session:*", "session:42") && fits("session:*", "session:"));
        assert!(!fits("session:*", "Session:42") && !fits("session:", "session:42"));
        assert!(fits("a?c", "aüc") && !fits("a?c", "ac"));
        assert!(fits("*b*d", "abcbd") && !fits("*b*d", "abcbe"));
        assert!(fits("**", "anything") && fits("", ""));
    }

    #[test]
    fn a_backslash_takes_the_next_character_literally() {
        assert!(fits(r"50\*", "50*") && !fits(r"50\*", "500"));
        assert!(fits(r"a\\b", r"a\b") && fits(r"end\", r"end\"));
        assert!(fits("[ab]", "[ab]") && !fits("[ab]", "a"));
    }

    #[test]
    fn many_stars_do_not_blow_up() {
        let pattern = "*a".repeat(300);
        assert!(!fits(&pattern, &"a".repeat(299)));
        assert!(fits(&pattern, &"a".repeat(300)));
    }
}
