//! A word left beside a journal for its owner: the database that is to be taken for the known one from now on.
//!
//! Somebody has decided so, who has seen what answers. The owner looks for it while another database than the known one answers,
//! and removes it when the database that answers is the known one. Where the owner died before it heard, it counts for whoever takes the
//! journal over and uses the address at which that database answered. It goes with the journal.

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

/// Which database is to be taken for the known one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Word {
    /// That database.
    pub(crate) identity: Identity,
    /// The address at which it answered, without secrets.
    pub(crate) address: Option<String>,
}

/// Leaves the word, whole or not at all.
pub(crate) fn announce(journal: &Path, word: &Word) -> Result<()> {
    let (unfinished, finished) = (journal.with_extension(UNFINISHED), journal.with_extension(ENDING));
    let write = || {
        let mut file = fs::File::create(&unfinished)?;
        writeln!(file, "{FORM} {:032x} {}", word.identity.id, word.identity.canary)?;
        word.address.iter().try_for_each(|address| write!(file, "{address}"))?;
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
pub(crate) fn announced(journal: &Path) -> Option<Word> {
    let text = fs::read_to_string(journal.with_extension(ENDING)).ok()?;
    let (identity, address) = text.strip_prefix(FORM)?.split_once('\n')?;
    let mut words = identity.split_ascii_whitespace();
    let id = u128::from_str_radix(words.next()?, 16).ok()?;
    let canary = words.next()?.parse().ok()?;
    let address = (!address.is_empty()).then(|| address.to_owned());
    Some(Word { identity: Identity::new(id, canary), address })
}

/// The word, for whoever uses an address.
pub(super) fn announced_at(journal: &Path, address: Option<&str>) -> Option<Word> {
    announced(journal).filter(|word| word.address.as_deref() == address)
}

/// Removes this word; one that was left since stays.
pub(super) fn forget_this(journal: &Path, word: &Word) {
    if announced(journal).as_ref() == Some(word) {
        forget(journal);
    }
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
        for address in [Some("postgres://there/with a blank"), None] {
            let word = Word { identity: Identity::new(0xfeed << 100, 42), address: address.map(str::to_owned) };
            announce(&journal, &word).unwrap();
            assert_eq!(announced_at(&journal, address).as_ref(), Some(&word));
            assert_eq!(announced_at(&journal, Some("elsewhere")), None);
            forget_this(&journal, &Word { address: Some("elsewhere".to_owned()), ..word.clone() });
            assert_eq!(announced(&journal).as_ref(), Some(&word));
            forget_this(&journal, &word);
            assert_eq!(announced(&journal), None);
            announce(&journal, &word).unwrap();
        }
        for broken in ["", "accepts 2 ff 1\n", "accepts 1 ff\n", "accepts 1 x 1\n", "accepts 1 ff 1"] {
            let broken = format!("agent-storage {broken}");
            fs::write(journal.with_extension(ENDING), &broken).unwrap();
            assert_eq!(announced(&journal), None, "{broken}");
        }
        forget(&journal);
        forget(&journal);
        assert!(!journal.with_extension(ENDING).exists());
    }
}
