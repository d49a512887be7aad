//! The README's tables say what the backends say of themselves. `UPDATE_README=1` writes them anew.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::{env, fs};

use agent_storage::backend::jetstream::JetstreamCache;
use agent_storage::backend::memory::{MemoryCache, MemoryDatabase};
use agent_storage::backend::postgres::PostgresDatabase;
use agent_storage::backend::redis::RedisCache;
use agent_storage::backend::sqlite::SqliteDatabase;
use agent_storage::config::{
    JetstreamConfig, MemoryCacheConfig, MemoryDatabaseConfig, PostgresConfig, RedisConfig, SqliteConfig,
};
use agent_storage::contract::{Capabilities, Durability, Listing, RevisionKind, Store};
use agent_storage::{Clock, HybridClock};

const README: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
const BEGIN: &str = "<!-- capabilities: begin -->\n";
const END: &str = "<!-- capabilities: end -->";

/// A column: the type as an agent.yml names it, the feature it needs, and what it can do.
type Column = (&'static str, &'static str, Capabilities);

/// A row: what is asked, and the answer.
type Row = (&'static str, fn(&Capabilities) -> String);

const COMMON: &[Row] = &[
    ("outlives the process", |it| yes(it.durability == Durability::Primary)),
    ("shared by several processes", |it| yes(it.shared)),
    ("compare-and-set, by a revision that is", |it| revision(it.revision).to_owned()),
    ("delete only if unchanged", |it| yes(it.conditional_delete)),
    ("a late or repeated write is harmless by its stamp", |it| yes(it.stamp_guard)),
    ("keys are listed", |it| listing(it.listing).to_owned()),
    ("largest value, by default", |it| format!("{:.0} MiB", it.max_value_bytes as f64 / 1024.0 / 1024.0)),
];

const CACHES: &[Row] =
    &[("counters (`increment`)", |it| yes(it.increment)), ("may evict before the TTL ends", |it| yes(it.evicts))];

const DATABASES: &[Row] =
    &[("lists (`append`, `range`, `trim`)", |it| yes(it.lists)), ("transactions", |it| yes(it.transactions))];

fn yes(it: bool) -> String {
    if it { "yes" } else { "no" }.to_owned()
}

fn revision(kind: RevisionKind) -> &'static str {
    match kind {
        RevisionKind::Stamp => "the write's stamp",
        RevisionKind::Sequence => "the write's sequence",
        RevisionKind::Digest => "a digest of the value",
        other => panic!("name {other:?} in the README"),
    }
}

fn listing(listing: Listing) -> &'static str {
    match listing {
        Listing::ByteOrder => "once, in byte order",
        Listing::Once => "once, in any order",
        Listing::AtLeastOnce => "at least once, in any order",
        other => panic!("name {other:?} in the README"),
    }
}

fn table(side: &str, columns: &[Column], rows: &[Row]) -> String {
    let line = |first: &str, cells: Vec<String>| format!("| {first} | {} |\n", cells.join(" | "));
    let mut table = line(side, columns.iter().map(|(name, ..)| format!("`{name}`")).collect());
    table += &format!("|---|{}\n", "---|".repeat(columns.len()));
    table += &line("feature", columns.iter().map(|(_, feature, _)| (*feature).to_owned()).collect());
    for (question, answer) in COMMON.iter().chain(rows) {
        table += &line(question, columns.iter().map(|(.., capabilities)| answer(capabilities)).collect());
    }
    table
}

fn tables() -> String {
    let jetstream = JetstreamCache::new(&JetstreamConfig::default(), Clock::system()).unwrap();
    let redis = RedisCache::new(&RedisConfig::default()).unwrap();
    let postgres = PostgresDatabase::with_stamps(&PostgresConfig::default(), HybridClock::process()).unwrap();
    let caches = [
        ("in-memory", "none", MemoryCache::new(&MemoryCacheConfig::default()).capabilities()),
        ("redis", "`redis`", redis.capabilities()),
        ("jetstream", "`jetstream`", jetstream.capabilities()),
    ];
    let databases = [
        ("in-memory", "none", MemoryDatabase::new(&MemoryDatabaseConfig::default()).capabilities()),
        ("sqlite", "`sqlite` (default)", SqliteDatabase::new(&SqliteConfig::default()).capabilities()),
        ("postgres", "`postgres`", postgres.capabilities()),
    ];
    format!("{}\n{}", table("cache", &caches, CACHES), table("database", &databases, DATABASES))
}

/// The targets of the links in a text that lead to files.
fn linked_files(text: &str) -> impl Iterator<Item = &str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split_once(')').map(|(target, _)| target));
    targets.filter(|target| !target.starts_with("http") && !target.starts_with('#'))
}

#[test]
fn links_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut documents: Vec<PathBuf> =
        ["README.md", "CHANGELOG.md", "CONTRIBUTING.md"].map(|name| root.join(name)).into();
    for folder in ["docs", "docs/decisions"] {
        documents.extend(fs::read_dir(root.join(folder)).unwrap().map(|entry| entry.unwrap().path()));
    }
    let mut links = 0;
    for document in documents.iter().filter(|path| path.extension().is_some_and(|extension| extension == "md")) {
        for target in linked_files(&fs::read_to_string(document).unwrap()) {
            let file = target.split('#').next().unwrap();
            assert!(document.parent().unwrap().join(file).exists(), "{}: {target}", document.display());
            links += 1;
        }
    }
    assert!(links > 10, "only {links} links were found");
}

#[tokio::test]
async fn the_tables_say_what_the_backends_say() {
    let readme = fs::read_to_string(README).unwrap();
    let (before, rest) = readme.split_once(BEGIN).unwrap();
    let (standing, after) = rest.split_once(END).unwrap();
    let tables = tables();
    if env::var_os("UPDATE_README").is_some() {
        fs::write(README, format!("{before}{BEGIN}{tables}{END}{after}")).unwrap();
        return;
    }
    assert_eq!(standing, tables, "run `UPDATE_README=1 cargo test --all-features --test readme`");
}
