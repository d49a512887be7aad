//! Variables in text: `$NAME`, `${NAME}`, `${NAME:-default}`, `${NAME:?message}`.
//!
//! `$NAME` counts only as a whole value; the braced forms count anywhere. `$${` stands for `${`, and a whole value `$$NAME`
//! for `$NAME`. Every other dollar is itself, so that a password keeps its dollars. What a variable holds is never
//! expanded again.

use crate::config::environment::{Environment, Variable};

/// How deep defaults may hold further references: `${A:-${B:-${C}}}` is two deep.
const MAX_DEPTH: usize = 8;

/// What became of a text.
#[derive(Debug, Default)]
pub(super) struct Expansion {
    pub(super) text: String,
    /// Whether a part of the text came from a reference.
    pub(super) expanded: bool,
    /// Whether there is a `${` that is none of the forms, and so stands for itself.
    pub(super) stray: bool,
    /// Why references could not be resolved, as messages. They name variables, never what these hold.
    pub(super) problems: Vec<String>,
}

/// Expands one text.
pub(super) fn expand(text: &str, environment: &Environment) -> Expansion {
    let mut expansion = Expansion::default();
    if let Some(name) = text.strip_prefix("$$").filter(|name| is_name(name)) {
        expansion.text = format!("${name}");
    } else if let Some(name) = text.strip_prefix('$').filter(|name| is_name(name)) {
        expansion.reference(name, None, environment, 0);
    } else {
        expansion.braced(text, environment, 0);
    }
    expansion
}

/// Whether there is anything to expand.
pub(super) fn mentions_variable(text: &str) -> bool {
    text.contains('$')
}

/// What follows a variable's name inside the braces.
enum Otherwise<'a> {
    Default(&'a str),
    Message(&'a str),
}

impl Expansion {
    /// Expands the braced references of a text.
    fn braced(&mut self, text: &str, environment: &Environment, depth: usize) {
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            let (before, from) = rest.split_at(at);
            self.text.push_str(before);
            if let Some(after) = from.strip_prefix("$${") {
                self.text.push_str("${");
                rest = after;
            } else if let Some((inside, after)) = from.strip_prefix("${").and_then(split_braced) {
                match parse_reference(inside) {
                    Some((name, otherwise)) => self.reference(name, otherwise, environment, depth),
                    None => self.literal(inside),
                }
                rest = after;
            } else {
                self.stray |= from.starts_with("${");
                self.text.push('$');
                rest = from.strip_prefix('$').unwrap_or_default();
            }
        }
        self.text.push_str(rest);
    }

    fn literal(&mut self, inside: &str) {
        self.stray = true;
        self.text.push_str("${");
        self.text.push_str(inside);
        self.text.push('}');
    }

    fn reference(&mut self, name: &str, otherwise: Option<Otherwise<'_>>, environment: &Environment, depth: usize) {
        self.expanded = true;
        match (environment.lookup(name), otherwise) {
            (Variable::NotUtf8, _) => {
                self.problems.push(format!("the variable `{name}` holds bytes that are not UTF-8"))
            }
            (Variable::Set(value), None) => self.text.push_str(&value),
            (Variable::Set(value), Some(_)) if !value.is_empty() => self.text.push_str(&value),
            (_, Some(Otherwise::Default(default))) if depth < MAX_DEPTH => self.braced(default, environment, depth + 1),
            (_, Some(Otherwise::Default(_))) => self.problems.push("nests its defaults too deep".to_owned()),
            (_, Some(Otherwise::Message(message))) if !message.is_empty() => {
                self.problems.push(format!("the variable `{name}` is not set: {message}"));
            }
            (_, otherwise) => self.problems.push(match otherwise {
                Some(_) => format!("the variable `{name}` is not set; set it"),
                None => format!("the variable `{name}` is not set; set it, or give a default: `${{{name}:-...}}`"),
            }),
        }
    }
}

/// Splits behind the brace that closes what began before `text`; references inside may have braces of their own.
fn split_braced(text: &str) -> Option<(&str, &str)> {
    let mut depth = 0_usize;
    let mut previous = ' ';
    for (index, character) in text.char_indices() {
        match character {
            '{' if previous == '$' => depth += 1,
            '}' if depth == 0 => {
                let (inside, closing) = text.split_at(index);
                return Some((inside, closing.strip_prefix('}').unwrap_or_default()));
            }
            '}' => depth -= 1,
            _ => {}
        }
        previous = character;
    }
    None
}

fn parse_reference(inside: &str) -> Option<(&str, Option<Otherwise<'_>>)> {
    let (name, otherwise) = match inside.split_once(':') {
        None => (inside, None),
        Some((name, rest)) => {
            let default = rest.strip_prefix('-').map(Otherwise::Default);
            (name, Some(default.or_else(|| rest.strip_prefix('?').map(Otherwise::Message))?))
        }
    };
    is_name(name).then_some((name, otherwise))
}

/// A name as shells know it: letters, digits and `_`, not beginning with a digit.
fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(text: &str) -> Expansion {
        expand(text, &Environment::from_iter([("HOST", "db"), ("EMPTY", ""), ("DOLLAR", "a${HOST}$b")]))
    }

    fn text(of: &str) -> String {
        let expansion = run(of);
        assert_eq!(expansion.problems, Vec::<String>::new());
        expansion.text
    }

    #[test]
    fn references_are_replaced() {
        for (given, expected) in [
            ("$HOST", "db"),
            ("${HOST}", "db"),
            ("x-${HOST}-${HOST}.", "x-db-db."),
            ("${HOST:-other}", "db"),
            ("${NONE:-other}", "other"),
            ("${EMPTY:-other}", "other"),
            ("${NONE:-}", ""),
            ("${EMPTY}", ""),
            ("${NONE:-${HOST}:5432}", "db:5432"),
            ("${NONE:-${ALSO:-x}}y", "xy"),
            ("${HOST:?must be set}", "db"),
        ] {
            assert_eq!(text(given), expected, "{given}");
        }
    }

    #[test]
    fn every_other_dollar_is_itself() {
        for same in ["$", "$$", "a$HOST", "$HOST b", "$1", "pa$$word", "p$w", "100$", "$-x", "$HÖST", "a$$HOST"] {
            assert_eq!(text(same), same);
            assert!(!run(same).expanded && !run(same).stray, "{same}");
        }
    }

    #[test]
    fn escapes_stand_for_a_dollar() {
        assert_eq!(text("$$HOST"), "$HOST");
        assert_eq!(text("$${HOST}"), "${HOST}");
        assert_eq!(text("a$${HOST}-${HOST}"), "a${HOST}-db");
    }

    #[test]
    fn what_a_variable_holds_is_not_expanded_again() {
        assert_eq!(text("${DOLLAR}"), "a${HOST}$b");
        assert_eq!(text("$DOLLAR"), "a${HOST}$b");
    }

    #[test]
    fn an_unset_variable_is_named() {
        assert!(run("$NONE").problems[0].contains("`NONE` is not set"));
        assert!(run("a ${NONE} ${ALSO}").problems.len() == 2);
        assert!(run("${EMPTY:?say where}").problems[0].ends_with("say where"));
        assert!(run("${NONE:?}").problems[0].contains("`NONE`"));
    }

    #[test]
    fn an_unknown_form_stands_for_itself_and_is_reported() {
        for same in ["${", "${HOST", "${1A}", "${}", "${HOST:+x}", "${HOST-x}", "a${b c}d"] {
            assert_eq!(text(same), same);
            assert!(run(same).stray, "{same}");
        }
    }

    #[test]
    fn defaults_end_at_a_depth() {
        let deep = format!("{}x{}", "${N:-".repeat(50), "}".repeat(50));
        assert!(run(&deep).problems[0].contains("too deep"));
    }
}
