//! Text to tree: the YAML reader with its limits, and its errors in our words.
//!
//! The reader's own messages may quote the file, so each is replaced unless it is known to hold no text of it.

use serde_saphyr::options::{AliasLimits, NonFiniteFloatPolicy};
use serde_saphyr::{Error, Options};

use super::node::{Document, Position};

/// The largest file that is read, in bytes. Real files of this kind have a few kilobytes.
pub(super) const MAX_FILE: usize = 1024 * 1024;

/// What keeps text from being read as YAML.
pub(super) struct Failure {
    pub(super) position: Position,
    pub(super) message: String,
}

/// Reads one YAML document.
pub(super) fn parse(text: &str) -> Result<Document, Failure> {
    serde_saphyr::from_str_with_options(text, options()).map_err(|error| {
        let position = error.location().map_or(Position { line: 1, column: 1 }, Position::from);
        Failure { position, message: describe(&error) }
    })
}

/// The limits are far above any real file and far below what hurts: a tree of a few thousand small nodes.
fn options() -> Options {
    let mut alias_limits = AliasLimits::default();
    alias_limits.max_total_replayed_events = 20_000;
    alias_limits.max_replay_stack_depth = 32;
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: 64,
            max_nodes: 50_000,
            max_events: 200_000,
            max_aliases: 1_000,
            max_anchors: 1_000,
            max_recorded_anchor_events: 100_000,
            max_recorded_anchor_bytes: 4 * MAX_FILE,
            max_total_scalar_bytes: 4 * MAX_FILE,
            max_documents: 2,
        },
        alias_limits: alias_limits,
        strict_booleans: true,
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
        with_snippet: false,
    }
}

fn describe(error: &Error) -> String {
    let known = match error {
        Error::AliasError { error, .. } | Error::WithSnippet { error, .. } => return describe(error),
        Error::ExternalMessage { msg, .. } => return format!("is not YAML: {}", without_position(msg)),
        Error::DuplicateMappingKey { .. } => "has the same key twice in one mapping; keep one of them",
        Error::MultipleDocuments { .. } => "holds more than one YAML document; keep one (take out the line `---`)",
        Error::UnknownAnchor { .. } => "names an anchor that is not defined above it",
        Error::RecursiveReferencesRequireWeakTypes { .. } => "has an anchor that contains itself",
        Error::MergeValueNotMapOrSeqOfMaps { .. } => "merges (`<<`) something that is not a mapping",
        Error::Budget { .. } | Error::AliasReplayLimitExceeded { .. } | Error::AliasExpansionLimitExceeded { .. } => {
            "is nested too deep, too large, or repeats its anchors too often for a configuration"
        }
        Error::AliasReplayStackDepthExceeded { .. } => "nests its anchors too deep for a configuration",
        Error::Unexpected { .. } | Error::NullIntoString { .. } => "has a key that is not text",
        Error::Eof { .. } => "ends too early",
        _ => "is not YAML that can be read here",
    };
    known.to_owned()
}

/// The position is said once, in front of the message.
fn without_position(message: &str) -> &str {
    message.split(" at line ").next().unwrap_or(message)
}
