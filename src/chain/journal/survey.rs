//! Whose the journals of a folder are: one process looks at a time, and tells those that are its to take over from those that are not.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::contract::Identity;
use crate::error::Result;

use super::candidate::{self, Candidate, Dead};
use super::files::Looking;
use super::found::{LeftFile, LeftReason};
use super::glance;

/// Who looks, and at what.
#[derive(Debug)]
pub(super) struct Survey {
    pub(super) folder: PathBuf,
    /// Which primary the configuration names.
    pub(super) address: Option<String>,
    /// The journals that are not looked at.
    pub(super) skipped: HashSet<PathBuf>,
    /// Which database is known, or answers.
    pub(super) known: Option<Identity>,
    /// Whether all are to be taken over, whichever database they are owed to.
    pub(super) takes_all: bool,
}

/// What was seen.
#[derive(Debug)]
pub(super) struct Surveyed {
    /// The journals to take over: they are whole, and stay locked.
    pub(super) ours: Vec<Candidate>,
    /// Those to leave alone.
    pub(super) left: Vec<LeftFile>,
    /// Which database others know that use the same address.
    pub(super) known_by_others: Option<Identity>,
    /// Those that were not looked at, and are gone or somebody's.
    pub(super) gone: Vec<PathBuf>,
}

impl Survey {
    /// Looks, and reads what is to be taken over.
    ///
    /// # Errors
    ///
    /// `Unavailable` if the folder cannot be read, or somebody else looks for too long.
    pub(super) fn run(mut self) -> Result<Surveyed> {
        let mut damaged = Vec::new();
        loop {
            let mut surveyed = self.look()?;
            let broken = surveyed.check();
            if broken.is_empty() {
                surveyed.left.iter_mut().for_each(LeftFile::count);
                surveyed.left.append(&mut damaged);
                return Ok(surveyed);
            }
            // What they said must not decide whose the others are.
            self.skipped.extend(broken.iter().map(|file| file.path.clone()));
            damaged.extend(broken);
        }
    }

    fn look(&self) -> Result<Surveyed> {
        let looking = Looking::begin(&self.folder)?;
        let gone = self.skipped.iter().filter(|path| is_gone(path)).cloned().collect();
        let dead = candidate::dead(&looking, &self.folder, &self.skipped, self.address.as_deref())?;
        let known_by_others = self.known_by_others(&dead);
        let (ours, left) = self.sort(dead, self.known.or(known_by_others));
        // What is left alone is free again, and what is ours stays locked. The rest takes longer, and nobody need wait for it.
        drop(looking);
        Ok(Surveyed { ours, left, known_by_others, gone })
    }

    /// Of a database in memory, which has no address, each process has its own.
    fn known_by_others(&self, dead: &[Dead]) -> Option<Identity> {
        let dead = dead.iter().map(Dead::path).chain(self.skipped.iter().map(PathBuf::as_path)).collect();
        glance::known_by_others(&self.folder, self.address.as_deref()?, &dead)
    }

    /// Tells the files that can be taken over from those that are left alone.
    fn sort(&self, dead: Vec<Dead>, known: Option<Identity>) -> (Vec<Candidate>, Vec<LeftFile>) {
        let (mut ours, mut left) = (Vec::new(), Vec::new());
        let mut identity = known;
        for one in dead {
            let candidate = match one {
                Dead::Readable(candidate) => *candidate,
                Dead::Unreadable { path, error } => {
                    left.push(LeftFile::unreadable(path, error));
                    continue;
                }
            };
            let theirs = candidate.meta.identity;
            let same = identity.zip(theirs).map(|(ours, theirs)| ours.id == theirs.id);
            let named = self.names_our_primary(&candidate);
            // The same database may be reached at another address than before.
            if self.takes_all || same.unwrap_or(named) {
                identity = identity.or(theirs);
                ours.push(candidate);
            } else if candidate.owes {
                let Candidate { path, meta, .. } = candidate;
                let reason = LeftReason::OwedElsewhere { operations: None, place: meta.fingerprint };
                left.push(LeftFile { path, reason, moved: (!named).then_some(theirs) });
            }
        }
        (ours, left)
    }

    fn names_our_primary(&self, candidate: &Candidate) -> bool {
        let fresh = !candidate.owes && candidate.meta.fingerprint.is_none();
        fresh || candidate.meta.fingerprint == self.address
    }
}

impl Surveyed {
    /// Reads what is to be taken over; gives what is damaged.
    fn check(&mut self) -> Vec<LeftFile> {
        let broken = self.ours.iter_mut().filter_map(|candidate| {
            let error = candidate.check().err()?;
            Some(LeftFile::unreadable(candidate.path.clone(), error))
        });
        broken.collect()
    }
}

/// Whether a file that was left alone is no concern any more: somebody else has taken it, or removed it.
fn is_gone(path: &Path) -> bool {
    !path.exists() || glance::is_owned(path).unwrap_or(false)
}
