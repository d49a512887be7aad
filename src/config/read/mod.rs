//! From an `agent.yml` to plain data.
//!
//! One pass makes a tree of nodes that know their places ([`node`], [`yaml`]); variables are replaced in it ([`expand`]); the
//! [`reader`] takes fields out of it into sections ([`section`], one table each), collecting every problem; the sections
//! become the plain structs of [`config`](crate::config), whose own rules are checked last ([`rules`]).

mod chain;
mod document;
mod embedded;
mod expand;
mod jetstream;
mod node;
mod postgres;
mod postgres_url;
mod reader;
mod redis;
mod rules;
mod schema;
mod section;
mod side;
mod tls;
mod url;
mod value;
mod yaml;

pub(super) use document::{from_file, from_yaml};
pub(super) use rules::problems;
pub(super) use schema::json_schema;
