//! Many outages of many kinds, and one thing that must never be: that a reader is told something older than it wrote or read before.

use std::collections::HashMap;
use std::time::Duration;

use agent_storage::testkit::Fault;

use crate::rig::Rig;

/// A generator that needs no library: the same seed is the same story.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// Each value is newer than all before it, whoever writes it. Of a key this process may see a miss, or nothing older than the newest
/// value that it wrote or saw itself.
#[tokio::test]
async fn nobody_is_told_something_older_than_what_was_acknowledged_to_him() {
    for seed in 0..8 {
        let rig = Rig::new().await;
        let mut random = Random(seed);
        let mut newest: HashMap<String, i64> = HashMap::new();
        for number in 1..1500 {
            match random.below(60) {
                0 => rig.faults.set(Fault::FailBefore),
                1 => rig.faults.set(Fault::FailAfter),
                2 => rig.faults.set_for_some(Fault::HangAfter, 20),
                3 => rig.faults.set_for_some(Fault::FailAfter, 30),
                4..=8 => rig.faults.heal(),
                9 => tokio::time::sleep(Duration::from_millis(30)).await,
                _ => {}
            }
            let key = format!("k:{}", random.below(8));
            let known = newest.get(&key).copied().unwrap_or(0);
            match random.below(12) {
                0..=3 => {
                    if rig.cache.set_json(key.as_str(), &number).await.is_ok() {
                        newest.insert(key, number);
                    }
                }
                4 => {
                    if rig.cache.delete(key.as_str()).await.is_ok() {
                        newest.insert(key, number);
                    }
                }
                5 => drop(rig.other.set_json(key.as_str(), &number).await.unwrap()),
                6 => {
                    if rig.cache.clear("k:").await.is_ok() {
                        newest.extend((0..8).map(|key| (format!("k:{key}"), number)));
                    }
                }
                _ => {
                    if let Ok(Some(seen)) = rig.cache.get_json::<i64>(key.as_str()).await {
                        assert!(seen >= known, "seed {seed}: {key} was {seen} after {known}");
                        newest.insert(key, seen);
                    }
                }
            }
        }
        rig.recover().await;
        for (key, known) in newest {
            let seen = rig.cache.get_json::<i64>(key.as_str()).await.unwrap();
            assert!(seen.is_none_or(|seen| seen >= known), "seed {seed}: {key} is {seen:?} after {known}");
        }
    }
}
