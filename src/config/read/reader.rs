//! What reads the tree: the [`Reader`] that collects every problem instead of stopping at the first.

use std::collections::BTreeMap;
use std::path::Path;

use super::expand::{expand, mentions_variable};
use super::node::{Entry, Kind, Node, Place, Position};
use super::value::Value;
use crate::config::environment::Environment;
use crate::config::error::Problem;

/// A value that was read, and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Field<T> {
    pub(super) value: T,
    pub(super) place: Place,
}

impl<T> Field<T> {
    /// The same place with another value.
    pub(super) fn map<U>(self, convert: impl FnOnce(T) -> U) -> Field<U> {
        Field { value: convert(self.value), place: self.place }
    }
}

/// Collects what is found while a file is read.
pub(super) struct Reader<'a> {
    file: &'a str,
    base: &'a Path,
    environment: &'a Environment,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
    places: BTreeMap<String, Position>,
}

impl<'a> Reader<'a> {
    /// Makes a reader for a file of a name, whose relative paths begin at `base`.
    pub(super) fn new(file: &'a str, base: &'a Path, environment: &'a Environment) -> Self {
        let (problems, warnings) = (Vec::new(), Vec::new());
        Self { file, base, environment, problems, warnings, places: BTreeMap::new() }
    }

    /// Where relative paths begin.
    pub(super) const fn base(&self) -> &'a Path {
        self.base
    }

    /// The variables.
    pub(super) const fn environment(&self) -> &'a Environment {
        self.environment
    }

    /// Reports a problem.
    pub(super) fn problem(&mut self, place: &Place, message: impl Into<String>) {
        let problem = self.at(place, message.into());
        self.problems.push(problem);
    }

    /// Reports something that loads but is not as it seems.
    pub(super) fn warn(&mut self, place: &Place, message: impl Into<String>) {
        let warning = self.at(place, message.into());
        self.warnings.push(warning);
    }

    /// Reports that a value is of another type. The value is not told, for it may be a secret.
    pub(super) fn wrong_type(&mut self, node: &Node, expected: &str) {
        match node.kind {
            Kind::Broken => {}
            Kind::TooLong => self.problem(&node.place, "is longer than any setting can be (8 KiB)"),
            _ => self.problem(&node.place, format!("expected {expected}, found {}", node.kind.describe())),
        }
    }

    /// Where the value of a path stands, if the file has one.
    pub(super) fn position(&self, path: &str) -> Option<Position> {
        self.places.get(path).copied()
    }

    /// The problems and the warnings.
    pub(super) fn finish(self) -> (Vec<Problem>, Vec<Problem>) {
        (self.problems, self.warnings)
    }

    /// Fills in paths, and replaces variables by what they hold, in a whole tree.
    pub(super) fn resolve(&mut self, node: &mut Node, path: String) {
        self.places.insert(path.clone(), node.place.position);
        node.place.path = path;
        match &mut node.kind {
            Kind::List(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    self.resolve(item, format!("{}[{index}]", node.place.path));
                }
            }
            Kind::Map(entries) => {
                for Entry { key, value, .. } in entries {
                    self.resolve(value, format!("{}.{}", node.place.path, shown(key)));
                }
            }
            Kind::Text { text, expanded } if mentions_variable(text) => {
                let expansion = expand(text, self.environment);
                (*text, *expanded) = (expansion.text, expansion.expanded);
                if expansion.stray {
                    self.warn(
                        &node.place,
                        "has a `${` that is not `${NAME}`, `${NAME:-default}` or `${NAME:?message}` and stands for \
                         itself; write `$${` if that is meant",
                    );
                }
                if !expansion.problems.is_empty() {
                    node.kind = Kind::Broken;
                }
                for message in expansion.problems {
                    self.problem(&node.place, message);
                }
            }
            _ => {}
        }
    }

    fn at(&self, place: &Place, message: String) -> Problem {
        Problem {
            file: self.file.to_owned(),
            line: place.position.line,
            column: place.position.column,
            path: place.path.clone(),
            message,
        }
    }
}

/// The keys of one mapping, each of which somebody must ask for.
pub(super) struct Fields<'n> {
    entries: &'n [Entry],
    place: Place,
    known: Vec<&'static str>,
}

impl<'n> Fields<'n> {
    /// Opens a mapping; nothing counts as an empty one.
    pub(super) fn open(node: &'n Node, reader: &mut Reader<'_>) -> Option<Self> {
        let entries = match &node.kind {
            Kind::Map(entries) => entries.as_slice(),
            Kind::Null => &[],
            _ => {
                reader.wrong_type(node, "a mapping");
                return None;
            }
        };
        Some(Self { entries, place: node.heading(), known: Vec::new() })
    }

    /// The place to name when a key is missing.
    pub(super) const fn place(&self) -> &Place {
        &self.place
    }

    /// The node of a key; a key without a value counts as absent.
    pub(super) fn node(&mut self, key: &'static str) -> Option<&'n Node> {
        self.known.push(key);
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        (!matches!(entry.value.kind, Kind::Null)).then_some(&entry.value)
    }

    /// Reads a key; nothing if it is absent, or if it was wrong and reported.
    pub(super) fn get<T: Value>(&mut self, key: &'static str, reader: &mut Reader<'_>) -> Option<Field<T>> {
        let node = self.node(key)?;
        Some(Field { value: T::read(node, reader)?, place: node.place.clone() })
    }

    /// Reports every key that nobody asked for.
    pub(super) fn close(self, reader: &mut Reader<'_>) {
        for entry in self.entries.iter().filter(|entry| !self.known.contains(&entry.key.as_str())) {
            let place = Place { path: entry.value.place.path.clone(), position: entry.position };
            let hint = nearest(&entry.key, self.known.iter().copied());
            reader.problem(&place, format!("is not a known key{}", did_you_mean(hint, &self.known)));
        }
    }
}

/// A key as it may be shown: a slip of indentation can make a key of anything, a secret too.
fn shown(key: &str) -> &str {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    if !key.is_empty() && key.len() <= 40 && key.bytes().all(plain) { key } else { "..." }
}

/// The end of a message about an unknown word: the nearest known one, or all of them.
pub(super) fn did_you_mean(nearest: Option<&str>, known: &[&str]) -> String {
    match nearest {
        Some(word) => format!("; did you mean `{word}`?"),
        None => format!("; known are {}", list(known)),
    }
}

/// The words with commas between them, each in backticks.
pub(super) fn list(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

/// The known word that is most like an unknown one, if any is like it at all.
pub(super) fn nearest<'w>(unknown: &str, known: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    let folded = |word: &str| word.to_lowercase().replace(['_', '-'], "");
    let unknown = folded(unknown);
    known
        .map(|word| (strsim::damerau_levenshtein(&unknown, &folded(word)), word))
        .filter(|(distance, word)| *distance <= 1.max(word.len() / 3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_found_across_spellings() {
        let known = ["keyPrefix", "maxConnections", "port", "path"];
        for (typo, word) in [("key_prefix", "keyPrefix"), ("maxConnection", "maxConnections"), ("prot", "port")] {
            assert_eq!(nearest(typo, known.into_iter()), Some(word));
        }
        assert_eq!(nearest("colour", known.into_iter()), None);
    }

    #[test]
    fn a_key_that_is_no_word_is_not_shown() {
        assert_eq!(shown("redis://:secret@host"), "...");
        assert_eq!(shown("maxConections"), "maxConections");
    }
}
