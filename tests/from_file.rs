//! A manager made of a configuration file: what is wrong is said at once, and nothing is connected.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;

use agent_storage::{ErrorKind, StorageManager};
use tempfile::TempDir;

const SQLITE: &str = "storage:\n  database:\n    type: sqlite\n    path: data/agent.db\n";

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn nothing_is_made_before_it_is_used() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("agent.yml");
    fs::write(&file, SQLITE).unwrap();
    let manager = StorageManager::from_file(&file).unwrap();
    assert!(!folder.path().join("data").exists());
    assert!(!manager.is_connected());
    manager.database().await.unwrap().set_json("a", &1).await.unwrap();
    assert!(folder.path().join("data/agent.db").exists());
    manager.disconnect().await.unwrap();
}

#[test]
fn all_problems_are_in_the_error() {
    let yaml = "storage:\n  cache:\n    type: in-memory\n    maxByte: 1\n  database:\n    type: mango\n";
    let error = StorageManager::from_yaml(yaml).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.message().contains("agent.yml:4:5: "), "{error}");
    assert!(error.message().contains("agent.yml:6:11: "), "{error}");
}

#[test]
fn a_missing_file_is_an_error_that_names_it() {
    let folder = TempDir::new().unwrap();
    let error = StorageManager::from_file(folder.path().join("absent.yml")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.message().contains("absent.yml"), "{error}");
}

#[test]
fn a_warning_stays_readable() {
    let manager = StorageManager::from_yaml("storage:\n  blob:\n    type: local\n").unwrap();
    let [warning] = manager.warnings() else { panic!("one warning, not {:?}", manager.warnings()) };
    assert_eq!(warning.path, "storage.blob");
}

#[test]
fn a_configuration_changed_by_hand_is_checked_too() {
    let manager = StorageManager::from_yaml("").unwrap();
    let mut config = manager.config().clone();
    config.cache.options.key_prefix = "a\nb".to_owned();
    let error = StorageManager::new(config).validate_config().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.message().contains("storage.cache.keyPrefix"), "{error}");
}

#[cfg(not(feature = "redis"))]
#[test]
fn a_backend_that_is_not_compiled_in_is_named_with_its_place() {
    let error = StorageManager::from_yaml("storage:\n  cache:\n    type: redis\n").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FeatureDisabled);
    assert!(error.message().starts_with("agent.yml:3:5: storage.cache: "), "{error}");
    assert!(error.message().contains("--features redis"), "{error}");
}

#[test]
fn a_problem_that_shows_later_has_its_place_too() {
    let manager = StorageManager::from_yaml("storage:\n  cache:\n    type: in-memory\n").unwrap();
    let problem = manager.config().cache_problem("is away");
    assert_eq!(problem.to_string(), "agent.yml:3:5: storage.cache: is away");
    assert_eq!(manager.config().database_problem("is away").to_string(), "agent.yml: storage.database: is away");
    assert_eq!(StorageManager::in_memory().config().cache_problem("is away").to_string(), "storage.cache: is away");
}
