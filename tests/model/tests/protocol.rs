//! With all rules the promises hold in every state of every scene.

use std::collections::BTreeSet;

use model::scene::Scene;
use model::{Protocol, event, scenes};
use stateright::{Checker, Model};

/// Explores a scene completely; answers which events it led to.
fn explore(scene: Scene) -> BTreeSet<&'static str> {
    let name = scene.name;
    let checker = Protocol::new(scene).checker().threads(2).spawn_dfs().join();
    assert!(checker.is_done(), "{name}: not all was explored");
    let discoveries = checker.discoveries();
    for (promise, path) in &discoveries {
        let schedule = path.clone().into_actions();
        assert!(event::NAMES.contains(promise), "{name}: broken: {promise}, by {schedule:#?}");
    }
    println!("{name}: {} states", checker.unique_state_count());
    discoveries.into_keys().collect()
}

#[test]
fn the_promises_hold_and_every_situation_is_reached() {
    let reached: BTreeSet<_> = scenes::ALL.into_iter().flat_map(explore).collect();
    let all: BTreeSet<_> = event::NAMES.iter().copied().collect();
    assert_eq!(reached, all, "not reached: {:?}", all.difference(&reached));
}
