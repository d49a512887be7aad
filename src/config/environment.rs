//! Where `$NAME` in a configuration comes from: [`Environment`].

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;

/// The variables that a configuration may name.
///
/// # Examples
///
/// ```
/// use agent_storage::config::{Environment, StorageConfig};
///
/// let environment = Environment::from_iter([("REDIS_URL", "redis://cache.internal")]);
/// let yaml = "storage: { cache: { type: redis, url: $REDIS_URL } }";
/// let config = StorageConfig::from_yaml_with(yaml, "agent.yml", &environment)?;
/// assert_eq!(config.cache.backend.kind(), "redis");
/// # Ok::<(), agent_storage::config::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct Environment(Source);

#[derive(Clone)]
enum Source {
    Process,
    Given(BTreeMap<String, String>),
}

/// What is known of one variable.
#[derive(Debug)]
pub(super) enum Variable {
    Set(String),
    Unset,
    NotUtf8,
}

impl Environment {
    /// The variables of this process, read when they are asked for.
    #[must_use]
    pub const fn process() -> Self {
        Self(Source::Process)
    }

    /// No variables at all.
    #[must_use]
    pub const fn empty() -> Self {
        Self(Source::Given(BTreeMap::new()))
    }

    pub(super) fn lookup(&self, name: &str) -> Variable {
        match &self.0 {
            Source::Given(variables) => variables.get(name).cloned().map_or(Variable::Unset, Variable::Set),
            Source::Process => match std::env::var_os(name).map(OsString::into_string) {
                Some(Ok(value)) => Variable::Set(value),
                Some(Err(_)) => Variable::NotUtf8,
                None => Variable::Unset,
            },
        }
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(variables: I) -> Self {
        Self(Source::Given(variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect()))
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::Process => f.write_str("Environment::process()"),
            Source::Given(variables) => f.debug_set().entries(variables.keys()).finish(),
        }
    }
}
