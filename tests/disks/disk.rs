//! A small disk: a `tmpfs`, which a journal or a database cannot tell from any other that fills up.

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::support::Server;

/// Says that this program is where nobody else sees what it mounts.
const INSIDE: &str = "STORAGE_TEST_MOUNTS";

/// Begins this program anew where nobody else sees what it mounts, and where all of it goes when the program ends. Where that cannot be,
/// it goes on; the harness says which tests it cannot run.
pub(crate) fn enter_a_place_of_our_own() {
    let Ok(unshare) = Server::Mounts.locate() else { return };
    if std::env::var_os(INSIDE).is_some() {
        return;
    }
    #[cfg(unix)]
    {
        use std::os::unix::process::CommandExt;
        let mut command = Command::new(unshare);
        command.arg("--mount").arg(std::env::current_exe().unwrap()).args(std::env::args_os().skip(1));
        panic!("{}", command.env(INSIDE, "1").exec());
    }
}

/// A disk of its own, gone when dropped.
pub(crate) struct Disk {
    folder: TempDir,
}

impl Disk {
    pub(crate) fn of_mebibytes(mebibytes: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        mount(&["-t", "tmpfs", "-o", &format!("size={mebibytes}m,mode=0755"), "none"], folder.path());
        Self { folder }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Has somebody else take all that is free but for so many bytes.
    pub(crate) fn take_all_but(&self, left: u64) {
        let mut file = fs::File::create(self.taken()).unwrap();
        let block = vec![7; 1 << 16];
        while self.free() > left {
            match file.write(&block) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Gives back what [`Disk::take_all_but`] took.
    pub(crate) fn give_back(&self) {
        fs::remove_file(self.taken()).unwrap();
    }

    /// The bytes that are free.
    pub(crate) fn free(&self) -> u64 {
        let state = rustix::fs::statvfs(self.path()).unwrap();
        state.f_bavail * state.f_frsize
    }

    fn taken(&self) -> PathBuf {
        self.path().join("somebody else's")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // What is still open of it goes when it is closed.
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}

/// Lets a file or folder be read and not be written, whoever asks.
pub(crate) fn protect(path: &Path) {
    mount(&["--bind", path.to_str().unwrap()], path);
    mount(&["-o", "remount,bind,ro"], path);
}

/// Ends what [`protect`] did.
pub(crate) fn unprotect(path: &Path) {
    assert!(Command::new("umount").arg(path).status().unwrap().success(), "{}", path.display());
}

fn mount(arguments: &[&str], path: &Path) {
    let mounted = Command::new("mount").args(arguments).arg(path).status().unwrap();
    assert!(mounted.success(), "{arguments:?} {}", path.display());
}
