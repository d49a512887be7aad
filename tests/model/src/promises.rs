//! What is promised, as properties of every state.

use stateright::Property;

use crate::Protocol;
use crate::operation::{Answer, Id, Kind, Operation, Stage};
use crate::process::{Process, Seen, SeenList};
use crate::scene::Scene;
use crate::system::System;

/// All promises.
pub(crate) fn all() -> Vec<Property<Protocol>> {
    macro_rules! promises {
        ($($text:literal => $holds:ident,)*) => {
            vec![$(Property::always($text, |protocol: &Protocol, system: &System| {
                View { scene: &protocol.scene, system }.$holds()
            }),)*]
        };
    }
    promises![
        "an acknowledged write is there, or beaten by a newer one, or kept" => writes_stand,
        "an acknowledged append is there once, or deleted, or kept" => appends_are_listed,
        "the items of a writer stand in the order of their acknowledgements" => items_are_in_order,
        "what was deleted does not come back" => deleted_stays_away,
        "what a replay overwrites unawares is kept" => overwritten_is_kept,
        "no operation takes effect twice" => nothing_is_repeated,
        "what was refused has no effect" => refused_has_no_effect,
        "a process reads what it wrote" => processes_read_their_own,
        "missing is never a guess" => nothing_is_guessed,
        "a create succeeds only where nothing is" => creates_are_alone,
    ]
}

/// A state, in a scene.
struct View<'a> {
    scene: &'a Scene,
    system: &'a System,
}

impl View<'_> {
    /// What was acknowledged and is in no journal: the primary must have it.
    fn settled(&self) -> impl Iterator<Item = (Id, &Operation)> {
        self.system.all().filter(|(id, one)| {
            one.is_acknowledged() && one.stage != Stage::Journaling && !self.system.caller(*id).journal.contains(id)
        })
    }

    /// Whether one operation may be the one that counts, though the other was acknowledged.
    fn may_follow(&self, one: Id, other: Id) -> bool {
        let (first, second) = (self.system.operation(one), self.system.operation(other));
        if first.process == second.process {
            return !second.before.has(one) && !second.acknowledged_before.has(one);
        }
        !second.before.has(one) || (self.scene.late_may_win && self.system.primary.late.has(one))
    }

    fn writes_stand(&self) -> bool {
        self.settled().all(|(id, one)| !one.kind.changes_value() || self.stands(id))
    }

    /// Whether a write stands, is kept as a conflict, or was rightly beaten by one of which the same holds.
    fn stands(&self, id: Id) -> bool {
        let Self { system, .. } = self;
        let write = system.operation(id);
        system.primary.row.map(|row| row.id) == Some(id)
            || system.primary.conflicts.has(id)
            || (write.kind == Kind::Clear && !self.is_spared(id))
            || system.all().any(|(other, one)| {
                one.kind.changes_value() && one.stamp > write.stamp && self.may_follow(other, id) && self.stands(other)
            })
    }

    /// Whether a clear spared a value that the primary had, and that is no newer. It leaves nothing where nothing is.
    fn is_spared(&self, clear: Id) -> bool {
        let clear = self.system.operation(clear);
        self.system.primary.value(&self.system.operations).is_some_and(|id| {
            let value = self.system.operation(id);
            value.answer == Answer::Primary && clear.before.has(id) && value.stamp < clear.stamp
        })
    }

    fn appends_are_listed(&self) -> bool {
        let primary = &self.system.primary;
        self.settled().filter(|(_, one)| one.kind == Kind::Append).all(|(id, append)| {
            let deletes = |(other, one): (Id, &Operation)| {
                primary.emptied.has(other) && one.stamp > append.stamp && self.may_follow(other, id)
            };
            match primary.items.iter().filter(|item| item.id == id).count() {
                0 => primary.conflicts.has(id) || self.system.all().any(deletes),
                count => count == 1,
            }
        })
    }

    fn items_are_in_order(&self) -> bool {
        let (items, conflicts) = (&self.system.primary.items, self.system.primary.conflicts);
        let overtakes = |at: usize| {
            let later = items[at].id;
            // Where the primary wins, no stamp keeps a loser's own statement away if that is late. It is reported as lost.
            let is_reported = self.scene.primary_wins && self.scene.late_may_win && conflicts.has(later);
            !is_reported && items[..at].iter().any(|item| self.system.operation(item.id).acknowledged_before.has(later))
        };
        !(0..items.len()).any(overtakes)
    }

    /// Whether no item is in the list that a delete had taken, or outvotes.
    fn deleted_stays_away(&self) -> bool {
        let primary = &self.system.primary;
        let deletes = self.settled().filter(|(id, one)| one.kind.deletes() && !primary.conflicts.has(*id));
        deletes.into_iter().all(|(_, delete)| {
            !primary.items.iter().any(|item| {
                let append = self.system.operation(item.id);
                // A clear takes what the primary has; a delete leaves a mark that also stops what is still to come.
                let is_meant = delete.kind == Kind::Delete || append.answer == Answer::Primary;
                let both_were_there = append.answer == Answer::Primary && delete.answer == Answer::Primary;
                let is_beaten = both_were_there || append.stamp < delete.stamp;
                append.is_acknowledged() && delete.before.has(item.id) && is_meant && is_beaten
            })
        })
    }

    fn overwritten_is_kept(&self) -> bool {
        self.system.all().all(|(id, one)| !one.is_acknowledged() || !self.system.primary.unnoticed.has(id))
    }

    fn nothing_is_repeated(&self) -> bool {
        self.system.primary.repeated.is_empty()
    }

    fn refused_has_no_effect(&self) -> bool {
        self.system.all().all(|(id, one)| one.answer != Answer::Refused || !self.system.primary.applied.has(id))
    }

    fn processes_read_their_own(&self) -> bool {
        self.system.processes.iter().all(|process| self.reads_its_own(process))
    }

    /// Whether a process is told at least what it wrote itself and still owes.
    fn reads_its_own(&self, process: &Process) -> bool {
        let (system, rules) = (self.system, &self.scene.rules);
        let is_current = |seen: Id, id: Id| seen == id || self.may_follow(seen, id);
        system.of(process.number).filter(|(id, one)| self.is_owed(*id, one)).all(|(id, one)| match one.kind {
            Kind::Append => match system.range(process, rules) {
                SeenList::Deleted(delete) => self.may_follow(delete, id),
                SeenList::Primary => system.primary.has_item(id),
                SeenList::Guess | SeenList::Unavailable => true,
            },
            _ => match system.get(process, rules) {
                Seen::Owed(seen) => is_current(seen, id),
                Seen::Primary(seen) => seen.is_some_and(|seen| is_current(seen, id)),
                Seen::Guess | Seen::Unavailable => true,
            },
        })
    }

    fn is_owed(&self, id: Id, one: &Operation) -> bool {
        one.is_acknowledged() && (self.system.caller(id).journal.contains(&id) || one.stage == Stage::Journaling)
    }

    fn nothing_is_guessed(&self) -> bool {
        let rules = &self.scene.rules;
        self.system.processes.iter().all(|process| {
            self.system.get(process, rules) != Seen::Guess && self.system.range(process, rules) != SeenList::Guess
        })
    }

    /// Whether no create was acknowledged after another value was, with no delete or end that could have made room.
    fn creates_are_alone(&self) -> bool {
        let (system, primary) = (self.system, &self.system.primary);
        let creates = system.all().filter(|(_, one)| one.kind == Kind::Create && one.answer == Answer::Primary);
        creates.into_iter().all(|(_, create)| {
            let mut in_the_way = system.all().filter(|(other, one)| {
                let is_known = one.answer == Answer::Primary || one.process == create.process && one.is_acknowledged();
                one.kind.sets() && is_known && create.before.has(*other) && !primary.expired.has(*other)
            });
            in_the_way.all(|(other, _)| {
                let is_gone = |(id, one): (Id, &Operation)| one.kind.deletes() || primary.expired.has(id);
                let makes_room = |(id, one)| is_gone((id, one)) && self.may_follow(id, other);
                primary.conflicts.has(other) || system.all().any(makes_room)
            })
        })
    }
}
