//! The command `check`: is the configuration valid, and are its stores well?

use std::path::Path;

use agent_storage::manager::SideHealth;
use agent_storage::{HealthStatus, Problem, StorageManager};
use serde_json::json;

use crate::arguments::{Arguments, Check, Command};
use crate::exit::{Exit, Failure, complain};
use crate::output::Output;
use crate::report;

impl Check {
    pub(crate) async fn run(&self, file: &Path, manager: &StorageManager, output: &Output) -> Result<Exit, Failure> {
        if self.offline { self.offline(file, manager, output).await } else { self.online(manager, output).await }
    }

    async fn offline(&self, file: &Path, manager: &StorageManager, output: &Output) -> Result<Exit, Failure> {
        if let Err(error) = manager.validate_config() {
            if self.json {
                output.report(format!("{:#}", json!({ "status": "invalid", "error": report::error(&error) }))).await?;
            }
            complain(error.message());
            return Ok(Failure::Storage(error).exit());
        }
        if self.json {
            let warnings = problems(manager.warnings());
            output.report(format!("{:#}", json!({ "status": "valid", "warnings": warnings }))).await?;
        } else {
            let (cache, database) = (&manager.config().cache.backend, &manager.config().database.backend);
            let file = file.display();
            output.report(format!("{file} is valid: cache {}, database {}", cache.kind(), database.kind())).await?;
        }
        Ok(Exit::Done)
    }

    async fn online(&self, manager: &StorageManager, output: &Output) -> Result<Exit, Failure> {
        let health = manager.health_check().await;
        let status = health.status();
        if self.json {
            let mut report = report::json(&health);
            if let Some(report) = report.as_object_mut() {
                report.insert("warnings".to_owned(), problems(manager.warnings()));
            }
            output.report(format!("{report:#}")).await?;
        } else {
            output.report(report::table(&health)).await?;
            for line in [&health.cache, &health.database].into_iter().filter_map(report::chain_line) {
                output.report(line).await?;
            }
        }
        let errors = |side: &SideHealth| -> Vec<String> {
            side.members.iter().filter_map(|member| member.error.as_ref()).map(ToString::to_string).collect()
        };
        for error in errors(&health.cache) {
            complain(&manager.config().cache_problem(error).to_string());
        }
        for error in errors(&health.database) {
            complain(&manager.config().database_problem(error).to_string());
        }
        if status != HealthStatus::Healthy {
            complain(&format!("the storage is {}", status.as_str()));
        }
        Ok(status.into())
    }
}

/// Reports why a command could not even begin; `check --json` says it as JSON too.
pub(crate) async fn refuse(arguments: &Arguments, failure: Failure, output: &Output) -> Exit {
    let as_json = matches!(&arguments.command, Command::Check(check) if check.json);
    if let Failure::Config(error) = &failure
        && as_json
    {
        let report = json!({ "status": "invalid", "problems": problems(error.problems()) });
        if let Err(failure) = output.report(format!("{report:#}")).await {
            failure.report();
        }
    }
    failure.report()
}

fn problems(problems: &[Problem]) -> serde_json::Value {
    problems
        .iter()
        .map(|problem| {
            let Problem { file, line, column, path, message, .. } = problem;
            json!({ "file": file, "line": line, "column": column, "path": path, "message": message })
        })
        .collect()
}
