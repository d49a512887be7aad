//! Keys as subjects of a NATS key-value bucket, and back.
//!
//! A bucket's keys are made of tokens joined by `.`, and NATS lists by whole tokens. So `:` and `/`, by which keys are usually
//! parted, become token separators, and everything else that NATS has no room for is written as `=XX`:
//!
//! | in a key | in a subject |
//! |---|---|
//! | `a` to `z`, `A` to `Z`, `0` to `9`, `-`, `_` | itself |
//! | `:` | `.` |
//! | `/` | `/.` |
//! | nothing between two separators, or at an end | `=`, but nothing before `/` |
//! | any other byte | `=` and two hexadecimal digits |
//!
//! Every key has another subject, no subject is empty, begins or ends with `.`, or has two in a row, and none is longer than
//! three times its key: 3072 bytes, which leaves room in the 4096 bytes of a server's control line.

use std::fmt::Write;

use crate::key::{Key, KeyPrefix};

/// A subject that stands for no key: `=` is always followed by two hexadecimal digits, or alone in its token.
pub(super) const RESERVED: &str = "=ping";

/// The subject of a cache's fence, which stands for no key either: the digits of a key's subject are capitals.
pub(super) fn fence(cache: u64) -> String {
    format!("=fence.{cache:016x}")
}

/// The subject of the message that is stored right behind a cache's fence.
pub(super) fn behind_fence(cache: u64) -> String {
    format!("=behind.{cache:016x}")
}

/// Writes a key as the part of a subject that follows the bucket's.
pub(super) fn encode(key: &str) -> String {
    let mut subject = String::with_capacity(key.len() * 2);
    let mut token_is_empty = true;
    for byte in key.bytes() {
        match byte {
            b':' => {
                subject.push_str(if token_is_empty { "=." } else { "." });
                token_is_empty = true;
            }
            b'/' => {
                subject.push_str("/.");
                token_is_empty = true;
            }
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => {
                subject.push(char::from(byte));
                token_is_empty = false;
            }
            _ => {
                // Writing to a string cannot fail.
                let _ = write!(subject, "={byte:02X}");
                token_is_empty = false;
            }
        }
    }
    if token_is_empty {
        subject.push('=');
    }
    subject
}

/// Reads what [`encode`] wrote; `None` for a subject that is no key's, as another client may have written it.
pub(super) fn decode(subject: &str) -> Option<Key> {
    let mut bytes = Vec::with_capacity(subject.len());
    let mut tokens = subject.split('.').peekable();
    while let Some(token) = tokens.next() {
        let separator = tokens.peek().map(|_| if token.ends_with('/') { b'/' } else { b':' });
        let content = if separator == Some(b'/') { token.strip_suffix('/')? } else { token };
        if content != "=" {
            unescape(content, &mut bytes)?;
        }
        bytes.extend(separator);
    }
    let key = Key::parse(String::from_utf8(bytes).ok()?).ok()?;
    // The one way of writing a key is the only one that is read: another would be a second entry under the same key.
    (encode(key.as_str()) == subject).then_some(key)
}

fn unescape(content: &str, bytes: &mut Vec<u8>) -> Option<()> {
    let mut rest = content.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'=' {
            let digits = [rest.next()?, rest.next()?];
            bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    Some(())
}

/// The subjects beneath a prefix, as far as a server can tell.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Filter {
    /// The part of the subject filter that follows the bucket's.
    pub(super) pattern: String,
    /// Whether it fits the keys with the prefix and no others. If not, it fits others too.
    pub(super) exact: bool,
}

impl Filter {
    /// The filter for a prefix: that of the part up to its last separator.
    pub(super) fn new(prefix: &KeyPrefix) -> Self {
        let text = prefix.as_str();
        let parent = text.rfind([':', '/']).and_then(|at| text.get(..=at)).unwrap_or_default();
        // An aligned parent ends in a separator, so that its last token is the empty one.
        let mut pattern = if parent.is_empty() { String::new() } else { encode(parent) };
        if pattern.ends_with('=') {
            pattern.pop();
        }
        pattern.push('>');
        Self { pattern, exact: parent.len() == text.len() }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    /// What NATS clients take as a key.
    fn is_bucket_key(subject: &str) -> bool {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-/_=.".contains(&byte);
        !subject.is_empty()
            && subject.bytes().all(allowed)
            && !subject.starts_with('.')
            && !subject.ends_with('.')
            && !subject.contains("..")
    }

    fn prefix(text: &str) -> KeyPrefix {
        KeyPrefix::parse(text).unwrap()
    }

    #[test]
    fn separators_become_tokens() {
        assert_eq!(encode("session:42"), "session.42");
        assert_eq!(encode("a/b"), "a/.b");
        assert_eq!(encode("a.b"), "a=2Eb");
        assert_eq!(encode("a::b"), "a.=.b");
        assert_eq!(encode("/a/"), "/.a/.=");
        assert_eq!(encode(":"), "=.=");
        assert_eq!(encode("50%"), "50=25");
    }

    #[test]
    fn unusual_keys_have_subjects_of_their_own() {
        let keys = [
            "a:b",
            "a/b",
            "a.b",
            "a..b",
            "a::b",
            "a//b",
            "a/:b",
            "a:/b",
            ":a",
            "a:",
            "/a",
            "a/",
            ".a",
            "a.",
            ":",
            "/",
            "::",
            "//",
            ".",
            "..",
            "*",
            ">",
            " ",
            "a b",
            "=",
            "=2E",
            "a=b",
            "Ünï/😀",
            "50%",
            "A",
            "a",
            "\\",
            "[x]",
        ];
        let subjects: HashSet<String> = keys.iter().map(|key| encode(key)).collect();
        assert_eq!(subjects.len(), keys.len());
        for key in keys {
            assert!(is_bucket_key(&encode(key)), "{key}: {}", encode(key));
            assert_eq!(decode(&encode(key)).unwrap().as_str(), key);
        }
    }

    #[test]
    fn what_is_no_keys_subject_is_not_read() {
        for subject in
            [RESERVED, "a/b", "a=2e", "=61", "a=", "a=.b", "a/", "==", "", ".", "a..b", "=FF", "a=0A", "=/.a"]
        {
            assert_eq!(decode(subject), None, "{subject}");
        }
        assert_eq!(decode(&fence(7)), None);
        assert_eq!(decode(&behind_fence(7)), None);
    }

    #[test]
    fn the_longest_subject_fits_a_control_line() {
        for byte in ["*", ":", "/", "😀", "a"] {
            assert!(encode(&byte.repeat(Key::MAX_BYTES / byte.len())).len() <= 3 * Key::MAX_BYTES, "{byte}");
        }
    }

    #[test]
    fn a_filter_is_exact_where_the_prefix_ends_with_a_separator() {
        let filter = |text: &str| Filter::new(&prefix(text));
        assert_eq!(filter("session:"), Filter { pattern: "session.>".to_owned(), exact: true });
        assert_eq!(filter("a/b/"), Filter { pattern: "a/.b/.>".to_owned(), exact: true });
        assert_eq!(filter("a::"), Filter { pattern: "a.=.>".to_owned(), exact: true });
        assert_eq!(filter("session:4"), Filter { pattern: "session.>".to_owned(), exact: false });
        assert_eq!(filter("session"), Filter { pattern: ">".to_owned(), exact: false });
        assert_eq!(filter(""), Filter { pattern: ">".to_owned(), exact: true });
    }

    proptest! {
        #[test]
        fn a_key_comes_back_from_its_subject(text in "[a-c:/.=*> é😀%A-C]{1,40}") {
            let subject = encode(&text);
            prop_assert!(is_bucket_key(&subject));
            prop_assert!(subject.len() <= 3 * text.len());
            let decoded = decode(&subject).unwrap();
            prop_assert_eq!(decoded.as_str(), &text);
        }

        #[test]
        fn a_subject_that_is_read_is_the_one_that_is_written(subject in "[a-b=./2E]{1,12}") {
            if let Some(key) = decode(&subject) {
                prop_assert_eq!(encode(key.as_str()), subject);
            }
        }

        #[test]
        fn a_filter_fits_every_key_with_the_prefix(start in "[ab:/.]{0,6}", rest in "[ab:/.]{0,6}") {
            let filter = Filter::new(&prefix(&start));
            let key = format!("{start}{rest}");
            prop_assume!(!key.is_empty());
            let stem = filter.pattern.strip_suffix('>').unwrap();
            prop_assert!(encode(&key).starts_with(stem) && encode(&key).len() > stem.len());
        }

        #[test]
        fn an_exact_filter_fits_no_other_key(start in "[ab:/.]{0,5}[:/]", key in "[ab:/.]{1,9}") {
            let filter = Filter::new(&prefix(&start));
            prop_assert!(filter.exact);
            let fits = encode(&key).starts_with(filter.pattern.strip_suffix('>').unwrap());
            prop_assert_eq!(fits, key.starts_with(&start));
        }
    }
}
