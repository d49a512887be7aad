//! What a journal remembers of an outage, and of those who had it before.

use super::{each, put, soon};
use crate::contract::Succession;
use crate::stamp::{HybridClock, Stamp};

/// So many stamps, in their order.
fn stamps<const COUNT: usize>() -> [Stamp; COUNT] {
    let clock = HybridClock::process();
    std::array::from_fn(|_| clock.issue())
}

#[tokio::test]
async fn when_the_outage_began_is_remembered_until_nothing_waits() {
    each(async |journal| {
        let [before, early, late] = stamps();
        let since = async || journal.episode().await.unwrap().since;
        assert_eq!(since().await, None);
        let first = journal.append(vec![put("a", "1")], early, soon()).await.unwrap();
        let second = journal.append(vec![put("a", "2"), put("a", "3")], late, soon()).await.unwrap();
        assert_eq!(since().await, Some(early), "it began with the first");
        journal.append(vec![put("b", "1")], before, soon()).await.unwrap();
        assert_eq!(since().await, Some(before), "or earlier, where something waited for longer");
        journal.settle(first, vec![(second[1], "poison".to_owned())]).await.unwrap();
        assert_eq!(since().await, Some(before));
        let others = journal.headers(0, 10).await.unwrap().into_iter().filter(|header| !header.parked);
        journal.settle(others.map(|header| header.seq).collect(), Vec::new()).await.unwrap();
        assert_eq!(since().await, None, "what was put aside does not wait");
        journal.append(vec![put("c", "1")], late, soon()).await.unwrap();
        assert_eq!(since().await, Some(late));
    })
    .await;
}

#[tokio::test]
async fn what_was_put_aside_waits_again_or_is_given_up() {
    each(async |journal| {
        let [late] = stamps();
        let operations = vec![put("a", "1"), put("b", "2")];
        let seqs = journal.append(operations.clone(), late, soon()).await.unwrap();
        assert!(!journal.drop_parked(seqs[0]).await.unwrap(), "it waits");
        let poison = |seq: &u64| (*seq, "poison".to_owned());
        journal.settle(Vec::new(), seqs.iter().map(poison).collect()).await.unwrap();
        journal.unpark(vec![seqs[1], 999]).await.unwrap();
        let parked = async || -> Vec<_> {
            journal.headers(0, 10).await.unwrap().into_iter().map(|header| (header.seq, header.parked)).collect()
        };
        assert_eq!(parked().await, [(seqs[0], true), (seqs[1], false)]);
        assert_eq!(journal.episode().await.unwrap().since, Some(operations[1].stamp));
        let bytes = journal.bytes();
        assert!(journal.drop_parked(seqs[0]).await.unwrap() && !journal.drop_parked(seqs[0]).await.unwrap());
        assert!(parked().await == [(seqs[1], false)] && journal.bytes() <= bytes);
    })
    .await;
}

#[tokio::test]
async fn who_knew_of_whom_is_remembered_for_the_next_outage_too() {
    each(async |journal| {
        let [early, late] = stamps();
        let seqs = journal.append(vec![put("a", "1")], early, soon()).await.unwrap();
        let mut all = Succession::default();
        for (heir, predecessor, from) in [(1, 2, late), (u64::MAX, 1, early), (1, 2, early)] {
            let mut added = Succession::default();
            added.add(heir, predecessor, from);
            all.add(heir, predecessor, from);
            journal.add_succession(added).await.unwrap();
        }
        assert_eq!(journal.episode().await.unwrap().succession, all);
        assert_eq!(all.iter().collect::<Vec<_>>(), [(1, 2, early), (u64::MAX, 1, early)]);
        journal.settle(Vec::new(), vec![(seqs[0], "poison".to_owned())]).await.unwrap();
        assert_eq!(journal.episode().await.unwrap().succession, all);
        journal.settle(seqs, Vec::new()).await.unwrap();
        assert_eq!(journal.episode().await.unwrap().succession, all);
    })
    .await;
}
