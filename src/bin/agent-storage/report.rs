//! The health of the storage as people and programs read it.

use std::time::Duration;

use agent_storage::chain::ChainStatus;
use agent_storage::contract::{Capabilities, Listing, RevisionKind};
use agent_storage::layer::Side;
use agent_storage::manager::{MemberHealth, SideHealth};
use agent_storage::{Error, Health};
use comfy_table::{Table, presets};
use serde_json::{Value as Json, json};

/// A table with a row a store.
pub(crate) fn table(health: &Health) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED);
    table.set_header(["side", "store", "state", "latency", "server", "can"]);
    for side in [&health.cache, &health.database] {
        for member in &side.members {
            table.add_row(row(side, member));
        }
    }
    table
}

fn row(side: &SideHealth, member: &MemberHealth) -> [String; 6] {
    let unknown = || "-".to_owned();
    [
        side.side.as_str().to_owned(),
        member.backend.to_owned(),
        member.status.as_str().to_owned(),
        member.latency.map_or_else(unknown, |latency| format!("{:.1} ms", millis(latency))),
        member.server_version.clone().unwrap_or_else(unknown),
        member.capabilities.as_ref().map_or_else(unknown, abilities),
    ]
}

/// What a store can do, a line each.
fn abilities(capabilities: &Capabilities) -> String {
    let mut lines = vec![
        format!("durability: {}", capabilities.durability.as_str()),
        format!("revisions: {}", revision(capabilities.revision)),
        format!("listing: {}", listing(capabilities.listing)),
        format!("values: up to {} bytes", capabilities.max_value_bytes),
    ];
    lines.extend(switches(capabilities).into_iter().filter(|(_, on)| *on).map(|(name, _)| name.replace('_', " ")));
    lines.join("\n")
}

fn switches(capabilities: &Capabilities) -> [(&'static str, bool); 8] {
    [
        ("shared", capabilities.shared),
        ("stamp_guard", capabilities.stamp_guard),
        ("conditional_delete", capabilities.conditional_delete),
        ("increment", capabilities.increment),
        ("lists", capabilities.lists),
        ("transactions", capabilities.transactions),
        ("replay", capabilities.replay),
        ("evicts", capabilities.evicts),
    ]
}

const fn revision(kind: RevisionKind) -> &'static str {
    match kind {
        RevisionKind::Stamp => "stamp",
        RevisionKind::Sequence => "sequence",
        RevisionKind::Digest => "digest",
        _ => "other",
    }
}

const fn listing(listing: Listing) -> &'static str {
    match listing {
        Listing::ByteOrder => "byte order",
        Listing::Once => "once",
        Listing::AtLeastOnce => "at least once",
        _ => "other",
    }
}

/// The report as JSON. Its keys stay; new ones may come.
pub(crate) fn json(health: &Health) -> Json {
    json!({
        "status": health.status().as_str(),
        "cache": side(&health.cache),
        "database": side(&health.database),
    })
}

fn side(side: &SideHealth) -> Json {
    json!({
        "status": side.status().as_str(),
        "members": side.members.iter().map(member).collect::<Vec<_>>(),
        "chain": side.chain.as_ref().map(chain),
    })
}

fn chain(status: &ChainStatus) -> Json {
    json!({
        "state": status.state.as_str(),
        "fenced": status.fenced,
        "journal_full": status.journal_full,
        "journal_bytes": status.journal_bytes,
        "pending": status.pending,
        "parked": status.parked,
        "oldest": status.oldest.map(|at| at.as_millis()),
        "conflicts": status.conflicts,
        "left_journals": status.left_journals,
        "reason": status.reason.as_ref().map(error),
    })
}

/// The chain of a side in one line.
pub(crate) fn chain_line(side: &SideHealth) -> Option<String> {
    let status = side.chain.as_ref()?;
    let (name, state, pending) = (side.side.as_str(), status.state.as_str(), status.pending);
    let mut line = match side.side {
        Side::Cache => format!("{name}: {state}, {pending} keys or prefixes to be deleted at the primary"),
        _ => {
            let (parked, conflicts) = (status.parked, status.conflicts);
            format!("{name}: {state}, {pending} pending, {parked} put aside, {conflicts} conflicts since the start")
        }
    };
    for (flag, name) in [(status.fenced, "fenced"), (status.journal_full, "journal full")] {
        if flag {
            line.push_str(", ");
            line.push_str(name);
        }
    }
    if let Some(reason) = &status.reason {
        line.push_str(": ");
        line.push_str(reason.message());
    }
    Some(line)
}

fn member(member: &MemberHealth) -> Json {
    json!({
        "backend": member.backend,
        "status": member.status.as_str(),
        "latency_ms": member.latency.map(millis),
        "server_version": member.server_version,
        "capabilities": member.capabilities.as_ref().map(capabilities),
        "error": member.error.as_ref().map(error),
    })
}

fn capabilities(capabilities: &Capabilities) -> Json {
    let mut object = serde_json::Map::new();
    object.insert("durability".to_owned(), json!(capabilities.durability.as_str()));
    object.insert("revision".to_owned(), json!(revision(capabilities.revision)));
    object.insert("listing".to_owned(), json!(listing(capabilities.listing).replace(' ', "_")));
    object.insert("max_value_bytes".to_owned(), json!(capabilities.max_value_bytes));
    object.extend(switches(capabilities).into_iter().map(|(name, on)| (name.to_owned(), json!(on))));
    Json::Object(object)
}

pub(crate) fn error(error: &Error) -> Json {
    json!({ "kind": error.kind().as_str(), "message": error.message() })
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
