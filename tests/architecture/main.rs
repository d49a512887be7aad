//! Holds the shape of the house: which module may know which, and how its files are kept.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod cases;
mod guards;
mod names;
mod rules;
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use rules::problems;
use source::Source;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust files beneath a folder, relative to it, with their text.
fn rust_files(folder: &Path) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name =
                    path.strip_prefix(folder).unwrap().components().map(|part| part.as_os_str().to_str().unwrap());
                files.insert(name.collect::<Vec<_>>().join("/"), fs::read_to_string(&path).unwrap());
            }
        }
    }
    files
}

fn file_names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn the_sources_keep_the_rules() {
    let files = rust_files(&root().join("src"));
    assert!(files.contains_key("lib.rs"));
    let sources: Vec<Source> = files.iter().map(|(path, text)| Source::parse(path, text)).collect();
    let problems = problems(&sources);
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

#[test]
fn a_file_name_means_the_same_in_every_backend() {
    let mut problems = Vec::new();
    for entry in fs::read_dir(root().join("src/backend")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            let backend = path.file_name().unwrap().to_str().unwrap();
            problems.extend(names::problems(backend, &file_names(&path)));
        }
    }
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

#[test]
fn all_databases_have_the_same_migrations() {
    let folder = root().join("migrations");
    let databases = file_names(&folder);
    assert!(!databases.is_empty());
    let all: BTreeSet<_> = databases.iter().map(|database| file_names(&folder.join(database))).collect();
    assert_eq!(all.len(), 1, "{databases:?} differ: {all:#?}");
    for (index, name) in all.first().unwrap().iter().enumerate() {
        assert!(name.starts_with(&format!("{:04}_", index + 1)) && name.ends_with(".sql"), "{name} is out of order");
    }
}
