//! URLs taken apart, so that nothing beyond this module sees one: it may hold a password.

use percent_encoding::percent_decode_str;
use schemars::{Schema, SchemaGenerator, json_schema};
use url::Url;

use super::node::Node;
use super::reader::Reader;
use super::value::{Secret, Value};

/// Stands in for a host that is not given, where a URL needs one. `.invalid` is reserved (RFC 2606).
const NO_HOST: &str = "none.invalid";

/// The text of a URL, not yet taken apart.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct UrlText(pub(super) Secret);

impl Value for UrlText {
    fn read(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let text = String::read(node, reader)?;
        let secret = Secret::new(text.trim());
        if secret.is_none() {
            reader.problem(&node.place, "expected a URL, found empty text");
        }
        secret.map(Self)
    }

    fn schema(_generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "writeOnly": true })
    }
}

/// The parts of a URL, decoded. What is empty counts as absent.
#[derive(Debug, Default)]
pub(super) struct Parts {
    pub(super) scheme: String,
    pub(super) username: Option<String>,
    pub(super) password: Option<Secret>,
    pub(super) host: Option<String>,
    pub(super) port: Option<u16>,
    /// Without the slash it begins with.
    pub(super) path: Option<String>,
    pub(super) query: Vec<(String, String)>,
}

/// Takes a URL apart. The message of a failure holds nothing of it.
pub(super) fn split(text: &str, schemes: &[&str], example: &str) -> Result<Parts, String> {
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(format!("is not a URL; write it as `{example}`"));
    };
    if !schemes.contains(&scheme) {
        return Err(format!("has a scheme that is not served here; write it as `{example}`"));
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.rsplit('@').next().is_some_and(|hosts| hosts.contains(',')) {
        return Err("names several hosts; name one".to_owned());
    }
    // The URL standard has no user without a host, which is how PostgreSQL's URLs name a socket.
    let text = match authority.strip_suffix('@').map(|user| rest.split_at(user.len() + 1)) {
        Some((user, after)) => format!("{scheme}://{user}{NO_HOST}{after}"),
        None => text.to_owned(),
    };
    let url = Url::parse(&text).map_err(|error| {
        let what = match error {
            url::ParseError::InvalidPort => "has a port that is not a number from 1 to 65535",
            _ => "is not a URL",
        };
        format!("{what}; write it as `{example}`, with `%XX` for what is special in names and passwords")
    })?;
    let first_parameter = url.query().unwrap_or_default().split(['=', '&']).next();
    if url.fragment().is_some() || url.path().contains('@') || first_parameter.is_some_and(|name| name.contains('@')) {
        return Err(
            "has a `#`, or an `@` after a `/` or `?`; in names and passwords write `%23`, `%40`, `%2F` and `%3F`"
                .to_owned(),
        );
    }
    parts(&url)
}

fn parts(url: &Url) -> Result<Parts, String> {
    let host = non_empty(url.host_str().unwrap_or_default())?.filter(|host| host != NO_HOST);
    Ok(Parts {
        scheme: url.scheme().to_owned(),
        username: non_empty(url.username())?,
        password: non_empty(url.password().unwrap_or_default())?.and_then(|password| Secret::new(&password)),
        host: host.map(|host| host.trim_start_matches('[').trim_end_matches(']').to_owned()),
        port: url.port(),
        path: non_empty(url.path().trim_start_matches('/'))?,
        query: parameters(url.query().unwrap_or_default())?,
    })
}

/// The parameters after the `?`. A plus is one: these are no forms.
fn parameters(query: &str) -> Result<Vec<(String, String)>, String> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.map(|(name, value)| Ok((decoded(name)?, decoded(value)?))).collect()
}

fn decoded(encoded: &str) -> Result<String, String> {
    Ok(non_empty(encoded)?.unwrap_or_default())
}

fn non_empty(encoded: &str) -> Result<Option<String>, String> {
    match percent_decode_str(encoded).decode_utf8() {
        Ok(text) if text.contains('\0') => Err("holds a NUL (`%00`)".to_owned()),
        Ok(text) => Ok((!text.is_empty()).then(|| text.into_owned())),
        Err(_) => Err("holds `%XX` that do not make UTF-8".to_owned()),
    }
}

/// A parameter's name as it may be shown; it is not a secret unless the URL went wrong.
pub(super) fn shown(name: &str) -> &str {
    let plain =
        name.len() <= 40 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    if plain { name } else { "..." }
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;

    const POSTGRES: &[&str] = &["postgres", "postgresql"];

    fn split(text: &str) -> Parts {
        super::split(text, POSTGRES, "postgres://user@host/database").unwrap()
    }

    #[test]
    fn a_password_that_is_not_escaped_is_not_taken_for_an_address() {
        for text in ["postgres://app:12#ab@db/x", "postgres://app:12/ab@db/x", "postgres://app:12?ab@db/x"] {
            let problem = super::split(text, POSTGRES, "postgres://user@host/database").err().unwrap();
            assert!(problem.contains("%23") && !problem.contains("ab"), "{problem}");
        }
    }

    #[test]
    fn a_comma_in_a_password_and_a_plus_in_a_parameter_are_what_they_are() {
        let parts = split("postgres://u:a,b@host/db?application_name=a+b%20c&sslmode");
        assert_eq!(parts.password.unwrap().0.expose_secret(), "a,b");
        let expected =
            [("application_name", "a+b c"), ("sslmode", "")].map(|(name, value)| (name.into(), value.into()));
        assert_eq!(parts.query, expected);
        assert!(super::split("postgres://u:p@one,two/db", POSTGRES, "postgres://user@host/database").is_err());
    }

    #[test]
    fn parts_are_decoded() {
        let parts = split("postgres://us%40er:p%40ss%2Fw$%25@h.example:6543/my%20db?sslmode=require");
        assert_eq!(parts.username.as_deref(), Some("us@er"));
        assert_eq!(parts.password.unwrap().0.expose_secret(), "p@ss/w$%");
        assert_eq!((parts.host.as_deref(), parts.port), (Some("h.example"), Some(6543)));
        assert_eq!(parts.path.as_deref(), Some("my db"));
        assert_eq!(parts.query, [("sslmode".to_owned(), "require".to_owned())]);
    }

    #[test]
    fn an_ipv6_host_loses_its_brackets() {
        assert_eq!(split("postgres://[::1]:5432/db").host.as_deref(), Some("::1"));
    }

    #[test]
    fn a_host_may_be_missing() {
        for text in ["postgres:///db?host=/run", "postgres://u:p@/db?host=/run", "postgres://u:p@/db"] {
            let parts = split(text);
            assert_eq!((parts.host, parts.path.as_deref()), (None, Some("db")), "{text}");
        }
    }

    #[test]
    fn a_failure_shows_nothing_of_the_url() {
        for text in [
            "secret",
            "http://secret@host",
            "postgres://u:secret/x@host/db",
            "postgres://u:secret@h:99999/db",
            "postgres://u:secret@h1,h2/db",
            "postgres://u:secret%ff@h/db",
            "postgres://u:secret%00@h/db",
            "host=h password=secret",
        ] {
            let message = super::split(text, POSTGRES, "postgres://user@host/database").unwrap_err();
            assert!(!message.contains("secret"), "{message}");
        }
    }
}
