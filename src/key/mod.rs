//! Names of entries: the [`Key`], the literal [`KeyPrefix`] and the glob [`KeyPattern`].

mod name;
mod pattern;
mod prefix;

pub use name::{IntoKey, Key};
pub use pattern::KeyPattern;
pub use prefix::KeyPrefix;
