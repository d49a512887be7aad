//! What is stored: the [`Value`], JSON or binary, carried as bytes that nothing parses unless the caller asks.

use std::fmt;

use bytes::Bytes;
use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use crate::error::{Error, Result};

/// Whether a value is JSON text or arbitrary bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// One JSON text, as RFC 8259 has it.
    Json,
    /// Arbitrary bytes.
    Binary,
}

/// An immutable value, cheap to clone. What goes in comes out byte for byte, JSON too.
///
/// JSON is checked against the grammar once, on entry, and never changed: white space, the order of members, duplicate
/// members, `1e400`, `\u0000` and lone surrogates stay as they are. `Debug` shows format and length, never the content.
///
/// # Examples
///
/// ```
/// use agent_storage::Value;
///
/// let value = Value::json(r#"{"n": 9007199254740993}"#)?;
/// assert_eq!(value.as_bytes(), br#"{"n": 9007199254740993}"#);
/// assert!(Value::json("{not json}").is_err());
/// # Ok::<(), agent_storage::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Value {
    bytes: Bytes,
    format: Format,
}

impl Value {
    /// The largest value of any store, in bytes: 64 MiB. A store may take less; its capabilities say how much.
    pub const MAX_BYTES: usize = 64 << 20;

    /// The deepest nesting of arrays and objects in a JSON value. PostgreSQL's parser recurses and gives up a few
    /// thousand levels down, by its `max_stack_depth`; this limit is the same on every backend.
    pub const MAX_DEPTH: usize = 1000;

    /// Takes JSON text, unchanged.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidValue`](crate::ErrorKind::InvalidValue) if it is not one JSON text in UTF-8 or is nested deeper
    /// than [`Value::MAX_DEPTH`]; [`ErrorKind::TooLarge`](crate::ErrorKind::TooLarge) over [`Value::MAX_BYTES`].
    pub fn json(text: impl Into<Bytes>) -> Result<Self> {
        let bytes = check_size(text.into())?;
        let text = std::str::from_utf8(&bytes).map_err(|error| {
            Error::invalid_value(format!("JSON must be UTF-8; byte {} is not", error.valid_up_to()))
        })?;
        serde_json::from_str::<IgnoredAny>(text).map_err(|error| not_json(&error))?;
        check_depth(&bytes)?;
        Ok(Self { bytes, format: Format::Json })
    }

    /// Writes a value as JSON.
    ///
    /// # Errors
    ///
    /// As [`Value::json`]; [`ErrorKind::InvalidValue`](crate::ErrorKind::InvalidValue) also if the value has no JSON form.
    pub fn from_json<T: Serialize + ?Sized>(value: &T) -> Result<Self> {
        let bytes = serde_json::to_vec(value)
            .map_err(|error| Error::invalid_value("the value has no JSON form").with_source(error))?;
        let bytes = check_size(Bytes::from(bytes))?;
        check_depth(&bytes)?;
        Ok(Self { bytes, format: Format::Json })
    }

    /// Takes arbitrary bytes.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TooLarge`](crate::ErrorKind::TooLarge) over [`Value::MAX_BYTES`].
    pub fn binary(bytes: impl Into<Bytes>) -> Result<Self> {
        Ok(Self { bytes: check_size(bytes.into())?, format: Format::Binary })
    }

    /// Makes the JSON value of a counter: decimal text.
    #[must_use]
    pub fn from_integer(number: i64) -> Self {
        Self { bytes: Bytes::from(number.to_string()), format: Format::Json }
    }

    /// Reads a counter: decimal text as [`Value::from_integer`] writes it, without a plus sign, leading zeros or white space.
    #[must_use]
    pub fn to_integer(&self) -> Option<i64> {
        let text = std::str::from_utf8(&self.bytes).ok().filter(|_| self.format == Format::Json)?;
        text.parse::<i64>().ok().filter(|number| number.to_string() == text)
    }

    /// Takes bytes that a store kept and that were checked when they went in.
    ///
    /// For backends. Use [`Value::json`] or [`Value::binary`] for anything else.
    #[must_use]
    pub const fn from_stored(bytes: Bytes, format: Format) -> Self {
        Self { bytes, format }
    }

    /// Reads the value as JSON into a type. The parser gives up below 127 levels of arrays and objects, so that no value can
    /// exhaust the stack; deeper values are stored and read as bytes.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::WrongType`](crate::ErrorKind::WrongType) if it is binary or is not of that type. The text names the
    /// place by line and column, never the content.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T> {
        match self.format {
            Format::Json => serde_json::from_slice(&self.bytes).map_err(|error| {
                let (line, column) = (error.line(), error.column());
                Error::wrong_type(format!("the stored JSON is not of the asked type (line {line}, column {column})"))
            }),
            Format::Binary => Err(Error::wrong_type("the value is binary, not JSON")),
        }
    }

    /// Whether it is JSON or binary.
    #[must_use]
    pub const fn format(&self) -> Format {
        self.format
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes, without copying them.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// The number of bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "an empty binary value is a value like any other")]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Value({:?}, {} bytes)", self.format, self.bytes.len())
    }
}

fn check_size(bytes: Bytes) -> Result<Bytes> {
    if bytes.len() <= Value::MAX_BYTES {
        return Ok(bytes);
    }
    Err(Error::too_large(format!("a value may have at most {} bytes, this one has {}", Value::MAX_BYTES, bytes.len())))
}

/// The parser's own message may quote the text, so only the place is kept.
fn not_json(error: &serde_json::Error) -> Error {
    let (line, column) = (error.line(), error.column());
    Error::invalid_value(format!("not valid JSON at line {line}, column {column}; use a binary value for other data"))
}

fn check_depth(valid_json: &[u8]) -> Result<()> {
    // Each level takes two bytes at least, so most values need not be looked through.
    if valid_json.len() <= 2 * Value::MAX_DEPTH {
        return Ok(());
    }
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in valid_json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => depth += 1,
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > Value::MAX_DEPTH {
            return Err(Error::invalid_value(format!("JSON may be nested at most {} levels deep", Value::MAX_DEPTH)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unusual_json_is_taken_unchanged() {
        for text in [
            "null",
            "\"\"",
            "0",
            "-0.0",
            "1e16",
            "9007199254740993",
            r#"{"a":1,"a":2}"#,
            r#""\u0000""#,
            r#""\ud800""#,
            "1e400",
            " [ 1 , 2 ]\n",
        ] {
            assert_eq!(Value::json(text).unwrap().as_bytes(), text.as_bytes());
        }
    }

    #[test]
    fn what_is_not_json_is_refused() {
        for text in ["", " ", "{", "nul", "1 2", "'a'", "[1,]", "NaN", "\"\n\"", "01"] {
            assert!(Value::json(text).is_err(), "{text:?}");
        }
        assert!(Value::json(&b"\"\xff\""[..]).is_err());
    }

    #[test]
    fn nesting_has_a_limit_that_strings_do_not_count_for() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(Value::json(nested(Value::MAX_DEPTH)).is_ok());
        assert!(Value::json(nested(Value::MAX_DEPTH + 1)).is_err());
        assert!(Value::json(nested(1_000_000)).is_err());
        assert!(Value::json(format!("\"\\\"{}\"", "[".repeat(5000))).is_ok());
    }

    #[test]
    fn only_canonical_decimal_text_is_a_counter() {
        for number in [0, 1, -1, i64::MAX, i64::MIN] {
            assert_eq!(Value::from_integer(number).to_integer(), Some(number));
        }
        for text in ["-0", "1.0", "1e3", " 1", "\"1\"", "9223372036854775808", "null"] {
            assert_eq!(Value::json(text).unwrap().to_integer(), None, "{text}");
        }
        assert_eq!(Value::binary("1").unwrap().to_integer(), None);
    }

    #[test]
    fn errors_and_debug_never_show_the_content() {
        let value = Value::json(r#"{"password":"secret"}"#).unwrap();
        let error = value.decode::<Vec<u8>>().unwrap_err();
        assert!(!format!("{value:?} {error} {error:?}").contains("secret"));
        let error = Value::json("secret").unwrap_err();
        assert!(!format!("{error} {error:?}").contains("secret"));
    }
}
