//! The database file on disk: checked before it is opened, made with its folder, and recognised later.

use std::fs::{self, Metadata, OpenOptions};
use std::io::{self, ErrorKind as IoErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::error::{Error, Outage, Result};

/// SQLite's smallest page, and so its smallest file that is not empty.
const MIN_BYTES: u64 = 512;

/// The file that was opened. A file of the same name that was put in its place is another database.
#[derive(Clone, Debug)]
pub(super) struct DatabaseFile {
    path: PathBuf,
    id: FileId,
}

impl DatabaseFile {
    /// Finds the file. If it is missing, it is made where that is `allowed`, and its folders too, readable by this user alone.
    pub(super) fn locate(path: &Path, allowed: bool) -> Result<Self> {
        let path = check_path(path)?;
        let metadata = match fs::metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == IoErrorKind::NotFound && !allowed => {
                let why = "the database file is missing, and a certain database is expected there; put it back";
                return Err(Error::unavailable(why).with_outage(Outage::Foreign).with_source(error));
            }
            Err(error) if error.kind() == IoErrorKind::NotFound => {
                create(&path)?;
                fs::metadata(&path).map_err(|error| unusable("the database file cannot be read", &path, error))?
            }
            Err(error) => return Err(unusable("the database file cannot be read", &path, error)),
        };
        if !metadata.is_file() {
            return Err(Error::config(format!(
                "the database path {} is not a file; give the path of a file to make or open",
                path.display()
            )));
        }
        // SQLite takes a file of one byte for an empty one, and would write over it.
        if (1..MIN_BYTES).contains(&metadata.len()) {
            return Err(not_a_database(&path));
        }
        Ok(Self { path, id: FileId::of(&metadata) })
    }

    /// The file's absolute path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes sure that the path still names the file that was opened.
    ///
    /// SQLite goes on with a file that was unlinked or replaced, and what it writes there is gone when it is closed.
    pub(super) fn check(&self) -> Result<()> {
        match fs::metadata(&self.path) {
            Ok(metadata) if FileId::of(&metadata) == self.id => Ok(()),
            Ok(_) => Err(Error::unavailable(
                "the database file was replaced by another while it was open; put it back, or restart to use the new one",
            )
            .with_outage(Outage::Foreign)),
            Err(error) if error.kind() == IoErrorKind::NotFound => Err(Error::unavailable(
                "the database file was removed while it was open; put it back, or restart to begin a new one",
            )
            .with_outage(Outage::Foreign)),
            Err(error) => Err(unusable("the database file cannot be reached", &self.path, error)),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileId(u64, u64);

impl FileId {
    #[cfg(unix)]
    fn of(metadata: &Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        Self(metadata.dev(), metadata.ino())
    }

    /// Elsewhere an open file can be neither removed nor replaced.
    #[cfg(not(unix))]
    fn of(_: &Metadata) -> Self {
        Self(0, 0)
    }
}

/// Makes the path absolute, so that SQLite takes it neither as a `file:` address nor as one of its special names.
fn check_path(path: &Path) -> Result<PathBuf> {
    if path.as_os_str().is_empty() {
        return Err(Error::config("the database path is empty; give the path of a file"));
    }
    if path.file_name().is_some_and(|name| name == ":memory:") {
        return Err(Error::config("a database in memory is `type: in-memory`; `sqlite` needs the path of a file"));
    }
    std::path::absolute(path).map_err(|error| unusable("the database path cannot be made absolute", path, error))
}

fn create(path: &Path) -> Result<()> {
    // POSIX drops all locks that a process holds on a file when it closes any handle to it, so no other engine of this
    // process may have opened the file before the handle that made it is closed.
    static CREATING: Mutex<()> = Mutex::new(());
    let _alone = CREATING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(folder) = path.parent() {
        create_folder(folder).map_err(|error| unusable("the folder of the database cannot be made", folder, error))?;
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == IoErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(unusable("the database file cannot be made", path, error)),
    }
}

fn create_folder(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// The error of a file that SQLite cannot have written.
pub(super) fn not_a_database(path: &Path) -> Error {
    Error::config(format!(
        "the file {} is not a SQLite database and was left as it is; choose another path",
        path.display()
    ))
}

fn unusable(what: &str, path: &Path, error: io::Error) -> Error {
    let stays = matches!(
        error.kind(),
        IoErrorKind::PermissionDenied
            | IoErrorKind::ReadOnlyFilesystem
            | IoErrorKind::NotADirectory
            | IoErrorKind::AlreadyExists
            | IoErrorKind::InvalidFilename
    );
    let ours = Error::unavailable(format!("{what}: {}: {error}", path.display()));
    let ours = ours.with_outage(Outage::Down).with_source(error);
    if stays { ours.permanent() } else { ours }
}
