//! What each action does.

use crate::action::Action;
use crate::event::{Event, Events};
use crate::message::{Message, Reply, Request, Statement};
use crate::operation::{Answer, Id, Ids, Kind, Operation, Stage};
use crate::primary::{REACH, Replayed, Row, SKEW};
use crate::process::Process;
use crate::scene::Scene;
use crate::stamp::Stamp;
use crate::system::System;

/// Lets something happen.
pub(crate) struct Step<'a> {
    pub(crate) scene: &'a Scene,
    pub(crate) events: &'a Events,
    pub(crate) system: System,
}

impl Step<'_> {
    pub(crate) fn take(mut self, action: Action) -> System {
        self.system.faults.take(&action);
        match action {
            Action::Call(process, kind) => self.call(process, kind),
            Action::Journaled(id) => self.journaled(id),
            Action::Execute(at, _) => {
                let message = self.execute(at);
                self.reply(message);
            }
            Action::HoldUp(at, _) => {
                let message = self.execute(at);
                self.system.network.put(message);
            }
            Action::ReplyLate(at, _) => {
                let message = self.system.network.take(at);
                self.reply(message);
            }
            Action::GiveUp(id) => self.give_up(id),
            Action::SendAgain(id) => self.send_again(id),
            Action::Drop(id) => self.drop(id),
            Action::Open(process) => self.open(process),
            Action::Close(process) => self.process(process).is_open = false,
            Action::Replay(process, count) => self.replay(process, count),
            Action::GiveUpReplay(process) => self.abandon_replay(process),
            Action::Crash(process) => self.crash(process),
            Action::Detour => self.system.is_away = true,
            Action::Return => self.system.is_away = false,
            Action::RaiseFloor => self.raise_floor(),
            Action::Sweep => self.sweep(),
            Action::End(id) => self.system.primary.expired.add(id),
            Action::Fill(process) => self.process(process).is_full = true,
            Action::Pause => self.system.processes.iter_mut().for_each(|process| process.clock += 2 * REACH),
        }
        self.forget();
        self.system
    }

    fn process(&mut self, number: u8) -> &mut Process {
        &mut self.system.processes[usize::from(number)]
    }

    /// Forgets what can make no difference any more, so that states which differ in nothing else are one.
    fn forget(&mut self) {
        let rules = &self.scene.rules;
        for number in 0..2 {
            let is_over = self.system.of(number).all(|(_, one)| one.stage == Stage::Over);
            if is_over && rules.given_up_keeps_its_stamp && !self.scene.may_call(&self.system, number) {
                self.process(number).clock = 0;
            }
        }
        if rules.are_guarding() && self.system.faults.sweeps == 0 {
            let System { network, primary, operations, .. } = &mut self.system;
            network.forget(|message| match &message.request {
                Request::Write(statement) if !message.is_awaited && primary.outvotes(*statement, operations) => {
                    self.events.note(Event::LateWriteIsOutvoted);
                    true
                }
                _ => false,
            });
        }
    }

    fn call(&mut self, process: u8, kind: Kind) {
        let waits = self.is_busy(process) && self.scene.rules.one_write_in_flight;
        let id = self.system.begin(process, kind);
        if !self.scene.rules.stamped_in_turn {
            self.stamp(id);
        }
        if !waits {
            self.turn(id);
        }
    }

    fn is_busy(&self, process: u8) -> bool {
        self.system.of(process).any(|(_, one)| matches!(one.stage, Stage::Sent | Stage::Journaling))
    }

    fn stamp(&mut self, id: Id) {
        let stamp = self.system.caller_mut(id).issue();
        self.system.operation_mut(id).stamp = stamp;
    }

    /// Its turn has come: it goes where it belongs.
    fn turn(&mut self, id: Id) {
        let rules = self.scene.rules;
        if rules.stamped_in_turn {
            self.stamp(id);
        }
        let process = self.system.caller(id);
        let (is_open, owes) = (process.is_open, !process.owed.is_empty());
        if self.system.operation(id).kind.is_conditional() {
            if owes && rules.owed_key_is_not_judged {
                self.events.note(Event::CreateOfOwed);
                self.end(id, Answer::Refused);
            } else if is_open {
                self.end(id, Answer::Refused);
            } else {
                self.send(id, false);
            }
        } else if is_open || (owes && rules.owed_key_is_journaled) {
            self.events.note(if is_open { Event::OutageIsJournaled } else { Event::OwedIsJournaled });
            self.journal(id);
        } else {
            self.send(id, false);
        }
    }

    fn send(&mut self, id: Id, is_repeat: bool) {
        let operation = self.system.operation_mut(id);
        operation.stage = Stage::Sent;
        let statement = Statement { id, stamp: operation.stamp, is_repeat };
        self.system.network.send(Request::Write(statement), true);
    }

    /// A call is over; the next one of its key has its turn.
    fn end(&mut self, id: Id, answer: Answer) {
        self.system.operation_mut(id).stage = Stage::Over;
        self.system.answer(id, answer);
        let process = self.system.operation(id).process;
        let waiting = self.system.of(process).find(|(_, one)| one.stage == Stage::Waiting);
        if let Some(next) = waiting.map(|(next, _)| next)
            && !self.is_busy(process)
        {
            self.events.note(Event::WaitedItsTurn);
            self.turn(next);
        }
    }

    /// Keeps an operation in the journal, notes that it is owed, and only then acknowledges it.
    fn journal(&mut self, id: Id) {
        let rules = self.scene.rules;
        let was_sent = self.system.operation(id).stage == Stage::Sent;
        if self.system.caller(id).is_full {
            if was_sent {
                self.events.note(Event::FullAfterSent);
            }
            let is_open = was_sent && rules.unknown_if_sent;
            return self.end(id, if is_open { Answer::Unknown } else { Answer::Refused });
        }
        self.system.operation_mut(id).stage = Stage::Journaling;
        if !rules.journaled_before_acknowledged {
            self.owe(id);
            self.system.answer(id, Answer::Local);
        } else if !rules.owed_before_acknowledged {
            self.keep(id);
            self.system.answer(id, Answer::Local);
        } else {
            self.keep(id);
            self.owe(id);
            self.end(id, Answer::Local);
        }
    }

    /// What was put off until after the acknowledgement.
    fn journaled(&mut self, id: Id) {
        if self.scene.rules.journaled_before_acknowledged {
            self.owe(id);
        } else {
            self.keep(id);
        }
        self.end(id, Answer::Local);
    }

    fn owe(&mut self, id: Id) {
        self.system.caller_mut(id).owed.add(id);
    }

    fn keep(&mut self, id: Id) {
        let stamp = self.system.operation(id).stamp;
        let acknowledged = self.system.all().filter(|(_, one)| one.is_acknowledged()).map(|(id, _)| id).collect();
        let process = self.system.caller_mut(id);
        if process.is_settled() {
            process.aware_of = acknowledged;
        }
        process.journal.push(id);
        process.since = Some(process.since.map_or(stamp, |since| since.min(stamp)));
    }

    fn execute(&mut self, at: usize) -> Message {
        let Message { request, is_awaited, .. } = self.system.network.take(at);
        // What nobody waits for any more came over a connection from before.
        let reply = if self.system.is_away && is_awaited {
            self.astray(&request)
        } else {
            self.at_primary(&request, is_awaited)
        };
        Message { request, reply: Some(reply), is_awaited }
    }

    fn at_primary(&mut self, request: &Request, is_awaited: bool) -> Reply {
        let mut primary = self.system.primary.clone();
        let known = self.system.known(&self.scene.rules, self.events);
        let reply = match request {
            Request::Write(statement) => primary.execute(*statement, is_awaited, known),
            Request::Replay { process, steps, since, aware_of } => {
                let is_settled = steps.iter().all(|id| !self.system.caller(*id).journal.contains(id));
                if !is_awaited && is_settled {
                    self.events.note(Event::LateReplay);
                }
                let (process, since, aware_of) = (*process, *since, *aware_of);
                let primary_wins = self.scene.primary_wins;
                primary.replay(&Replayed { process, steps, since, aware_of, primary_wins }, known)
            }
        };
        if let (Request::Write(Statement { id, stamp, .. }), true) = (request, primary != self.system.primary) {
            let operation = self.system.operation_mut(*id);
            operation.stamp = operation.stamp.max(*stamp);
        }
        self.system.primary = primary;
        reply
    }

    /// What another, empty database says.
    fn astray(&self, request: &Request) -> Reply {
        match request {
            _ if self.scene.rules.identity => Reply::Foreign,
            Request::Write(_) => Reply::Applied,
            Request::Replay { steps, .. } => {
                Reply::Replayed { done: steps.iter().copied().collect(), too_old: Ids::NONE }
            }
        }
    }

    fn reply(&mut self, message: Message) {
        let Message { request, reply: Some(reply), is_awaited } = message else { return };
        // Where the rule is missing, the task of a call that was given up runs on and may send it anew.
        let is_heard = is_awaited || matches!(reply, Reply::Behind(_)) && !self.scene.rules.given_up_keeps_its_stamp;
        match (request, reply) {
            _ if !is_heard => {}
            (Request::Replay { process, .. }, Reply::Replayed { done, too_old }) => {
                self.replayed(process, done, too_old);
            }
            (Request::Replay { process, .. }, _) => {
                self.events.note(Event::ForeignAnswers);
                self.open(process);
            }
            (Request::Write(statement), reply) => self.answered(statement, reply, is_awaited),
        }
    }

    fn answered(&mut self, statement: Statement, reply: Reply, is_awaited: bool) {
        let id = statement.id;
        match reply {
            Reply::Applied => {
                self.system.caller_mut(id).observe(statement.stamp);
                self.end(id, Answer::Primary);
            }
            Reply::Exists => {
                self.events.note(Event::CreateLoses);
                self.end(id, Answer::Refused);
            }
            Reply::Behind(standing) => self.behind(statement, standing, is_awaited),
            Reply::Foreign => {
                self.events.note(Event::ForeignAnswers);
                let process = self.system.operation(id).process;
                self.in_doubt(id);
                self.open(process);
            }
            Reply::Replayed { .. } => {}
        }
    }

    fn behind(&mut self, statement: Statement, standing: Stamp, is_awaited: bool) {
        let Statement { id, is_repeat, .. } = statement;
        let rules = self.scene.rules;
        self.system.caller_mut(id).observe(standing);
        if is_repeat && rules.repeats_keep_their_stamp {
            if is_awaited {
                self.events.note(Event::RepeatIsBehind);
                self.in_doubt(id);
            }
        } else if rules.stamped_anew_if_behind {
            self.events.note(Event::StampedAnew);
            let stamp = self.system.caller_mut(id).issue();
            if is_awaited && rules.journaled_with_its_last_stamp {
                self.system.operation_mut(id).stamp = stamp;
            }
            self.system.network.send(Request::Write(Statement { stamp, ..statement }), is_awaited);
        } else {
            self.end(id, Answer::Primary);
        }
    }

    /// Nobody waits for its replies any more.
    fn abandon(&mut self, id: Id) {
        let of = |request: &Request| matches!(request, Request::Write(statement) if statement.id == id);
        self.system.network.give_up(of, !self.scene.rules.given_up_keeps_its_stamp);
    }

    fn abandon_replay(&mut self, number: u8) {
        if self.system.network.is_replaying(number) {
            self.events.note(Event::ReplayBrokenOff);
        }
        let of = |request: &Request| matches!(request, Request::Replay { process, .. } if *process == number);
        self.system.network.give_up(of, false);
    }

    fn give_up(&mut self, id: Id) {
        self.abandon(id);
        self.in_doubt(id);
    }

    /// What the primary did not take, or may have taken, goes to the journal under the stamp that it has.
    fn in_doubt(&mut self, id: Id) {
        if self.system.operation(id).kind.is_conditional() {
            self.events.note(Event::CreateInDoubt);
            self.end(id, Answer::Unknown);
        } else {
            self.events.note(Event::DoubtIsJournaled);
            self.journal(id);
        }
    }

    fn send_again(&mut self, id: Id) {
        self.abandon(id);
        self.send(id, true);
    }

    fn drop(&mut self, id: Id) {
        self.events.note(Event::CallerGone);
        self.abandon(id);
        self.end(id, Answer::None);
    }

    fn open(&mut self, number: u8) {
        let process = self.process(number);
        process.is_open = true;
        if !process.is_settled() {
            self.events.note(Event::Flap);
        }
        let sent: Vec<Id> =
            self.system.of(number).filter(|(_, one)| one.stage == Stage::Sent).map(|(id, _)| id).collect();
        sent.into_iter().for_each(|id| self.give_up(id));
        self.abandon_replay(number);
    }

    fn replay(&mut self, number: u8, count: usize) {
        let rules = self.scene.rules;
        let mut steps = self.system.due(&self.system.processes[usize::from(number)]);
        steps.truncate(count);
        let oldest = steps.iter().map(|id| self.system.operation(*id).stamp).min();
        let process = self.process(number);
        if !rules.paid_on_reply {
            steps.iter().for_each(|id| process.owed.remove(*id));
        }
        let mut since = *process.since.get_or_insert(oldest.unwrap_or(Stamp::MIN));
        if rules.meanwhile_covers_the_skew {
            since = Stamp { time: since.time.saturating_sub(REACH), writer: 0 };
        }
        let aware_of = process.aware_of;
        self.system.network.send(Request::Replay { process: number, steps, since, aware_of }, true);
    }

    fn replayed(&mut self, number: u8, done: Ids, too_old: Ids) {
        let exactly = self.scene.rules.settled_exactly;
        if !too_old.is_empty() {
            self.events.note(Event::ReplayTooOld);
        }
        let process = self.process(number);
        process.journal.retain(|id| !done.has(*id) && (exactly || too_old.has(*id)));
        done.iter().for_each(|id| process.owed.remove(id));
        too_old.iter().for_each(|id| process.parked.add(id));
        if process.is_settled() {
            process.since = None;
            process.aware_of = Ids::NONE;
            if process.life > 0 {
                self.events.note(Event::SettledAfterACrash);
            }
        }
    }

    /// It starts again at once: one that stays away is one that does nothing.
    fn crash(&mut self, number: u8) {
        let rules = self.scene.rules;
        let calls: Vec<Id> = self.system.of(number).map(|(id, _)| id).collect();
        for id in calls {
            if self.system.operation(id).stage == Stage::Sent {
                self.events.note(Event::CrashInACall);
            }
            self.system.operation_mut(id).stage = Stage::Over;
            let of = |request: &Request| matches!(request, Request::Write(statement) if statement.id == id);
            self.system.network.give_up(of, false);
        }
        self.abandon_replay(number);
        let journaled = self.process(number).journal.clone();
        let stamps = journaled.iter().map(|id| self.system.operation(*id).stamp);
        let (oldest, newest) = (stamps.clone().min(), stamps.max());
        if newest.is_some() {
            self.events.note(Event::CrashWhileOwing);
        }
        let process = self.process(number);
        process.life += 1;
        process.is_open = true;
        process.owed = journaled.into_iter().collect();
        if !rules.clock_reserve {
            process.clock = newest.map_or(SKEW / 2, |newest| newest.time);
        }
        if !rules.outage_survives_a_crash {
            process.since = oldest;
        }
    }

    fn raise_floor(&mut self) {
        if let Some(Row { stamp, .. }) = self.system.primary.standing() {
            self.system.primary.gc_floor = Stamp { time: stamp.time + REACH, ..stamp };
        }
    }

    fn sweep(&mut self) {
        let appended = |(id, one): (Id, &Operation)| one.kind == Kind::Append && self.system.primary.applied.has(id);
        let is_unused = !self.system.all().any(appended);
        let primary = &mut self.system.primary;
        let Some(row) = primary.standing() else { return };
        primary.row = Some(Row { is_gone: true, ..row });
        if is_unused {
            (primary.floor, primary.newest) = (Stamp::MIN, Stamp::MIN);
        }
        // A tombstone stays for longer than clocks differ.
        let passed = primary.gc_floor.max(row.stamp);
        self.system.processes.iter_mut().for_each(|process| process.observe(passed));
    }
}
