//! A stored message, and the headers it is written with.
//!
//! Another client may write to the bucket too. What it writes without our headers is JSON if it is JSON, binary otherwise, and
//! stays for as long as the server keeps it.

use std::time::Duration;

use async_nats::header::{
    NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NATS_MARKER_REASON, NATS_MESSAGE_TTL, NATS_ROLLUP, NATS_SEQUENCE,
};
use async_nats::{HeaderMap, HeaderName};
use bytes::Bytes;

use crate::contract::{Entry, GetOptions, Lookup};
use crate::error::{Error, Result};
use crate::revision::Revision;
use crate::stamp::Stamp;
use crate::time::{Timestamp, Ttl};
use crate::value::{Format, Value};

/// The bytes kept free for headers in every message: those below, with the longest values, take fewer.
pub(super) const HEADER_BYTES: usize = 512;

/// How long a marker of a delete stays, so that watchers that were away for a while hear of it.
pub(super) const MARKER_TTL: Duration = Duration::from_secs(60);

/// The subject that an expected sequence is about, if it is not the message's own (nats-server 2.11).
const EXPECTED_SUBJECT: HeaderName = HeaderName::from_static("Nats-Expected-Last-Subject-Sequence-Subject");

/// Left out beside a stamp for JSON, as most values are: each header costs the server time with every read.
const FORMAT: HeaderName = HeaderName::from_static("Agent-Storage-Format");
const EXPIRES: HeaderName = HeaderName::from_static("Agent-Storage-Expires");
const STAMP: HeaderName = HeaderName::from_static("Agent-Storage-Stamp");
const JSON: &str = "json";
const BINARY: &str = "binary";

/// What NATS's own key-value clients mark a deleted key with.
const OPERATION: HeaderName = HeaderName::from_static("KV-Operation");
const PURGE: &str = "PURGE";
const DELETE: &str = "DEL";

/// The last message of a subject.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) sequence: u64,
    pub(super) payload: Bytes,
    header: Header,
}

#[derive(Clone, Debug)]
struct Header {
    /// Whether the message says that there is no entry.
    is_marker: bool,
    stamp: Option<Stamp>,
    /// `None` where the message is another client's.
    format: Result<Option<Format>>,
    expires: Result<Option<Timestamp>>,
}

impl Record {
    /// Takes a message that a direct get answered.
    pub(super) fn from_direct(headers: Option<&HeaderMap>, payload: Bytes) -> Result<Self> {
        let sequence = headers.and_then(|headers| text(headers, NATS_SEQUENCE)).and_then(|text| text.parse().ok());
        let sequence = sequence.ok_or_else(|| Error::unavailable("the server answered a read without a sequence"))?;
        Ok(Self::new(sequence, headers, payload))
    }

    /// Takes a message.
    pub(super) fn new(sequence: u64, headers: Option<&HeaderMap>, payload: Bytes) -> Self {
        Self { sequence, payload, header: headers.map_or_else(Header::foreign, Header::read) }
    }

    /// The revision of the entry.
    pub(super) fn revision(&self) -> Revision {
        Revision::from_sequence(self.sequence)
    }

    /// Whether there is an entry. One whose headers cannot be read is there.
    pub(super) fn is_live(&self, now: Timestamp) -> bool {
        !self.header.is_marker && !matches!(self.header.expires, Ok(Some(at)) if at <= now)
    }

    /// Whether this is what the write of a stamp left.
    pub(super) fn is_written_by(&self, stamp: Stamp) -> bool {
        self.header.stamp == Some(stamp)
    }

    /// When the entry ends; `None` for one that stays.
    pub(super) fn expires(&self) -> Result<Option<Timestamp>> {
        self.header.expires.clone()
    }

    /// The value.
    pub(super) fn value(&self) -> Result<Value> {
        let format = self.header.format.clone()?;
        // A format of ours beside an expiry that nobody can read is a damaged record, not one to be guessed at.
        self.expires()?;
        match format {
            Some(format) => Ok(Value::from_stored(self.payload.clone(), format)),
            None => Ok(Value::json(self.payload.clone())
                .unwrap_or_else(|_| Value::from_stored(self.payload.clone(), Format::Binary))),
        }
    }

    /// The answer to a read that found this.
    pub(super) fn lookup(&self, now: Timestamp, options: &GetOptions) -> Result<Lookup> {
        if !self.is_live(now) {
            return Ok(Lookup::missing());
        }
        let entry = Entry::new(self.value()?, self.revision());
        Ok(Lookup::Found(if options.expiry { entry.with_expiry(self.expires()?) } else { entry }))
    }
}

impl Header {
    const fn foreign() -> Self {
        Self { is_marker: false, stamp: None, format: Ok(None), expires: Ok(None) }
    }

    fn read(headers: &HeaderMap) -> Self {
        let stamp: Option<Stamp> = text(headers, STAMP).and_then(|stamp| stamp.parse().ok());
        let format = match text(headers, FORMAT) {
            Some(JSON) => Ok(Some(Format::Json)),
            Some(BINARY) => Ok(Some(Format::Binary)),
            Some(_) => Err(Error::corrupt("the record's format header is neither json nor binary; write the key anew")),
            None => Ok(stamp.map(|_| Format::Json)),
        };
        let expires = text(headers, EXPIRES).map(|millis| {
            let unreadable = || Error::corrupt("the record's expiry header is not a number; write the key anew");
            millis.parse().map(Timestamp::from_millis).map_err(|_| unreadable())
        });
        Self {
            is_marker: matches!(text(headers, OPERATION), Some(PURGE | DELETE))
                || text(headers, NATS_MARKER_REASON).is_some(),
            stamp,
            format,
            expires: expires.transpose(),
        }
    }
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).map(|value| value.as_str())
}

/// The headers of a message that stores an entry, which ends at `expires` where it is `now`.
pub(super) fn entry_headers(format: Format, stamp: Stamp, now: Timestamp, expires: Option<Timestamp>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if format == Format::Binary {
        headers.insert(FORMAT, BINARY);
    }
    headers.insert(STAMP, stamp.to_string());
    if let Some(at) = expires {
        headers.insert(EXPIRES, at.as_millis().to_string());
        headers.insert(NATS_MESSAGE_TTL, server_seconds(at.since(now)).to_string());
    }
    headers
}

/// The headers of a message that says that there is no entry, as NATS's own clients write them.
///
/// The server removes it after `ttl`, which is whole seconds.
pub(super) fn marker_headers(stamp: Stamp, ttl: Duration) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(OPERATION, PURGE);
    headers.insert(NATS_ROLLUP, "sub");
    headers.insert(STAMP, stamp.to_string());
    headers.insert(NATS_MESSAGE_TTL, ttl.as_secs().to_string());
    headers
}

/// Lets a message be stored only if the last one of its subject has this sequence, 0 for none.
pub(super) fn expect_sequence(headers: &mut HeaderMap, sequence: u64) {
    headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, sequence.to_string());
}

/// Lets a message be stored only if the last one of another subject has this sequence.
pub(super) fn expect_sequence_of(headers: &mut HeaderMap, subject: &str, sequence: u64) {
    headers.insert(EXPECTED_SUBJECT, subject);
    expect_sequence(headers, sequence);
}

/// The end of an entry that is written at `now`.
pub(super) fn expiry(now: Timestamp, ttl: Option<Ttl>) -> Option<Timestamp> {
    ttl.map(|ttl| now.after(ttl))
}

/// The time after which the server may remove an entry: whole seconds, rounded up.
///
/// One more, because the server was seen to remove up to 40 ms early (nats-server 2.15.1), and its clock is not ours. The exact
/// end is judged on every read.
const fn server_seconds(time: Duration) -> u64 {
    time.as_millis().div_ceil(1000) as u64 + 1
}

#[cfg(test)]
mod tests {
    use super::super::codec::fence;
    use super::*;
    use crate::stamp::HybridClock;
    use crate::time::Clock;

    fn record(headers: &[(&str, &str)], payload: &'static str) -> Record {
        let mut map = HeaderMap::new();
        headers.iter().for_each(|(name, value)| map.insert(*name, *value));
        Record::new(1, Some(&map), Bytes::from_static(payload.as_bytes()))
    }

    #[test]
    fn the_server_is_told_whole_seconds_that_are_not_too_few() {
        assert_eq!(server_seconds(Duration::from_millis(1)), 2);
        assert_eq!(server_seconds(Duration::from_millis(1000)), 2);
        assert_eq!(server_seconds(Duration::from_millis(1001)), 3);
        assert_eq!(server_seconds(Ttl::MAX.as_duration()), 100 * 365 * 24 * 3600 + 1);
    }

    #[test]
    fn what_is_written_is_read_back() {
        let clock = Clock::manual();
        let stamp = HybridClock::new(clock.clone()).issue();
        let ttl = Ttl::from_millis(1500).unwrap();
        let headers = entry_headers(Format::Binary, stamp, clock.now(), expiry(clock.now(), Some(ttl)));
        let record = Record::new(7, Some(&headers), Bytes::from_static(b"1"));
        assert_eq!(record.value().unwrap(), Value::binary("1").unwrap());
        assert_eq!(record.expires().unwrap(), Some(clock.now().after(ttl)));
        assert!(record.is_written_by(stamp) && record.is_live(clock.now()));
        clock.advance(Duration::from_millis(1499));
        assert!(record.is_live(clock.now()));
        clock.advance(Duration::from_millis(1));
        assert!(!record.is_live(clock.now()));
    }

    #[test]
    fn markers_of_every_kind_are_no_entries() {
        let now = Clock::manual().now();
        for headers in [[("KV-Operation", "DEL")], [("KV-Operation", "PURGE")], [("Nats-Marker-Reason", "MaxAge")]] {
            assert!(!record(&headers, "").is_live(now), "{headers:?}");
        }
        assert!(record(&[("KV-Operation", "PUT")], "").is_live(now));
        let marker = marker_headers(HybridClock::process().issue(), MARKER_TTL);
        assert!(!Record::new(1, Some(&marker), Bytes::new()).is_live(now));
    }

    #[test]
    fn json_of_ours_is_told_by_its_stamp_and_any_format_that_is_named_counts() {
        let stamp = HybridClock::process().issue().to_string();
        let read = |headers: &[(&str, &str)]| record(headers, "1").value().unwrap().format();
        let stamped = ("Agent-Storage-Stamp", stamp.as_str());
        assert_eq!(read(&[stamped]), Format::Json);
        assert_eq!(read(&[stamped, ("Agent-Storage-Format", "json")]), Format::Json);
        assert_eq!(read(&[stamped, ("Agent-Storage-Format", "binary")]), Format::Binary);
    }

    #[test]
    fn what_another_client_wrote_is_json_if_it_is_json() {
        assert_eq!(record(&[], "{\"a\":1}").value().unwrap().format(), Format::Json);
        assert_eq!(record(&[("Other", "header")], "plain text").value().unwrap().format(), Format::Binary);
        assert_eq!(Record::new(1, None, Bytes::new()).value().unwrap(), Value::binary("").unwrap());
    }

    #[test]
    fn headers_that_cannot_be_read_are_corrupt_and_the_entry_is_there() {
        let (format, expires) = ("Agent-Storage-Format", "Agent-Storage-Expires");
        for header in [(format, "xml"), (expires, "tomorrow"), (expires, "-1")] {
            let record = record(&[header], "1");
            assert!(record.is_live(Clock::manual().now()));
            assert_eq!(record.value().unwrap_err().kind(), crate::ErrorKind::Corrupt, "{header:?}");
        }
    }

    #[test]
    fn headers_stay_within_the_room_kept_for_them() {
        let far = Timestamp::from_millis(u64::MAX);
        let mut headers =
            entry_headers(Format::Binary, HybridClock::process().issue(), Timestamp::from_millis(0), Some(far));
        let bucket = "b".repeat(128);
        expect_sequence_of(&mut headers, &format!("$KV.{bucket}.{}", fence(u64::MAX)), u64::MAX);
        let bytes: usize = headers
            .iter()
            .map(|(name, values)| {
                let name: &str = name.as_ref();
                values.iter().map(|value| name.len() + value.as_str().len() + ": \r\n".len()).sum::<usize>()
            })
            .sum();
        assert!(bytes + "NATS/1.0\r\n\r\n".len() < HEADER_BYTES);
    }
}
