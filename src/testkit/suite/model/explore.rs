//! Running random sequences and shrinking one that fails.

use std::fmt::Debug;
use std::future::Future;

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

use crate::contract::Store;
use crate::testkit::{Failure, Outcome, Subject};

/// How many sequences a case runs.
const SEQUENCES: usize = 24;

/// How many shorter sequences are tried once one has failed.
const SHRINKS: usize = 200;

/// Runs sequences of operations, the same ones each time, each in a namespace of its own.
///
/// Where one differs from the model, a shorter one that still does is shown.
pub(super) async fn explore<B, O, F>(
    subject: &Subject<B>,
    sequences: impl Strategy<Value = Vec<O>>,
    check: impl Fn(Subject<B>, Vec<O>) -> F,
) -> Outcome
where
    B: Store + ?Sized,
    O: Debug,
    F: Future<Output = Outcome>,
{
    let mut runner = TestRunner::deterministic();
    let mut rounds = 0..;
    let mut next = || subject.within(&format!("{}/", rounds.next().unwrap_or(0)));
    for _ in 0..SEQUENCES {
        let mut tree = sequences.new_tree(&mut runner).map_err(|reason| Failure::new(reason.to_string()))?;
        let Err(mut failure) = check(next(), tree.current()).await else { continue };
        let mut shortest = tree.current();
        let mut smaller = tree.simplify();
        for _ in 0..SHRINKS {
            if !smaller {
                break;
            }
            smaller = match check(next(), tree.current()).await {
                Ok(()) => tree.complicate(),
                Err(another) => {
                    (failure, shortest) = (another, tree.current());
                    tree.simplify()
                }
            };
        }
        return Err(Failure::new(format!("{failure} after {shortest:?}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::backend::memory::MemoryCache;
    use crate::config::MemoryCacheConfig;
    use crate::testkit::Elapse;

    #[tokio::test]
    async fn a_failing_sequence_is_shrunk() {
        let cache = Arc::new(MemoryCache::new(&MemoryCacheConfig::default()));
        let subject = Subject::cache(cache, Elapse::Real).into_store();
        let sequences = proptest::collection::vec(0..1000_u32, 0..50);
        let check = async |_, numbers: Vec<u32>| match numbers.iter().find(|number| **number >= 700) {
            Some(number) => Err(Failure::new(format!("{number} is too large"))),
            None => Ok(()),
        };
        let failure = explore(&subject, sequences, check).await.unwrap_err();
        assert!(failure.message().contains("after [700]"), "{failure}");
    }
}
