//! What a prefix keeps apart beyond the contract.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use agent_storage::StorageManager;

#[tokio::test]
async fn a_key_that_is_the_prefix_itself_is_outside() {
    let database = StorageManager::in_memory().database().await.unwrap();
    let tenant = database.prefixed("tenant").unwrap();
    database.set_json("tenant", &0).await.unwrap();
    for name in ["a", "b", "c"] {
        tenant.set_json(name, &1).await.unwrap();
    }
    assert_eq!(tenant.count("").await.unwrap(), 3);
    assert_eq!(tenant.list("").unwrap().collect().await.unwrap().len(), 3);
    assert_eq!(tenant.clear("").await.unwrap(), Some(3));
    assert!(database.exists("tenant").await.unwrap());
    assert_eq!(database.count("").await.unwrap(), 1);
}

#[tokio::test]
async fn namespaces_nest_and_do_not_see_each_other() {
    let database = StorageManager::in_memory().database().await.unwrap();
    let (one, two) = (database.prefixed("1:").unwrap(), database.prefixed("2:").unwrap());
    one.prefixed("x:").unwrap().set_json("k", &1).await.unwrap();
    assert!(one.exists("x:k").await.unwrap() && database.exists("1:x:k").await.unwrap());
    assert_eq!(two.count("").await.unwrap(), 0);
    two.clear("").await.unwrap();
    assert_eq!(one.count("").await.unwrap(), 1);
}

#[tokio::test]
async fn a_prefix_counts_towards_the_length_of_a_key() {
    let database = StorageManager::in_memory().database().await.unwrap();
    let tenant = database.prefixed("t:").unwrap();
    assert!(tenant.set_json("k".repeat(1022), &1).await.is_ok());
    let error = tenant.set_json("k".repeat(1023), &1).await.unwrap_err();
    assert_eq!(error.kind(), agent_storage::ErrorKind::InvalidKey);
    let answers = tenant.get_many(["k".repeat(1023), "k".repeat(1022)]).await;
    assert!(answers[0].is_err() && answers[1].as_ref().unwrap().is_some(), "one bad key harms no other");
}
