//! The `storage:` section of an `agent.yml` as plain, validated data.
