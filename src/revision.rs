//! The [`Revision`]: which version of an entry somebody saw.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::stamp::Stamp;

const MAX_BYTES: usize = 20;

/// The version of an entry, opaque: equal or not is all that is promised.
///
/// A database's is the stamp of the write; JetStream's the stream sequence; Redis's a digest of the stored bytes, so that
/// there an identical value has an identical revision. `Capabilities::revision` says which. Its text form survives a trip through a command
/// line or a header.
///
/// # Examples
///
/// ```
/// use agent_storage::Revision;
///
/// let revision = Revision::from_sequence(7);
/// assert_eq!(revision.to_string().parse::<Revision>()?, revision);
/// # Ok::<(), agent_storage::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Revision {
    length: u8,
    bytes: [u8; MAX_BYTES],
}

impl Revision {
    /// In the place of a revision that a read did not ask for. No entry has it.
    pub const NOT_ASKED: Self = Self { length: 0, bytes: [0; MAX_BYTES] };

    /// The revision of an entry that was written under a stamp.
    #[must_use]
    pub fn from_stamp(stamp: Stamp) -> Self {
        Self::from_array(stamp.to_bytes())
    }

    /// The revision of an entry that is message `sequence` of a stream.
    #[must_use]
    pub fn from_sequence(sequence: u64) -> Self {
        Self::from_array(sequence.to_be_bytes())
    }

    /// The revision of an entry whose stored bytes have this SHA-1 digest.
    #[must_use]
    pub fn from_digest(digest: [u8; MAX_BYTES]) -> Self {
        Self::from_array(digest)
    }

    /// The stamp, if the revision is one that a clock can have given.
    #[must_use]
    pub fn to_stamp(self) -> Option<Stamp> {
        self.as_bytes().try_into().ok().map(Stamp::from_bytes).filter(|stamp| stamp.is_plausible())
    }

    /// The stream sequence, if the revision is one.
    #[must_use]
    pub fn to_sequence(self) -> Option<u64> {
        self.as_bytes().try_into().ok().map(u64::from_be_bytes)
    }

    /// The digest, if the revision is one.
    #[must_use]
    pub fn to_digest(self) -> Option<[u8; MAX_BYTES]> {
        self.as_bytes().try_into().ok()
    }

    /// The bytes: 8, 16 or 20 of them; none of [`Revision::NOT_ASKED`].
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or(&self.bytes)
    }

    fn from_array<const N: usize>(from: [u8; N]) -> Self {
        let mut bytes = [0; MAX_BYTES];
        bytes.iter_mut().zip(from).for_each(|(to, from)| *to = from);
        Self { length: u8::try_from(N).unwrap_or(u8::MAX), bytes }
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Revision({self})")
    }
}

impl FromStr for Revision {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let unreadable = || Error::invalid_value("a revision is 16, 32 or 40 hexadecimal digits, as a read shows it");
        let bytes: Vec<u8> = text
            .as_bytes()
            .chunks(2)
            .map(|pair| std::str::from_utf8(pair).ok().filter(|pair| !pair.starts_with('+')))
            .map(|pair| pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()))
            .collect::<Option<_>>()
            .ok_or_else(unreadable)?;
        match text.len() {
            16 => bytes.try_into().map(Self::from_array::<8>).map_err(|_| unreadable()),
            32 => bytes.try_into().map(Self::from_array::<16>).map_err(|_| unreadable()),
            40 => bytes.try_into().map(Self::from_array::<20>).map_err(|_| unreadable()),
            _ => Err(unreadable()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_survives_its_text() {
        for revision in
            [Revision::from_sequence(u64::MAX), Revision::from_stamp(Stamp::MIN), Revision::from_digest([7; 20])]
        {
            assert_eq!(revision.to_string().parse::<Revision>().unwrap(), revision);
        }
        assert_eq!(Revision::from_sequence(9).to_sequence(), Some(9));
        assert_eq!(Revision::from_sequence(9).to_stamp(), None);
    }

    #[test]
    fn text_that_is_no_revision_is_refused() {
        for text in ["", "12", "zz00000000000000", "+1000000000000ff", "ü00000000000000"] {
            assert!(text.parse::<Revision>().is_err(), "{text}");
        }
    }
}
