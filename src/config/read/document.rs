//! A whole file: from bytes to a [`StorageConfig`], or to everything that is wrong with it.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::node::{Document, Kind, Node, Place, Position};
use super::reader::{Field, Reader, nearest};
use super::rules::check;
use super::section::section;
use super::value::Value;
use super::yaml::{MAX_FILE, parse};
use crate::config::environment::Environment;
use crate::config::error::{ConfigError, Problem};
use crate::config::storage::{CacheConfig, DatabaseConfig, StorageConfig};

section! {
    /// Where an agent keeps what it must remember: a cache, which may forget, and a database, which must not.
    StorageSection {
        /// The cache; in memory by default.
        "cache" => cache: CacheConfig;
        /// The database; in memory by default.
        "database" => database: DatabaseConfig;
        /// Not served: keep large objects elsewhere.
        "blob" => _blob: Blob;
    }
}

/// A section of this family of files that is not served here; what it holds is not looked at.
pub(super) struct Blob;

impl Value for Blob {
    fn read(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        reader
            .warn(&node.place, "is not served by agent-storage and has no effect; take it out, or leave it for others");
        Some(Self)
    }

    fn schema(_generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "deprecated": true })
    }
}

/// Reads a file.
pub(in crate::config) fn from_file(path: &Path, environment: &Environment) -> Result<StorageConfig, ConfigError> {
    let name = path.display().to_string();
    let bytes = load(path).map_err(|message| whole(&name, message))?;
    let text = decode(&bytes).map_err(|(position, message)| {
        let Position { line, column } = position;
        ConfigError::new(vec![Problem { file: name.clone(), line, column, path: String::new(), message }])
    })?;
    from_text(text, &name, &folder(path), environment)
}

/// Reads text that came from a file of a name, or that stands for one.
pub(in crate::config) fn from_yaml(
    text: &str,
    path: &Path,
    environment: &Environment,
) -> Result<StorageConfig, ConfigError> {
    let name = path.display().to_string();
    if text.len() > MAX_FILE {
        return Err(whole(&name, too_large()));
    }
    from_text(text, &name, &folder(path), environment)
}

fn from_text(text: &str, name: &str, base: &Path, environment: &Environment) -> Result<StorageConfig, ConfigError> {
    let document = parse(text.strip_prefix('\u{feff}').unwrap_or(text)).map_err(|failure| {
        let Position { line, column } = failure.position;
        let (file, message) = (name.to_owned(), failure.message);
        ConfigError::new(vec![Problem { file, line, column, path: String::new(), message }])
    })?;
    let mut reader = Reader::new(name, base, environment);
    let mut config = StorageConfig::default();
    match document {
        Document { misshapen: true, .. } => {
            let start = Place { path: String::new(), position: Position { line: 1, column: 1 } };
            reader.problem(&start, "expected a mapping with a `storage` section");
        }
        Document { storage: Some(entry), .. } => {
            let mut node = entry.value;
            reader.resolve(&mut node, "storage".to_owned());
            config = read_storage(&node, &mut reader);
            check(&config, &node, &mut reader);
        }
        Document { others, .. } => warn_of_typo(&others, &mut reader),
    }
    let (problems, warnings) = reader.finish();
    if !problems.is_empty() {
        return Err(ConfigError::new(problems));
    }
    config.warnings = warnings;
    name.clone_into(&mut config.places.cache.file);
    name.clone_into(&mut config.places.database.file);
    Ok(config)
}

fn read_storage(node: &Node, reader: &mut Reader<'_>) -> StorageConfig {
    let section = match node.kind {
        Kind::Null => None,
        _ => StorageSection::read(node, reader),
    };
    let mut config = StorageConfig::default();
    if let Some(section) = section {
        if let Some(Field { value, place }) = section.cache {
            config.cache = value;
            locate(&mut config.places.cache, &place);
        }
        if let Some(Field { value, place }) = section.database {
            config.database = value;
            locate(&mut config.places.database, &place);
        }
    }
    config
}

fn locate(side: &mut Problem, place: &Place) {
    (side.line, side.column) = (place.position.line, place.position.column);
}

/// A file without the section is no error; one that nearly has it is worth a word.
fn warn_of_typo(others: &[(String, Position)], reader: &mut Reader<'_>) {
    for (key, position) in others {
        if nearest(key, std::iter::once("storage")).is_some() {
            let place = Place { path: String::new(), position: *position };
            reader.warn(&place, format!("the section `{key}` is ignored; did you mean `storage`?"));
        }
    }
}

/// The folder that relative paths begin at.
fn folder(path: &Path) -> PathBuf {
    let folder = path.parent().unwrap_or(Path::new(""));
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned())
}

fn load(path: &Path) -> Result<Vec<u8>, String> {
    let file = File::open(path).map_err(|error| unreadable(&error))?;
    if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
        return Err("is a folder; name the file in it".to_owned());
    }
    let mut bytes = Vec::new();
    let limit = u64::try_from(MAX_FILE).unwrap_or(u64::MAX).saturating_add(1);
    file.take(limit).read_to_end(&mut bytes).map_err(|error| unreadable(&error))?;
    if bytes.len() > MAX_FILE { Err(too_large()) } else { Ok(bytes) }
}

fn unreadable(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file; make one, or name another".to_owned(),
        io::ErrorKind::PermissionDenied => "this user may not read the file".to_owned(),
        io::ErrorKind::IsADirectory => "is a folder; name the file in it".to_owned(),
        _ => format!("cannot be read: {error}"),
    }
}

fn too_large() -> String {
    format!("is larger than {} KiB, which no configuration is", MAX_FILE / 1024)
}

fn decode(bytes: &[u8]) -> Result<&str, (Position, String)> {
    let error = match std::str::from_utf8(bytes) {
        Ok(text) => return Ok(text),
        Err(error) => error,
    };
    let (good, bad) = bytes.split_at(error.valid_up_to());
    let before = std::str::from_utf8(good).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    let position = Position { line: u64::try_from(line).unwrap_or(1), column: u64::try_from(column).unwrap_or(1) };
    let message = match bad {
        [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..] if good.is_empty() => "is UTF-16; save it as UTF-8".to_owned(),
        _ => "is not UTF-8 from here on; save it as UTF-8".to_owned(),
    };
    Err((position, message))
}

fn whole(name: &str, message: String) -> ConfigError {
    let (file, path) = (name.to_owned(), String::new());
    ConfigError::new(vec![Problem { file, line: 0, column: 0, path, message }])
}
