//! A word left beside a journal for its owner: the database that is to be taken for the known one from now on.
//!
//! Somebody has decided so, who has seen what answers. The owner looks for it while another database than the known one answers,
//! and removes it when the database that answers is the known one. Where the owner died before it heard, it counts for whoever takes the
//! journal over. It goes with the journal.

use std::fs;
use std::io::{self, ErrorKind, Write as _};
use std::path::Path;

use crate::chain::folder::sync_folder;
use crate::contract::Identity;
use crate::error::{Error, Result};

/// The endings of the file, and of the one that is written before it takes its name.
pub(super) const ENDING: &str = "accept";
pub(super) const UNFINISHED: &str = "accept-new";

/// What the file begins with.
const FORM: &str = "agent-storage accepts 1";

/// Leaves the word, whole or not at all.
pub(crate) fn announce(journal: &Path, identity: Identity) -> Result<()> {
    let (unfinished, finished) = (journal.with_extension(UNFINISHED), journal.with_extension(ENDING));
    let write = || {
        let mut file = fs::File::create(&unfinished)?;
        writeln!(file, "{FORM} {:032x} {}", identity.id, identity.canary)?;
        file.sync_all()?;
        fs::rename(&unfinished, &finished)
    };
    write().map_err(|error: io::Error| {
        let shown = finished.display();
        Error::unavailable(format!("what was accepted cannot be written down: {shown}: {error}")).with_source(error)
    })?;
    journal.parent().map_or(Ok(()), sync_folder)
}

/// Reads the word, if there is one. What cannot be read says nothing.
pub(crate) fn announced(journal: &Path) -> Option<Identity> {
    let text = fs::read_to_string(journal.with_extension(ENDING)).ok()?;
    let mut words = text.strip_prefix(FORM)?.split_ascii_whitespace();
    let id = u128::from_str_radix(words.next()?, 16).ok()?;
    let canary = words.next()?.parse().ok()?;
    Some(Identity::new(id, canary))
}

/// Removes the word.
pub(crate) fn forget(journal: &Path) {
    match fs::remove_file(journal.with_extension(ENDING)) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            tracing::debug!(%error, "what was accepted could not be removed");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_read_as_it_was_left_and_anything_else_says_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let journal = folder.path().join("journal-1.db");
        assert_eq!(announced(&journal), None);
        let identity = Identity::new(0xfeed << 100, 42);
        announce(&journal, identity).unwrap();
        assert_eq!(announced(&journal), Some(identity));
        for broken in ["", "agent-storage accepts 2 ff 1", "agent-storage accepts 1 ff", "agent-storage accepts 1 x 1"]
        {
            fs::write(journal.with_extension(ENDING), broken).unwrap();
            assert_eq!(announced(&journal), None, "{broken}");
        }
        forget(&journal);
        forget(&journal);
        assert!(!journal.with_extension(ENDING).exists());
    }
}
