//! A process that is killed in the middle, and what its successor finds.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use super::{SINCE, put, soon};
use crate::chain::journal::{Effect, Journal as _, JournalFolder};

/// Says to a process of this very test that it is the one to be killed, and in which folder.
const CHILD: &str = "AGENT_STORAGE_TEST_JOURNAL";

/// The acknowledgements after which the process is killed.
const ENOUGH: usize = 300;

const CALLERS: usize = 16;

#[test]
fn what_a_killed_process_acknowledged_is_all_there() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    if let Some(folder) = std::env::var_os(CHILD) {
        runtime.block_on(append_until_killed(PathBuf::from(folder)));
        return;
    }
    let temporary = tempfile::tempdir().unwrap();
    let name = std::thread::current().name().unwrap().to_owned();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &name, "--nocapture", "--test-threads=1"])
        .env(CHILD, temporary.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut acknowledged = BTreeSet::new();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let note = |line: String, acknowledged: &mut BTreeSet<String>| {
        if let Some(name) = line.strip_prefix("kept ") {
            acknowledged.insert(name.to_owned());
        }
    };
    while acknowledged.len() < ENOUGH {
        note(lines.next().expect("the process ended by itself"), &mut acknowledged);
    }
    child.kill().unwrap();
    lines.for_each(|line| note(line, &mut acknowledged));
    child.wait().unwrap();

    runtime.block_on(async {
        let (journal, found) = JournalFolder::new(temporary.path(), None, 64 << 20, 1).open().await.unwrap();
        assert!(found.left.is_empty() && found.imported == 0, "{found:?}");
        let headers = journal.headers(0, usize::MAX).await.unwrap();
        let key = |effect: &Effect| match effect {
            Effect::Put(key, _) => key.to_string(),
            other => panic!("{other:?}"),
        };
        let kept: BTreeSet<String> = headers.iter().map(|header| key(&header.effect)).collect();
        let lost: Vec<_> = acknowledged.difference(&kept).collect();
        assert!(lost.is_empty(), "{} of {} are lost: {lost:?}", lost.len(), acknowledged.len());
    });
}

async fn append_until_killed(folder: PathBuf) {
    let (journal, _) = JournalFolder::new(folder, None, 64 << 20, 1).open().await.unwrap();
    let journal = Arc::new(journal);
    let callers = (0..CALLERS).map(|caller| {
        let journal = Arc::clone(&journal);
        tokio::spawn(async move {
            for number in 0.. {
                let name = format!("{caller}:{number}");
                journal.append(vec![put(&name, "1")], SINCE, soon()).await.unwrap();
                writeln!(std::io::stdout(), "kept {name}").unwrap();
            }
        })
    });
    futures_util::future::join_all(callers).await;
}
