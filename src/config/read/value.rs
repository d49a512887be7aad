//! The kinds of value that a key may hold: how each is read, and how the schema describes it.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use secrecy::{ExposeSecret, SecretString};

use super::node::{Kind, Node};
use super::reader::{Field, Reader, did_you_mean, nearest};
use crate::config::environment::Variable;

/// What text must look like where the schema expects no text: a variable. JSON Schema applies it to text alone.
const VARIABLE: &str = "\\$";

/// A kind of value.
pub(super) trait Value: Sized {
    /// Reads a value, or reports what is wrong with it.
    fn read(node: &Node, reader: &mut Reader<'_>) -> Option<Self>;

    /// What the schema says of it.
    fn schema(generator: &mut SchemaGenerator) -> Schema;
}

impl<T: Value> JsonSchema for Field<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Field".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::schema(generator)
    }
}

/// The text of a node.
fn text<'n>(node: &'n Node, expected: &str, reader: &mut Reader<'_>) -> Option<&'n str> {
    match &node.kind {
        Kind::Text { text, .. } => return Some(text),
        Kind::Integer(_) | Kind::Float | Kind::Bool(_) if expected == "text" => {
            reader.wrong_type(node, "text (put it in quotes)");
        }
        _ => reader.wrong_type(node, expected),
    }
    None
}

impl Value for String {
    fn read(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        text(node, "text", reader).map(str::to_owned)
    }

    fn schema(_generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}

/// A secret that can be compared.
#[derive(Clone, Debug)]
pub(super) struct Secret(pub(super) SecretString);

impl Secret {
    /// Takes a text; an empty one, as `${PASSWORD:-}` may give, is no secret.
    pub(super) fn new(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| Self(text.into()))
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.expose_secret() == other.0.expose_secret()
    }
}

impl Value for Secret {
    fn read(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        Self::new(text(node, "text", reader)?)
    }

    fn schema(_generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "writeOnly": true })
    }
}

impl Value for bool {
    fn read(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        match &node.kind {
            Kind::Bool(value) => return Some(*value),
            Kind::Text { text, expanded: true } if text.eq_ignore_ascii_case("true") => return Some(true),
            Kind::Text { text, expanded: true } if text.eq_ignore_ascii_case("false") => return Some(false),
            _ => reader.wrong_type(node, "`true` or `false`"),
        }
        None
    }

    fn schema(_generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["boolean", "string"], "pattern": VARIABLE })
    }
}

/// Reads a whole number between two bounds.
fn integer(node: &Node, max: u64, reader: &mut Reader<'_>) -> Option<u64> {
    let expected = match max {
        u64::MAX => "a whole number that is not negative".to_owned(),
        _ => format!("a whole number from 0 to {max}"),
    };
    let number = match &node.kind {
        Kind::Integer(number) => *number,
        Kind::Text { text, expanded: true } => match text.trim().parse() {
            Ok(number) => number,
            Err(_) => {
                reader.wrong_type(node, &expected);
                return None;
            }
        },
        Kind::Text { text, .. } if text.trim().parse::<i128>().is_ok() => {
            reader.wrong_type(node, &format!("{expected} (take off the quotes)"));
            return None;
        }
        _ => {
            reader.wrong_type(node, &expected);
            return None;
        }
    };
    match u64::try_from(number) {
        Ok(number) if number <= max => Some(number),
        _ => {
            let side = if number < 0 { "a negative number" } else { "a larger one" };
            reader.problem(&node.place, format!("expected {expected}, found {side}"));
            None
        }
    }
}

macro_rules! integers {
    ($($type:ty),*) => {$(
        impl Value for $type {
            fn read(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
                integer(node, u64::from(<$type>::MAX), reader).and_then(|number| Self::try_from(number).ok())
            }

            fn schema(_generator: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": ["integer", "string"], "minimum": 0, "maximum": <$type>::MAX, "pattern": VARIABLE })
            }
        }
    )*};
}

integers!(u8, u16, u32, u64);

/// A duration as people write it: `30s`, `5m`, `1h 30m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span(pub(super) Duration);

impl Value for Span {
    fn read(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        const EXPECTED: &str = "a duration with its unit, such as `500ms`, `30s` or `5m`";
        let parsed = humantime::parse_duration(text(node, EXPECTED, reader)?.trim());
        if parsed.is_err() {
            reader.wrong_type(node, EXPECTED);
        }
        parsed.ok().map(Self)
    }

    fn schema(_generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "examples": ["500ms", "30s", "5m"] })
    }
}

/// A duration as a number of milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Millis(pub(super) Duration);

impl Value for Millis {
    fn read(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        integer(node, u64::MAX, reader).map(|millis| Self(Duration::from_millis(millis)))
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        u64::schema(generator)
    }
}

/// A number of bytes: `67108864`, or `64MiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bytes(pub(super) u64);

impl Value for Bytes {
    fn read(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let Kind::Text { text, .. } = &node.kind else {
            return integer(node, u64::MAX, reader).map(Self);
        };
        let parsed = bytesize::ByteSize::from_str(text.trim());
        if parsed.is_err() {
            reader.wrong_type(node, "a number of bytes, such as `1048576` or `64MiB`");
        }
        parsed.ok().map(|size| Self(size.as_u64()))
    }

    fn schema(_generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["integer", "string"], "minimum": 0, "examples": ["64MiB", 1_048_576] })
    }
}

/// A path; a relative one begins at the file's folder, `~/` at the home folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FilePath(pub(super) PathBuf);

impl Value for FilePath {
    fn read(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let path = text(node, "a path", reader)?;
        if path.is_empty() || path.contains('\0') {
            reader.problem(&node.place, "expected a path, found text that cannot be one");
            return None;
        }
        let Some(below_home) = path.strip_prefix("~/") else {
            return Some(Self(reader.base().join(path)));
        };
        match reader.environment().lookup("HOME") {
            Variable::Set(home) if !home.is_empty() => Some(Self(PathBuf::from(home).join(below_home))),
            _ => {
                reader.problem(&node.place, "begins with `~/`, but the variable `HOME` is not set");
                None
            }
        }
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        String::schema(generator)
    }
}

impl<T: Value> Value for Vec<T> {
    fn read(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let Kind::List(items) = &node.kind else {
            reader.wrong_type(node, "a list");
            return None;
        };
        let values: Vec<T> = items.iter().filter_map(|item| T::read(item, reader)).collect();
        (values.len() == items.len()).then_some(values)
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "array", "items": T::schema(generator) })
    }
}

/// A key that files of this family have, but that means nothing here.
#[derive(Clone, Copy, Debug)]
pub(super) struct NoEffect;

impl Value for NoEffect {
    fn read(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        reader.warn(&node.place, "has no effect on this type of store; take it out");
        Some(Self)
    }

    fn schema(_generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "deprecated": true })
    }
}

/// Reads one of a few words.
pub(super) fn word<T: Copy>(node: &Node, words: &[(&'static str, T)], reader: &mut Reader<'_>) -> Option<T> {
    let names: Vec<&str> = words.iter().map(|(name, _)| *name).collect();
    let given = text(node, &format!("one of {}", super::reader::list(&names)), reader)?;
    let found = words.iter().find(|(name, _)| *name == given).map(|(_, value)| *value);
    if found.is_none() {
        let hint = nearest(given, names.iter().copied());
        reader.problem(&node.place, format!("is not a word known here{}", did_you_mean(hint, &names)));
    }
    found
}

macro_rules! unwraps {
    ($($wrapper:ty => $inner:ty),*) => {$(
        impl From<$wrapper> for $inner {
            fn from(wrapper: $wrapper) -> Self {
                wrapper.0
            }
        }
    )*};
}

unwraps!(Span => Duration, Millis => Duration, Bytes => u64, FilePath => PathBuf, Secret => SecretString);

impl From<Millis> for Span {
    fn from(millis: Millis) -> Self {
        Self(millis.0)
    }
}

/// Implements [`Value`] for an enum whose variants are words.
macro_rules! words {
    ($type:ty { $($word:literal => $variant:ident),* $(,)? }) => {
        impl $crate::config::read::value::Value for $type {
            fn read(
                node: &$crate::config::read::node::Node,
                reader: &mut $crate::config::read::reader::Reader<'_>,
            ) -> Option<Self> {
                $crate::config::read::value::word(node, &[$(($word, Self::$variant)),*], reader)
            }

            fn schema(_generator: &mut ::schemars::SchemaGenerator) -> ::schemars::Schema {
                ::schemars::json_schema!({ "anyOf": [
                    { "type": "string", "enum": [$($word),*] },
                    { "type": "string", "pattern": "\\$" },
                ] })
            }
        }
    };
}

pub(super) use words;
