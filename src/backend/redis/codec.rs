//! How a value is stored, and what its revision is.

use std::borrow::Cow;

use bytes::Bytes;
use sha1::{Digest, Sha1};

use crate::error::{Error, Result};
use crate::revision::Revision;
use crate::value::{Format, Value};

/// The byte before a binary value. No JSON text begins with it, white space included.
const BINARY: u8 = 0;

/// The most bytes that are digested, checked or copied on a thread that others wait for. SHA-1 takes half a millisecond a
/// mebibyte, and two where the processor does not know it.
const LIGHT: usize = 256 << 10;

/// The stored form of a value.
pub(super) fn encode(value: &Value) -> Cow<'_, [u8]> {
    match value.format() {
        Format::Json => Cow::Borrowed(value.as_bytes()),
        Format::Binary => {
            let mut stored = Vec::with_capacity(value.len() + 1);
            stored.push(BINARY);
            stored.extend_from_slice(value.as_bytes());
            Cow::Owned(stored)
        }
    }
}

/// Reads a value back from its stored form.
///
/// What another client wrote is taken as JSON if it looks like JSON at both ends; a full check would cost each read a parse.
///
/// # Errors
///
/// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) if it is neither marked as binary nor looks like JSON.
pub(super) fn decode(stored: Vec<u8>) -> Result<Value> {
    let stored = Bytes::from(stored);
    if stored.first() == Some(&BINARY) {
        return Ok(Value::from_stored(stored.slice(1..), Format::Binary));
    }
    if looks_like_json(&stored) {
        return Ok(Value::from_stored(stored, Format::Json));
    }
    Err(Error::corrupt("the stored value is neither JSON nor marked as binary; another client wrote it"))
}

/// The revision of an entry with these stored bytes.
pub(super) fn revision(stored: &[u8]) -> Revision {
    Revision::from_digest(Sha1::digest(stored).into())
}

/// Does work over so many bytes where it holds up nobody.
pub(super) async fn compute<T: Send + 'static>(bytes: usize, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    if bytes <= LIGHT {
        return Ok(work());
    }
    let task = tokio::task::spawn_blocking(work);
    task.await.map_err(|error| Error::internal("a value could not be prepared").with_source(error))
}

/// Whether the two ends of a text fit together as those of a JSON text do, and it is UTF-8.
fn looks_like_json(stored: &[u8]) -> bool {
    let text = stored.trim_ascii();
    let ends = match text {
        b"true" | b"false" | b"null" => true,
        [b'{', .., b'}'] | [b'[', .., b']'] | [b'"', .., b'"'] => true,
        [b'-' | b'0'..=b'9', rest @ ..] => {
            rest.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'))
        }
        _ => false,
    };
    ends && std::str::from_utf8(stored).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn values_come_back_byte_for_byte() {
        for text in ["null", "\"\"", "0", "-1", "1e400", " {\"a\":1,\"a\":2}\n", "[]", "true", r#""\u0000""#] {
            let value = Value::json(text).unwrap();
            assert_eq!(decode(encode(&value).into_owned()).unwrap(), value);
        }
        for bytes in [&b""[..], b"\0", b"{}", b"\xff\xfe"] {
            let value = Value::binary(bytes).unwrap();
            assert_eq!(decode(encode(&value).into_owned()).unwrap(), value);
        }
    }

    #[test]
    fn what_is_neither_json_nor_marked_is_corrupt() {
        for stored in [&b""[..], b"hello", b"\x80\x04pickle", b"{\"cut", b"\"\xff\"", b"tru", b"\"", b"12 monkeys"] {
            assert_eq!(decode(stored.to_vec()).unwrap_err().kind(), ErrorKind::Corrupt, "{stored:?}");
        }
    }

    #[test]
    fn the_revision_is_the_digest_that_redis_computes() {
        assert_eq!(revision(b"abc").to_string(), "a9993e364706816aba3e25717850c26c9cd0d89d");
    }
}
