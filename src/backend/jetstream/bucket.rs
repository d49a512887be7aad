//! The stream behind the bucket: made where it is missing, checked where it is there.

use std::time::Duration;

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::stream::{
    Compression, Config, DiscardPolicy, Info, Placement, RetentionPolicy, StorageType,
};

use crate::config::{JetstreamConfig, ReadFrom, StreamStorage};
use crate::contract::Context;
use crate::error::{Error, Result};
use crate::key::Key;
use crate::time::Clock;
use crate::value::Value;

use super::codec::{Filter, decode, encode};
use super::error::{Failure, api_failure};
use super::record::{HEADER_BYTES, MARKER_TTL};
use super::session::Link;

/// Per-message TTLs, markers for what expired, and direct gets of many subjects came with this version.
const MINIMUM_VERSION: (u32, u32) = (2, 11);

/// A bucket that was found to be as configured.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    stream: String,
    subjects: String,
    /// The largest value, in bytes.
    pub(super) max_value_bytes: usize,
    /// Whether several servers hold it, of which only the leader is sure to know every acknowledged write.
    pub(super) is_replicated: bool,
    /// Whether reads must be answered by the leader.
    pub(super) reads_from_leader: bool,
    /// Whether the server takes many puts at once that name one fence.
    pub(super) is_fenced: bool,
}

impl Bucket {
    /// The stream's name.
    pub(super) fn stream(&self) -> &str {
        &self.stream
    }

    /// The subject of a key.
    pub(super) fn subject(&self, key: &Key) -> String {
        self.subject_of(&encode(key.as_str()))
    }

    /// The subject of an encoded key.
    pub(super) fn subject_of(&self, encoded: &str) -> String {
        format!("{}{encoded}", self.subjects)
    }

    /// The subject filter of a prefix.
    pub(super) fn filter(&self, filter: &Filter) -> String {
        self.subject_of(&filter.pattern)
    }

    /// The key of a subject, if it is a key's.
    pub(super) fn key(&self, subject: &str) -> Option<Key> {
        subject.strip_prefix(&self.subjects).and_then(decode)
    }
}

/// The largest value that fits a message of a size.
pub(super) fn value_limit(max_message_bytes: usize, config: &JetstreamConfig) -> usize {
    let configured = config.max_value_bytes.map_or(usize::MAX, |bytes| bytes as usize);
    max_message_bytes.saturating_sub(HEADER_BYTES).min(configured).min(Value::MAX_BYTES)
}

/// Makes the bucket, or checks the one that is there.
///
/// Several processes may do so at once: JetStream makes a stream of one configuration once, and says so to all.
pub(super) async fn open(link: &Link, config: &JetstreamConfig, cx: &Context) -> Result<Bucket> {
    check_version(link.server_version())?;
    let wanted = wanted(config);
    let found = match info(link, &wanted.name, cx).await? {
        Some(found) => found,
        None if config.create_bucket => create(link, &wanted, cx).await?,
        None => {
            let bucket = &config.bucket;
            return Err(Error::config(format!(
                "the bucket `{bucket}` does not exist; make it, or set createBucket: true"
            )));
        }
    };
    check(&config.bucket, &wanted, &found)?;
    let stream_limit = usize::try_from(found.max_message_size).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX);
    Ok(Bucket {
        subjects: format!("$KV.{}.", config.bucket),
        max_value_bytes: value_limit(link.max_payload().min(stream_limit), config),
        is_fenced: found.num_replicas <= 1,
        is_replicated: found.num_replicas > 1,
        reads_from_leader: found.num_replicas > 1 && config.reads == ReadFrom::Leader,
        stream: wanted.name,
    })
}

fn check_version(version: &str) -> Result<()> {
    let mut numbers = version.split('.').map(|number| number.parse().ok());
    let found = numbers.next().flatten().zip(numbers.next().flatten());
    if found.is_some_and(|found| found < MINIMUM_VERSION) {
        return Err(Error::config(format!("the server is NATS {version}; version 2.11 or later is needed")));
    }
    Ok(())
}

/// The stream as the configuration asks for it: a valid NATS key-value bucket, so that other tools can use it.
///
/// It has no `max_age`, because that would end entries before their own, longer TTLs: the default TTL is given to every entry.
fn wanted(config: &JetstreamConfig) -> Config {
    let placement = config.placement.clone();
    Config {
        name: format!("KV_{}", config.bucket),
        description: config.description.clone(),
        subjects: vec![format!("$KV.{}.>", config.bucket)],
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::New,
        max_messages: -1,
        max_messages_per_subject: 1,
        max_bytes: config.max_bytes.map_or(-1, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX)),
        max_message_size: config.max_value_bytes.map_or(-1, |bytes| {
            i32::try_from(bytes.saturating_add(u32::try_from(HEADER_BYTES).unwrap_or_default())).unwrap_or(i32::MAX)
        }),
        max_consumers: -1,
        storage: match config.storage {
            StreamStorage::File => StorageType::File,
            StreamStorage::Memory => StorageType::Memory,
        },
        num_replicas: usize::from(config.replicas),
        compression: Some(if config.compression { Compression::S2 } else { Compression::None }),
        placement: placement.map(|placement| Placement { cluster: placement.cluster, tags: placement.tags }),
        allow_direct: true,
        allow_rollup: true,
        deny_delete: true,
        allow_message_ttl: true,
        subject_delete_marker_ttl: Some(MARKER_TTL),
        // A sequence is a revision, and none may come again when the bucket is made anew: so it begins with the microseconds since the
        // epoch, and no server stores a message in each.
        first_sequence: Some(Clock::system().now().as_millis().saturating_mul(1000)),
        ..Config::default()
    }
}

async fn info(link: &Link, stream: &str, cx: &Context) -> Result<Option<Config>> {
    let answer = link.api::<(), Info>(&format!("STREAM.INFO.{stream}"), None, cx).await;
    match answer.map_err(|failure| not_answered(link, failure))? {
        Ok(info) => Ok(Some(info.config)),
        Err(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => Ok(None),
        Err(error) => Err(api_failure(error)),
    }
}

async fn create(link: &Link, wanted: &Config, cx: &Context) -> Result<Config> {
    let answer = link.api::<Config, Info>(&format!("STREAM.CREATE.{}", wanted.name), Some(wanted), cx).await;
    match answer.map_err(|failure| not_answered(link, failure))? {
        Ok(info) => Ok(info.config),
        // Somebody else was faster, with another configuration; the check names what differs.
        Err(error) if error.error_code() == ErrorCode::STREAM_NAME_EXIST => {
            info(link, &wanted.name, cx).await?.ok_or_else(|| api_failure(error))
        }
        Err(error) => Err(api_failure(error)),
    }
}

/// A server that never offers JetStream and one that is about to answer alike; only the first says in its greeting that it has none.
fn not_answered(link: &Link, failure: Failure) -> Error {
    if matches!(failure, Failure::NotSent(_)) && link.is_connected() && !link.client().server_info().jetstream {
        return Error::config("the server offers no JetStream; start it with `-js` or a `jetstream` block");
    }
    let error = failure.of_read();
    if link.is_denied() { error.permanent() } else { error }
}

/// Compares what matters: the settings that our promises rest on, and those that the configuration asks for.
fn check(bucket: &str, wanted: &Config, found: &Config) -> Result<()> {
    let mut differences = Vec::new();
    let mut differs = |setting: &str, found: String, wanted: String| {
        if found != wanted {
            differences.push(format!("{setting} is {found}, not {wanted}"));
        }
    };
    differs("history", found.max_messages_per_subject.to_string(), wanted.max_messages_per_subject.to_string());
    differs("allow_msg_ttl", found.allow_message_ttl.to_string(), "true".to_owned());
    differs("max_age (the bucket's TTL)", format!("{:?}", found.max_age), format!("{:?}", Duration::ZERO));
    differs("allow_direct", found.allow_direct.to_string(), "true".to_owned());
    differs("allow_rollup_hdrs", found.allow_rollup.to_string(), "true".to_owned());
    differs("deny_purge", found.deny_purge.to_string(), "false".to_owned());
    differs("sealed", found.sealed.to_string(), "false".to_owned());
    differs("no_ack", found.no_ack.to_string(), "false".to_owned());
    differs("mirror", found.mirror.is_some().to_string(), "false".to_owned());
    differs("allow_msg_counter", found.allow_message_counter.to_string(), "false".to_owned());
    differs("subjects", found.subjects.join(" "), wanted.subjects.join(" "));
    differs("retention", format!("{:?}", found.retention), format!("{:?}", wanted.retention));
    differs("discard", format!("{:?}", found.discard), format!("{:?}", wanted.discard));
    differs("storage", format!("{:?}", found.storage), format!("{:?}", wanted.storage));
    differs("replicas", found.num_replicas.to_string(), wanted.num_replicas.to_string());
    differs("max_bytes", limit(found.max_bytes), limit(wanted.max_bytes));
    differs("max_msgs", limit(found.max_messages), limit(wanted.max_messages));
    let compressed = |config: &Config| (config.compression == Some(Compression::S2)).to_string();
    differs("compression", compressed(found), compressed(wanted));
    // Other tools count the headers as part of the value.
    let headers = i32::try_from(HEADER_BYTES).unwrap_or_default();
    if found.max_message_size.saturating_add(headers) != wanted.max_message_size {
        differs("max_msg_size", limit(found.max_message_size.into()), limit(wanted.max_message_size.into()));
    }
    if differences.is_empty() {
        return Ok(());
    }
    let differences = differences.join("; ");
    Err(Error::config(format!(
        "the bucket `{bucket}` exists with another configuration: {differences}. Change the stream `KV_{bucket}`, the \
         configuration, or the name of the bucket"
    )))
}

/// A limit as people say it: the server writes no limit as -1, and takes 0 for it.
fn limit(limit: i64) -> String {
    if limit <= 0 { "unlimited".to_owned() } else { limit.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn differences(change: impl FnOnce(&mut Config)) -> String {
        let wanted = wanted(&JetstreamConfig::default());
        let mut found = wanted.clone();
        change(&mut found);
        check("b", &wanted, &found).unwrap_err().to_string()
    }

    #[test]
    fn an_old_server_is_refused() {
        assert!(check_version("2.10.22").is_err());
        assert!(check_version("1.4.1").is_err());
        for version in ["2.11.0", "2.12.0-RC.1", "3.0.0", "a fork"] {
            assert!(check_version(version).is_ok(), "{version}");
        }
    }

    #[test]
    fn a_difference_is_named() {
        assert!(differences(|found| found.max_messages_per_subject = 5).contains("history is 5, not 1"));
        assert!(differences(|found| found.allow_message_ttl = false).contains("allow_msg_ttl is false"));
        assert!(differences(|found| found.max_bytes = 1000).contains("max_bytes is 1000, not unlimited"));
        assert!(differences(|found| found.num_replicas = 3).contains("replicas is 3, not 1"));
        assert!(differences(|found| found.storage = StorageType::Memory).contains("storage is Memory, not File"));
        let both = differences(|found| (found.sealed, found.no_ack) = (true, true));
        assert!(both.contains("sealed") && both.contains("no_ack"));
    }

    #[test]
    fn what_does_not_matter_may_differ() {
        let config = JetstreamConfig { max_value_bytes: Some(1000), ..JetstreamConfig::default() };
        let wanted = wanted(&config);
        let found = Config {
            description: Some("theirs".to_owned()),
            subject_delete_marker_ttl: None,
            max_message_size: 1000,
            max_messages: 0,
            deny_delete: false,
            ..wanted.clone()
        };
        assert!(check("b", &wanted, &found).is_ok());
    }

    #[test]
    fn a_value_has_the_room_that_headers_leave() {
        let limited = JetstreamConfig { max_value_bytes: Some(1000), ..JetstreamConfig::default() };
        assert_eq!(value_limit(1 << 20, &JetstreamConfig::default()), (1 << 20) - HEADER_BYTES);
        assert_eq!(value_limit(1 << 20, &limited), 1000);
        assert_eq!(value_limit(1000, &limited), 1000 - HEADER_BYTES);
    }
}
