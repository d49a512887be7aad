//! A YAML document as a tree in which every value and key knows its place: [`Node`].

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned};

/// The longest text that is kept of one value, in bytes; a longer one is a problem, not a copy. No setting needs more, and
/// it bounds what aliases can multiply.
pub(super) const MAX_TEXT: usize = 8 * 1024;

/// A line and a column in characters, both counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) line: u64,
    pub(super) column: u64,
}

impl From<Location> for Position {
    fn from(location: Location) -> Self {
        Self { line: location.line().max(1), column: location.column().max(1) }
    }
}

/// Where a value stands: in the document, and in the text.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) path: String,
    pub(super) position: Position,
}

/// A value and its place. The path is filled in when the tree is expanded.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) kind: Kind,
    pub(super) place: Place,
    /// Where the value's key stands, to point at what a mapping lacks; the value's own position where there is no key.
    pub(super) heading: Position,
}

impl Node {
    /// The place to name when something is missing below this node.
    pub(super) fn heading(&self) -> Place {
        Place { path: self.place.path.clone(), position: self.heading }
    }
}

/// What a value is, before anybody asks for a type.
#[derive(Clone)]
pub(super) enum Kind {
    Null,
    Bool(bool),
    Integer(i128),
    /// A number that is no integer of 64 bits. Nothing asks for one.
    Float,
    /// Text; `expanded` if a part of it came from a variable, so that `port: $PORT` may be read as a number.
    Text {
        text: String,
        expanded: bool,
    },
    TooLong,
    List(Vec<Node>),
    Map(Vec<Entry>),
    /// Something that was reported already.
    Broken,
}

impl Kind {
    /// The kind in words, for messages. Never the value.
    pub(super) const fn describe(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "true or false",
            Self::Integer(_) | Self::Float => "a number",
            Self::Text { expanded: true, .. } => "other text from the environment",
            Self::Text { .. } | Self::TooLong => "text",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
            Self::Broken => "a problem",
        }
    }
}

/// A key and its value.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) position: Position,
    pub(super) value: Node,
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Kind>::deserialize(deserializer)?;
        let position = Position::from(spanned.defined);
        Ok(Self { kind: spanned.value, place: Place { path: String::new(), position }, heading: position })
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(KindVisitor)
    }
}

struct KindVisitor;

impl<'de> Visitor<'de> for KindVisitor {
    type Value = Kind;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Kind, E> {
        Ok(Kind::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Kind, E> {
        Ok(Kind::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Kind, E> {
        Ok(Kind::Integer(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Kind, E> {
        Ok(Kind::Integer(value.into()))
    }

    fn visit_f64<E>(self, _value: f64) -> Result<Kind, E> {
        Ok(Kind::Float)
    }

    fn visit_str<E>(self, text: &str) -> Result<Kind, E> {
        if text.len() > MAX_TEXT {
            return Ok(Kind::TooLong);
        }
        Ok(Kind::Text { text: text.to_owned(), expanded: false })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Kind, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = items.next_element()? {
            nodes.push(node);
        }
        Ok(Kind::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Kind, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let position = Position::from(key.defined);
            let mut value: Node = map.next_value()?;
            value.heading = position;
            entries.push(Entry { key: key.value, position, value });
        }
        Ok(Kind::Map(entries))
    }
}

/// A whole file: its `storage` section, and the names of the other sections, whose contents are nobody's business here.
#[derive(Default)]
pub(super) struct Document {
    pub(super) storage: Option<Entry>,
    pub(super) others: Vec<(String, Position)>,
    /// Whether the document is something else than a mapping or nothing.
    pub(super) misshapen: bool,
}

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DocumentVisitor)
    }
}

struct DocumentVisitor;

impl DocumentVisitor {
    fn misshapen() -> Document {
        Document { misshapen: true, ..Document::default() }
    }
}

impl<'de> Visitor<'de> for DocumentVisitor {
    type Value = Document;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a mapping of sections")
    }

    fn visit_unit<E>(self) -> Result<Document, E> {
        Ok(Document::default())
    }

    fn visit_bool<E>(self, _value: bool) -> Result<Document, E> {
        Ok(Self::misshapen())
    }

    fn visit_i64<E>(self, _value: i64) -> Result<Document, E> {
        Ok(Self::misshapen())
    }

    fn visit_u64<E>(self, _value: u64) -> Result<Document, E> {
        Ok(Self::misshapen())
    }

    fn visit_f64<E>(self, _value: f64) -> Result<Document, E> {
        Ok(Self::misshapen())
    }

    fn visit_str<E>(self, _text: &str) -> Result<Document, E> {
        Ok(Self::misshapen())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Document, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Self::misshapen())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Document, A::Error> {
        let mut document = Document::default();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let position = Position::from(key.defined);
            if key.value == "storage" {
                let mut value: Node = map.next_value()?;
                value.heading = position;
                document.storage = Some(Entry { key: key.value, position, value });
            } else {
                let _: IgnoredAny = map.next_value()?;
                document.others.push((key.value, position));
            }
        }
        Ok(document)
    }
}
