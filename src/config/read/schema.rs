//! The JSON Schema of an `agent.yml`, generated from the same tables that read it.

use schemars::generate::SchemaSettings;
use serde_json::{Value as Json, json};

use super::document::StorageSection;
use super::value::Value;

/// The schema of a whole file: closed inside `storage`, open beside it.
pub(in crate::config) fn json_schema() -> Json {
    let mut generator = SchemaSettings::draft07().into_generator();
    let mut storage = StorageSection::schema(&mut generator);
    storage.insert("type".to_owned(), json!(["object", "null"]));
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "agent.yml",
        "description": "The configuration of an agent. Only the section `storage` is described here.",
        "type": ["object", "null"],
        "properties": { "storage": storage },
        "definitions": generator.take_definitions(true),
        "additionalProperties": true,
    })
}
