//! The rules that the promises rest on, each of which can be taken out.

macro_rules! rules {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Which rules hold.
        #[derive(Clone, Copy, Debug)]
        pub struct Rules {
            $($(#[$doc])* pub $name: bool,)*
        }

        impl Rules {
            /// All of them.
            pub const ALL: Self = Self { $($name: true,)* };

            /// All but one, for each of them.
            pub const EACH_MISSING: &[(&str, Self)] = &[$((stringify!($name), Self { $name: false, ..Self::ALL }),)*];
        }
    };
}

rules! {
    /// A write changes a row only if its stamp is newer.
    stamp_guard,
    /// A write that is behind somebody else's is stamped anew.
    stamped_anew_if_behind,
    /// Only a write of which every earlier attempt was definitely answered is stamped anew.
    repeats_keep_their_stamp,
    /// A call that nobody waits for any more is not stamped anew, though its task runs on.
    given_up_keeps_its_stamp,
    /// A write in doubt is journaled with the stamp of its last attempt, not of its first.
    journaled_with_its_last_stamp,
    /// A write gets its stamp when its turn has come, after the earlier writes of its key were settled.
    stamped_in_turn,
    /// The clock begins past all stamps that the process gave before it crashed.
    clock_reserve,
    /// A delete leaves a tombstone with its stamp.
    tombstones,
    /// A delete leaves its stamp as the floor of the list.
    floor,
    /// The floor of what is swept is raised before a tombstone goes, and what is older is not replayed.
    gc_floor,
    /// A put that has expired while it was owed is applied all the same.
    expired_is_applied,
    /// An append of an item that is there changes nothing.
    item_id,
    /// Every statement proves which database answers.
    identity,
    /// An operation is in the journal before it is acknowledged.
    journaled_before_acknowledged,
    /// An operation is known to be owed before it is acknowledged.
    owed_before_acknowledged,
    /// A write of a key that is owed something goes to the journal.
    owed_key_is_journaled,
    /// A condition on a key that is owed something is refused.
    owed_key_is_not_judged,
    /// A key has one write in flight.
    one_write_in_flight,
    /// What cannot be journaled after it was sent is of unknown outcome.
    unknown_if_sent,
    /// While the breaker is open, a read of a key that is not owed is unavailable.
    unavailable_while_open,
    /// What was replayed is taken out of the journal, and nothing else.
    settled_exactly,
    /// A debt is forgotten when the reply of its replay arrives, not before.
    paid_on_reply,
    /// What loses in a replay is kept as a conflict.
    losers_are_kept,
    /// What a replay overwrites of somebody else's is kept as a conflict.
    overwritten_is_kept,
    /// What counts as written meanwhile reaches back before the outage by as much as clocks may differ.
    meanwhile_covers_the_skew,
    /// When an outage began is remembered over a crash.
    outage_survives_a_crash,
}

impl Rules {
    /// Whether a late statement can be recognised by what stands.
    #[must_use]
    pub const fn are_guarding(&self) -> bool {
        self.stamp_guard && self.tombstones && self.floor && self.item_id && self.given_up_keeps_its_stamp
    }
}
