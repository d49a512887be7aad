//! Each rule is needed: without it a promise is broken.

use model::rules::Rules;
use model::scene::Scene;
use model::{Action, Protocol, event, scenes};
use stateright::{Checker, HasDiscoveries, Model};

/// The shortest schedule that breaks a promise, and which.
fn broken(scene: Scene) -> Option<(&'static str, Vec<Action>)> {
    let checker = Protocol::new(scene).checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let discoveries = checker.discoveries().into_iter();
    let mut broken = discoveries.filter(|(name, _)| !event::NAMES.contains(name));
    broken.next().map(|(promise, path)| (promise, path.into_actions()))
}

/// Where a missing rule shows.
fn scene_of(rule: &str) -> Scene {
    match rule {
        "outage_survives_a_crash" => scenes::LONG_OUTAGE,
        "stamped_in_turn" | "journaled_with_its_last_stamp" => scenes::LISTS,
        "owed_key_is_journaled" | "settled_exactly" | "one_write_in_flight" | "clock_reserve" => scenes::LISTS,
        "owed_key_is_not_judged" => scenes::TRIPLES,
        "given_up_keeps_its_stamp" => scenes::VALUES,
        _ => scenes::PAIRS,
    }
}

#[test]
fn without_any_one_rule_a_promise_is_broken() {
    let missed: Vec<_> = Rules::EACH_MISSING
        .iter()
        .filter(|(rule, rules)| {
            let found = broken(Scene { rules: *rules, ..scene_of(rule) });
            if let Some((promise, schedule)) = &found {
                println!("without {rule} it is broken that {promise}, by");
                schedule.iter().for_each(|action| println!("    {action:?}"));
            }
            found.is_none()
        })
        .map(|(rule, _)| rule)
        .collect();
    assert!(missed.is_empty(), "the promises hold without {missed:?}");
}

/// A known limit: the stamp guard keeps no conflicts, so a statement that is late silently beats what a clock that is behind
/// wrote meanwhile. While clocks agree it cannot happen.
#[test]
fn a_late_statement_may_beat_what_a_slow_clock_wrote() {
    let found = broken(Scene { late_may_win: false, ..scenes::PAIRS });
    assert!(found.is_some(), "this limit is gone: have the promises demand it");
}

/// A known limit: where the primary wins, its value keeps a stamp that may be older than the loser's, whose own statement, if that
/// is late, still lands.
#[test]
fn a_loser_may_land_late_where_the_primary_wins() {
    let found = broken(Scene { late_may_win: false, kinds: scenes::LISTS.kinds, ..scenes::PRIMARY_WINS });
    assert!(found.is_some(), "this limit is gone: have the promises demand it");
}
