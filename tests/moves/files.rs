//! The databases, and the two addresses that lead to them.
//!
//! An address is a link to the folder of a file. Either each database has a file of its own, and the link is changed: processes that have
//! it open see that it was replaced. Or each address has a file of its own, and its contents are changed, as those of a server are by a
//! restored backup: processes go on with what they have open, and find another database in it.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;
use tempfile::TempDir;

use crate::contents::Contents;

/// An address that a configuration may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Address {
    A,
    B,
}

impl Address {
    pub(crate) const ALL: [Self; 2] = [Self::A, Self::B];

    pub(crate) const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }

    /// The folder of its file, where it has one of its own.
    const fn folder(self) -> &'static str {
        match self {
            Self::A => "address-a",
            Self::B => "address-b",
        }
    }
}

/// A database by its number.
pub(crate) type Number = usize;

/// All databases and addresses of a schedule, with the room for its journals.
pub(crate) struct Files {
    root: TempDir,
    /// What each held when it was made.
    origins: Vec<Contents>,
    places: [Number; 2],
    cut: [bool; 2],
    in_place: bool,
}

impl Files {
    /// Makes an empty database at each address, whose contents change or which is replaced as a file.
    pub(crate) fn new(in_place: bool) -> Self {
        let root = tempfile::Builder::new().prefix("agent-storage-moves-").tempdir().unwrap();
        let mut files = Self { root, origins: Vec::new(), places: [0, 1], cut: [false, false], in_place };
        for address in Address::ALL {
            files.make();
            if in_place {
                std::fs::create_dir(files.root().join(address.folder())).unwrap();
            }
            files.link(address);
        }
        files
    }

    /// Whether the contents of a file change, and not the file.
    pub(crate) const fn is_in_place(&self) -> bool {
        self.in_place
    }

    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    /// How many databases there are.
    pub(crate) fn count(&self) -> usize {
        self.origins.len()
    }

    /// What a database held when it was made.
    pub(crate) fn origin(&self, database: Number) -> &Contents {
        &self.origins[database]
    }

    pub(crate) fn contents(&self, database: Number) -> Contents {
        Contents::of_file(&self.file(database))
    }

    /// What a configuration calls an address.
    pub(crate) fn path(&self, address: Address) -> PathBuf {
        self.root().join(address.name()).join("agent.db")
    }

    /// Where a database is now.
    fn file(&self, database: Number) -> PathBuf {
        let place = Address::ALL.into_iter().find(|address| self.in_place && self.at(*address) == database);
        place.map_or_else(|| self.own_file(database), |address| self.file_of(address))
    }

    fn own_file(&self, database: Number) -> PathBuf {
        self.root().join(format!("database-{database}")).join("agent.db")
    }

    fn make(&mut self) -> Number {
        let database = self.origins.len();
        std::fs::create_dir(self.root().join(format!("database-{database}"))).unwrap();
        self.origins.push(Contents::default());
        database
    }

    /// A place where no database is yet, or one that was only just made.
    pub(crate) fn make_empty(&mut self) -> Number {
        let empty = self.make();
        if self.in_place {
            copy_file(&self.file(self.at(Address::A)), &self.own_file(empty));
            let connection = open(&self.own_file(empty));
            let tables = tables(&connection);
            let clear = tables.iter().filter(|table| *table != "meta").map(|table| format!("DELETE FROM {table};"));
            let clear: String = clear.collect();
            let renew = "UPDATE meta SET identity = randomblob(16), canary = 0, gc_floor = zeroblob(16);";
            connection.execute_batch(&format!("{clear}{renew}")).unwrap();
        }
        empty
    }

    /// A copy as `docs/operations.md` says to make it, also while the original is in use.
    pub(crate) fn copy(&mut self, original: Number) -> Number {
        let copy = self.make();
        copy_file(&self.file(original), &self.own_file(copy));
        self.origins[copy] = self.contents(copy);
        copy
    }

    /// Gives a copy an identity of its own, as `docs/fallback.md` says.
    pub(crate) fn renew_identity(&mut self, copy: Number) {
        let renew = "UPDATE meta SET identity = randomblob(16)";
        open(&self.own_file(copy)).execute(renew, []).unwrap();
        self.origins[copy] = self.contents(copy);
    }

    /// The database at an address, also while that is cut.
    pub(crate) fn at(&self, address: Address) -> Number {
        self.places[address as usize]
    }

    /// The database that answers at an address.
    pub(crate) fn answering(&self, address: Address) -> Option<Number> {
        (!self.is_cut(address)).then(|| self.at(address))
    }

    /// Has an address lead to a database. One whose contents are at the other address changes places with what is here.
    pub(crate) fn place(&mut self, address: Address, database: Number) {
        let former = self.at(address);
        if self.in_place && former != database {
            let other = address.other();
            if self.at(other) == database {
                self.exchange(address);
                self.places[other as usize] = former;
            } else {
                self.load(address, database, former);
            }
        }
        self.places[address as usize] = database;
        self.link(address);
    }

    pub(crate) fn is_cut(&self, address: Address) -> bool {
        self.cut[address as usize]
    }

    /// Has an address lead nowhere, or where it did again.
    pub(crate) fn set_cut(&mut self, address: Address, cut: bool) {
        self.cut[address as usize] = cut;
        self.link(address);
    }

    fn file_of(&self, address: Address) -> PathBuf {
        self.root().join(address.folder()).join("agent.db")
    }

    /// Has the file of an address hold other contents from one moment to the next; what it held before is kept.
    fn load(&self, address: Address, database: Number, former: Number) {
        let kept = self.own_file(former);
        if !kept.exists() {
            copy_file(&self.file_of(address), &kept);
        }
        let connection = open(&self.file_of(address));
        attach(&connection, "fresh", &self.own_file(database));
        attach(&connection, "kept", &kept);
        change_all(&connection, |table| {
            format!("{} {}", replace("kept", "main", table), replace("main", "fresh", table))
        });
    }

    /// Has the files of both addresses change their contents.
    fn exchange(&self, address: Address) {
        let connection = open(&self.file_of(address));
        attach(&connection, "other", &self.file_of(address.other()));
        change_all(&connection, |table| {
            let aside = format!("CREATE TEMP TABLE aside AS SELECT * FROM main.{table};");
            let back = format!("DELETE FROM other.{table}; INSERT INTO other.{table} SELECT * FROM temp.aside;");
            format!("{aside} {} {back} DROP TABLE temp.aside;", replace("main", "other", table))
        });
    }

    /// In one step, so that there is no moment at which nothing is there. A link to itself is an address that cannot be reached.
    fn link(&self, address: Address) {
        let target = match self.answering(address) {
            Some(_) if self.in_place => address.folder().to_owned(),
            Some(database) => format!("database-{database}"),
            None => address.name().to_owned(),
        };
        let fresh = self.root().join("fresh");
        symlink(target, &fresh).unwrap();
        std::fs::rename(&fresh, self.root().join(address.name())).unwrap();
    }
}

/// Opens a file that others may use.
fn open(file: &Path) -> Connection {
    let connection = Connection::open(file).unwrap();
    connection.busy_timeout(Duration::from_secs(10)).unwrap();
    connection
}

fn copy_file(from: &Path, to: &Path) {
    open(from).execute("VACUUM INTO ?1", [to.to_str().unwrap()]).unwrap();
}

fn attach(connection: &Connection, name: &str, file: &Path) {
    connection.execute(&format!("ATTACH ?1 AS {name}"), [file.to_str().unwrap()]).unwrap();
}

/// Changes all tables at once, in all files that are attached.
fn change_all(connection: &Connection, change: impl Fn(&str) -> String) {
    let changes: Vec<String> = tables(connection).iter().map(|table| change(table)).collect();
    connection.execute_batch(&format!("BEGIN IMMEDIATE; {} COMMIT", changes.join(" "))).unwrap();
}

/// The statements that have a table of one file hold what that of another one holds.
fn replace(to: &str, from: &str, table: &str) -> String {
    format!("DELETE FROM {to}.{table}; INSERT INTO {to}.{table} SELECT * FROM {from}.{table};")
}

fn tables(connection: &Connection) -> Vec<String> {
    let all = "SELECT name FROM main.sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'";
    let mut statement = connection.prepare(all).unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().collect::<rusqlite::Result<_>>().unwrap()
}
