//! A bounded place for the one number each key has.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

use governor::nanos::Nanos;
use governor::state::StateStore;

/// Keys and the moment when each one's bucket is full again (in GCRA: the theoretical arrival time).
///
/// One lock, held for a look-up and an addition. The hash is seeded, so that nobody can choose keys that collide.
#[derive(Debug)]
pub(crate) struct BoundedStore<K> {
    full_again_at: Mutex<HashMap<K, u64>>,
    max_keys: usize,
}

impl<K: Hash + Eq + Clone> BoundedStore<K> {
    pub(crate) fn new(max_keys: usize) -> Self {
        Self { full_again_at: Mutex::new(HashMap::new()), max_keys }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, u64>> {
        // A number per key has no state in between that a panic could leave behind.
        self.full_again_at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Hash + Eq + Clone> StateStore for BoundedStore<K> {
    type Key = K;

    fn measure_and_replace<T, F, E>(&self, key: &K, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut keys = self.lock();
        if let Some(full_again_at) = keys.get_mut(key) {
            let (outcome, new) = f(Some(Nanos::from(*full_again_at)))?;
            *full_again_at = new.as_u64();
            return Ok(outcome);
        }
        let (outcome, new) = f(None)?;
        if keys.len() >= self.max_keys {
            forget_the_longest_idle(&mut keys);
        }
        keys.insert(key.clone(), new.as_u64());
        Ok(outcome)
    }
}

/// Drops an eighth of the keys, at least one. Doing it for many at once makes the search cheap for each.
fn forget_the_longest_idle<K: Hash + Eq>(keys: &mut HashMap<K, u64>) {
    let mut moments: Vec<u64> = keys.values().copied().collect();
    if moments.is_empty() {
        return;
    }
    let (_, last_to_go, _) = moments.select_nth_unstable(keys.len() / 8);
    let last_to_go = *last_to_go;
    keys.retain(|_, full_again_at| *full_again_at > last_to_go);
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn put(store: &BoundedStore<u32>, key: u32, moment: u64) {
        let Ok(()) = store.measure_and_replace(&key, |_| Ok::<_, Infallible>(((), Nanos::from(moment))));
    }

    fn knows(store: &BoundedStore<u32>, key: u32) -> bool {
        store.lock().contains_key(&key)
    }

    #[test]
    fn the_longest_idle_are_forgotten_first() {
        let store = BoundedStore::new(16);
        for key in 0..16 {
            put(&store, key, u64::from(1_000 - key));
        }
        put(&store, 99, 5_000);
        assert_eq!(store.lock().len(), 14, "an eighth and the one at the border went, one came");
        assert!([13, 14, 15].iter().all(|key| !knows(&store, *key)));
        assert!((0..13).all(|key| knows(&store, key)) && knows(&store, 99));
    }

    #[test]
    fn one_place_is_enough() {
        let store = BoundedStore::new(1);
        put(&store, 1, 10);
        put(&store, 2, 20);
        assert!(!knows(&store, 1) && knows(&store, 2));
    }

    #[test]
    fn a_refusal_takes_no_place() {
        let store = BoundedStore::new(4);
        let refused: Result<(), _> = store.measure_and_replace(&7, |_| Err("no"));
        assert_eq!(refused, Err("no"));
        assert_eq!(store.lock().len(), 0);
    }
}
