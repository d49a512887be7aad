//! What readers and the replay are told of what is owed.

use super::*;
use crate::stamp::HybridClock;

fn key(text: &str) -> Key {
    Key::parse(text).unwrap()
}

fn debts(effects: impl IntoIterator<Item = Effect>) -> (Owed, Vec<Stamp>) {
    let clock = HybridClock::process();
    let (mut owed, mut stamps) = (Owed::default(), Vec::new());
    for (seq, effect) in (1..).zip(effects) {
        let stamp = clock.issue();
        owed.add(Header::new(seq, stamp, effect, None));
        stamps.push(stamp);
    }
    (owed, stamps)
}

#[test]
fn the_newest_effect_is_what_a_reader_sees() {
    let put = || Effect::Put(key("k"), None);
    let (mut owed, stamps) = debts([put(), Effect::Delete(key("k")), put()]);
    assert_eq!(owed.value(&key("k")), Some(OwedValue::Put { seq: 3, stamp: stamps[2], expires_at: None }));
    assert_eq!(owed.list(&key("k")), Some(OwedList::Deleted { stamp: stamps[1] }));
    owed.pay(1);
    owed.pay(2);
    assert_eq!(owed.list(&key("k")), None);
    assert!(owed.owes(&key("k")));
    owed.pay(3);
    assert!(!owed.owes(&key("k")) && owed.len() == 0);
    assert_eq!(owed.value(&key("k")), None);
}

#[test]
fn what_came_late_into_the_journal_does_not_hide_what_is_newer() {
    let clock = HybridClock::process();
    let (older, newer) = (clock.issue(), clock.issue());
    let mut owed = Owed::default();
    owed.add(Header::new(1, newer, Effect::Delete(key("k")), None));
    owed.add(Header::new(2, older, Effect::Put(key("k"), None), None));
    assert_eq!(owed.value(&key("k")), Some(OwedValue::Deleted { stamp: newer }));
}

#[test]
fn a_clear_covers_what_is_older_under_its_prefix() {
    let clear = Effect::Clear(KeyPrefix::parse("a:").unwrap());
    let (owed, stamps) = debts([Effect::Put(key("a:1"), None), clear, Effect::Put(key("a:2"), None)]);
    assert_eq!(owed.value(&key("a:1")), Some(OwedValue::Deleted { stamp: stamps[1] }));
    assert!(matches!(owed.value(&key("a:2")), Some(OwedValue::Put { seq: 3, .. })));
    assert_eq!(owed.value(&key("a:3")), Some(OwedValue::Deleted { stamp: stamps[1] }));
    assert_eq!(owed.value(&key("b")), None);
    let under = |prefix: &str| owed.owes_under(&KeyPrefix::parse(prefix).unwrap());
    assert!(under("") && under("a:") && under("a:7") && !under("b") && !under("a;"));
}

#[test]
fn appends_after_a_delete_are_not_a_deleted_list() {
    let append = || Effect::Append(key("k"));
    let (mut owed, stamps) = debts([append(), Effect::Delete(key("k")), append()]);
    assert_eq!(owed.list(&key("k")), Some(OwedList::Appended));
    owed.give_up(&[3]);
    let stamp = stamps[1];
    assert_eq!(owed.list(&key("k")), Some(OwedList::Deleted { stamp }));
    assert_eq!(owed.value(&key("k")), Some(OwedValue::Deleted { stamp }));
    owed.pay(2);
    assert_eq!(owed.list(&key("k")), Some(OwedList::Appended));
}

#[test]
fn a_clear_is_paid_alone_and_what_is_parked_is_passed_over() {
    let put = |name: &str| Effect::Put(key(name), None);
    let (mut owed, _) = debts([put("a"), put("b"), Effect::Clear(KeyPrefix::empty()), put("c")]);
    assert_eq!(owed.next(10), [1, 2]);
    assert_eq!(owed.next(1), [1]);
    owed.park(1);
    assert_eq!(owed.next(10), [2]);
    owed.pay(2);
    assert_eq!(owed.next(10), [3]);
    owed.pay(3);
    assert_eq!(owed.next(10), [4]);
    assert_eq!((owed.len(), owed.pending(), owed.parked()), (2, 1, 1));
    assert!(owed.owes(&key("a")));
    assert_eq!((owed.put_aside(), owed.put_aside_of(&key("a"))), (vec![1], Some(1)));
    owed.unpark(1);
    assert_eq!(owed.next(10), [1, 4]);
}

#[test]
fn items_wait_behind_one_of_their_list_that_was_put_aside() {
    let append = || Effect::Append(key("list"));
    let put = || Effect::Put(key("list"), None);
    let others = Effect::Append(key("other"));
    let (mut owed, stamps) = debts([append(), append(), put(), append(), others, append()]);
    owed.park(2);
    assert_eq!(owed.next(10), [1, 3, 5]);
    assert_eq!((owed.pending(), owed.parked()), (3, 3));
    assert_eq!([1, 2, 3, 4].map(|seq| owed.waits_behind(seq)), [None, None, None, Some(2)]);
    owed.add(Header::new(7, stamps[5], append(), None));
    assert_eq!(owed.next(10), [1, 3, 5], "those to come wait too");
    owed.park(6);
    owed.unpark(2);
    assert_eq!(owed.next(10), [1, 2, 3, 4, 5]);
    owed.park(2);
    owed.unpark(6);
    assert_eq!(owed.next(10), [1, 3, 5], "the first one still stops them");
    owed.pay(2);
    assert_eq!(owed.next(10), [1, 3, 4, 5, 6, 7]);
    assert_eq!(owed.parked(), 0);
}

#[test]
fn what_was_paid_is_not_hidden_by_what_is_older() {
    let clock = HybridClock::process();
    let (clear, delete, append, newer) = (clock.issue(), clock.issue(), clock.issue(), clock.issue());
    let mut owed = Owed::default();
    let prefix = KeyPrefix::parse("a:").unwrap();
    for (seq, stamp, effect) in [
        (1, newer, Effect::Put(key("a:1"), None)),
        (2, append, Effect::Append(key("k"))),
        (3, clear, Effect::Clear(prefix)),
        (4, delete, Effect::Delete(key("k"))),
    ] {
        owed.add(Header::new(seq, stamp, effect, None));
    }
    owed.pay(1);
    owed.pay(2);
    assert_eq!(
        (owed.value(&key("a:1")), owed.list(&key("a:1"))),
        (Some(OwedValue::Unsettled), Some(OwedList::Unsettled))
    );
    let deleted = Some(OwedValue::Deleted { stamp: delete });
    assert_eq!((owed.value(&key("k")), owed.list(&key("k"))), (deleted, Some(OwedList::Unsettled)));
    owed.add(Header::new(5, newer, Effect::Put(key("k"), None), None));
    owed.pay(5);
    assert_eq!((owed.value(&key("k")), owed.list(&key("k"))), (None, Some(OwedList::Unsettled)));
}

#[test]
fn what_was_put_aside_is_replaced_by_what_is_newer_of_its_kind() {
    let put = || Effect::Put(key("a:1"), None);
    let append = || Effect::Append(key("a:1"));
    let clear = |prefix: &str| Effect::Clear(KeyPrefix::parse(prefix).unwrap());
    let (mut owed, stamps) = debts([put(), append(), clear("a:1"), put(), Effect::Delete(key("a:1")), clear("a:")]);
    let replaced = |owed: &Owed, paid: u64| -> Vec<u64> {
        owed.replaced(&[paid], [1, 2, 3].into_iter()).iter().map(|replaced| replaced.seq).collect()
    };
    owed.add(Header::new(7, stamps[3], append(), None));
    assert_eq!(replaced(&owed, 4), [1]);
    assert_eq!(replaced(&owed, 5), [1, 2, 7], "what waits behind an item goes with it");
    assert_eq!(replaced(&owed, 6), [1, 2, 3, 7]);
    let by = Replaced { seq: 1, stamp: stamps[0], by: stamps[3] };
    owed.park(1);
    owed.pay(4);
    assert_eq!(owed.replaced(&[], std::iter::empty()), [by], "what was paid before counts");
    owed.hide_replaced(1);
    assert_eq!(owed.replaced(&[], std::iter::empty()), []);
    assert!(owed.is_replaced(1));
}

#[test]
fn what_the_journal_says_was_replaced_is_owed_and_hidden() {
    let mut owed = Owed::default();
    let reason = format!("{}; too large", crate::chain::journal::REPLACED);
    owed.add(Header::new(1, HybridClock::process().issue(), Effect::Put(key("k"), None), Some(&reason)));
    assert!(owed.owes(&key("k")) && owed.is_replaced(1));
    assert_eq!((owed.value(&key("k")), owed.parked()), (None, 1));
}

#[test]
fn what_was_given_up_shows_what_it_hid() {
    let put = || Effect::Put(key("k"), None);
    let (mut owed, stamps) = debts([put(), put()]);
    owed.park(2);
    owed.give_up(&[2]);
    assert_eq!(owed.value(&key("k")), Some(OwedValue::Put { seq: 1, stamp: stamps[0], expires_at: None }));
}

#[test]
fn what_is_newer_at_the_primary_is_remembered_for_as_long_as_the_key_is_owed() {
    let clock = HybridClock::process();
    let (put, clear, newer) = (clock.issue(), clock.issue(), clock.issue());
    let mut owed = Owed::default();
    owed.note_newer(&key("a:1"), newer);
    owed.add(Header::new(1, put, Effect::Put(key("a:1"), None), None));
    owed.add(Header::new(2, clear, Effect::Clear(KeyPrefix::parse("a:").unwrap()), None));
    let deleted = Some(OwedValue::Deleted { stamp: clear });
    assert_eq!(owed.value(&key("a:1")), deleted, "nothing was owed when it was seen");
    owed.note_newer(&key("a:1"), newer);
    owed.note_newer(&key("a:1"), put);
    assert_eq!((owed.value(&key("a:1")), owed.value(&key("a:2"))), (None, deleted));
    owed.pay(1);
    assert_eq!(owed.value(&key("a:1")), None, "the clear is still owed");
    owed.pay(2);
    assert!(owed.newer.is_empty());
}

#[test]
fn what_is_newer_under_a_clear_is_remembered_of_so_many_keys() {
    let (mut owed, stamps) = debts([Effect::Clear(KeyPrefix::empty()), Effect::Put(key("own"), None)]);
    let newer = HybridClock::process().issue();
    for number in 0..MOST_NEWER {
        assert!(owed.note_newer(&key(&number.to_string()), newer));
    }
    assert!(!owed.note_newer(&key("one more"), newer), "a reader is not shown what would be forgotten");
    assert_eq!(owed.value(&key("one more")), Some(OwedValue::Deleted { stamp: stamps[0] }));
    assert!(owed.note_newer(&key("7"), newer) && owed.note_newer(&key("own"), newer));
    assert_eq!(owed.value(&key("own")), None);
    // Another database is the known one.
    owed.forget_all_newer();
    assert!(matches!(owed.value(&key("own")), Some(OwedValue::Put { .. })));
}
