//! Folders on this machine's disk, and what it means when they cannot be used.

use std::fs;
use std::io;
use std::path::Path;

use crate::error::{Error, Result};

/// Makes the folder if it is missing, open to this user alone, and sees that the disk knows of it.
pub(super) fn create_folder(folder: &Path) -> Result<()> {
    let missing: Vec<&Path> =
        folder.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists()).collect();
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder).map_err(|error| unusable("the journal folder cannot be made", folder, error))?;
    for made in missing {
        let parent = made.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        sync_folder(parent)?;
    }
    Ok(())
}

/// Forces to the disk which files a folder has.
#[cfg(unix)]
pub(super) fn sync_folder(folder: &Path) -> Result<()> {
    let synced = fs::File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|error| unusable("the journal folder cannot be forced to the disk", folder, error))
}

/// Elsewhere a folder is no file that could be forced to the disk.
#[cfg(not(unix))]
pub(super) fn sync_folder(_: &Path) -> Result<()> {
    Ok(())
}

/// The error of a file or folder that cannot be used.
pub(super) fn unusable(what: &str, path: &Path, error: io::Error) -> Error {
    let stays = matches!(
        error.kind(),
        io::ErrorKind::PermissionDenied
            | io::ErrorKind::ReadOnlyFilesystem
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::AlreadyExists
            | io::ErrorKind::InvalidFilename
    );
    let what = format!("{what}: {}: {error}", path.display());
    if stays {
        let advice = "name a folder that can be written to in `journal.path`, or set `fallback: none`";
        Error::unavailable(format!("{what}; {advice}")).with_source(error).permanent()
    } else {
        Error::unavailable(what).with_source(error)
    }
}
