//! What can be typed: the [`Arguments`].

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use agent_storage::contract::ItemId;
use agent_storage::{Key, KeyPrefix, Revision, Stamp, Ttl};
use clap::{Args, Parser, Subcommand, ValueEnum};

const EXIT_CODES: &str = "\
Exit codes:
    0  done; for `check`: healthy
    1  `check`: degraded; `reconcile`: something is left to do; any other command: failed
    2  the command line, the input or the configuration is not valid, or the store cannot be used
    3  there is nothing under the key, or no such conflict
    4  a condition (--if-absent, --if-revision, what won) did not hold
  130  ended by Ctrl-C; 143 by SIGTERM

RUST_LOG sets what is logged to standard error, as RUST_LOG=agent_storage=debug; warnings by default.";

/// Reads and writes the cache and the database that an agent.yml points to, and says how they are.
#[derive(Debug, Parser)]
#[command(name = "agent-storage", version, after_help = EXIT_CODES)]
pub(crate) struct Arguments {
    /// The configuration; its section `storage` is read.
    #[arg(long, short, global = true, value_name = "FILE", default_value = "agent.yml")]
    pub(crate) config: PathBuf,
    /// Uses the cache instead of the database.
    #[arg(long, global = true)]
    pub(crate) cache: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Validates the configuration, connects, and shows how cache and database are.
    #[command(after_help = "\
Examples:
  agent-storage check
  agent-storage --config config/production.yml check --offline
  agent-storage check --json | jq .database.status")]
    Check(Check),
    /// Prints the JSON Schema of an agent.yml, for editors.
    #[command(after_help = "Example:\n  agent-storage schema > agent.schema.json")]
    Schema,
    /// Shows what the database is owed: what was acknowledged by the journal while the database was away.
    #[command(
        subcommand,
        after_help = "\
Examples:
  agent-storage journal status
  agent-storage journal export > owed.jsonl"
    )]
    Journal(JournalCommand),
    /// Brings the database what it is owed by processes that died, and waits until nothing is owed.
    ///
    /// It takes over the journals of dead processes; living ones bring theirs themselves. While the database is away it waits.
    /// Ctrl-C and SIGTERM end it cleanly: what was not replayed stays in the journal.
    ///
    /// Exit code 0 if nothing is left to do, 1 if operations were put aside, conflicts are kept or journals were left alone, 2 if
    /// another database answers than the known one, or the time is over.
    #[command(after_help = "\
Examples:
  agent-storage reconcile
  agent-storage reconcile --timeout 1m --json | jq .pending
  agent-storage reconcile --accept    after a backup was restored, or the server was moved")]
    Reconcile(Reconcile),
    /// Shows and settles conflicts: writes that were acknowledged while the database was away, and lost against somebody else's newer one.
    #[command(
        subcommand,
        after_help = "\
Examples:
  agent-storage conflicts list
  agent-storage conflicts resolve session:42 0198c0ffee0000000123456789abcdef --take loser"
    )]
    Conflicts(ConflictsCommand),
    #[command(flatten)]
    Values(ValueCommand),
    #[command(flatten)]
    Lists(ListCommand),
}

#[derive(Debug, Args)]
pub(crate) struct Check {
    /// Connects nothing: only reads and validates the file.
    #[arg(long)]
    pub(crate) offline: bool,
    /// Prints JSON instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Reconcile {
    /// Accepts the database that answers now, whichever it is, in place of the one that is known.
    ///
    /// It is for a restored backup or a moved server: what is owed is replayed there, also what is owed to another address; what only
    /// the former database had is not there. Living processes of this folder that are fenced off accept it too. It says what was
    /// known and what answers.
    #[arg(long)]
    pub(crate) accept: bool,
    #[command(flatten)]
    pub(crate) until: Until,
}

/// How long to wait until nothing is owed, and what to print then.
#[derive(Debug, Args)]
pub(crate) struct Until {
    /// Gives up after this time, as `30s` or `5m`; without it, it waits as long as it takes.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub(crate) timeout: Option<Duration>,
    /// Prints the result as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConflictsCommand {
    /// Lists conflicts, a line each: the stamp of the write that lost, what it was, when the loss was found, and the key.
    ///
    /// Stamp and key name the conflict. No values are printed.
    #[command(after_help = "\
Examples:
  agent-storage conflicts list
  agent-storage conflicts list --limit 1000 --json | jq -r .key | sort | uniq -c")]
    List {
        /// Prints at most so many.
        #[arg(long, value_name = "N", default_value = "100")]
        limit: NonZeroU64,
        /// Goes on after this one, as where the last page ended.
        #[arg(long, num_args = 2, value_names = ["STAMP", "KEY"])]
        after: Option<Vec<String>>,
        /// Prints one line of JSON each.
        #[arg(long)]
        json: bool,
    },
    /// Prints a conflict as JSON, with the value that lost and the one that stands there now. It prints your data.
    #[command(after_help = "\
Example:
  agent-storage conflicts show session:42 0198c0ffee0000000123456789abcdef | jq .value")]
    Show(Conflict),
    /// Settles a conflict, which is forgotten then.
    ///
    /// An item that lost is appended again, whatever stands there. A value or a delete that lost is written again only over what won,
    /// or where nothing stands; else exit code 4.
    #[command(after_help = "\
Examples:
  agent-storage conflicts resolve session:42 0198c0ffee0000000123456789abcdef --take winner
  agent-storage conflicts resolve session:42 0198c0ffee0000000123456789abcdef --take loser")]
    Resolve {
        #[command(flatten)]
        conflict: Conflict,
        /// What is to stand: what won, as it does; or what lost, which is written again.
        #[arg(long)]
        take: Taken,
        /// Writes over whatever stands there.
        #[arg(long)]
        force: bool,
    },
}

/// Names a conflict, as `conflicts list` prints it.
#[derive(Debug, Args)]
pub(crate) struct Conflict {
    /// The key.
    #[arg(value_parser = key)]
    pub(crate) key: Key,
    /// The stamp of the write that lost.
    pub(crate) stamp: Stamp,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Taken {
    /// What won stays.
    Winner,
    /// What lost is written again.
    Loser,
}

#[derive(Debug, Subcommand)]
pub(crate) enum JournalCommand {
    /// Shows each file of the journal's folder: whether its owner lives, how much is owed and to which database, and how much was put aside.
    ///
    /// It only reads the files, needs no server, and is safe while applications run. Exit code 1 if a file cannot be read.
    #[command(after_help = "\
Examples:
  agent-storage journal status
  agent-storage journal status --json | jq '[.journals[].pending] | add'")]
    Status {
        /// Prints JSON instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Prints each operation, also those put aside, as one line of JSON. It prints your data: keys and values.
    ///
    /// It reads as `journal status` does. A value that is JSON stands under `value`, any other in Base64 under `base64`. Why an operation was put aside stands under
    /// `parked`.
    #[command(after_help = "\
Examples:
  agent-storage journal export > owed.jsonl
  agent-storage journal export | jq 'select(.parked != null)'")]
    Export,
    /// Has operations wait for the database again that were put aside, and waits as `reconcile` does.
    ///
    /// It takes over the journals of dead processes. What a living one has put aside is in its hands: end it first, or have it call
    /// `DatabaseChain::retry_parked`.
    #[command(after_help = "\
Examples:
  agent-storage journal retry
  agent-storage journal retry 0198c0ffee0000000123456789abcdef")]
    Retry {
        /// The stamp of the operation, as `journal export` prints it; without it, all.
        stamp: Option<Stamp>,
        #[command(flatten)]
        until: Until,
    },
    /// Gives up an operation that was put aside: what it wrote is lost to the database. It is printed as `journal export` does.
    ///
    /// It takes over the journals of dead processes. What a living one has put aside is in its hands: end it first, or have it call
    /// `DatabaseChain::drop_parked`.
    #[command(after_help = "\
Example:
  agent-storage journal drop 0198c0ffee0000000123456789abcdef >> given-up.jsonl")]
    Drop {
        /// The stamp of the operation, as `journal export` prints it.
        stamp: Stamp,
    },
}

/// What a cache and a database both do.
#[derive(Debug, Subcommand)]
pub(crate) enum ValueCommand {
    /// Prints a value, byte for byte as it was stored, with nothing added.
    #[command(after_help = "\
Examples:
  agent-storage get session:42
  agent-storage get picture > picture.png
  agent-storage get session:42 --show-revision 2> revision")]
    Get {
        /// The key.
        #[arg(value_parser = key)]
        key: Key,
        /// Also prints the value's revision, on a line of standard error.
        #[arg(long)]
        show_revision: bool,
    },
    /// Stores a value: JSON, or any bytes with --binary.
    #[command(after_help = r#"Examples:
  agent-storage set session:42 '{"user": "ada"}' --cache --ttl 30m
  agent-storage set picture --binary --file picture.png
  curl -s https://example.com/data.json | agent-storage set data -
  agent-storage set session:42 '{"user": "bob"}' --if-revision "$(cat revision)""#)]
    Set(Set),
    /// Removes what is under a key: the value, and in a database the list too.
    #[command(after_help = "Example:\n  agent-storage delete session:42")]
    Delete {
        /// The key.
        #[arg(value_parser = key)]
        key: Key,
    },
    /// Says whether there is a value, or in a database a list, under a key: `true`, or `false` and exit code 3.
    #[command(after_help = "Example:\n  if agent-storage exists session:42 > /dev/null; then echo known; fi")]
    Exists {
        /// The key.
        #[arg(value_parser = key)]
        key: Key,
    },
    /// Prints the keys that begin with a prefix, one a line.
    #[command(after_help = "Example:\n  agent-storage list session: --limit 20")]
    List {
        /// How the keys begin, literally; without it all keys are listed.
        #[arg(value_parser = prefix, default_value = "", hide_default_value = true)]
        prefix: KeyPrefix,
        /// Prints at most so many keys.
        #[arg(long, value_name = "N")]
        limit: Option<NonZeroU64>,
    },
    /// Counts the keys that begin with a prefix.
    #[command(after_help = "Example:\n  agent-storage count session:")]
    Count {
        /// How the keys begin, literally; without it all keys are counted.
        #[arg(value_parser = prefix, default_value = "", hide_default_value = true)]
        prefix: KeyPrefix,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Set {
    /// The key.
    #[arg(value_parser = key)]
    pub(crate) key: Key,
    #[command(flatten)]
    pub(crate) value: ValueSource,
    /// How long the entry lives, as `30s`, `15m` or `1h 30m`; without it, it stays.
    #[arg(long, value_name = "DURATION", value_parser = ttl)]
    pub(crate) ttl: Option<Ttl>,
    /// Stores it only if the key has no value; else exit code 4.
    #[arg(long)]
    pub(crate) if_absent: bool,
    /// Stores it only over the value of this revision; else exit code 4.
    #[arg(long, value_name = "REVISION", conflicts_with = "if_absent")]
    pub(crate) if_revision: Option<Revision>,
    /// Prints the revision of the new value.
    #[arg(long)]
    pub(crate) show_revision: bool,
}

/// Where a value comes from.
#[derive(Debug, Args)]
pub(crate) struct ValueSource {
    /// The value; `-` reads it from standard input.
    #[arg(required_unless_present = "file", allow_negative_numbers = true)]
    pub(crate) value: Option<String>,
    /// Reads the value from a file.
    #[arg(long, value_name = "PATH", conflicts_with = "value")]
    pub(crate) file: Option<PathBuf>,
    /// Takes any bytes; without it the value must be JSON. Either is stored as it is.
    #[arg(long)]
    pub(crate) binary: bool,
}

/// What only a database does.
#[derive(Debug, Subcommand)]
pub(crate) enum ListCommand {
    /// Puts an item at the tail of a list, and prints its position.
    #[command(after_help = r#"Examples:
  agent-storage append messages:42 '{"role": "user", "text": "hello"}'
  agent-storage append messages:42 - --id message-7 < message.json"#)]
    Append {
        /// The list's key.
        #[arg(value_parser = key)]
        key: Key,
        #[command(flatten)]
        value: ValueSource,
        /// Names the item: if the list has one of that name, nothing is added, and its position is printed.
        #[arg(long, value_name = "ID", value_parser = item_id)]
        id: Option<ItemId>,
    },
    /// Prints items of a list, one a line; both ends are included.
    ///
    /// JSON is printed as it was stored, but for line breaks between its parts, which become spaces. A binary item is printed as
    /// `base64:` and its bytes in Base64; no JSON begins so.
    #[command(after_help = "\
Examples:
  agent-storage range messages:42 -10 -1    the last ten
  agent-storage range messages:42 0 -1      all")]
    Range {
        /// The list's key.
        #[arg(value_parser = key)]
        key: Key,
        /// The first item: 0 is the first of the list, -1 the last.
        #[arg(allow_negative_numbers = true)]
        start: i64,
        /// The last item.
        #[arg(allow_negative_numbers = true)]
        end: i64,
    },
    /// Counts the items of a list; a missing list has none.
    #[command(after_help = "Example:\n  agent-storage length messages:42")]
    Length {
        /// The list's key.
        #[arg(value_parser = key)]
        key: Key,
    },
    /// Cuts a list to its last items, and prints how many went.
    #[command(after_help = "Example:\n  agent-storage trim messages:42 1000")]
    Trim {
        /// The list's key.
        #[arg(value_parser = key)]
        key: Key,
        /// How many items stay.
        keep_last: u64,
    },
}

// Clap shows the error beside the argument's name, so the kind that `Display` adds is left out.

fn key(text: &str) -> Result<Key, String> {
    Key::parse(text).map_err(|error| error.message().to_owned())
}

fn prefix(text: &str) -> Result<KeyPrefix, String> {
    KeyPrefix::parse(text).map_err(|error| error.message().to_owned())
}

fn item_id(text: &str) -> Result<ItemId, String> {
    ItemId::parse(text).map_err(|error| error.message().to_owned())
}

fn ttl(text: &str) -> Result<Ttl, String> {
    let duration =
        humantime::parse_duration(text).map_err(|error| format!("{error}; write it as `30s` or `1h 30m`"))?;
    Ttl::new(duration).map_err(|error| error.message().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn negative_numbers_are_no_options() {
        let arguments = Arguments::try_parse_from(["agent-storage", "range", "list", "-10", "-1"]).unwrap();
        assert!(matches!(arguments.command, Command::Lists(ListCommand::Range { start: -10, end: -1, .. })));
        let arguments = Arguments::try_parse_from(["agent-storage", "set", "a", "-1.5e3"]).unwrap();
        let Command::Values(ValueCommand::Set(set)) = arguments.command else { panic!("set") };
        assert_eq!(set.value.value.as_deref(), Some("-1.5e3"));
    }

    #[test]
    fn each_command_shows_an_example() {
        let mut root = Arguments::command();
        root.build();
        for command in root.get_subcommands_mut().filter(|command| command.get_name() != "help") {
            let help = command.render_long_help().to_string();
            let (_, examples) = help.split_once("Example").unwrap_or_else(|| panic!("no example: {help}"));
            assert!(examples.contains(&format!("agent-storage {}", command.get_name())), "{help}");
        }
    }
}
