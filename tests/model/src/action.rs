//! What can happen next.

use crate::message::Request;
use crate::operation::{Id, Kind, Operation, Stage};
use crate::process::Process;
use crate::scene::Scene;
use crate::system::System;

/// Something that happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// A process is called.
    Call(u8, Kind),
    /// Where a rule of journaling is missing: what should have been done before the acknowledgement.
    Journaled(Id),
    /// The primary executes a request, and the reply arrives.
    Execute(usize, Request),
    /// The primary executes a request, and the reply is held up.
    HoldUp(usize, Request),
    /// Where a rule is missing: a reply arrives that nobody waits for any more.
    ReplyLate(usize, Request),
    /// A call is no longer waited for, while the breaker is closed.
    GiveUp(Id),
    /// A call is sent again, because its connection broke.
    SendAgain(Id),
    /// A caller drops its future.
    Drop(Id),
    /// A breaker opens.
    Open(u8),
    /// A breaker closes after a probe.
    Close(u8),
    /// A journal is replayed, from its first operation up to a clear, or the first operation alone.
    Replay(u8, usize),
    /// A replay is no longer waited for, while the breaker is closed.
    GiveUpReplay(u8),
    /// A process crashes, and starts again.
    Crash(u8),
    /// The primary's address leads elsewhere.
    Detour,
    /// It leads to the primary again.
    Return,
    /// The sweeper raises the floor above the tombstone.
    RaiseFloor,
    /// The sweeper removes the tombstone.
    Sweep,
    /// A value ends.
    End(Id),
    /// A journal is full from now on.
    Fill(u8),
    /// Much time passes.
    Pause,
}

/// Lists what can happen.
pub(crate) fn list(scene: &Scene, system: &System, actions: &mut Vec<Action>) {
    let mut add = |action: Action| {
        if system.faults.allow(&action) {
            actions.push(action);
        }
    };
    for process in &system.processes {
        of_process(scene, system, process, &mut add);
    }
    for (id, operation) in system.all() {
        of_operation(id, operation, &mut add);
    }
    of_network(system, &mut add);
    of_primary(scene, system, &mut add);
}

fn of_process(scene: &Scene, system: &System, process: &Process, add: &mut impl FnMut(Action)) {
    let number = process.number;
    let may_call = scene.may_call(system, number);
    if may_call {
        scene.kinds[usize::from(number)].iter().for_each(|kind| add(Action::Call(number, *kind)));
    }
    let is_on_its_way = system.of(number).any(|(_, one)| one.stage != Stage::Over);
    let is_replaying = system.network.is_replaying(number);
    // An idle process may as well leave its breaker alone, and not crash.
    if process.is_open {
        if (may_call || !process.journal.is_empty()) && !(system.is_away && scene.rules.identity) {
            add(Action::Close(number));
        }
    } else if may_call || is_replaying || is_on_its_way {
        add(Action::Open(number));
    }
    if is_replaying {
        add(Action::GiveUpReplay(number));
    } else if !process.is_open {
        let due = system.due(process);
        let most = match due.iter().position(|id| system.operation(*id).kind == Kind::Clear) {
            Some(0) => 1,
            Some(before) => before,
            None => due.len(),
        };
        [1, most].iter().take(most.min(2)).for_each(|count| add(Action::Replay(number, *count)));
    }
    if is_on_its_way || !process.journal.is_empty() || (may_call && system.of(number).next().is_some()) {
        add(Action::Crash(number));
    }
    if !process.is_full && (may_call || is_on_its_way) {
        add(Action::Fill(number));
    }
}

fn of_operation(id: Id, operation: &Operation, add: &mut impl FnMut(Action)) {
    match operation.stage {
        Stage::Sent => {
            add(Action::GiveUp(id));
            add(Action::Drop(id));
            if !operation.kind.is_conditional() {
                add(Action::SendAgain(id));
            }
        }
        Stage::Journaling => add(Action::Journaled(id)),
        Stage::Waiting | Stage::Over => {}
    }
}

fn of_network(system: &System, add: &mut impl FnMut(Action)) {
    for (at, message) in system.network.messages().iter().enumerate() {
        let request = || message.request.clone();
        match message.reply {
            None => {
                add(Action::Execute(at, request()));
                // Where nobody can give up any more, it makes no difference when a reply arrives.
                if message.is_awaited && system.faults.in_all > 0 {
                    add(Action::HoldUp(at, request()));
                }
            }
            Some(_) if !message.is_awaited => add(Action::ReplyLate(at, request())),
            Some(_) => {}
        }
    }
}

fn of_primary(scene: &Scene, system: &System, add: &mut impl FnMut(Action)) {
    add(if system.is_away { Action::Return } else { Action::Detour });
    let is_dead = system.primary.value(&system.operations).is_none();
    if let Some(row) = system.primary.standing().filter(|_| is_dead && !is_a_write_on_its_way(system)) {
        let is_raised = row.stamp <= system.primary.gc_floor || !scene.rules.gc_floor;
        if is_raised {
            add(Action::Sweep);
        } else if system.faults.allow(&Action::Sweep) {
            add(Action::RaiseFloor);
        }
    }
    let lasts = |id: &Id| !system.primary.expired.has(*id);
    let values = system.all().filter(|(_, one)| one.kind == Kind::SetForAWhile).map(|(id, _)| id);
    values.filter(lasts).for_each(|id| add(Action::End(id)));
    let may_call = system.processes.iter().any(|process| scene.may_call(system, process.number));
    if may_call && !is_a_write_on_its_way(system) {
        add(Action::Pause);
    }
}

/// No statement but a replay is late by as much as a tombstone stays, or as a long pause takes.
fn is_a_write_on_its_way(system: &System) -> bool {
    system.network.messages().iter().any(|message| matches!(message.request, Request::Write(_)))
}
