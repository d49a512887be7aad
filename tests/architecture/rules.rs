//! The rules, and what in the sources breaks them.

use std::collections::{BTreeMap, BTreeSet};

use syn::{Item, UseTree, Visibility};

use crate::source::{Mention, Source, is_test_only};

/// The modules, lowest first. A module knows only those on lines before its own.
const RANKS: &[&[&str]] = &[
    &["error"],
    &["key", "value", "time"],
    &["stamp"],
    &["revision"],
    &["config"],
    &["contract", "engine"],
    &["backend", "layer", "chain"],
    &["handle"],
    &["manager"],
    &["state", "session", "event"],
];

/// The only module besides the crate's root that names concrete backends.
const NAMES_BACKENDS: &str = "manager";

/// The module for tests, which stands where a user of the crate stands.
const TESTKIT: &str = "testkit";

/// The most lines a file may have outside its tests.
const MOST_LINES: usize = 500;

/// Says what in the sources breaks the rules, one line each.
pub(crate) fn problems(sources: &[Source]) -> Vec<String> {
    let house = House::new(sources);
    let mut problems = Vec::new();
    for source in sources {
        problems.extend(shape(source));
        // The programs in bin/ are crates of their own: the compiler shows them the public names only.
        if source.path.starts_with("bin/") {
            continue;
        }
        for mention in &source.mentions {
            problems.extend(
                house.judge(source, mention).map(|problem| format!("{}:{}: {problem}", source.path, mention.line)),
            );
        }
    }
    problems
}

/// How a file is kept, whatever it mentions.
fn shape(source: &Source) -> Vec<String> {
    let mut problems = Vec::new();
    let path = &source.path;
    if source.lines > MOST_LINES {
        problems.push(format!("{path}: {} lines without tests; at most {MOST_LINES}", source.lines));
    }
    if source.is_index() && !source.file.items.iter().all(may_stand_in_an_index) {
        problems.push(format!("{path}: only documentation, `mod` and `pub use` belong here"));
    }
    problems
        .extend(source.path_attributes.iter().map(|line| format!("{path}:{line}: a file stands where its module is")));
    for item in &source.file.items {
        if let Item::Mod(module) = item
            && module.ident == "tests"
            && !is_test_only(&module.attrs)
        {
            problems.push(format!("{path}: `mod tests` lacks `#[cfg(test)]`"));
        }
    }
    problems
}

fn may_stand_in_an_index(item: &Item) -> bool {
    match item {
        Item::Mod(module) => module.content.is_none(),
        Item::Use(reexport) => !matches!(reexport.vis, Visibility::Inherited),
        _ => false,
    }
}

/// What is known of all modules together.
struct House {
    /// The names each module shows to all, and where a re-exported one comes from.
    shown: BTreeMap<Vec<String>, BTreeMap<String, Vec<String>>>,
}

impl House {
    fn new(sources: &[Source]) -> Self {
        Self { shown: sources.iter().map(|source| (source.module.clone(), shown_by(source))).collect() }
    }

    fn judge(&self, source: &Source, mention: &Mention) -> Option<String> {
        let (here, target) = (&source.module, self.follow(&mention.target));
        if mention.is_foreign {
            let clock = target.iter().any(|name| name == "SystemTime") && !mention.in_test;
            return (clock && here.first().is_some_and(|top| top != "time"))
                .then(|| "the system's clock is read in `time` alone; take a `Clock`".to_owned());
        }
        if target.last().is_some_and(|name| name == "*") && !(mention.is_super_glob && mention.in_test) {
            return Some("name what you use: no `*` from this crate".to_owned());
        }
        if mention.in_test {
            return None;
        }
        let (from, to) = (here.first()?.as_str(), target.first()?.as_str());
        if to == "backend" && from != NAMES_BACKENDS {
            let inside = from == to && (here.len() == 1 || here.get(1) == target.get(1));
            return (!inside).then(|| format!("only `{NAMES_BACKENDS}` names a concrete backend"));
        }
        if from == to {
            return None;
        }
        if from == TESTKIT {
            return (!self.is_shown(&mention.target))
                .then(|| format!("`{}` is not public; {TESTKIT} uses what users can", mention.target.join("::")));
        }
        match (rank(from), rank(to)) {
            (None, _) => Some(format!("module `{from}` has no rank")),
            (_, None) => Some(format!("`{to}` has no rank, or is not to be known by any module")),
            (Some(own), Some(other)) if other < own => None,
            _ => Some(format!("`{from}` may not know `{to}`: imports go down in rank only")),
        }
    }

    /// The path that a name re-exported by the crate's root comes from.
    fn follow(&self, target: &[String]) -> Vec<String> {
        let root = self.shown.get(&Vec::new());
        match root.and_then(|names| names.get(target.first()?)) {
            Some(origin) => [origin, &target[1..]].concat(),
            None => target.to_vec(),
        }
    }

    /// Whether a user of the crate can name it, be it by another path.
    fn is_shown(&self, target: &[String]) -> bool {
        let root = self.shown.get(&Vec::new());
        if root.is_some_and(|names| names.values().any(|origin| origin.len() > 1 && target.starts_with(origin))) {
            return true;
        }
        let mut module = Vec::new();
        for name in target {
            match self.shown.get(&module) {
                Some(names) if !names.contains_key(name) => return false,
                Some(_) => module.push(name.clone()),
                // A type's own name, beneath which the compiler decides.
                None => return true,
            }
        }
        true
    }
}

fn rank(module: &str) -> Option<usize> {
    RANKS.iter().position(|modules| modules.contains(&module))
}

/// The public names in a file; for a re-export the path it comes from, as written.
fn shown_by(source: &Source) -> BTreeMap<String, Vec<String>> {
    let mut names = BTreeMap::new();
    for item in &source.file.items {
        let (visibility, name) = match item {
            Item::Use(reexport) => {
                if matches!(reexport.vis, Visibility::Public(_)) {
                    reexports(&mut Vec::new(), &reexport.tree, &mut names);
                }
                continue;
            }
            Item::Const(item) => (&item.vis, &item.ident),
            Item::Enum(item) => (&item.vis, &item.ident),
            Item::Fn(item) => (&item.vis, &item.sig.ident),
            Item::Mod(item) => (&item.vis, &item.ident),
            Item::Static(item) => (&item.vis, &item.ident),
            Item::Struct(item) => (&item.vis, &item.ident),
            Item::Trait(item) => (&item.vis, &item.ident),
            Item::Type(item) => (&item.vis, &item.ident),
            _ => continue,
        };
        if matches!(visibility, Visibility::Public(_)) {
            names.insert(name.to_string(), vec![name.to_string()]);
        }
    }
    names
}

fn reexports(prefix: &mut Vec<String>, tree: &UseTree, names: &mut BTreeMap<String, Vec<String>>) {
    let origin = |prefix: &[String], name: &str| {
        let path = prefix.iter().filter(|segment| *segment != "crate" && *segment != "self").cloned();
        path.chain([name.to_owned()]).collect::<Vec<_>>()
    };
    match tree {
        UseTree::Path(path) => {
            prefix.push(path.ident.to_string());
            reexports(prefix, &path.tree, names);
            prefix.pop();
        }
        UseTree::Group(group) => group.items.iter().for_each(|item| reexports(prefix, item, names)),
        UseTree::Name(name) => {
            names.insert(name.ident.to_string(), origin(prefix, &name.ident.to_string()));
        }
        UseTree::Rename(rename) => {
            names.insert(rename.rename.to_string(), origin(prefix, &rename.ident.to_string()));
        }
        UseTree::Glob(_) => {}
    }
}

/// The problems of a small house: the files given, and a root that shows the modules and one name of `key` and `backend`.
#[cfg(test)]
fn problems_of(files: &[(&str, &str)]) -> Vec<String> {
    let root =
        ("lib.rs", "pub mod contract; pub mod backend; mod key; pub use key::Key; pub use backend::redis::RedisCache;");
    let backend = ("backend/mod.rs", "pub mod redis;");
    let contract = ("contract/mod.rs", "mod store; mod hidden; pub use store::Store;");
    problems(
        &[root, backend, contract]
            .iter()
            .chain(files)
            .map(|(path, text)| Source::parse(path, text))
            .collect::<Vec<_>>(),
    )
}

#[test]
fn what_goes_down_is_allowed() {
    let good = [
        ("key.rs", "use std::fmt; use crate::error::Error; fn f() -> crate::error::Error { todo!() }"),
        ("backend/redis/cache.rs", "use super::codec::X; use crate::contract::Store; use crate::{Key, config};"),
        ("manager/mod.rs", "pub use crate::backend::redis::RedisCache;"),
        ("handle/cache.rs", "#[cfg(test)] mod tests { use super::*; use crate::backend::memory::MemoryCache; }"),
        (
            "testkit/suite.rs",
            "use crate::contract::Store; use crate::key::Key; use crate::{Key, contract}; use super::case::Case;",
        ),
        ("time.rs", "use std::time::SystemTime;"),
        ("bin/agent-storage/main.rs", "use agent_storage::Key; mod get; use crate::get::run;"),
    ];
    assert_eq!(problems_of(&good), Vec::<String>::new());
}

#[test]
fn each_broken_rule_is_found() {
    let long = "fn f() {}\n".repeat(MOST_LINES + 1);
    let bad = [
        ("key.rs", "use crate::contract::Store;"),
        ("key.rs", "use crate::value::Value;"),
        ("error.rs", "fn f() { crate::key::parse(); }"),
        ("error.rs", "fn f() { assert!(matches!(x, crate::key::Key)); }"),
        ("engine/writer.rs", "use crate::contract::Store;"),
        ("engine/writer.rs", "use super::super::contract::Store;"),
        ("layer/retry.rs", "use crate::backend::redis::RedisCache;"),
        ("handle/cache.rs", "use crate::backend::redis::RedisCache;"),
        ("handle/cache.rs", "use crate::RedisCache;"),
        ("backend/memory/cache.rs", "use crate::backend::redis::RedisCache;"),
        ("backend/memory/cache.rs", "use super::super::redis::codec;"),
        ("backend/memory/cache.rs", "use crate::layer::Retry;"),
        ("contract/store.rs", "use crate::testkit::Suite;"),
        ("misc.rs", "use crate::key::Key;"),
        ("testkit/suite.rs", "use crate::key::Alphabet;"),
        ("testkit/suite.rs", "use crate::contract::hidden::Secret;"),
        ("handle/cache.rs", "use super::*;"),
        ("handle/cache.rs", "use crate::contract::*;"),
        ("handle/cache.rs", "#[cfg(test)] mod tests { use crate::contract::*; }"),
        ("handle/cache.rs", "use std::time::SystemTime;"),
        ("handle/cache.rs", "fn f() { std::time::SystemTime::now(); }"),
        ("handle/cache.rs", "mod tests { }"),
        ("handle/mod.rs", "fn f() {}"),
        ("handle/mod.rs", "use crate::key::Key;"),
        ("handle/mod.rs", "mod cache { }"),
        ("handle/mod.rs", "#[path = \"elsewhere.rs\"] mod cache;"),
        ("handle/long.rs", long.as_str()),
    ];
    let unnoticed: BTreeSet<_> = bad.iter().filter(|file| problems_of(&[**file]).len() != 1).collect();
    assert!(unnoticed.is_empty(), "{unnoticed:#?}");
}

#[test]
fn the_lines_of_tests_are_not_counted() {
    let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "fn f() {}\n".repeat(MOST_LINES));
    assert_eq!(problems_of(&[("handle/cache.rs", &tests)]), Vec::<String>::new());
}
