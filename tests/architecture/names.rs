//! The names of a backend's files. Whoever knows one backend finds their way in all: the same name has the same job in each.

use std::collections::BTreeSet;

/// The names and their jobs. A new one is added here, for all backends that have such a job.
const JOBS: &[(&str, &str)] = &[
    ("apply", "several steps, all or nothing"),
    ("batch", "many keys in one round trip"),
    ("bucket", "the bucket made or checked"),
    ("cache", "the backend as a cache"),
    ("clear", "everything under a prefix removed"),
    ("codec", "keys and values as they are stored"),
    ("config", "options read from the configuration"),
    ("conflict", "acknowledged writes that lost"),
    ("connect", "the connection made"),
    ("counter", "increments"),
    ("database", "the backend as a database"),
    ("error", "the client's errors as ours"),
    ("expected", "which database must answer"),
    ("failure", "whom a failed replay blames"),
    ("fence", "what a given-up connection still has on the way kept out"),
    ("judge", "what replayed steps come to"),
    ("lane", "a connection that gives up in time"),
    ("link", "the connection kept"),
    ("list", "lists: append, range, trim"),
    ("meta", "what is stored about the store itself"),
    ("migrate", "the schema brought up to date"),
    ("mod", "what it is, and its parts"),
    ("options", "the client's options from the configuration"),
    ("pool", "the connections kept"),
    ("publish", "one message sent and acknowledged"),
    ("read", "keys read"),
    ("record", "an entry as it is stored"),
    ("records", "the entries under one lock, found by hash and listed in order"),
    ("replay", "steps that may have been applied before"),
    ("scan", "keys listed and counted"),
    ("script", "what the server runs"),
    ("sentence", "what a replayed delete does to a list"),
    ("server_clock", "the server's clock, by which a statement comes too late"),
    ("session", "one connection's work"),
    ("shard", "a part of the keys under a lock of its own"),
    ("sql", "the statements"),
    ("standing", "what stands in the way of a write"),
    ("store", "what cache and database have in common"),
    ("sweep", "what has expired removed"),
    ("table", "the entries in memory"),
    ("tail", "the end of a walk over the keys"),
    ("tests", "tests"),
    ("tombstones", "the stamps of what was deleted"),
    ("unanswered", "writes that were given up without an answer"),
    ("write", "keys written"),
];

/// What every backend has, besides `cache` or `database`.
const EVERYWHERE: &[&str] = &["mod"];

/// What every backend has that talks to something outside the process.
const OUTSIDE: &[&str] = &["connect", "error"];

/// The one backend that lives in this process.
const INSIDE: &str = "memory";

/// What is wrong with the names of a backend's files.
pub(crate) fn problems(backend: &str, files: &BTreeSet<String>) -> Vec<String> {
    let names: BTreeSet<&str> = files.iter().map(|file| file.strip_suffix(".rs").unwrap_or(file)).collect();
    let outside = if backend == INSIDE { &[][..] } else { OUTSIDE };
    let mut problems = Vec::new();
    for name in EVERYWHERE.iter().chain(outside) {
        if !names.contains(name) {
            problems.push(format!("backend/{backend} has no {name}.rs, as the others have"));
        }
    }
    if !names.contains("cache") && !names.contains("database") {
        problems.push(format!("backend/{backend} has neither cache.rs nor database.rs"));
    }
    for name in names {
        if !JOBS.iter().any(|(known, _)| *known == name) {
            problems.push(format!("backend/{backend}/{name}.rs: use the name other backends have for this job"));
        }
    }
    problems
}

#[test]
fn a_name_of_its_own_and_a_missing_name_are_problems() {
    let files = |names: &[&str]| names.iter().map(|name| format!("{name}.rs")).collect();
    assert!(problems("memory", &files(&["mod", "cache"])).is_empty());
    assert!(problems("redis", &files(&["mod", "cache", "connect", "error"])).is_empty());
    assert_eq!(problems("redis", &files(&["mod", "cache", "error"])).len(), 1);
    assert_eq!(problems("memory", &files(&["mod"])).len(), 1);
    assert_eq!(problems("memory", &files(&["mod", "cache", "helpers"])).len(), 1);
}
